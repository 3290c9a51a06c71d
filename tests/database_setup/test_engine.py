import asyncio
import contextlib
import socket
import threading
from typing import Any

import aiomysql
import pytest
import sqlalchemy
from pydantic import SecretStr
from servers import Server
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool, StaticPool

from snippets.async_operations.errors import is_failed_connect, is_retryable
from snippets.database_setup import engine as engine_module
from snippets.database_setup.engine import engine_for
from snippets.database_setup.settings import DatabaseSettings, engine_from_settings


async def scalar(engine: AsyncEngine, statement: str) -> Any:
    async with engine.connect() as connection:
        return await connection.scalar(text(statement))


async def row(engine: AsyncEngine, statement: str) -> tuple[Any, ...]:
    async with engine.connect() as connection:
        return tuple((await connection.execute(text(statement))).one())


async def test_an_engine_answers_on_every_database(engine: AsyncEngine) -> None:
    assert await scalar(engine, "SELECT 1") == 1


async def test_settings_reach_the_engine(server: Server) -> None:
    url = SecretStr(server.url.render_as_string(hide_password=False))
    engine = engine_from_settings(DatabaseSettings(url=url, pool_size=2, max_overflow=3))
    pool = engine.pool

    assert isinstance(pool, AsyncAdaptedQueuePool)
    assert (pool.size(), pool._max_overflow, pool.timeout()) == (2, 3, 10)
    assert await scalar(engine, "SELECT 1") == 1
    await engine.dispose()


async def test_a_memory_database_is_one_connection() -> None:
    engine = engine_for("sqlite://")

    assert isinstance(engine.pool, StaticPool)
    assert await scalar(engine, "PRAGMA foreign_keys") == 1
    await engine.dispose()


async def test_a_pool_of_another_class_keeps_its_sizes_if_it_has_any(database_url: URL) -> None:
    sized = engine_for(database_url, poolclass=AsyncAdaptedQueuePool, pool_size=1, max_overflow=0)
    shared = engine_for("sqlite://", poolclass=AsyncAdaptedQueuePool, pool_size=2)
    none = engine_for(database_url, poolclass=NullPool, pool_size=1)
    usual = engine_for(database_url, poolclass=None, pool_size=3)

    assert (sized.pool.size(), sized.pool._max_overflow) == (1, 0)
    assert shared.pool.size() == 2
    assert usual.pool.size() == 3
    assert isinstance(none.pool, NullPool)
    for engine in (sized, shared, none, usual):
        await engine.dispose()


async def test_given_options_win(database_url: URL) -> None:
    engine = engine_for(database_url, hide_parameters=False, echo=False)

    assert engine.sync_engine.hide_parameters is False
    await engine.dispose()


async def test_errors_do_not_show_parameters(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError) as caught:
            await connection.execute(text("SELECT * FROM nowhere WHERE a = :a"), {"a": "private"})

    assert "private" not in str(caught.value)
    assert "parameters hidden" in str(caught.value)


@pytest.mark.only_on("postgresql", reason="libpq's options are psycopg's")
async def test_options_of_the_url_join_ours(database_url: URL) -> None:
    query = {"options": "-csearch_path=elsewhere -cjit=on", "application_name": "theirs"}
    url = database_url.set(drivername="postgresql+psycopg").update_query_dict(query)
    engine = engine_for(url, statement_timeout=2.5)
    names = ("search_path", "jit", "application_name", "statement_timeout")

    values = [await scalar(engine, f"SHOW {name}") for name in names]

    assert values == ["elsewhere", "on", "theirs", "2500ms"]
    await engine.dispose()


@pytest.mark.only_on("mysql", reason="its drivers take a command from the URL")
@pytest.mark.parametrize(
    ("command", "ours"), [("set @theirs = 1, @more = 2", 2.5), ("SELECT 1 INTO @theirs", 0)]
)
async def test_a_command_of_the_url_joins_ours_if_it_sets_something(
    database_url: URL, command: str, ours: float
) -> None:
    url = database_url.update_query_dict({"init_command": command})
    engine = engine_for(url, statement_timeout=2.5)

    assert await row(engine, "SELECT @theirs, @@max_statement_time") == (1, ours)
    await engine.dispose()


@pytest.mark.only_on("sqlite", reason="its driver takes the wait for a lock from the URL")
async def test_the_timeout_of_the_url_is_kept(database_url: URL) -> None:
    engine = engine_for(database_url.update_query_dict({"timeout": "1.5"}))

    assert await scalar(engine, "PRAGMA busy_timeout") == 1500
    await engine.dispose()


