import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from production_patterns.bouncer import pgbouncer
from servers import Server
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool
from statements import StatementLog

from snippets.async_operations.errors import ErrorKind, classify
from snippets.database_setup.engine import engine_for
from snippets.database_setup.session import session_factory, session_scope
from snippets.database_setup.urls import with_password
from snippets.production_patterns.pgbouncer import (
    engine_for_pgbouncer,
    lock_name,
    pgbouncer_connect_args,
)

pytestmark = pytest.mark.only_on("postgresql", reason="PgBouncer speaks PostgreSQL alone")

ASYNCPG = tuple(int(part) for part in version("asyncpg").split(".")[:2])
ROOT = Path(__file__).parents[2]
CLIENTS = Path(__file__).with_name("pooled_clients.py")
VISITS = "CREATE TABLE visit (id serial PRIMARY KEY, visitor text NOT NULL UNIQUE)"
DRIVERS = pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])


@pytest.fixture
def bouncer(server: Server) -> Iterator[URL]:
    """A PgBouncer with one connection to the server: whatever stays on it meets the next client."""
    with pgbouncer(server.url, pool_size=1) as url:
        yield url


@pytest.fixture
def two_servers(server: Server) -> Iterator[URL]:
    """A PgBouncer with two: the next transaction may be on the other one."""
    with pgbouncer(server.url, pool_size=2) as url:
        yield url


def through(url: URL, driver: str) -> URL:
    return url.set(drivername=f"postgresql+{driver}")


@asynccontextmanager
async def disposed(*engines: AsyncEngine) -> AsyncIterator[None]:
    try:
        yield
    finally:
        for engine in engines:
            await engine.dispose()


async def scalar(engine: AsyncEngine, statement: str) -> Any:
    async with engine.connect() as connection:
        return await connection.scalar(text(statement))


async def run_clients(
    url: URL, driver: str, connect_args: dict[str, Any] | None, *, processes: int, clients: int
) -> tuple[list[str], dict[str, int]]:
    """Run the processes at once; return the keys that were served, and the errors of all."""
    given = (with_password(through(url, driver)), json.dumps(connect_args), str(clients))
    running = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", str(CLIENTS), given[0], f"p{number}", *given[1:]),
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=asyncio.subprocess.PIPE,
        )
        for number in range(processes)
    ]
    outputs = await asyncio.gather(*(process.communicate() for process in running))
    results = [json.loads(output) for output, _ in outputs]
    failed: dict[str, int] = {}
    for result in results:
        for message, count in result["failed"].items():
            failed[message] = failed.get(message, 0) + count
    return [key for result in results for key in result["served"]], failed


@DRIVERS
async def test_processes_of_fifty_clients_share_four_connections(
    server: Server, engine: AsyncEngine, driver: str, tally: Callable[..., None]
) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(VISITS))

    with pgbouncer(server.url, pool_size=4) as url:
        served, failed = await run_clients(url, driver, None, processes=3, clients=50)
        async with engine.connect() as connection:
            kept = list(await connection.scalars(text("SELECT visitor FROM visit")))
            backends = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'fleet'"
            used = await connection.scalar(text(backends))

    assert failed == {}
    assert len(served) == 600
    assert sorted(kept) == sorted(served)
    tally("150 clients on 4 connections", 1, served=served, stored=kept)
    assert 1 <= used <= 4


@pytest.mark.parametrize(
    ("driver", "connect_args"),
    [
        ("asyncpg", {"statement_cache_size": 0, "no_names": True}),
        ("psycopg", {"prepare_threshold": None}),
    ],
)
async def test_these_settings_suffice(
    two_servers: URL, engine: AsyncEngine, driver: str, connect_args: dict[str, Any]
) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(VISITS))

    served, failed = await run_clients(two_servers, driver, connect_args, processes=3, clients=8)

    assert failed == {}
    assert len(served) == 96


