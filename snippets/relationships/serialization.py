"""Read models that end: each response names its depth, and nothing leads back."""

from sqlmodel import SQLModel, col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.relationships.eager_loading import cellars_with_everything, jars_with_shelf
from snippets.relationships.one_to_many import Jar, Shelf


class JarRead(SQLModel):
    id: int
    fruit: str
    grams: int


class ShelfRead(SQLModel):
    id: int
    label: str


class JarOnShelf(JarRead):
    shelf: ShelfRead


class ShelfWithJars(ShelfRead):
    jars: list[JarRead]


class CellarWithShelves(SQLModel):
    id: int
    name: str
    shelves: list[ShelfWithJars]


class ShelfSummary(ShelfRead):
    jar_count: int


async def read_cellars(session: AsyncSession) -> list[CellarWithShelves]:
    cellars = await cellars_with_everything(session)
    return [CellarWithShelves.model_validate(cellar) for cellar in cellars]


async def read_jars(session: AsyncSession) -> list[JarOnShelf]:
    return [JarOnShelf.model_validate(jar) for jar in await jars_with_shelf(session)]


async def read_shelf_summaries(session: AsyncSession) -> list[ShelfSummary]:
    """Shelves with the number of their jars, in one statement, and no jar is loaded."""
    jar_count = select(func.count(col(Jar.id))).where(Jar.shelf_id == Shelf.id).scalar_subquery()
    statement = select(Shelf, jar_count).order_by(col(Shelf.id))
    return [
        ShelfSummary.model_validate(shelf, update={"jar_count": count})
        for shelf, count in await session.exec(statement)
    ]
