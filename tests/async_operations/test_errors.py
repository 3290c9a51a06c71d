import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any
from uuid import uuid4

import pymysql
import pytest
from hosts import resolve
from packaging.version import Version
from sqlalchemy import (
    CheckConstraint,
    ForeignKeyConstraint,
    UniqueConstraint,
    insert,
    literal,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlmodel import Field, SQLModel

from snippets.async_operations.errors import (
    DatabaseFailure,
    ErrorKind,
    classify,
    is_failed_connect,
    is_retryable,
)
from snippets.database_setup.engine import engine_for
from snippets.production_patterns.retries import is_transient


class Boiler(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)


class Gauge(SQLModel, table=True):
    __table_args__ = (
        UniqueConstraint("serial", "plant", name="uq_gauge_serial"),
        CheckConstraint("bar > 0", name="ck_gauge_bar"),
        ForeignKeyConstraint(["boiler_id"], ["boiler.id"], name="fk_gauge", ondelete="RESTRICT"),
    )

    id: int | None = Field(default=None, primary_key=True)
    serial: str = Field(max_length=15)
    plant: str = Field(default="x", max_length=15)
    bar: int = 1
    boiler_id: int | None = None


TABLES = [Boiler, Gauge]
# As references/troubleshooting.md has them beside the codes.
DEADLOCK = {
    "postgresql": "deadlock detected",
    "mysql": "Deadlock found when trying to get lock",
}
LOCK_TIMEOUT = {
    "sqlite": "database is locked",
    "postgresql": "canceling statement due to lock timeout",
    "mysql": "Lock wait timeout exceeded",
}
STATEMENT_TIMEOUT = {
    "postgresql": "canceling statement due to statement timeout",
    "mysql": "max_statement_time exceeded",
}
DRIVERS = {
    "sqlite": ["aiosqlite"],
    "postgresql": ["asyncpg", "psycopg"],
    "mysql": ["aiomysql", "asyncmy"],
}


@pytest.fixture
async def engines(engine: AsyncEngine) -> AsyncIterator[list[AsyncEngine]]:
    """An engine for each installed driver of the database."""
    name = engine.dialect.name
    made = [
        engine_for(engine.url.set(drivername=f"{name}+{driver}"), lock_timeout=1)
        for driver in DRIVERS[name]
        if find_spec(driver)
    ]
    yield made
    for each in made:
        await each.dispose()


async def run(engine: AsyncEngine, *statements: Any) -> None:
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(statement)


async def failing(engine: AsyncEngine, *statements: Any) -> DBAPIError:
    with pytest.raises(DBAPIError) as caught:
        await run(engine, *statements)
    return caught.value


async def failures(engines: list[AsyncEngine], *statements: Any) -> list[DatabaseFailure]:
    """What `classify` says on each driver; the same on all of one database, or the test ends."""
    found = [classify(await failing(engine, *statements)) for engine in engines]
    assert found == found[:1] * len(engines)
    return found


def gauge(**values: Any) -> Any:
    return insert(Gauge).values(**({"serial": "s"} | values))


async def test_a_unique_conflict_has_its_constraint_or_its_columns(
    engine: AsyncEngine, engines: list[AsyncEngine]
) -> None:
    found = await failures(engines, gauge(), gauge())

    assert (
        found[0]
        == {
            "sqlite": DatabaseFailure(
                ErrorKind.UNIQUE, "SQLITE_CONSTRAINT_UNIQUE", None, "gauge", ("serial", "plant")
            ),
            "postgresql": DatabaseFailure(
                ErrorKind.UNIQUE, "23505", "uq_gauge_serial", "gauge", ("serial", "plant")
            ),
            "mysql": DatabaseFailure(ErrorKind.UNIQUE, 1062, "uq_gauge_serial", None, ()),
        }[engine.dialect.name]
    )


async def test_a_value_that_looks_like_a_message_does_not_mislead(
    engines: list[AsyncEngine],
) -> None:
    row = gauge(serial="' for key 'a", plant="(b)=(c)")

    found = await failures(engines, row, row)

    assert found[0].kind is ErrorKind.UNIQUE
    assert found[0].constraint in {"uq_gauge_serial", None}
    assert found[0].columns in {("serial", "plant"), ()}


@pytest.mark.only_on("mysql", reason="about its driver")
async def test_the_errno_decides_though_newer_drivers_have_a_sqlstate_too(
    engine: AsyncEngine,
) -> None:
    without_serial = text("INSERT INTO gauge (serial, plant, bar) VALUES (NULL, 'x', 1)")
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError) as caught:
            await connection.execute(without_serial)

    state = getattr(caught.value.orig, "sqlstate", None)
    assert state == ("23000" if Version(version("pymysql")) >= Version("1.2") else None)
    assert classify(caught.value).code == 1048


