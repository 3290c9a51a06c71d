"""What goes wrong with relationships, one function per mistake."""

from collections.abc import Sequence
from typing import Any, Optional

from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlalchemy.orm import contains_eager, joinedload, registry, selectinload
from sqlmodel import Field, Relationship, SQLModel, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.relationships.cascades import Bottle, Crate
from snippets.relationships.load_policies import Workshop
from snippets.relationships.one_to_many import Jar, Shelf


async def lazy_load(session: AsyncSession, shelf_id: int) -> list[str]:
    shelf = await session.get_one(Shelf, shelf_id)
    return [jar.fruit for jar in shelf.jars]


async def read_after_close(factory: async_sessionmaker[AsyncSession], shelf_id: int) -> list[Jar]:
    async with factory() as session:
        shelf = await session.get_one(Shelf, shelf_id)
    return shelf.jars


async def dump_expired(engine: AsyncEngine) -> dict[str, Any]:
    async with AsyncSession(engine) as session:
        shelf = Shelf(label="top")
        session.add(shelf)
        await session.commit()
        return shelf.model_dump()


async def joined_without_unique(session: AsyncSession) -> Sequence[Shelf]:
    return (await session.exec(select(Shelf).options(joinedload(Shelf.jars)))).all()  # type: ignore[arg-type]


async def load_in_a_loop(session: AsyncSession) -> dict[str, int]:
    workshops = (await session.exec(select(Workshop))).all()
    return {workshop.name: len(await workshop.awaitable_attrs.tools) for workshop in workshops}


async def limit_joined_rows(session: AsyncSession, limit: int) -> Sequence[Shelf]:
    statement = select(Shelf).join(Jar).options(contains_eager(Shelf.jars))  # type: ignore[arg-type]
    return (await session.exec(statement.order_by(Shelf.id).limit(limit))).unique().all()  # type: ignore[arg-type]


async def filter_then_load_all(session: AsyncSession, fruit: str) -> Sequence[Shelf]:
    some = select(Shelf).join(Jar).where(Jar.fruit == fruit).options(contains_eager(Shelf.jars))  # type: ignore[arg-type]
    shelves = (await session.exec(some)).unique().all()
    await session.exec(select(Shelf).options(selectinload(Shelf.jars)))  # type: ignore[arg-type]
    return shelves


async def set_foreign_key_alone(session: AsyncSession, jar_id: int, shelf_id: int) -> Shelf:
    jar = await session.get_one(Jar, jar_id, options=[joinedload(Jar.shelf)])  # type: ignore[arg-type]
    jar.shelf_id = shelf_id
    await session.commit()
    return jar.shelf


async def remove_required_child(session: AsyncSession, shelf_id: int) -> None:
    shelf = await session.get_one(Shelf, shelf_id, options=[selectinload(Shelf.jars)])  # type: ignore[arg-type]
    shelf.jars.clear()
    await session.flush()


class Locker(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    padlock: Optional["Padlock"] = Relationship(back_populates="locker", cascade_delete=True)


class Padlock(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    code: str = Field(max_length=10)
    locker_id: int = Field(default=None, foreign_key="locker.id", unique=True)
    locker: Locker = Relationship(back_populates="padlock")


async def replace_unique_child(session: AsyncSession, locker_id: int) -> None:
    locker = await session.get_one(Locker, locker_id, options=[selectinload(Locker.padlock)])  # type: ignore[arg-type]
    locker.padlock = Padlock(code="new")
    await session.flush()


async def read_deleted_children(session: AsyncSession, crate_id: int) -> Bottle | None:
    crate = await session.get_one(Crate, crate_id, options=[selectinload(Crate.bottles)])  # type: ignore[arg-type]
    bottle_id = crate.bottles[0].id
    await session.exec(delete(Crate).where(Crate.id == crate_id))  # type: ignore[arg-type]
    return await session.get(Bottle, bottle_id)


async def orphans_without_foreign_keys(session: AsyncSession, crate_id: int) -> int:
    await session.exec(delete(Crate).where(Crate.id == crate_id))  # type: ignore[arg-type]
    await session.commit()
    return len((await session.exec(select(Bottle).where(Bottle.crate_id == crate_id))).all())


def tree_without_remote_side() -> None:
    class Isolated(SQLModel, registry=registry()): ...

    class Branch(Isolated, table=True):
        id: int | None = Field(default=None, primary_key=True)
        parent_id: int | None = Field(default=None, foreign_key="branch.id")
        parent: Optional["Branch"] = Relationship(back_populates="children")
        children: list["Branch"] = Relationship(back_populates="parent")

    Branch()


def two_paths_to_one_table() -> None:
    class Isolated(SQLModel, registry=registry()): ...

    class Squad(Isolated, table=True):
        id: int | None = Field(default=None, primary_key=True)

    class Friendly(Isolated, table=True):
        id: int | None = Field(default=None, primary_key=True)
        home_id: int = Field(default=None, foreign_key="squad.id")
        away_id: int = Field(default=None, foreign_key="squad.id")
        home: Squad = Relationship()

    Friendly()


def writable_shortcut() -> None:
    class Isolated(SQLModel, registry=registry()): ...

    class Signup(Isolated, table=True):
        pupil_id: int | None = Field(default=None, foreign_key="pupil.id", primary_key=True)
        lesson_id: int | None = Field(default=None, foreign_key="lesson.id", primary_key=True)
        pupil: "Pupil" = Relationship(back_populates="signups")

    class Lesson(Isolated, table=True):
        id: int | None = Field(default=None, primary_key=True)

    class Pupil(Isolated, table=True):
        id: int | None = Field(default=None, primary_key=True)
        signups: list[Signup] = Relationship(back_populates="pupil")
        lessons: list[Lesson] = Relationship(link_model=Signup)

    Pupil()


class BoxRead(SQLModel):
    id: int
    things: list["ThingRead"] = []


class ThingRead(SQLModel):
    id: int
    box: BoxRead | None = None


def cyclic_read_models(box: Any) -> BoxRead:
    return BoxRead.model_validate(box)


def remove_an_equal_one() -> Shelf:
    first, second = Jar(fruit="plum"), Jar(fruit="plum")
    shelf = Shelf(label="top", jars=[first, second])
    shelf.jars.remove(second)
    return shelf
