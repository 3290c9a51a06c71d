from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import StatementError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.models.enums_and_json import Dispatch, DispatchStatus, option_is, set_option


class Convoy(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    status: DispatchStatus


TABLES = [Dispatch, Convoy]
Factory = async_sessionmaker[AsyncSession]

bounded = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=10)
# JSONB writes numbers out: from 1e16 on a float comes back as int.
floats = st.floats(-1e15, 1e15, allow_subnormal=False)
scalars = st.none() | st.booleans() | st.integers() | floats | text
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4)
)
objects = st.dictionaries(text, values, max_size=4)


async def reloaded(session: AsyncSession, dispatch: Dispatch) -> Dispatch:
    await session.commit()
    session.expunge_all()
    found = await session.get(Dispatch, dispatch.id)
    assert found is not None
    return found


@bounded
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "route": st.lists(values, max_size=4),
                "options": objects,
                "customs": st.none() | objects,
                "status": st.sampled_from(DispatchStatus),
            }
        ),
        min_size=4,
        max_size=4,
    )
)
async def test_json_and_enums_round_trip(factory: Factory, rows: list[dict[str, Any]]) -> None:
    async with factory() as session:
        dispatches = [Dispatch(**row) for row in rows]
        session.add_all(dispatches)
        await session.flush()
        ids = {dispatch.id: number for number, dispatch in enumerate(dispatches)}
        await session.commit()
    async with factory() as session:
        found = (await session.exec(select(Dispatch).where(col(Dispatch.id).in_(ids)))).all()
    ordered = sorted(found, key=lambda dispatch: ids[dispatch.id])
    assert [dispatch.model_dump(exclude={"id"}) for dispatch in ordered] == rows
    assert all(type(dispatch.status) is DispatchStatus for dispatch in ordered)


async def test_a_large_float_comes_back_from_jsonb_as_an_int(
    session: AsyncSession, engine: AsyncEngine
) -> None:
    dispatch = Dispatch(options={"weight": 1e23})
    session.add(dispatch)

    found = await reloaded(session, dispatch)

    assert 10**23 != 1e23
    expected = 10**23 if engine.dialect.name == "postgresql" else 1e23
    assert found.options["weight"] == expected


async def test_an_enum_is_stored_by_its_value_in_a_text_column(session: AsyncSession) -> None:
    session.add(Dispatch(status=DispatchStatus.ON_THE_ROAD))
    await session.flush()

    raw = await session.exec(sa.text("SELECT status FROM dispatch"))

    assert raw.scalar_one() == "on the road"
    column = sa.inspect(Dispatch).columns["status"]
    assert column.type.length == 30
    assert not column.type.native_enum


async def test_an_enum_takes_values_and_finds_by_them(session: AsyncSession) -> None:
    session.add(Dispatch(status="delivered"))
    await session.flush()
    session.expunge_all()

    statement = select(Dispatch).where(Dispatch.status == DispatchStatus.DELIVERED)

    assert (await session.exec(statement)).one().status is DispatchStatus.DELIVERED


async def test_a_value_that_no_member_has_is_refused(session: AsyncSession) -> None:
    session.add(Dispatch(status="lost"))

    with pytest.raises(StatementError, match="'lost' is not among the defined enum values"):
        await session.flush()


async def test_a_value_that_the_code_no_longer_knows_fails_when_read(
    session: AsyncSession,
) -> None:
    session.add(Dispatch())
    await session.flush()
    await session.exec(sa.text("UPDATE dispatch SET status = 'lost'"))
    session.expunge_all()

    with pytest.raises(LookupError, match="'lost' is not among the defined enum values"):
        (await session.exec(select(Dispatch))).all()


async def test_none_is_null_and_json_null_is_something_else(session: AsyncSession) -> None:
    session.add_all([Dispatch(customs=None), Dispatch(customs={}), Dispatch(customs=sa.JSON.NULL)])
    await session.commit()
    session.expunge_all()

    is_null = col(Dispatch.customs).is_(None)
    nulls = (await session.exec(select(Dispatch).where(is_null))).all()
    others = (await session.exec(select(Dispatch).where(~is_null).order_by(Dispatch.id))).all()

    assert len(nulls) == 1
    assert [dispatch.customs for dispatch in others] == [{}, None]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (["size"], {"box": {"lid": "red"}, "size": 1}),
        (["box", "lid"], {"box": {"lid": 1}}),
        (["bag", "zip"], {"box": {"lid": "red"}, "bag": {"zip": 1}}),
    ],
)
async def test_a_change_at_any_depth_is_saved(
    session: AsyncSession, path: list[str], expected: dict[str, Any]
) -> None:
    dispatch = Dispatch(options={"box": {"lid": "red"}})
    session.add(dispatch)
    await session.commit()

    set_option(dispatch, path, 1)

    assert (await reloaded(session, dispatch)).options == expected


async def test_a_shallow_copy_of_a_value_changed_inside_is_no_change(
    session: AsyncSession,
) -> None:
    dispatch = Dispatch(options={"box": {"lid": "red"}})
    session.add(dispatch)
    await session.commit()

    dispatch.options["box"]["lid"] = "blue"
    dispatch.options = {**dispatch.options}

    assert (await reloaded(session, dispatch)).options == {"box": {"lid": "red"}}


async def test_without_our_type_an_enum_is_stored_by_its_name(
    session: AsyncSession, engine: AsyncEngine
) -> None:
    session.add(Convoy(status=DispatchStatus.ON_THE_ROAD))
    await session.flush()

    raw = await session.exec(sa.text("SELECT status FROM convoy"))
    kind = Convoy.__table__.c.status.type.compile(engine.dialect)

    assert raw.scalar_one() == "ON_THE_ROAD"
    assert (
        kind
        == {
            "sqlite": "VARCHAR(11)",
            "postgresql": "dispatchstatus",
            "mysql": "ENUM('WAITING','ON_THE_ROAD','DELIVERED')",
        }[engine.dialect.name]
    )


async def test_a_replaced_value_is_saved(session: AsyncSession) -> None:
    dispatch = Dispatch(route=["Lyon"])
    session.add(dispatch)
    await session.commit()

    dispatch.route = [*dispatch.route, "Nice"]

    assert (await reloaded(session, dispatch)).route == ["Lyon", "Nice"]


async def test_an_option_is_found_in_sql(session: AsyncSession) -> None:
    session.add_all(
        [
            Dispatch(options={"colour": "réd"}),
            Dispatch(options={"colour": "blue"}),
            Dispatch(options={"colour": None}),
            Dispatch(options={}),
        ]
    )
    await session.commit()

    found = (await session.exec(select(Dispatch).where(option_is("colour", "réd")))).all()

    assert [dispatch.options for dispatch in found] == [{"colour": "réd"}]


@pytest.mark.parametrize("key", ["größe", "a b", "it's", "a.b", "%", "😀"])
async def test_an_option_is_found_by_any_key(session: AsyncSession, key: str) -> None:
    session.add_all([Dispatch(options={key: "groß"}), Dispatch(options={key: "klein"})])
    await session.commit()

    found = (await session.exec(select(Dispatch).where(option_is(key, "groß")))).all()

    assert [dispatch.options for dispatch in found] == [{key: "groß"}]


@pytest.mark.parametrize("key", ['a"b', "a\\b", "a\nb"])
def test_a_key_that_json_escapes_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="no quotes, backslashes or control characters"):
        option_is(key, "x")
