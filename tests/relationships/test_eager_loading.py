"""The statement count of each row of the page's table of loading strategies."""

import pytest
from sqlalchemy import inspect
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import joinedload, selectinload
from sqlmodel import col, insert, select
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

from snippets.relationships.eager_loading import (
    cellars_with_everything,
    jars_with_shelf,
    jars_with_shelf_and_cellar,
    load_jars,
    shelf_with_jars_joined,
    shelves_having,
    shelves_with_fruits,
    shelves_with_jars,
    shelves_with_jars_of,
    shelves_with_newest_jars,
)
from snippets.relationships.one_to_many import Cellar, Jar, Shelf

TABLES = [Cellar, Shelf, Jar]


@pytest.fixture(autouse=True)
async def cellar(session: AsyncSession, statements: StatementLog) -> None:
    """Two shelves in a cellar: plum, fig and plum on one, fig on the other; a third is empty."""
    top = Shelf(id=1, label="top", jars=[Jar(fruit=fruit) for fruit in ("plum", "fig", "plum")])
    middle = Shelf(id=2, label="middle", jars=[Jar(fruit="fig")])
    session.add(Cellar(name="north", shelves=[top, middle]))
    session.add(Shelf(id=3, label="loose"))
    await session.commit()
    session.expunge_all()
    statements.clear()


def fruits(shelf: Shelf) -> list[str]:
    return [jar.fruit for jar in shelf.jars]


async def test_a_collection_of_many_is_two_statements(
    session: AsyncSession, statements: StatementLog
) -> None:
    shelves = await shelves_with_jars(session)

    assert [fruits(shelf) for shelf in shelves] == [["plum", "fig", "plum"], ["fig"], []]
    assert statements.count == 2


async def test_every_further_500_parents_are_one_more_statement(
    session: AsyncSession, statements: StatementLog
) -> None:
    rows = [{"id": number, "label": "many"} for number in range(4, 502)]
    await session.exec(insert(Shelf), params=rows)
    statements.clear()

    assert len(await shelves_with_jars(session)) == 501
    assert statements.count == 3


async def test_a_to_one_of_many_is_one_statement(
    session: AsyncSession, statements: StatementLog
) -> None:
    jars = await jars_with_shelf(session)

    assert [jar.shelf.label for jar in jars] == ["top", "top", "top", "middle"]
    assert statements.count == 1
    assert "LEFT OUTER JOIN" not in statements.texts[0]


async def test_the_collection_of_one_parent_is_one_statement(
    session: AsyncSession, statements: StatementLog
) -> None:
    shelf = await shelf_with_jars_joined(session, 1)

    assert shelf is not None
    assert fruits(shelf) == ["plum", "fig", "plum"]
    assert statements.count == 1
    assert await shelf_with_jars_joined(session, 404) is None


async def test_a_nested_path_is_a_statement_per_level(
    session: AsyncSession, statements: StatementLog
) -> None:
    (cellar,) = await cellars_with_everything(session)

    assert [fruits(shelf) for shelf in cellar.shelves] == [["plum", "fig", "plum"], ["fig"]]
    assert statements.count == 3


async def test_a_path_of_to_one_steps_is_one_statement(
    session: AsyncSession, statements: StatementLog
) -> None:
    jars = await jars_with_shelf_and_cellar(session)

    assert [jar.shelf.cellar.name for jar in jars if jar.shelf.cellar] == ["north"] * 4
    assert statements.count == 1


async def test_parents_having_some_children_are_one_statement(
    session: AsyncSession, statements: StatementLog
) -> None:
    shelves = await shelves_having(session, "plum")

    assert [(shelf.label, fruits(shelf)) for shelf in shelves] == [("top", ["plum", "plum"])]
    assert statements.count == 1


async def test_a_filtered_load_replaces_what_the_session_had(session: AsyncSession) -> None:
    loaded = await shelves_with_jars(session)

    await shelves_having(session, "fig")
    assert fruits(loaded[0]) == ["fig"]

    await shelves_with_jars_of(session, "plum")
    assert fruits(loaded[0]) == ["plum", "plum"]