async def test_a_repeated_primary_key_is_a_unique_conflict(
    engine: AsyncEngine, engines: list[AsyncEngine]
) -> None:
    found = await failures(engines, gauge(id=1), gauge(id=1, serial="t"))

    assert (found[0].kind, found[0].constraint, found[0].columns) == {
        "sqlite": (ErrorKind.UNIQUE, None, ("id",)),
        "postgresql": (ErrorKind.UNIQUE, "gauge_pkey", ("id",)),
        "mysql": (ErrorKind.UNIQUE, "PRIMARY", ()),
    }[engine.dialect.name]


@pytest.mark.not_on("mysql", reason="MariaDB has no index on expressions")
async def test_an_index_on_an_expression_is_named_and_has_no_columns(
    engine: AsyncEngine, engines: list[AsyncEngine]
) -> None:
    await run(engine, text("CREATE UNIQUE INDEX ix_gauge_lower ON gauge (lower(serial))"))

    found = await failures(engines, gauge(serial="A"), gauge(serial="a", plant="y"))

    assert (found[0].kind, found[0].constraint, found[0].columns) == (
        ErrorKind.UNIQUE,
        "ix_gauge_lower",
        (),
    )


@pytest.mark.only_on("postgresql", reason="only PostgreSQL has exclusion constraints")
async def test_an_exclusion_conflict_counts_as_unique(engines: list[AsyncEngine]) -> None:
    table = text(
        "CREATE TEMPORARY TABLE shift (hours int4range, EXCLUDE USING gist (hours WITH &&))"
        " ON COMMIT DROP"
    )
    found = await failures(engines, table, text("INSERT INTO shift VALUES ('[1,3)'), ('[2,5)')"))

    assert (found[0].kind, found[0].code) == (ErrorKind.UNIQUE, "23P01")
    assert found[0].columns == ("hours",)


async def test_a_missing_parent_is_a_foreign_key_failure(
    engine: AsyncEngine, engines: list[AsyncEngine]
) -> None:
    found = await failures(engines, gauge(boiler_id=9))

    assert (
        found[0]
        == {
            "sqlite": DatabaseFailure(
                ErrorKind.FOREIGN_KEY, "SQLITE_CONSTRAINT_FOREIGNKEY", None, None, ()
            ),
            "postgresql": DatabaseFailure(
                ErrorKind.FOREIGN_KEY, "23503", "fk_gauge", "gauge", ("boiler_id",)
            ),
            "mysql": DatabaseFailure(
                ErrorKind.FOREIGN_KEY, 1452, "fk_gauge", "gauge", ("boiler_id",)
            ),
        }[engine.dialect.name]
    )


async def test_a_parent_that_is_still_referred_to_is_a_foreign_key_failure(
    engine: AsyncEngine, engines: list[AsyncEngine]
) -> None:
    parent = insert(Boiler).values(id=1)

    found = await failures(engines, parent, gauge(boiler_id=1), text("DELETE FROM boiler"))

    assert found[0].kind is ErrorKind.FOREIGN_KEY
    assert found[0].code in {"SQLITE_CONSTRAINT_TRIGGER", "23503", "23001", 1451}
    assert (found[0].constraint, found[0].table, found[0].columns) == {
        "sqlite": (None, None, ()),
        "postgresql": ("fk_gauge", "gauge", ("id",)),
        "mysql": ("fk_gauge", "gauge", ("boiler_id",)),
    }[engine.dialect.name]


