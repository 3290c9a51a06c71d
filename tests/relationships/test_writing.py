import pytest
from sqlalchemy import inspect
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import joinedload, selectinload
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

from snippets.relationships.many_to_many import Dish, DishSpice, Spice
from snippets.relationships.one_to_many import Cellar, Jar, Shelf
from snippets.relationships.writing import (
    Logbook,
    LogEntry,
    add_jar,
    add_spice,
    entries_of,
    last_entries,
    move_jars,
    remove_spice,
    set_spices,
)

TABLES = [Cellar, Shelf, Jar, Dish, Spice, DishSpice, Logbook, LogEntry]


@pytest.fixture(autouse=True)
async def pantry(session: AsyncSession, statements: StatementLog) -> None:
    session.add(Shelf(label="top", jars=[Jar(fruit="plum"), Jar(fruit="fig")]))
    session.add(Shelf(label="low", jars=[Jar(fruit="pear")]))
    session.add_all([Spice(id=number, name=f"s{number}") for number in (1, 2, 3)])
    session.add(Dish(id=1, name="curry"))
    await session.commit()
    session.expunge_all()
    statements.clear()


async def shelves(session: AsyncSession) -> tuple[Shelf, Shelf]:
    load = select(Shelf).options(selectinload(Shelf.jars)).order_by(Shelf.id)
    first, second = (await session.exec(load)).all()
    return first, second


async def linked(session: AsyncSession) -> set[int | None]:
    return set((await session.exec(select(DishSpice.spice_id))).all())


async def test_a_jar_is_added_without_loading_its_neighbours(
    session: AsyncSession, statements: StatementLog
) -> None:
    shelf = await session.get_one(Shelf, 1)
    statements.clear()

    jar = add_jar(session, shelf, "quince")
    await session.flush()

    assert jar.shelf_id == 1
    assert [text.split()[:3] for text in statements.texts] == [["INSERT", "INTO", "jar"]]


async def test_a_jar_moves_when_its_shelf_is_assigned(session: AsyncSession) -> None:
    first, second = await shelves(session)
    jar = first.jars[0]

    jar.shelf = second
    await session.commit()

    assert jar.shelf_id == 2
    assert [jar.fruit for jar in first.jars] == ["fig"]
    assert [jar.fruit for jar in second.jars] == ["pear", "plum"]


async def test_a_replaced_collection_of_owned_rows_writes_the_difference(
    session: AsyncSession, statements: StatementLog
) -> None:
    first, second = await shelves(session)
    statements.clear()

    second.jars = [*second.jars, first.jars[0]]
    await session.flush()

    assert [text.split()[0] for text in statements.texts] == ["UPDATE"]
    assert [jar.id for jar in first.jars] == [2]


async def test_all_jars_move_in_one_statement(
    session: AsyncSession, statements: StatementLog
) -> None:
    first, second = await shelves(session)
    moved = first.jars[0]
    assert moved.shelf is first
    dish = await session.get_one(Dish, 1)
    statements.clear()

    assert await move_jars(session, first, second) == 2

    assert statements.count == 1
    assert moved.shelf_id == 2
    assert moved.shelf is second
    assert "jars" in inspect(first).unloaded
    assert dish.name == "curry"
    await session.refresh(second, attribute_names=["jars"])
    assert [jar.id for jar in second.jars] == [1, 2, 3]


async def test_a_spice_is_linked_and_unlinked_in_one_statement_each(
    session: AsyncSession, statements: StatementLog
) -> None:
    await add_spice(session, 1, 2)
    assert statements.count == 1
    assert await linked(session) == {2}

    statements.clear()
    assert await remove_spice(session, 1, 2) is True
    assert statements.count == 1
    assert await linked(session) == set()
    assert await remove_spice(session, 1, 2) is False


async def test_spices_are_replaced_by_their_difference(
    session: AsyncSession, statements: StatementLog
) -> None:
    await set_spices(session, 1, [1, 2])
    assert await linked(session) == {1, 2}

    statements.clear()
    await set_spices(session, 1, [2, 3])
    assert statements.count == 3
    assert await linked(session) == {2, 3}

    statements.clear()
    await set_spices(session, 1, [3, 2])
    assert statements.count == 1


async def test_a_write_only_collection_writes_without_loading(
    session: AsyncSession, statements: StatementLog
) -> None:
    session.add(Logbook(id=1, title="voyage"))
    await session.commit()
    session.expunge_all()
    logbook = await session.get_one(Logbook, 1)
    statements.clear()

    entries_of(logbook).add_all([LogEntry(text="left"), LogEntry(text="storm")])
    await session.flush()

    assert all(text.startswith("INSERT INTO logentry") for text in statements.texts)
    assert [entry.text for entry in await last_entries(session, logbook, 1)] == ["storm"]


async def test_an_entry_removed_from_a_write_only_collection_is_deleted(
    session: AsyncSession,
) -> None:
    logbook = Logbook(id=1, title="voyage")
    session.add(logbook)
    entry = LogEntry(text="left")
    entries_of(logbook).add(entry)
    await session.commit()

    entries_of(logbook).remove(entry)
    await session.commit()

    assert await last_entries(session, logbook, 9) == []


async def test_a_write_only_collection_refuses_a_list_after_the_first_flush(
    session: AsyncSession,
) -> None:
    logbook = Logbook(id=1, title="voyage")
    session.add(logbook)
    await session.commit()

    with pytest.raises(InvalidRequestError, match="does not support implicit iteration"):
        logbook.entries = [LogEntry(text="left")]


async def test_the_parent_of_an_assigned_object_is_read_without_io(session: AsyncSession) -> None:
    load = select(Jar).where(Jar.id == 1).options(joinedload(Jar.shelf))
    jar = (await session.exec(load)).one()
    other = await session.get_one(Shelf, 2)

    jar.shelf = other

    assert jar.shelf_id == 1  # until the flush
    await session.flush()
    assert jar.shelf_id == 2
