import pytest
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import load_only, raiseload, selectinload
from sqlmodel import func, select
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

from snippets.relationships.load_policies import (
    Tool,
    Workshop,
    hide_retired,
    load_workshop,
    strictly,
    tools_of,
)

TABLES = [Workshop, Tool]


@pytest.fixture(autouse=True)
async def workshop(session: AsyncSession, statements: StatementLog) -> None:
    tools = [Tool(id=1, name="saw"), Tool(id=2, name="adze", retired=True)]
    session.add(Workshop(id=1, name="yard", tools=tools))
    await session.commit()
    session.expunge_all()
    statements.clear()


async def test_awaiting_loads_on_demand_in_one_statement(
    session: AsyncSession, statements: StatementLog
) -> None:
    workshop = await session.get_one(Workshop, 1)
    statements.clear()

    assert [tool.name for tool in await tools_of(workshop)] == ["saw", "adze"]
    assert statements.count == 1


async def test_awaiting_leaves_no_trace_in_what_is_dumped(session: AsyncSession) -> None:
    workshop = await session.get_one(Workshop, 1)

    await tools_of(workshop)

    assert workshop.model_dump() == {"id": 1, "name": "yard"}


async def test_a_strict_relationship_raises_at_once(
    session: AsyncSession, statements: StatementLog
) -> None:
    tool = await session.get_one(Tool, 1)
    statements.clear()

    with pytest.raises(
        InvalidRequestError, match=r"'Tool\.workshop' is not available due to lazy='raise_on_sql'"
    ):
        _ = tool.workshop
    assert statements.count == 0


async def test_a_strict_relationship_gives_what_the_session_has(session: AsyncSession) -> None:
    workshop = await session.get_one(Workshop, 1)
    tool = await session.get_one(Tool, 1)

    assert tool.workshop is workshop


async def test_raise_refuses_even_what_the_session_has(session: AsyncSession) -> None:
    await session.get_one(Workshop, 1)
    tool = await session.get_one(Tool, 1, options=[raiseload(Tool.workshop)])

    with pytest.raises(InvalidRequestError, match=r"due to lazy='raise'$"):
        _ = tool.workshop


async def test_a_refresh_that_names_it_loads_a_strict_relationship_in_two_statements(
    session: AsyncSession, statements: StatementLog
) -> None:
    tool = await session.get_one(Tool, 1)
    statements.clear()

    workshop = await load_workshop(session, tool)

    assert workshop.name == "yard"
    assert statements.count == 2


async def test_a_strict_statement_makes_everything_else_raise(session: AsyncSession) -> None:
    (workshop,) = (await session.exec(strictly(select(Workshop)))).all()

    with pytest.raises(InvalidRequestError, match=r"'Workshop\.tools' is not available"):
        _ = workshop.tools


async def test_a_strict_statement_gives_what_it_loads(session: AsyncSession) -> None:
    load = select(Workshop).options(selectinload(Workshop.tools))

    workshop = (await session.exec(strictly(load))).one()

    assert [tool.name for tool in workshop.tools] == ["saw", "adze"]


async def test_awaiting_does_not_overcome_a_strict_statement(session: AsyncSession) -> None:
    workshop = (await session.exec(strictly(select(Workshop)))).one()

    with pytest.raises(InvalidRequestError, match=r"'Workshop\.tools' is not available"):
        await tools_of(workshop)


async def test_retired_tools_are_hidden_from_queries_and_collections(session: AsyncSession) -> None:
    hide_retired(session)

    tools = (await session.exec(select(Tool))).all()
    load = select(Workshop).options(selectinload(Workshop.tools))
    workshop = (await session.exec(load)).one()

    assert [tool.name for tool in tools] == ["saw"]
    assert [tool.name for tool in workshop.tools] == ["saw"]
    assert (await session.exec(select(func.count()).select_from(Tool))).one() == 1


async def test_retired_tools_are_hidden_from_loads_on_demand(session: AsyncSession) -> None:
    hide_retired(session)
    workshop = (await session.exec(select(Workshop))).one()

    assert [tool.name for tool in await tools_of(workshop)] == ["saw"]


async def test_a_retired_tool_is_hidden_from_get_until_the_session_has_it(
    session: AsyncSession,
) -> None:
    hide_retired(session)
    assert await session.get(Tool, 2) is None

    everything = select(Tool).execution_options(with_retired=True)
    adze = (await session.exec(everything.where(Tool.id == 2))).one()

    assert await session.get(Tool, 2) is adze
    await session.refresh(adze)
    assert adze.name == "adze"


async def test_a_query_for_all_tools_is_inherited_by_later_loads(session: AsyncSession) -> None:
    hide_retired(session)
    everything = select(Workshop).execution_options(with_retired=True)
    workshop = (await session.exec(everything)).one()

    assert [tool.name for tool in await tools_of(workshop)] == ["saw", "adze"]


async def test_a_retired_tool_that_the_session_has_loads_its_other_columns(
    session: AsyncSession,
) -> None:
    hide_retired(session)
    names = select(Tool).options(load_only(Tool.name)).execution_options(with_retired=True)
    adze = (await session.exec(names.where(Tool.id == 2))).one()

    await session.refresh(adze, attribute_names=["retired"])
    assert adze.retired is True

    session.expire(adze)
    await session.refresh(adze)
    assert adze.name == "adze"


async def test_other_sessions_see_retired_tools(
    session: AsyncSession, factory: async_sessionmaker[AsyncSession]
) -> None:
    hide_retired(session)

    async with factory() as other:
        assert len((await other.exec(select(Tool))).all()) == 2