@pytest.mark.only_on("sqlite", reason="SQLite reports RESTRICT as a trigger")
async def test_a_trigger_of_ones_own_is_no_foreign_key(engines: list[AsyncEngine]) -> None:
    trigger = text(
        "CREATE TRIGGER no_more BEFORE INSERT ON gauge BEGIN SELECT RAISE(ABORT, 'no'); END"
    )
    found = await failures(engines, trigger, gauge())

    assert found == [DatabaseFailure(ErrorKind.OTHER, "SQLITE_CONSTRAINT_TRIGGER", None, None, ())]


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("INSERT INTO gauge (serial, plant, bar) VALUES (NULL, 'x', 1)", id="null"),
        pytest.param("INSERT INTO gauge (plant, bar) VALUES ('x', 1)", id="left out"),
    ],
)
async def test_a_missing_value_names_its_column(engines: list[AsyncEngine], statement: str) -> None:
    found = await failures(engines, text(statement))

    assert (found[0].kind, found[0].columns) == (ErrorKind.NOT_NULL, ("serial",))
    assert found[0].code in {"SQLITE_CONSTRAINT_NOTNULL", "23502", 1048, 1364}


async def test_a_check_has_its_name_although_mariadb_calls_it_operational(
    engine: AsyncEngine, engines: list[AsyncEngine]
) -> None:
    found = await failures(engines, gauge(bar=-1))

    assert (found[0].kind, found[0].constraint) == (ErrorKind.CHECK, "ck_gauge_bar")
    assert found[0].table == {"sqlite": None}.get(engine.dialect.name, "gauge")
    error = await failing(engine, gauge(bar=-1))
    assert isinstance(error, OperationalError) == (engine.dialect.name == "mysql")


@pytest.mark.not_on("sqlite", reason="SQLite does not enforce lengths and ranges")
@pytest.mark.parametrize(
    ("kind", "values", "column"),
    [
        (ErrorKind.TOO_LONG, {"serial": "x" * 16}, "serial"),
        (ErrorKind.OUT_OF_RANGE, {"bar": 2**40}, "bar"),
        (ErrorKind.OUT_OF_RANGE, {"bar": 2**70}, "bar"),
    ],
)
async def test_a_value_that_does_not_fit(
    engine: AsyncEngine,
    engines: list[AsyncEngine],
    kind: ErrorKind,
    values: dict[str, Any],
    column: str,
) -> None:
    for each in engines:
        found = classify(await failing(each, gauge(**values)))

        assert (each.url.drivername, found.kind) == (each.url.drivername, kind)
        assert found.columns == ((column,) if engine.dialect.name == "mysql" else ())


@pytest.mark.only_on("sqlite", reason="the driver refuses it before there is a database error")
async def test_sqlite_raises_a_bare_overflow_for_numbers_beyond_64_bits(
    engine: AsyncEngine,
) -> None:
    with pytest.raises(OverflowError, match="Python int too large to convert to SQLite INTEGER"):
        await run(engine, gauge(bar=2**70))


@pytest.mark.only_on("postgresql", reason="asyncpg's own refusals share one code")
async def test_another_refusal_of_asyncpg_is_not_out_of_range(engine: AsyncEngine) -> None:
    found = classify(await failing(engine, gauge(bar="many")))

    assert (found.kind, found.code) == (ErrorKind.OTHER, "22000")


async def test_a_broken_statement_is_none_of_these(engines: list[AsyncEngine]) -> None:
    for engine in engines:
        error = await failing(engine, text("SELECT * FROM nowhere"))

        assert classify(error).kind is ErrorKind.OTHER
        assert not is_retryable(error)


async def two_gauges(engine: AsyncEngine) -> None:
    await run(engine, gauge(id=1), gauge(id=2, serial="t"))


def pressure(connection: AsyncConnection, key: int) -> Any:
    return connection.execute(text(f"UPDATE gauge SET bar = bar + 1 WHERE id = {key}"))


