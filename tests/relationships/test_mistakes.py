"""Each mistake, with the symptom that the page quotes."""

import asyncio
import gc
import re
from collections.abc import AsyncIterator

import pytest
import sqlalchemy
from pydantic import ValidationError
from sqlalchemy import URL
from sqlalchemy.exc import (
    AmbiguousForeignKeysError,
    ArgumentError,
    IntegrityError,
    InvalidRequestError,
    MissingGreenlet,
    SAWarning,
    StatementError,
)
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import selectinload
from sqlalchemy.orm.exc import DetachedInstanceError
from sqlmodel import SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

from snippets.database_setup.engine import engine_for
from snippets.database_setup.session import session_factory
from snippets.relationships import mistakes
from snippets.relationships.cascades import Bottle, Crate
from snippets.relationships.load_policies import Tool, Workshop
from snippets.relationships.one_to_many import Cellar, Jar, Shelf
from snippets.relationships.serialization import ShelfWithJars

TABLES = [
    Cellar, Shelf, Jar, Crate, Bottle, Workshop, Tool, mistakes.Locker, mistakes.Padlock,
]  # fmt: skip

# What accidental IO leaves behind belongs to the symptom: a coroutine of the driver that nobody
# awaited and, where no transaction was open, a connection that never comes back to the pool.
pytestmark = [
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:The garbage collector is trying to clean up"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

IS_20 = sqlalchemy.__version__.startswith("2.0.")
ACCIDENTAL_IO = (
    "greenlet_spawn has not been called; can't call await_only() here. "
    "Was IO attempted in an unexpected place?"
    if IS_20
    else "greenlet_spawn has not been called; can't call await_() here. "
    "Was IO attempted in an unexpected place?"
)
# Drivers whose error is MissingGreenlet itself; the others wrap it in StatementError.
BARE = {"asyncpg", "psycopg", "aiosqlite"} if IS_20 else {"asyncpg"}


def assert_accidental_io(error: pytest.ExceptionInfo[Exception], driver: str) -> None:
    """What a lazy load inside of a transaction raises."""
    if driver in BARE:
        assert error.type is MissingGreenlet
        assert str(error.value).startswith(ACCIDENTAL_IO)
    else:
        assert error.type is StatementError
        assert str(error.value).startswith(f"(sqlalchemy.exc.MissingGreenlet) {ACCIDENTAL_IO}")
        assert isinstance(error.value, StatementError)
        assert isinstance(error.value.orig, MissingGreenlet)
    error.value.__traceback__ = None
    gc.collect()


@pytest.fixture
def driver(database_url: URL) -> str:
    return database_url.get_driver_name()


@pytest.fixture
async def session(session: AsyncSession) -> AsyncSession:
    """A session on tables that have rows."""
    # The ids are the first that each table gives: an explicit one would not advance its sequence.
    session.add(Shelf(label="top", jars=[Jar(fruit="plum"), Jar(fruit="fig")]))
    session.add(Shelf(label="low", jars=[Jar(fruit="plum")]))
    session.add(Crate(label="a", bottles=[Bottle(content="cider")]))
    session.add(mistakes.Locker(padlock=mistakes.Padlock(code="old")))
    for number in (1, 2, 3):
        session.add(Workshop(name=f"w{number}", tools=[Tool(name="saw")]))
    await session.commit()
    session.expunge_all()
    return session


accidental_io = (StatementError, MissingGreenlet)


async def test_lazy_load(session: AsyncSession, driver: str) -> None:
    with pytest.raises(accidental_io) as error:
        await mistakes.lazy_load(session, 1)

    assert_accidental_io(error, driver)


@pytest.fixture
async def psycopg_session(database_url: URL, session: AsyncSession) -> AsyncIterator[AsyncSession]:
    engine = engine_for(database_url.set(drivername="postgresql+psycopg"))
    async with session_factory(engine)() as other:
        yield other
    await engine.dispose()


@pytest.mark.only_on("postgresql", reason="psycopg is its second driver")
async def test_lazy_load_with_psycopg(psycopg_session: AsyncSession) -> None:
    with pytest.raises(accidental_io) as error:
        await mistakes.lazy_load(psycopg_session, 1)

    assert_accidental_io(error, "psycopg")


async def test_lazy_load_of_the_one_side(session: AsyncSession, driver: str) -> None:
    jar = (await session.exec(select(Jar).where(Jar.id == 1))).one()

    with pytest.raises(accidental_io) as error:
        _ = jar.shelf

    assert_accidental_io(error, driver)


async def test_the_one_side_that_the_session_has_loads_nothing(session: AsyncSession) -> None:
    shelf = await session.get_one(Shelf, 1)
    jar = await session.get_one(Jar, 1)

    assert jar.shelf is shelf


async def test_appending_to_a_collection_never_touched_before_the_flush_loads_it(
    session: AsyncSession, driver: str
) -> None:
    shelf = Shelf(label="new")
    session.add(shelf)
    await session.flush()

    with pytest.raises(accidental_io) as error:
        shelf.jars.append(Jar(fruit="plum"))

    assert_accidental_io(error, driver)


async def test_assigning_an_unloaded_collection_loads_it(
    session: AsyncSession, driver: str
) -> None:
    shelf = await session.get_one(Shelf, 1)

    with pytest.raises(accidental_io) as error:
        shelf.jars = []

    assert_accidental_io(error, driver)


async def test_a_collection_given_at_birth_is_loaded(session: AsyncSession) -> None:
    shelf = Shelf(label="new", jars=[])
    session.add(shelf)
    await session.flush()

    shelf.jars.append(Jar(fruit="plum"))

    assert [jar.fruit for jar in shelf.jars] == ["plum"]


async def test_get_ignores_options_for_what_the_session_has(
    session: AsyncSession, driver: str
) -> None:
    known = await session.get_one(Shelf, 1)
    shelf = await session.get_one(Shelf, 1, options=[selectinload(Shelf.jars)])
    assert shelf is known

    with pytest.raises(accidental_io) as error:
        _ = shelf.jars

    assert_accidental_io(error, driver)


async def test_a_plain_refresh_leaves_relationships_unloaded(
    session: AsyncSession, driver: str
) -> None:
    shelf = Shelf(label="new")
    session.add(shelf)
    await session.commit()
    await session.refresh(shelf)

    with pytest.raises(accidental_io) as error:
        _ = shelf.jars

    assert_accidental_io(error, driver)


async def test_a_plain_refresh_drops_a_collection_that_a_later_query_loaded(
    session: AsyncSession,
) -> None:
    shelf = await session.get_one(Shelf, 1)
    await session.exec(select(Shelf).options(selectinload(Shelf.jars)))
    assert len(shelf.jars) == 2

    await session.refresh(shelf)

    assert "jars" in sqlalchemy.inspect(shelf).unloaded


async def test_read_after_close(
    session: AsyncSession, factory: async_sessionmaker[AsyncSession]
) -> None:
    text = (
        r"Parent instance <Shelf at 0x[0-9a-f]+> is not bound to a Session; "
        "lazy load operation of attribute 'jars' cannot proceed"
    )
    with pytest.raises(DetachedInstanceError, match=text):
        await mistakes.read_after_close(factory, 1)


async def test_dump_expired(engine: AsyncEngine) -> None:
    assert await mistakes.dump_expired(engine) == {}


async def test_a_rollback_expires_whatever_the_session_was_told(session: AsyncSession) -> None:
    shelf = await session.get_one(Shelf, 1)

    await session.rollback()

    assert shelf.model_dump() == {}
    assert repr(shelf) == "Shelf()"


async def test_reading_an_expired_column_after_the_commit(engine: AsyncEngine) -> None:
    # No transaction is open: getting a connection fails first, and no driver's error is wrapped.
    try:
        async with AsyncSession(engine) as session:
            shelf = Shelf(label="new")
            session.add(shelf)
            await session.commit()
            _ = shelf.label
    except MissingGreenlet as error:
        text = str(error)
    gc.collect()
    await asyncio.sleep(0.05)  # the lost connection closes while its loop still runs

    assert text.startswith(ACCIDENTAL_IO)


async def test_a_read_model_reports_what_was_not_loaded(session: AsyncSession) -> None:
    shelf = await session.get_one(Shelf, 1)

    with pytest.raises(ValidationError) as error:
        ShelfWithJars.model_validate(shelf)

    (problem,) = error.value.errors()
    assert (problem["type"], problem["loc"]) == ("get_attribute_error", ("jars",))
    assert "Error extracting attribute: " in str(error.value)
    assert ACCIDENTAL_IO in str(error.value)


async def test_joined_without_unique(session: AsyncSession) -> None:
    text = (
        "The unique() method must be invoked on this Result, as it contains results that include "
        "joined eager loads against collections"
    )
    with pytest.raises(InvalidRequestError, match=re.escape(text)):
        await mistakes.joined_without_unique(session)


async def test_load_in_a_loop(session: AsyncSession, statements: StatementLog) -> None:
    statements.clear()

    assert await mistakes.load_in_a_loop(session) == {"w1": 1, "w2": 1, "w3": 1}

    assert statements.count == 1 + 3


async def test_limit_joined_rows(session: AsyncSession) -> None:
    shelves = await mistakes.limit_joined_rows(session, 2)

    assert [shelf.id for shelf in shelves] == [1]  # two rows, both of the first shelf


async def test_filter_then_load_all(session: AsyncSession) -> None:
    shelves = await mistakes.filter_then_load_all(session, "fig")

    assert [[jar.fruit for jar in shelf.jars] for shelf in shelves] == [["fig"]]


async def test_set_foreign_key_alone(session: AsyncSession) -> None:
    shelf = await mistakes.set_foreign_key_alone(session, 1, 2)

    assert shelf.id == 1
    assert (await session.exec(select(Jar.shelf_id).where(Jar.id == 1))).one() == 2


async def test_remove_required_child(session: AsyncSession, driver: str) -> None:
    text = {
        "aiosqlite": "NOT NULL constraint failed: jar.shelf_id",
        "asyncpg": 'null value in column "shelf_id" of relation "jar" violates not-null constraint',
        "aiomysql": "Column 'shelf_id' cannot be null",
    }[driver]
    with pytest.raises(IntegrityError, match=text):
        await mistakes.remove_required_child(session, 1)


async def test_replace_unique_child(session: AsyncSession, driver: str) -> None:
    text = {
        "aiosqlite": "UNIQUE constraint failed: padlock.locker_id",
        "asyncpg": "duplicate key value violates unique constraint",
        "aiomysql": "Duplicate entry '1' for key 'locker_id'",
    }[driver]
    with pytest.raises(IntegrityError, match=text):
        await mistakes.replace_unique_child(session, 1)


async def test_read_deleted_children(session: AsyncSession) -> None:
    ghost = await mistakes.read_deleted_children(session, 1)

    assert ghost is not None
    assert (await session.exec(select(Bottle))).all() == []


@pytest.mark.only_on("sqlite", reason="the others always check foreign keys")
async def test_orphans_without_foreign_keys(database_url: URL, session: AsyncSession) -> None:
    plain = create_async_engine(database_url)
    async with AsyncSession(plain) as unchecked:
        assert await mistakes.orphans_without_foreign_keys(unchecked, 1) == 1
    await plain.dispose()


async def test_orphans_are_deleted_where_foreign_keys_are_checked(session: AsyncSession) -> None:
    assert await mistakes.orphans_without_foreign_keys(session, 1) == 0


def test_tree_without_remote_side() -> None:
    text = (
        "Branch.parent and back-reference Branch.children are both of the same direction "
        "<RelationshipDirection.ONETOMANY: 1>.  Did you mean to set remote_side on the many-to-one "
        "side ?"
    )
    with pytest.raises(ArgumentError, match=re.escape(text)):
        mistakes.tree_without_remote_side()


def test_two_paths_to_one_table() -> None:
    text = (
        "Could not determine join condition between parent/child tables on relationship "
        "Friendly.home - there are multiple foreign key paths linking the tables."
    )
    with pytest.raises(AmbiguousForeignKeysError, match=re.escape(text)):
        mistakes.two_paths_to_one_table()


def test_writable_shortcut() -> None:
    text = (
        "relationship 'Pupil.lessons' will copy column pupil.id to column signup.pupil_id, "
        "which conflicts with relationship(s)"
    )
    with pytest.warns(SAWarning, match=re.escape(text)):
        mistakes.writable_shortcut()


class Crossed(SQLModel):
    id: int
    things: list["Crossed"] = []
    box: "Crossed | None" = None


async def test_cyclic_read_models() -> None:
    box = Crossed(id=1)
    box.things = [Crossed(id=2, box=box)]

    with pytest.raises(ValidationError, match="Recursion error - cyclic reference detected"):
        mistakes.cyclic_read_models(box)


def test_remove_an_equal_one() -> None:
    shelf = mistakes.remove_an_equal_one()

    (left,) = shelf.jars
    assert left.shelf is None  # the list lost the first jar, the second one lost its shelf


async def test_rows_of_equal_columns_are_equal_and_have_no_hash(session: AsyncSession) -> None:
    with_jars = select(Shelf).options(selectinload(Shelf.jars))
    assert Jar(fruit="plum") == Jar(fruit="plum")

    shelves = (await session.exec(with_jars)).all()

    with pytest.raises(TypeError, match="unhashable type: 'Shelf'"):
        set(shelves)