@pytest.mark.only_on("postgresql", reason="SQLite and MariaDB have no application name")
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_postgresql_sessions_have_their_settings(server: Server, driver: str) -> None:
    url = server.url.set(drivername=f"postgresql+{driver}")
    engine = engine_for(url, application_name=r"my \ app", statement_timeout=2.5, lock_timeout=1)
    names = ("application_name", "TimeZone", "statement_timeout", "lock_timeout", "jit")

    values = [await scalar(engine, f"SHOW {name}") for name in names]

    assert values == [r"my \ app", "UTC", "2500ms", "1s", "off"]
    await engine.dispose()


@pytest.mark.only_on("postgresql", reason="shows what the options change")
async def test_postgresql_without_the_options_waits_for_ever(database_url: URL) -> None:
    engine = create_async_engine(database_url)

    limits = [
        await scalar(engine, f"SHOW {name}") for name in ("lock_timeout", "statement_timeout")
    ]

    assert limits == ["0", "0"]
    await engine.dispose()


@pytest.mark.only_on("mysql", reason="the settings are MariaDB's")
async def test_mariadb_sessions_have_their_settings(server: Server) -> None:
    engine = engine_for(server.url, statement_timeout=2.5, lock_timeout=3)
    names = "@@time_zone, @@innodb_lock_wait_timeout, @@max_statement_time"

    assert await row(engine, f"SELECT {names}, @@character_set_client") == (
        "+00:00", 3, 2.5, "utf8mb4",
    )  # fmt: skip
    modes = set((await scalar(engine, "SELECT @@sql_mode")).split(","))
    assert {"STRICT_TRANS_TABLES", "STRICT_ALL_TABLES", "ONLY_FULL_GROUP_BY"} <= modes
    await engine.dispose()


@pytest.mark.only_on("mysql", reason="shows what the options change")
async def test_mariadb_without_the_options_keeps_local_time_and_waits_long(
    database_url: URL,
) -> None:
    engine = create_async_engine(database_url)

    zone, wait, modes = await row(
        engine, "SELECT @@time_zone, @@innodb_lock_wait_timeout, @@sql_mode"
    )

    assert (zone, wait) == ("SYSTEM", 50)
    assert "ONLY_FULL_GROUP_BY" not in modes
    await engine.dispose()


@pytest.mark.not_on("sqlite", reason="SQLite has no statement timeout; see sqlite_pragmas")
async def test_a_statement_that_runs_too_long_is_ended_by_the_server(server: Server) -> None:
    engine = engine_for(server.url, statement_timeout=1)  # what connects must keep to it, too
    postgresql = server.url.get_backend_name() == "postgresql"
    slow = (
        "SELECT pg_sleep(20)"
        if postgresql
        else "SELECT COUNT(*) FROM seq_1_to_1000000000 WHERE seq % 7 = 3"
    )

    async with engine.connect() as connection:
        with pytest.raises(DBAPIError) as caught:
            await connection.execute(text(slow))

    original = caught.value.orig
    assert original is not None
    code = getattr(original, "sqlstate", None) if postgresql else original.args[0]
    assert code == ("57014" if postgresql else 1969)
    await engine.dispose()


@pytest.mark.not_on("sqlite", reason="a file has no server to restart")
async def test_a_killed_idle_connection_is_replaced_without_an_error(engine: AsyncEngine) -> None:
    postgresql = engine.dialect.name == "postgresql"
    own_id = "SELECT pg_backend_pid()" if postgresql else "SELECT CONNECTION_ID()"
    victim = await scalar(engine, own_id)
    killer = create_async_engine(engine.url, isolation_level="AUTOCOMMIT")
    kill = f"SELECT pg_terminate_backend({victim}, 10000)" if postgresql else f"KILL {victim}"
    async with killer.connect() as connection:
        await connection.execute(text(kill))
    await killer.dispose()
    await asyncio.sleep(0.05)

    assert await scalar(engine, own_id) != victim


DEFAULT_ISOLATION = {
    "sqlite": "SERIALIZABLE",
    "postgresql": "READ COMMITTED",
    "mysql": "REPEATABLE READ",
}