async def test_the_cache_switched_off_suffices_alone_since_asyncpg_0_31(
    two_servers: URL, engine: AsyncEngine
) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(VISITS))
    off = {"statement_cache_size": 0}

    served, failed = await run_clients(two_servers, "asyncpg", off, processes=3, clients=8)

    if ASYNCPG < (0, 31):
        assert any("already exists" in message for message in failed)
    else:
        assert failed == {}
        assert len(served) == 96


@pytest.mark.parametrize(
    ("driver", "connect_args", "messages"),
    [
        ("asyncpg", {}, {"does not exist", "already exists"}),
        ("asyncpg", {"prepared_statement_cache_size": 0}, {"already exists"}),
        ("asyncpg", {"unique_names": True}, {"does not exist"}),
        ("psycopg", {}, {"already exists"}),
        ("psycopg", {"prepare_threshold": 0}, {"already exists"}),
    ],
)
async def test_these_settings_look_right_and_fail(
    two_servers: URL,
    engine: AsyncEngine,
    driver: str,
    connect_args: dict[str, Any],
    messages: set[str],
) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(VISITS))

    _, failed = await run_clients(two_servers, driver, connect_args, processes=3, clients=8)

    assert any(message in found for message in messages for found in failed)


@DRIVERS
async def test_each_transaction_has_the_settings_and_leaves_none(bouncer: URL, driver: str) -> None:
    ours = engine_for_pgbouncer(
        through(bouncer, driver), application_name="ours", statement_timeout=2.5, lock_timeout=1
    )
    args = pgbouncer_connect_args(driver, "theirs")
    theirs = create_async_engine(through(bouncer, driver), connect_args=args)
    names = ("statement_timeout", "lock_timeout", "TimeZone", "jit", "application_name")

    async with disposed(ours, theirs):
        before = [await scalar(theirs, f"SHOW {name}") for name in names]
        async with ours.begin() as connection:  # committed: a rollback would undo a SET, too
            values = [await connection.scalar(text(f"SHOW {name}")) for name in names]
        after = [await scalar(theirs, f"SHOW {name}") for name in names]

    assert values == ["2500ms", "1s", "UTC", "off", "ours"]
    assert after == before
    assert after[:2] == ["0", "0"]
    assert after[-1] == "theirs"


@DRIVERS
async def test_a_statement_that_takes_too_long_is_ended(bouncer: URL, driver: str) -> None:
    engine = engine_for_pgbouncer(through(bouncer, driver), statement_timeout=0.2)

    async with disposed(engine):
        with pytest.raises(DBAPIError) as caught:
            await scalar(engine, "SELECT pg_sleep(60)")

    assert classify(caught.value).kind is ErrorKind.STATEMENT_TIMEOUT


@DRIVERS
async def test_the_roles_own_settings_need_no_statement(
    server: Server, engine: AsyncEngine, driver: str
) -> None:
    role = f'ALTER ROLE CURRENT_USER IN DATABASE "{server.url.database}"'
    async with engine.begin() as connection:
        await connection.execute(text(f"{role} SET statement_timeout = '1234ms'"))
    with pgbouncer(server.url, pool_size=1) as url:
        plain = engine_for(
            through(url, driver), connect_args=pgbouncer_connect_args(driver, "plain")
        )
        async with disposed(plain), plain.connect() as connection:
            with StatementLog(plain) as statements:
                timeout = await connection.scalar(text("SHOW statement_timeout"))
    async with engine.begin() as connection:
        await connection.execute(text(f"{role} RESET statement_timeout"))

    assert timeout == "1234ms"
    assert statements.count == 1


@pytest.mark.parametrize(
    ("driver", "message"),
    [
        ("asyncpg", "unsupported startup parameter: statement_timeout"),
        ("psycopg", "unsupported startup parameter: options"),
    ],
)
async def test_the_ordinary_engine_is_refused(bouncer: URL, driver: str, message: str) -> None:
    engine = engine_for(through(bouncer, driver))

    async with disposed(engine):
        with pytest.raises(Exception, match=message):  # 2.0: the driver's own class
            await scalar(engine, "SELECT 1")