async def deadlock(first: AsyncConnection, second: AsyncConnection) -> DBAPIError:
    if first.dialect.name == "postgresql":
        for connection in (first, second):
            await connection.execute(text("SET LOCAL deadlock_timeout = '50ms'"))
    await pressure(first, 1)
    await pressure(second, 2)
    results = await asyncio.gather(pressure(first, 2), pressure(second, 1), return_exceptions=True)
    (error,) = [result for result in results if isinstance(result, Exception)]
    assert isinstance(error, DBAPIError)
    return error


@pytest.mark.not_on("sqlite", reason="one writer at a time cannot deadlock")
async def test_a_deadlock_is_retryable(engines: list[AsyncEngine]) -> None:
    await two_gauges(engines[0])
    for engine in engines:
        async with engine.connect() as first, engine.connect() as second:
            error = await deadlock(first, second)

        assert classify(error).kind is ErrorKind.DEADLOCK
        assert classify(error).code in {"40P01", 1213}
        assert DEADLOCK[engine.dialect.name] in str(error)
        assert is_retryable(error)


@pytest.mark.only_on("mysql", reason="the server drops the savepoint together with the transaction")
async def test_a_deadlock_behind_a_lost_savepoint_is_found(engine: AsyncEngine) -> None:
    await two_gauges(engine)
    caught = []

    async def one_inside_a_savepoint(connection: AsyncConnection, key: int) -> None:
        try:
            async with connection.begin_nested():
                await pressure(connection, key)
        except DBAPIError as error:
            caught.append(error)

    async with engine.connect() as first, engine.connect() as second:
        await pressure(first, 1)
        await pressure(second, 2)
        await asyncio.gather(one_inside_a_savepoint(first, 2), one_inside_a_savepoint(second, 1))

    (error,) = caught
    assert "SAVEPOINT" in str(error.orig)
    assert (classify(error).code, classify(error).kind) == (1305, ErrorKind.DEADLOCK)
    assert is_retryable(error)


@pytest.mark.only_on("mysql", reason="the server drops the savepoint together with the transaction")
async def test_a_changed_row_behind_a_lost_savepoint_is_a_serialization_failure(
    engine: AsyncEngine,
) -> None:
    await two_gauges(engine)

    async with engine.connect() as connection:
        try:
            await connection.execute(text("SET innodb_snapshot_isolation = ON"))
        except DBAPIError:
            pytest.skip("this server has no innodb_snapshot_isolation")
        await connection.rollback()
        await connection.execute(text("SELECT * FROM gauge"))
        async with engine.begin() as other:
            await pressure(other, 1)
        with pytest.raises(DBAPIError, match="SAVEPOINT") as caught:
            async with connection.begin_nested():
                await pressure(connection, 1)
        await connection.rollback()
        await connection.execute(text("SET innodb_snapshot_isolation = DEFAULT"))

    failure = classify(caught.value)
    assert (failure.code, failure.kind) == (1305, ErrorKind.SERIALIZATION)
    assert is_retryable(caught.value)


@pytest.mark.only_on("mysql", reason="1305 is the server's code for whatever does not exist")
async def test_a_missing_savepoint_without_a_deadlock_is_none_of_these(
    engine: AsyncEngine,
) -> None:
    error = await failing(engine, text("ROLLBACK TO SAVEPOINT nowhere"))

    assert (classify(error).code, classify(error).kind) == (1305, ErrorKind.OTHER)


@pytest.mark.only_on("postgresql", reason="MariaDB lets it through, SQLite is the next test")
async def test_a_serialization_failure_is_retryable(engines: list[AsyncEngine]) -> None:
    await two_gauges(engines[0])
    for engine in engines:
        repeatable = engine.execution_options(isolation_level="REPEATABLE READ")
        async with repeatable.connect() as first, engine.connect() as second:
            await first.execute(select(literal(1)))
            await second.execute(text("UPDATE gauge SET bar = 5"))
            await second.commit()
            with pytest.raises(DBAPIError) as caught:
                await pressure(first, 1)

        assert classify(caught.value).kind is ErrorKind.SERIALIZATION
        assert is_retryable(caught.value)