async def test_the_databases_differ_in_their_default_isolation(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        level = await connection.get_isolation_level()

    assert level == DEFAULT_ISOLATION[engine.dialect.name]


async def test_ddl_is_undone_by_a_rollback_except_on_mariadb(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("CREATE TABLE made_in_between (a INTEGER)"))
        await connection.rollback()

    async with engine.connect() as connection:
        left = await connection.run_sync(
            lambda sync: sqlalchemy.inspect(sync).has_table("made_in_between")
        )
    assert left is (engine.dialect.name == "mysql")


UNREACHABLE = {
    "postgresql": "postgresql://u@127.0.0.1:1/d",
    "mysql": "mysql://u@127.0.0.1:1/d",
    "sqlite": "sqlite:////no/such/folder/app.db",
}


@pytest.mark.parametrize("name", UNREACHABLE)
async def test_an_unreachable_database_is_an_oserror_on_asyncpg_only(name: str) -> None:
    engine = engine_for(UNREACHABLE[name])

    with pytest.raises((SQLAlchemyError, OSError)) as caught:
        await engine.connect()

    expected = "ConnectionRefusedError" if name == "postgresql" else "OperationalError"
    assert type(caught.value).__name__ == expected
    await engine.dispose()
    await asyncio.to_thread(join_worker_threads)


def join_worker_threads() -> None:
    """A connect that failed ends aiosqlite's thread a moment later, which still needs the loop."""
    for thread in threading.enumerate():
        if "_connection_worker_thread" in thread.name:
            thread.join(timeout=5)


async def swallow(connection: AsyncConnection, statement: str, **values: object) -> None:
    with contextlib.suppress(DBAPIError):
        await connection.execute(text(statement), values)


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.only_on("postgresql", reason="only there an error ends the whole transaction")
async def test_a_commit_after_a_swallowed_error_fails_instead_of_saving_nothing(
    database_url: URL, driver: str
) -> None:
    engine = engine_for(database_url.set(drivername=f"postgresql+{driver}"), pool_size=1)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE kept (n INTEGER)"))

    async with engine.connect() as connection:
        await connection.execute(text("INSERT INTO kept VALUES (1)"))
        await swallow(connection, "SELECT * FROM nowhere")
        with pytest.raises(DBAPIError, match="current transaction is aborted"):
            await connection.commit()
        await connection.rollback()
        await connection.execute(text("INSERT INTO kept VALUES (2)"))
        await connection.commit()
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO kept VALUES (3)"))
        async with connection.begin_nested() as savepoint:
            await swallow(connection, "SELECT * FROM nowhere")
            await savepoint.rollback()
        assert "has_failed" not in (await connection.get_raw_connection()).info  # nothing to ask
        if driver == "asyncpg":  # which sends nothing here
            await swallow(connection, "INSERT INTO kept VALUES (CAST(:n AS integer))", n="text")

    assert await scalar(engine, "SELECT string_agg(n::text, ',') FROM kept") == "2,3"
    await engine.dispose()


@pytest.mark.only_on("postgresql", reason="as above")
async def test_a_connection_that_is_lost_after_a_swallowed_error_is_reported_as_lost(
    engine: AsyncEngine,
) -> None:
    async with engine.connect() as connection, engine.connect() as other:
        backend = await connection.scalar(text("SELECT pg_backend_pid()"))
        await swallow(connection, "SELECT * FROM nowhere")
        await other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": backend})

        with pytest.raises(DBAPIError) as caught:
            await connection.commit()

        assert caught.value.connection_invalidated
        await connection.rollback()


@pytest.mark.not_on("postgresql", reason="see above")
async def test_elsewhere_a_swallowed_error_ends_its_statement_alone(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE kept (n INTEGER)"))
        await connection.execute(text("INSERT INTO kept VALUES (1)"))
        await swallow(connection, "SELECT * FROM nowhere")

    assert await scalar(engine, "SELECT count(*) FROM kept") == 1


@pytest.mark.parametrize(
    ("scheme", "limit"),
    [("postgresql+asyncpg", 0.05), ("postgresql+psycopg", 2), ("mysql+aiomysql", 0.05)],
)
async def test_a_server_that_takes_a_connection_and_says_nothing_is_given_up(
    monkeypatch: pytest.MonkeyPatch, scheme: str, limit: float
) -> None:
    """As one that is halted, or a proxy whose server is gone."""
    monkeypatch.setattr(engine_module, "CONNECT_TIMEOUT", limit)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # nobody accepts
        engine = engine_for(f"{scheme}://ann@127.0.0.1:{silent.getsockname()[1]}/none")
        with pytest.raises((DBAPIError, TimeoutError)) as caught:
            await scalar(engine, "SELECT 1")

    assert is_failed_connect(caught.value) or is_retryable(caught.value)
    await engine.dispose()


@pytest.mark.only_on("mysql", reason="the other drivers bound their handshake themselves")
async def test_a_connect_that_is_given_up_leaves_no_connection(
    database_url: URL, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []

    class Slow(aiomysql.Connection):
        async def _connect(self) -> None:
            made.append(self)  # nothing else may close it
            await super()._connect()
            connected.set()
            await asyncio.Event().wait()

    connected = asyncio.Event()
    monkeypatch.setattr(aiomysql, "Connection", Slow)
    given_up = engine_for(database_url)
    connecting = asyncio.create_task(scalar(given_up, "SELECT 1"))
    await connected.wait()
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    await given_up.dispose()

    assert [connection.closed for connection in made] == [True]