@DRIVERS
async def test_idle_pooled_connections_hold_no_server(bouncer: URL, driver: str) -> None:
    engines = [engine_for_pgbouncer(through(bouncer, driver)) for _ in range(3)]

    async with disposed(*engines), asyncio.timeout(60):
        answers = [await scalar(engine, "SELECT 1") for engine in engines * 2]

    assert answers == [1] * 6


@DRIVERS
async def test_a_restarted_pgbouncer_costs_no_request(server: Server, driver: str) -> None:
    with pgbouncer(server.url, pool_size=1) as url:
        engine = engine_for_pgbouncer(through(url, driver))
        assert await scalar(engine, "SELECT 1") == 1
    with pgbouncer(server.url, pool_size=1, folder=Path(str(url.query["host"]))):
        async with disposed(engine):
            assert await scalar(engine, "SELECT 1") == 1


async def test_options_reach_the_engine(bouncer: URL) -> None:
    engine = engine_for_pgbouncer(bouncer, poolclass=NullPool)

    async with disposed(engine):
        assert isinstance(engine.pool, NullPool)
        assert await scalar(engine, "SELECT 1") == 1


@DRIVERS
async def test_a_named_lock_excludes_others_until_its_transaction_ends(
    two_servers: URL, engine: AsyncEngine, driver: str
) -> None:
    ours = engine_for_pgbouncer(through(two_servers, driver), lock_timeout=0.2)
    factory = session_factory(ours)
    held = """SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database
              WHERE locktype = 'advisory' AND datname = current_database()"""

    async with disposed(ours):
        async with session_scope(factory) as first:
            await lock_name(first, "nightly")
            with pytest.raises(DBAPIError) as caught:
                async with session_scope(factory) as second:
                    await lock_name(second, "nightly")
        after = await scalar(engine, held)

    assert classify(caught.value).kind is ErrorKind.LOCK_TIMEOUT
    assert after == 0


async def test_locks_of_the_session_are_taken_twice_and_never_given_back(
    two_servers: URL,
) -> None:
    engine = engine_for_pgbouncer(two_servers)
    take = text("SELECT pg_try_advisory_lock(7)")

    async with disposed(engine), engine.connect() as first, engine.connect() as second:
        async with first.begin():
            assert await first.scalar(take) is True
        async with second.begin():  # the same server, so its lock counts as our own
            assert await second.scalar(take) is True
        async with first.begin(), second.begin():  # the first server is taken, this is another
            await first.scalar(text("SELECT 1"))
            assert await second.scalar(text("SELECT pg_advisory_unlock(7)")) is False


async def test_a_temporary_table_is_missing_in_the_next_transaction(two_servers: URL) -> None:
    engine = engine_for_pgbouncer(two_servers)

    async with disposed(engine), engine.connect() as first, engine.connect() as second:
        async with first.begin():
            await first.execute(text("CREATE TEMP TABLE basket (id int)"))
        with pytest.raises(ProgrammingError, match='relation "basket" does not exist'):
            async with second.begin(), first.begin():
                await second.execute(text("SELECT 1"))
                await first.execute(text("SELECT * FROM basket"))


async def test_listen_hears_nothing(bouncer: URL) -> None:
    heard: list[str] = []
    listener = await asyncpg.connect(
        host=bouncer.query["host"],
        port=6432,
        user=bouncer.username,
        database=bouncer.database,
        statement_cache_size=0,
    )
    await listener.add_listener("news", lambda *got: heard.append(got[-1]))
    engine = engine_for_pgbouncer(bouncer)

    async with disposed(engine):
        async with engine.begin() as connection:  # the server that listens tells whom it serves now
            await connection.execute(text("NOTIFY news, 'late'"))
        await listener.execute("SELECT 1")

    listener.terminate()
    assert heard == []
