"""Write through relationships, and past them where loading the collection would be waste."""

from collections.abc import Iterable, Sequence
from typing import cast

from sqlalchemy.orm import WriteOnlyCollection
from sqlmodel import Field, Relationship, SQLModel, col, delete, insert, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.relationships.many_to_many import DishSpice
from snippets.relationships.one_to_many import Jar, Shelf


class Logbook(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    title: str = Field(max_length=50)
    # Too many to load. SQLModel understands `list` alone; see `entries_of` for what it really is.
    entries: list["LogEntry"] = Relationship(
        back_populates="logbook",
        cascade_delete=True,
        passive_deletes=True,
        sa_relationship_kwargs={"lazy": "write_only", "order_by": "LogEntry.id"},
    )


class LogEntry(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    text: str = Field(max_length=200)
    logbook_id: int = Field(default=None, foreign_key="logbook.id", ondelete="CASCADE", index=True)
    logbook: Logbook = Relationship(back_populates="entries")


def entries_of(logbook: Logbook) -> WriteOnlyCollection[LogEntry]:
    """Return the collection that has `add`, `remove` and `select`, and never loads."""
    return cast("WriteOnlyCollection[LogEntry]", logbook.entries)


async def last_entries(session: AsyncSession, logbook: Logbook, limit: int) -> Sequence[LogEntry]:
    """Return the last entries, the newest first."""
    statement = select(LogEntry).where(LogEntry.logbook_id == logbook.id)
    statement = statement.order_by(col(LogEntry.id).desc()).limit(limit)
    return (await session.exec(statement)).all()


def add_jar(session: AsyncSession, shelf: Shelf, fruit: str) -> Jar:
    """Add a jar from its own side, which loads nothing; `shelf.jars.append` would."""
    jar = Jar(fruit=fruit, shelf=shelf)
    session.add(jar)
    return jar


async def move_jars(session: AsyncSession, source: Shelf, target: Shelf) -> int:
    """Move all jars in one statement; return how many."""
    statement = update(Jar).where(col(Jar.shelf_id) == source.id).values(shelf_id=target.id)
    moved = (await session.exec(statement)).rowcount
    # Loaded relationships do not follow a foreign key: forget them. (`is`, because table models
    # compare equal by their columns and have no hash.)
    for loaded in list(session.identity_map.values()):
        if isinstance(loaded, Jar):
            session.expire(loaded, ["shelf"])
        elif loaded is source or loaded is target:
            session.expire(loaded, ["jars"])
    return moved


async def add_spice(session: AsyncSession, dish_id: int, spice_id: int) -> None:
    """Link without loading the dish, the spice or the collection."""
    await session.exec(insert(DishSpice).values(dish_id=dish_id, spice_id=spice_id))


async def remove_spice(session: AsyncSession, dish_id: int, spice_id: int) -> bool:
    """Unlink; return whether there was a link."""
    link = (col(DishSpice.dish_id) == dish_id) & (col(DishSpice.spice_id) == spice_id)
    return (await session.exec(delete(DishSpice).where(link))).rowcount > 0


async def set_spices(session: AsyncSession, dish_id: int, spice_ids: Iterable[int]) -> None:
    """Replace the links of a dish: at most three statements, and only differences are written."""
    wanted = set(spice_ids)
    of_dish = col(DishSpice.dish_id) == dish_id
    linked = set((await session.exec(select(DishSpice.spice_id).where(of_dish))).all())
    if surplus := linked - wanted:
        stale = delete(DishSpice).where(of_dish, col(DishSpice.spice_id).in_(surplus))
        await session.exec(stale)
    if missing := wanted - linked:
        rows = [{"dish_id": dish_id, "spice_id": spice_id} for spice_id in sorted(missing)]
        await session.exec(insert(DishSpice), params=rows)