@pytest.mark.only_on("sqlite", reason="SQLite's own form of a serialization failure")
async def test_read_then_write_after_another_writer_is_a_serialization_failure(
    engine: AsyncEngine,
) -> None:
    await two_gauges(engine)
    async with engine.connect() as first, engine.connect() as second:
        await first.execute(text("SELECT * FROM gauge"))
        await pressure(second, 1)
        await second.commit()
        with pytest.raises(OperationalError, match="database is locked") as caught:
            await pressure(first, 1)

    failure = classify(caught.value)
    assert (failure.kind, failure.code) == (ErrorKind.SERIALIZATION, "SQLITE_BUSY_SNAPSHOT")
    assert is_retryable(caught.value)


async def test_a_lock_that_is_not_given_in_time_is_retryable(engines: list[AsyncEngine]) -> None:
    await two_gauges(engines[0])
    for engine in engines:
        async with engine.connect() as first, engine.connect() as second:
            await pressure(first, 1)
            if engine.dialect.name == "postgresql":
                await second.execute(text("SET LOCAL lock_timeout = '50ms'"))
            with pytest.raises(DBAPIError) as caught:
                await pressure(second, 1)

        assert classify(caught.value).kind is ErrorKind.LOCK_TIMEOUT
        assert classify(caught.value).code in {"55P03", 1205, "SQLITE_BUSY"}
        assert LOCK_TIMEOUT[engine.dialect.name] in str(caught.value)
        assert is_retryable(caught.value)


@pytest.mark.not_on("sqlite", reason="SQLite has no limit for the time of a statement")
async def test_a_statement_that_takes_too_long_is_not_retryable(
    engines: list[AsyncEngine],
) -> None:
    for engine in engines:
        if engine.dialect.name == "postgresql":
            slow = [text("SET LOCAL statement_timeout = '50ms'"), text("SELECT pg_sleep(5)")]
        else:
            many = "information_schema.columns"
            slow = [
                text("SET max_statement_time = 0.05"),
                text(f"SELECT count(*) FROM {many} a, {many} b, {many} c"),
            ]
        error = await failing(engine, *slow)

        assert classify(error).kind is ErrorKind.STATEMENT_TIMEOUT
        assert classify(error).code in {"57014", 1969}
        assert STATEMENT_TIMEOUT[engine.dialect.name] in str(error)
        assert not is_retryable(error)


async def kill(engine: AsyncEngine, victim: AsyncConnection) -> None:
    postgresql = engine.dialect.name == "postgresql"
    own = text("SELECT pg_backend_pid()" if postgresql else "SELECT connection_id()")
    number = (await victim.execute(own)).scalar()
    async with engine.begin() as other:
        end = f"SELECT pg_terminate_backend({number}, 10000)" if postgresql else f"KILL {number}"
        await other.execute(text(end))
    await asyncio.sleep(0.1)


@pytest.mark.not_on("sqlite", reason="no server, no connection to lose")
async def test_a_connection_lost_before_the_commit_is_retryable(
    engines: list[AsyncEngine],
) -> None:
    for engine in engines:
        async with engine.connect() as connection:
            await kill(engine, connection)
            with pytest.raises(DBAPIError) as caught:
                await connection.execute(select(literal(1)))
            await connection.invalidate()

        assert classify(caught.value).kind is ErrorKind.CONNECTION_LOST
        assert is_retryable(caught.value)


@pytest.mark.not_on("sqlite", reason="no server, no connection to lose")
async def test_a_connection_lost_during_the_commit_is_not_retryable(
    engines: list[AsyncEngine],
) -> None:
    for engine in engines:
        async with engine.connect() as connection:
            await connection.execute(gauge())
            await kill(engine, connection)
            with pytest.raises(DBAPIError) as caught:
                await connection.commit()
            await connection.invalidate()

        assert classify(caught.value).kind is ErrorKind.CONNECTION_LOST
        assert not is_retryable(caught.value)


