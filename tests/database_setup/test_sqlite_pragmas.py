import asyncio
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from servers import Server
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError, OperationalError, PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.database_setup.engine import engine_for
from snippets.database_setup.session import session_factory
from snippets.database_setup.sqlite_pragmas import begin_immediate


class Binder(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str


class Paper(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    binder_id: int = Field(foreign_key="binder.id")


TABLES = [Binder, Paper]
Factory = async_sessionmaker[AsyncSession]
sqlite_only = pytest.mark.only_on("sqlite", reason="the pragmas are SQLite's")
ENDLESS = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000000)"
    " SELECT COUNT(*) FROM n"
)


async def names(factory: Factory) -> list[str]:
    async with factory() as session:
        return sorted((await session.exec(select(Binder.name))).all())


@sqlite_only
async def test_a_file_is_in_wal_mode_with_foreign_keys_on(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        found = [
            await connection.scalar(text(f"PRAGMA {name}"))
            for name in ("journal_mode", "foreign_keys", "synchronous", "busy_timeout")
        ]

    assert found == ["wal", 1, 1, 5000]


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
@pytest.mark.parametrize("query", ["mode=ro", "immutable=1"])
async def test_a_file_that_may_only_be_read_can_be_read(
    query: str, mode: str, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(tmp_path / "app.db")) as writer:
        writer.execute(f"PRAGMA journal_mode = {mode}")
        writer.execute("CREATE TABLE t AS SELECT 5 AS a")
        writer.commit()
    engine = engine_for(f"sqlite+aiosqlite:///file:{tmp_path / 'app.db'}?{query}&uri=true")

    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT a FROM t")) == 5
        assert await connection.scalar(text("PRAGMA foreign_keys")) == 1
        with pytest.raises(OperationalError, match="attempt to write a readonly database"):
            await connection.execute(text("DELETE FROM t"))
    await engine.dispose()


async def test_a_file_that_another_locks_is_not_taken_for_one_that_may_only_be_read(
    tmp_path: Path,
) -> None:
    with closing(sqlite3.connect(tmp_path / "app.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        engine = engine_for(f"sqlite:///{tmp_path / 'app.db'}", lock_timeout=0.05)
        with pytest.raises(OperationalError, match="database is locked"):
            await engine.connect()
    await engine.dispose()


async def test_foreign_keys_are_enforced(session: AsyncSession) -> None:
    session.add(Paper(binder_id=404))

    with pytest.raises(IntegrityError):
        await session.flush()


async def test_a_savepoint_that_comes_first_is_undone_by_the_rollback(factory: Factory) -> None:
    async with factory() as session:
        async with session.begin_nested():
            session.add(Binder(name="inside"))
        await session.rollback()

    assert await names(factory) == []


async def test_a_savepoint_alone_can_be_undone(factory: Factory) -> None:
    async with factory() as session:
        session.add(Binder(name="before"))
        nested = await session.begin_nested()
        session.add(Binder(name="inside"))
        await session.flush()
        await nested.rollback()
        await session.commit()

    assert await names(factory) == ["before"]


@sqlite_only
@pytest.mark.parametrize("inside", [False, True])
async def test_what_follows_in_a_transaction_that_sqlite_has_ended_is_not_saved_alone(
    factory: Factory, inside: bool
) -> None:
    again = text("INSERT OR ROLLBACK INTO binder VALUES (1, 'again')")
    async with factory() as session:
        session.add(Binder(id=1, name="before"))
        await session.flush()
        with pytest.raises(IntegrityError, match="UNIQUE"):
            if inside:
                async with session.begin_nested():
                    await session.exec(again)
            else:
                await session.exec(again)
        with pytest.raises(PendingRollbackError):
            await session.exec(text("INSERT INTO binder VALUES (2, 'after')"))
        await session.rollback()
        session.add(Binder(id=3, name="anew"))
        await session.commit()

    assert await names(factory) == ["anew"]


async def test_a_database_in_memory_is_not_lost_with_its_transaction() -> None:
    engine = engine_for("sqlite://")
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE binder (id INTEGER PRIMARY KEY)"))
        await connection.execute(text("INSERT INTO binder VALUES (1)"))
    async with engine.connect() as connection:
        with pytest.raises(IntegrityError, match="UNIQUE"):
            await connection.execute(text("INSERT OR ROLLBACK INTO binder VALUES (1)"))
        await connection.rollback()
        assert await connection.scalar(text("SELECT count(*) FROM binder")) == 1
    await engine.dispose()


@sqlite_only
async def test_under_autocommit_an_error_ends_its_statement_alone(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        with pytest.raises(OperationalError) as caught:
            await connection.execute(text("SELECT * FROM nowhere"))

        assert not caught.value.connection_invalidated
        await connection.execute(text("SELECT 1"))


@sqlite_only
async def test_a_reader_is_not_blocked_by_a_writer(factory: Factory) -> None:
    async with factory() as writer, factory() as reader:
        writer.add(Binder(name="new"))
        await writer.flush()

        assert (await reader.exec(select(Binder))).all() == []


async def test_transactions_that_read_then_write_all_succeed_when_they_begin_immediate(
    factory: Factory,
) -> None:
    async def append() -> None:
        async with factory() as session:
            await begin_immediate(session)
            count = len((await session.exec(select(Binder))).all())
            session.add(Binder(name=f"after {count} or more"))
            await session.commit()

    await asyncio.gather(*(append() for _ in range(5)))

    assert len(await names(factory)) == 5


@sqlite_only
async def test_an_engine_can_begin_immediate_for_all_its_sessions(engine: AsyncEngine) -> None:
    writers = session_factory(engine.execution_options(sqlite_begin="IMMEDIATE"))
    impatient = engine_for(engine.url, lock_timeout=0.05)

    async with writers() as first, impatient.connect() as second:
        await first.exec(select(Binder))
        await second.execution_options(sqlite_begin="IMMEDIATE")
        with pytest.raises(OperationalError, match="database is locked"):
            await second.execute(text("SELECT 1"))
    await impatient.dispose()


@sqlite_only
async def test_autocommit_is_still_autocommit(engine: AsyncEngine) -> None:
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")

    async with autocommit.connect() as connection:
        await connection.execute(text("VACUUM"))  # refused within a transaction
    async with engine.connect() as connection:
        await connection.execute(text("INSERT INTO binder (name) VALUES ('lost')"))
        await connection.rollback()
        assert await connection.scalar(text("SELECT COUNT(*) FROM binder")) == 0


@sqlite_only
async def test_an_unknown_begin_mode_is_refused(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execution_options(sqlite_begin="LATER")
        with pytest.raises(ValueError, match="use DEFERRED, IMMEDIATE or EXCLUSIVE"):
            await connection.execute(text("SELECT 1"))


@sqlite_only
async def test_a_cancelled_statement_stops_and_frees_its_lock(server: Server) -> None:
    engine = engine_for(server.url, lock_timeout=0.05)
    async with engine.begin() as connection:
        await connection.run_sync(SQLModel.metadata.create_all, tables=[Binder.__table__])
    factory = session_factory(engine)

    # A traceback keeps the cursor alive, and a connection closed with a live cursor keeps its lock.
    with pytest.raises(TimeoutError) as _kept_alive:
        async with asyncio.timeout(0.1), factory() as session:
            session.add(Binder(name="lost"))
            await session.flush()
            await session.exec(text(ENDLESS))

    async with factory() as session:  # would be "database is locked" while the statement runs
        session.add(Binder(name="next"))
        await session.commit()
    assert await names(factory) == ["next"]
    await engine.dispose()


@sqlite_only
@pytest.mark.skipif(sys.version_info < (3, 12), reason="sqlite3 has `autocommit` since Python 3.12")
async def test_autocommit_false_mends_savepoints_but_ignores_the_foreign_key_pragma(
    tmp_path: Path,
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'app.db'}"
    engine = create_async_engine(url, connect_args={"autocommit": False})

    @event.listens_for(engine.sync_engine, "connect")
    def set_pragma(dbapi_connection, _record):  # type: ignore[no-untyped-def]
        dbapi_connection.cursor().execute("PRAGMA foreign_keys = ON")

    async with engine.connect() as connection:
        assert await connection.scalar(text("PRAGMA foreign_keys")) == 0
        await connection.execute(text("CREATE TABLE t (a INTEGER)"))
        await connection.commit()
        async with connection.begin_nested():
            await connection.execute(text("INSERT INTO t VALUES (1)"))
        await connection.rollback()
        assert await connection.scalar(text("SELECT COUNT(*) FROM t")) == 0
    await engine.dispose()
