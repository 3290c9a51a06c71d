import pytest
from sqlalchemy import Connection, inspect
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import joinedload, selectinload
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.relationships.one_to_many import Cellar, Jar, Shelf


class Drawer(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    shelf_id: int = Field(foreign_key="shelf.id")


TABLES = [Cellar, Shelf, Jar, Drawer]


async def test_children_given_to_the_parent_are_saved_with_it(session: AsyncSession) -> None:
    session.add(Shelf(label="top", jars=[Jar(fruit="plum"), Jar(fruit="fig")]))
    await session.commit()
    session.expunge_all()

    shelf = (await session.exec(select(Shelf).options(selectinload(Shelf.jars)))).one()

    assert [jar.fruit for jar in shelf.jars] == ["plum", "fig"]
    assert {jar.shelf_id for jar in shelf.jars} == {shelf.id}


async def test_the_two_sides_follow_each_other_before_the_flush() -> None:
    shelf = Shelf(label="top")
    jar = Jar(fruit="plum", shelf=shelf)

    assert shelf.jars == [jar]

    shelf.jars.remove(jar)
    assert jar.shelf is None


async def test_the_collection_comes_in_the_order_that_the_relationship_names(
    session: AsyncSession,
) -> None:
    session.add(Shelf(id=1, label="top"))
    await session.flush()
    session.add_all([Jar(id=number, fruit="plum", shelf_id=1) for number in (3, 1, 2)])
    await session.commit()
    session.expunge_all()

    shelf = await session.get_one(Shelf, 1, options=[selectinload(Shelf.jars)])

    assert [jar.id for jar in shelf.jars] == [1, 2, 3]


async def test_an_int_with_default_none_is_a_required_column(session: AsyncSession) -> None:
    session.add(Jar(fruit="plum"))

    with pytest.raises(IntegrityError):
        await session.flush()


async def test_an_optional_parent_may_be_missing(session: AsyncSession) -> None:
    session.add(Shelf(label="loose"))
    await session.commit()
    session.expunge_all()

    shelf = (await session.exec(select(Shelf).options(joinedload(Shelf.cellar)))).one()

    assert shelf.cellar is None


def indexed_columns(connection: Connection, table: str) -> list[list[str | None]]:
    return [index["column_names"] for index in inspect(connection).get_indexes(table)]


async def test_only_mariadb_indexes_a_foreign_key_unasked(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        found = await connection.run_sync(indexed_columns, "drawer")

    assert found == ([["shelf_id"]] if engine.dialect.name == "mysql" else [])


async def test_the_foreign_key_has_an_index(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        assert ["shelf_id"] in await connection.run_sync(indexed_columns, "jar")
