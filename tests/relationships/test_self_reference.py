import itertools

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import joinedload, selectinload
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

from snippets.relationships.self_reference import (
    Category,
    Connection,
    Station,
    category_tree,
    category_with_descendants,
    reachable_stations,
)

TABLES = [Category, Station, Connection]

type_of_tree = tuple[str, list["type_of_tree"]]


def shape(category: Category) -> type_of_tree:
    return category.name, [shape(child) for child in category.children]


async def food(session: AsyncSession) -> int:
    apples = Category(name="apples")
    fruit = Category(name="fruit", children=[apples, Category(name="plums")])
    root = Category(name="food", children=[fruit, Category(name="grain")])
    session.add_all([root, Category(name="tools")])
    await session.commit()
    session.expunge_all()
    assert root.id is not None
    return root.id


FOOD: type_of_tree = (
    "food",
    [("fruit", [("apples", []), ("plums", [])]), ("grain", [])],
)


async def test_a_category_knows_its_parent(session: AsyncSession) -> None:
    await food(session)

    grain = select(Category).where(Category.name == "grain").options(joinedload(Category.parent))
    parent = (await session.exec(grain)).one().parent

    assert parent is not None
    assert parent.name == "food"


async def test_the_descendants_come_with_a_statement_per_level(
    session: AsyncSession, statements: StatementLog
) -> None:
    root_id = await food(session)
    statements.clear()

    root = await category_with_descendants(session, root_id)

    assert root is not None
    assert shape(root) == FOOD
    assert statements.count == 4  # three levels, and one that finds no more


async def test_the_tree_comes_in_one_statement(
    session: AsyncSession, statements: StatementLog
) -> None:
    root_id = await food(session)
    statements.clear()

    root = await category_tree(session, root_id)

    assert root is not None
    assert shape(root) == FOOD
    assert statements.count == 1
    assert not session.dirty


async def test_a_branch_of_the_tree_comes_without_the_rest(session: AsyncSession) -> None:
    await food(session)
    fruit = (await session.exec(select(Category.id).where(Category.name == "fruit"))).one()

    branch = await category_tree(session, fruit or 0)

    assert branch is not None
    assert shape(branch) == ("fruit", [("apples", []), ("plums", [])])


async def test_a_missing_category_has_no_tree(session: AsyncSession) -> None:
    assert await category_tree(session, 404) is None
    assert await category_with_descendants(session, 404) is None


async def hen_and_egg(session: AsyncSession) -> None:
    session.add_all([Category(id=1, name="hen"), Category(id=2, name="egg", parent_id=1)])
    await session.flush()
    hen = await session.get_one(Category, 1)
    hen.parent_id = 2
    await session.commit()
    session.expunge_all()


async def test_a_cycle_in_the_data_ends_the_single_statement(session: AsyncSession) -> None:
    await hen_and_egg(session)

    tree = await category_tree(session, 1)

    assert tree is not None
    assert [child.name for child in tree.children] == ["egg"]


async def test_a_cycle_in_the_data_never_ends_the_levels(
    session: AsyncSession, engine: AsyncEngine
) -> None:
    await hen_and_egg(session)
    sent = itertools.count()

    def stop(*_: object) -> None:
        if next(sent) > 30:
            raise RecursionError("two categories, thirty levels")

    event.listen(engine.sync_engine, "before_cursor_execute", stop)

    with pytest.raises(RecursionError, match="thirty levels"):
        await category_with_descendants(session, 1)


async def lines(session: AsyncSession) -> None:
    session.add_all([Station(id=number, name=f"s{number}") for number in range(1, 6)])
    await session.flush()
    ways = [(1, 2), (2, 3), (3, 1), (3, 4)]
    session.add_all([Connection(from_id=a, to_id=b, minutes=5) for a, b in ways])
    await session.commit()
    session.expunge_all()


async def test_a_station_has_its_next_stations(session: AsyncSession) -> None:
    await lines(session)

    load = selectinload(Station.next_stations)
    station = (await session.exec(select(Station).where(Station.id == 3).options(load))).one()

    assert [follower.name for follower in station.next_stations] == ["s1", "s4"]


async def test_reachable_stations_are_found_in_one_statement_round_a_cycle(
    session: AsyncSession, statements: StatementLog
) -> None:
    await lines(session)
    statements.clear()

    stations = await reachable_stations(session, 2)

    assert [station.id for station in stations] == [1, 2, 3, 4]
    assert statements.count == 1
    assert [station.id for station in await reachable_stations(session, 5)] == [5]