async def test_all_parents_with_some_children_are_two_statements(
    session: AsyncSession, statements: StatementLog
) -> None:
    shelves = await shelves_with_jars_of(session, "plum")

    assert [fruits(shelf) for shelf in shelves] == [["plum", "plum"], [], []]
    assert statements.count == 2


async def test_some_columns_are_two_statements_and_the_others_raise(
    session: AsyncSession, statements: StatementLog
) -> None:
    shelves = await shelves_with_fruits(session)

    assert fruits(shelves[0]) == ["plum", "fig", "plum"]
    assert statements.count == 2
    assert "grams" not in statements.texts[1]
    with pytest.raises(
        InvalidRequestError, match=r"'Jar\.grams' is not available due to raiseload"
    ):
        _ = shelves[0].jars[0].grams


async def test_the_newest_children_of_each_parent_are_two_statements(
    session: AsyncSession, statements: StatementLog
) -> None:
    shelves = await shelves_with_newest_jars(session, 2)

    assert [fruits(shelf) for shelf in shelves] == [["plum", "fig"], ["fig"], []]
    assert statements.count == 2
    assert not session.dirty


async def test_loaded_parents_get_their_children_in_two_statements(
    session: AsyncSession, statements: StatementLog
) -> None:
    shelves = (await session.exec(select(Shelf).order_by(col(Shelf.id)))).all()
    statements.clear()

    await load_jars(session, shelves)

    assert [fruits(shelf) for shelf in shelves] == [["plum", "fig", "plum"], ["fig"], []]
    assert statements.count == 2


async def test_two_collections_are_three_statements(
    session: AsyncSession, statements: StatementLog
) -> None:
    both = selectinload(Cellar.shelves).options(selectinload(Shelf.jars), joinedload(Shelf.cellar))

    await session.exec(select(Cellar).options(both))

    assert statements.count == 3


async def test_selectinload_of_a_to_one_asks_even_for_what_the_session_has(
    session: AsyncSession, statements: StatementLog
) -> None:
    shelves = (await session.exec(select(Shelf))).all()
    statements.clear()

    await session.exec(select(Jar).options(selectinload(Jar.shelf)))

    assert statements.count == 2
    assert shelves


async def test_a_limit_with_a_joined_collection_counts_parents(session: AsyncSession) -> None:
    statement = select(Shelf).options(joinedload(Shelf.jars)).order_by(col(Shelf.id)).limit(2)

    shelves = (await session.exec(statement)).unique().all()

    assert [fruits(shelf) for shelf in shelves] == [["plum", "fig", "plum"], ["fig"]]


async def test_get_takes_options_when_it_is_told_to_ask_again(
    session: AsyncSession, statements: StatementLog
) -> None:
    await session.get_one(Shelf, 1)
    statements.clear()

    shelf = await session.get_one(
        Shelf, 1, options=[selectinload(Shelf.jars)], populate_existing=True
    )

    assert fruits(shelf) == ["plum", "fig", "plum"]
    assert statements.count == 2


async def test_populate_existing_unloads_the_other_relationships(session: AsyncSession) -> None:
    shelf = (await shelves_with_jars(session))[0]

    again = select(Shelf).options(selectinload(Shelf.cellar))
    await session.exec(again.execution_options(populate_existing=True))

    assert "jars" in inspect(shelf).unloaded


async def test_selecting_again_leaves_a_loaded_collection_as_it_is(
    session: AsyncSession, factory: async_sessionmaker[AsyncSession]
) -> None:
    shelf = (await shelves_with_jars(session))[1]
    await session.commit()
    async with factory() as other:
        other.add(Jar(fruit="late", shelf_id=2))
        await other.commit()

    await load_jars(session, [shelf])

    assert fruits(shelf) == ["fig"]