@pytest.mark.not_on("sqlite", reason="a file is opened, not connected to")
async def test_a_server_that_refuses_is_a_lost_connection_but_bare_on_asyncpg(
    engines: list[AsyncEngine],
) -> None:
    for engine in engines:
        nobody = create_async_engine(engine.url.set(port=1, host="127.0.0.1", query={}))
        with pytest.raises((DBAPIError, ConnectionRefusedError)) as caught:
            async with nobody.connect():
                pass

        error = caught.value
        assert isinstance(error, DBAPIError) == (engine.dialect.driver != "asyncpg")
        if isinstance(error, DBAPIError):
            assert classify(error).kind is ErrorKind.CONNECTION_LOST
            assert is_retryable(error)


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("two-addresses", OSError),
        ("nobody", OSError),
        ("?host=/none", FileNotFoundError),
        ("silent", TimeoutError),
    ],
)
async def test_what_stops_a_connect_is_known_by_where_it_comes_from(
    place: str, kind: type[OSError], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve(monkeypatch, "two-addresses", "::1", "127.0.0.1")
    resolve(monkeypatch, "nobody")
    resolve(monkeypatch, "silent", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # nobody accepts
        port = silent.getsockname()[1] if place == "silent" else 1
        host = place if place.startswith("?") else f"{place}:{port}/d"
        url = f"postgresql+asyncpg://u@{host}"
        timeout = 0.05 if place == "silent" else 60
        engine = create_async_engine(url, connect_args={"timeout": timeout})
        with pytest.raises(kind) as caught:
            await engine.connect()

    assert is_failed_connect(caught.value)
    await engine.dispose()


async def test_an_oserror_of_the_program_is_no_failed_connect() -> None:
    with pytest.raises(ConnectionRefusedError) as refused:
        await asyncio.open_connection("127.0.0.1", 1)
    with pytest.raises(FileNotFoundError) as missing:
        await asyncio.open_unix_connection("/none")

    assert not is_failed_connect(refused.value)
    assert not is_failed_connect(missing.value)
    assert not is_failed_connect(ssl.SSLCertVerificationError())
    assert not is_failed_connect(RuntimeError())


@pytest.mark.only_on("postgresql", reason="its roles have a limit that the others do not feel")
async def test_too_many_connections_are_worth_another_try(engine: AsyncEngine) -> None:
    role = f"full_{uuid4().hex}"
    create = f"CREATE ROLE {role} LOGIN PASSWORD '{role}' CONNECTION LIMIT 0"
    full = create_async_engine(engine.url.set(username=role, password=role))
    async with engine.begin() as connection:
        await connection.execute(text(create))
    try:
        with pytest.raises(Exception, match="too many connections for role") as caught:
            async with full.connect():
                pass
    finally:
        async with engine.begin() as connection:
            await connection.execute(text(f"DROP ROLE {role}"))

    error = caught.value
    assert is_transient(error)  # for `run_with_retries`, which knows asyncpg's own as well
    if isinstance(error, DBAPIError):  # from SQLAlchemy 2.1 on
        assert classify(error).code == "53300"
        assert is_retryable(error)


@pytest.mark.only_on("mysql", reason="its accounts have limits that the others do not have")
@pytest.mark.parametrize(
    ("limit", "kind"),
    [
        ("MAX_USER_CONNECTIONS 1", ErrorKind.CONNECTION_LOST),
        ("MAX_CONNECTIONS_PER_HOUR 1", ErrorKind.OTHER),  # no second try of ours comes so late
    ],
)
async def test_an_accounts_limit_of_connections_is_worth_another_try(
    engine: AsyncEngine, limit: str, kind: ErrorKind
) -> None:
    name = f"full_{uuid4().hex[:20]}"
    async with engine.begin() as connection:
        await connection.execute(text(f"CREATE USER {name} IDENTIFIED BY '{name}' WITH {limit}"))
        await connection.execute(text(f"GRANT ALL ON `{engine.url.database}`.* TO {name}"))
    full = engine_for(engine.url.set(username=name, password=name))
    try:
        async with full.connect():
            with pytest.raises(DBAPIError, match="has exceeded the") as caught:
                async with full.connect():
                    pass
    finally:
        await full.dispose()
        async with engine.begin() as connection:
            await connection.execute(text(f"DROP USER {name}"))

    assert (classify(caught.value).code, classify(caught.value).kind) == (1226, kind)
    assert is_retryable(caught.value) == (kind is ErrorKind.CONNECTION_LOST)


@pytest.mark.only_on("postgresql", reason="its drivers keep plans, and so see old ones")
async def test_a_plan_from_before_a_migration_is_retryable(engines: list[AsyncEngine]) -> None:
    for number, engine in enumerate(engines):
        async with engine.connect() as connection, engine.connect() as migration:
            for _ in range(6):  # psycopg prepares what it has sent five times
                await connection.execute(text("SELECT * FROM gauge"))
            await connection.commit()  # a rollback lets psycopg forget what it has prepared
            await migration.execute(text(f"ALTER TABLE gauge ADD COLUMN colour_{number} int"))
            await migration.commit()
            with pytest.raises(DBAPIError, match=r"cached (statement )?plan") as caught:
                await connection.execute(text("SELECT * FROM gauge"))
            await connection.rollback()

            assert is_retryable(caught.value)
            assert classify(caught.value).kind is ErrorKind.OTHER
            await connection.execute(text("SELECT * FROM gauge"))


@pytest.mark.only_on("postgresql", reason="the code has a meaning there that is like another one")
async def test_what_is_not_supported_is_not_retryable(engines: list[AsyncEngine]) -> None:
    for engine in engines:
        error = await failing(engine, text("SELECT count(*) FROM gauge FOR UPDATE"))

        assert classify(error).code == "0A000"
        assert not is_retryable(error)


@pytest.mark.only_on("mysql", reason="the others read the table as it is, or wait")
async def test_a_snapshot_from_before_a_migration_is_retryable(engines: list[AsyncEngine]) -> None:
    for engine in engines:
        async with engine.connect() as connection, engine.connect() as migration:
            await connection.execute(text("SELECT * FROM boiler"))
            await migration.execute(text("ALTER TABLE gauge FORCE"))
            with pytest.raises(DBAPIError, match="please retry transaction") as caught:
                await connection.execute(text("SELECT * FROM gauge"))
            await connection.rollback()

            assert is_retryable(caught.value)
            assert classify(caught.value).code == 1412
            await connection.execute(text("SELECT * FROM gauge"))


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        (1062, "Duplicate entry 'x' for key 'gauge.uq'", (ErrorKind.UNIQUE, "uq", "gauge", ())),
        (1062, "Doublon", (ErrorKind.UNIQUE, None, None, ())),
        (3819, "Check constraint 'ck' is violated.", (ErrorKind.CHECK, "ck", None, ())),
        (3819, "Violation", (ErrorKind.CHECK, None, None, ())),
        (1451, "Cannot delete", (ErrorKind.FOREIGN_KEY, None, None, ())),
        (1690, "BIGINT value is out of range in '…'", (ErrorKind.OUT_OF_RANGE, None, None, ())),
        (1040, "Too many connections", (ErrorKind.CONNECTION_LOST, None, None, ())),
        (1203, "User app already has more", (ErrorKind.CONNECTION_LOST, None, None, ())),
        (3572, "NOWAIT is set.", (ErrorKind.LOCK_TIMEOUT, None, None, ())),
        (3024, "Query execution was interrupted", (ErrorKind.STATEMENT_TIMEOUT, None, None, ())),
    ],
)
def test_texts_of_mysql_and_texts_of_other_languages(
    code: int, message: str, expected: tuple[ErrorKind, str | None, str | None, tuple[str, ...]]
) -> None:
    failure = classify(DBAPIError("INSERT", {}, pymysql.err.OperationalError(code, message)))

    assert (failure.kind, failure.constraint, failure.table, failure.columns) == expected
    assert failure.code == code


def test_what_a_driver_raises_without_code_or_arguments_is_other() -> None:
    empty = pymysql.err.InterfaceError()

    assert classify(InterfaceError("SELECT", {}, empty)) == DatabaseFailure(
        ErrorKind.OTHER, None, None, None, ()
    )
    lost = InterfaceError("SELECT", {}, empty, connection_invalidated=True)
    assert classify(lost).kind is ErrorKind.CONNECTION_LOST


class Refused(Exception):  # noqa: N818
    sqlstate = "08006"


def test_codes_of_class_08_are_lost_connections() -> None:
    assert classify(DBAPIError("SELECT", {}, Refused())).kind is ErrorKind.CONNECTION_LOST
