"""Load related objects in the query that needs them, at a known number of statements."""

from collections.abc import Iterable, Sequence

from sqlalchemy.orm import aliased, contains_eager, joinedload, selectinload
from sqlalchemy.orm.attributes import set_committed_value
from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.relationships.one_to_many import Cellar, Jar, Shelf


async def shelves_with_jars(session: AsyncSession) -> Sequence[Shelf]:
    """Two statements, and one more for every further 500 shelves."""
    statement = select(Shelf).options(selectinload(Shelf.jars))  # type: ignore[arg-type]
    return (await session.exec(statement.order_by(col(Shelf.id)))).all()


async def jars_with_shelf(session: AsyncSession) -> Sequence[Jar]:
    """One statement. The inner join is right because `shelf_id` is NOT NULL."""
    to_shelf = joinedload(Jar.shelf, innerjoin=True)  # type: ignore[arg-type]
    return (await session.exec(select(Jar).options(to_shelf).order_by(col(Jar.id)))).all()


async def shelf_with_jars_joined(session: AsyncSession, shelf_id: int) -> Shelf | None:
    """One statement for one parent; `unique()` folds the row of each jar into one shelf."""
    statement = select(Shelf).where(Shelf.id == shelf_id)
    statement = statement.options(joinedload(Shelf.jars))  # type: ignore[arg-type]
    return (await session.exec(statement)).unique().one_or_none()


async def cellars_with_everything(session: AsyncSession) -> Sequence[Cellar]:
    """One statement per level of the path."""
    path = selectinload(Cellar.shelves).selectinload(Shelf.jars)  # type: ignore[arg-type]
    return (await session.exec(select(Cellar).options(path).order_by(col(Cellar.id)))).all()


async def jars_with_shelf_and_cellar(session: AsyncSession) -> Sequence[Jar]:
    """A path of to-one steps stays one statement."""
    path = joinedload(Jar.shelf, innerjoin=True).joinedload(Shelf.cellar)  # type: ignore[arg-type]
    return (await session.exec(select(Jar).options(path).order_by(col(Jar.id)))).all()


async def shelves_having(session: AsyncSession, fruit: str) -> Sequence[Shelf]:
    """Only shelves that have such jars, each with only those jars, in one statement."""
    statement = (
        select(Shelf)
        .join(Jar)
        .where(Jar.fruit == fruit)
        .options(contains_eager(Shelf.jars))  # type: ignore[arg-type]
        .order_by(col(Shelf.id), col(Jar.id))
        # Without it a shelf that the session knows keeps the jars it had.
        .execution_options(populate_existing=True)
    )
    return (await session.exec(statement)).unique().all()


async def shelves_with_jars_of(session: AsyncSession, fruit: str) -> Sequence[Shelf]:
    """Every shelf, each with only those jars, in two statements."""
    some_jars = selectinload(Shelf.jars.and_(Jar.fruit == fruit))  # type: ignore[attr-defined]
    statement = select(Shelf).options(some_jars).order_by(col(Shelf.id))
    return (await session.exec(statement.execution_options(populate_existing=True))).all()


async def shelves_with_fruits(session: AsyncSession) -> Sequence[Shelf]:
    """Of the jars only `fruit` (and the keys): reading another column raises."""
    some_columns = selectinload(Shelf.jars).load_only(  # type: ignore[arg-type]
        Jar.fruit,  # type: ignore[arg-type]
        raiseload=True,
    )
    return (await session.exec(select(Shelf).options(some_columns).order_by(col(Shelf.id)))).all()


async def shelves_with_newest_jars(session: AsyncSession, limit: int) -> Sequence[Shelf]:
    """Every shelf with its newest jars, at most `limit` each, in two statements."""
    shelves = (await session.exec(select(Shelf).order_by(col(Shelf.id)))).all()
    place = func.row_number().over(partition_by=col(Jar.shelf_id), order_by=col(Jar.id).desc())
    on_shelves = col(Jar.shelf_id).in_([shelf.id for shelf in shelves])
    ranked = select(Jar, place.label("place")).where(on_shelves).subquery()
    newest = aliased(Jar, ranked)
    statement = select(newest).where(ranked.c.place <= limit).order_by(ranked.c.place)
    jars = (await session.exec(statement)).all()
    for shelf in shelves:
        set_committed_value(shelf, "jars", [jar for jar in jars if jar.shelf_id == shelf.id])
    return shelves


async def load_jars(session: AsyncSession, shelves: Iterable[Shelf]) -> None:
    """Fill `jars` of shelves that the session already has, in two statements for all of them."""
    statement = (
        select(Shelf)
        .where(col(Shelf.id).in_([shelf.id for shelf in shelves]))
        .options(selectinload(Shelf.jars))  # type: ignore[arg-type]
    )
    (await session.exec(statement)).all()
