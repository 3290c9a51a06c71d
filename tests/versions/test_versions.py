"""Each row of the page, on whichever side of its version this environment is."""

import asyncio
import datetime as dt
import importlib.util
import re
import threading
import uuid
from collections.abc import Callable
from importlib.metadata import metadata, requires, version
from pathlib import Path
from typing import Any

import aiosqlite
import psycopg
import pytest
import sqlalchemy as sa
from packaging.requirements import Requirement
from packaging.version import Version
from production_patterns.lossy_proxy import LossyProxy
from sqlalchemy.exc import DBAPIError, MissingGreenlet, StatementError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.ext.asyncio import AsyncSession as PlainSession
from sqlmodel import Field, SQLModel, select, text
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.best_practices.query_plans import Letter
from snippets.best_practices.testing import new_letter
from snippets.database_setup.engine import engine_for

ROOT = Path(__file__).parents[2]


class Courier(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    letter_id: int = Field(foreign_key="letter.id")


class Stamp(SQLModel, table=True):
    id: uuid.UUID = Field(default_factory=uuid.uuid4, primary_key=True)


class LetterReceipt(SQLModel, table=True):
    __tablename__ = "letter_receipt"

    id: int | None = Field(default=None, primary_key=True)
    received_at: dt.datetime = Field(sa_type=sa.DateTime)


TABLES = [Letter, Courier, Stamp, LetterReceipt]


def at_least(package: str, number: str) -> bool:
    return Version(version(package)) >= Version(number)


SQLALCHEMY_21 = at_least("sqlalchemy", "2.1")


def test_greenlet_comes_with_sqlalchemy() -> None:
    needed = [Requirement(text) for text in requires("sqlalchemy") or ()]
    environment = {"platform_machine": "x86_64", "extra": ""}
    plain = {r.name for r in needed if r.marker is None or r.marker.evaluate(environment)}

    assert ("greenlet" in plain) is not SQLALCHEMY_21


def test_which_sqlmodel_allows_which_sqlalchemy() -> None:
    needed = [Requirement(text) for text in requires("sqlmodel") or ()]
    allowed = [r.specifier.contains("2.1.0") for r in needed if r.name.lower() == "sqlalchemy"]

    assert any(allowed) is at_least("sqlmodel", "0.0.48")


def test_which_driver_postgresql_means() -> None:
    try:
        driver = sa.make_url("postgresql://").get_dialect().driver
    except ImportError as error:  # not imported before the engine is made
        driver = str(error)

    assert driver == ("psycopg" if SQLALCHEMY_21 else "psycopg2")


@pytest.mark.filterwarnings("ignore:coroutine '.*' was never awaited:RuntimeWarning")
async def test_words_of_an_io_outside_of_greenlet(session: AsyncSession) -> None:
    letter = await new_letter(session)
    session.expire(letter)

    with pytest.raises((MissingGreenlet, StatementError)) as caught:
        _ = letter.town

    assert f"can't call {'await_()' if SQLALCHEMY_21 else 'await_only()'} here" in str(caught.value)


async def test_what_flushes(session: AsyncSession) -> None:
    session.add(Letter(code="L1", town="Oslo"))

    count = (await session.exec(text("SELECT count(*) FROM letter"))).scalar_one()

    assert count == (1 if SQLALCHEMY_21 else 0)
    session.add(Letter(code="L2", town="Oslo"))
    with session.no_autoflush:
        again = (await session.exec(text("SELECT count(*) FROM letter"))).scalar_one()
    assert again == count


async def test_filter_by_after_a_join(session: AsyncSession) -> None:
    statement = select(Letter).join(Courier)

    if SQLALCHEMY_21:
        with pytest.raises(sa.exc.InvalidRequestError, match='Attribute name "id" is ambiguous'):
            statement.filter_by(id=1)
    else:
        assert "courier.id =" in str(statement.filter_by(id=1).compile())


@pytest.mark.only_on("postgresql", reason="about asyncpg")
async def test_what_the_text_of_a_conflict_has(session: AsyncSession) -> None:
    letter = await new_letter(session)
    with pytest.raises(DBAPIError) as caught:
        await session.exec(sa.insert(Letter), params={"id": letter.id, "code": "", "town": ""})

    assert ("DETAIL" in str(caught.value.orig)) is not SQLALCHEMY_21
    assert ("asyncpg" in str(caught.value.orig)) is not SQLALCHEMY_21
    assert hasattr(caught.value, "driver_exception") is SQLALCHEMY_21
    assert "already exists" in caught.value.orig.__cause__.detail


@pytest.mark.only_on("postgresql", reason="about asyncpg")
async def test_class_of_an_error_at_connect(engine: AsyncEngine) -> None:
    other = engine_for(engine.url.set(database="there_is_none"))
    with pytest.raises(Exception, match="there_is_none") as caught:
        async with other.connect():
            pass

    assert isinstance(caught.value, DBAPIError) is SQLALCHEMY_21
    raised = caught.value.orig if SQLALCHEMY_21 else caught.value
    assert raised.sqlstate == "3D000"
    await other.dispose()


@pytest.mark.only_on("mysql", reason="about its type")
async def test_type_of_a_uuid(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        columns = await connection.run_sync(lambda sync: sa.inspect(sync).get_columns("stamp"))

    assert re.match(r"UUID" if SQLALCHEMY_21 else r"CHAR\(32\)", str(columns[0]["type"]))


@pytest.mark.only_on("postgresql", reason="the only one with types")
async def test_the_type_of_a_dropped_enum(engine: AsyncEngine) -> None:
    colours = sa.Enum("red", name="wax_colour")
    table = sa.Table("wax", sa.MetaData(), sa.Column("colour", colours))
    async with engine.begin() as connection:
        await connection.run_sync(table.create)
        await connection.run_sync(table.drop)
        left = await connection.scalar(
            sa.text("SELECT count(*) FROM pg_type WHERE typname = 'wax_colour'")
        )

    assert left == (1 if SQLALCHEMY_21 else 0)


def test_what_takes_many_objects() -> None:
    assert hasattr(PlainSession, "add_all")
    assert hasattr(PlainSession, "merge_all") is SQLALCHEMY_21
    assert hasattr(PlainSession, "delete_all") is SQLALCHEMY_21


def test_mypy_plugin() -> None:
    assert (importlib.util.find_spec("sqlalchemy.ext.mypy") is None) is SQLALCHEMY_21


@pytest.mark.not_on("sqlite", reason="about sockets")
async def test_what_becomes_of_a_connection_that_was_cancelled(database_url: sa.URL) -> None:
    made: list[Any] = []

    def cancelled(dbapi_connection: Any, _record: object) -> None:
        made.append(dbapi_connection.driver_connection)
        raise asyncio.CancelledError

    engine = engine_for(database_url)
    sa.event.listen(engine.sync_engine, "connect", cancelled)
    with pytest.raises(asyncio.CancelledError):
        await engine.connect()
    [connection] = made
    is_closed = connection.is_closed() if hasattr(connection, "is_closed") else connection.closed
    result = connection.close()
    if result is not None:
        await result

    assert is_closed is at_least("sqlalchemy", "2.0.53")


@pytest.mark.only_on("postgresql", reason="about asyncpg")
async def test_what_a_connection_whose_end_is_half_read_raises(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        own = (await connection.execute(sa.text("SELECT pg_backend_pid()"))).scalar_one()
        plain = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(plain, autocommit=True) as other:  # the loop stands still meanwhile
            other.execute("SELECT pg_terminate_backend(%s, 10000)", [own])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(Exception, match="cannot switch to state") as caught:
            await connection.execute(sa.text("SELECT 1"))
        await connection.invalidate()

    assert isinstance(caught.value, DBAPIError) is at_least("sqlalchemy", "2.0.50")


@pytest.mark.only_on("postgresql", reason="about asyncpg")
async def test_whether_a_close_lets_a_cancellation_through(database_url: sa.URL) -> None:
    async with LossyProxy(database_url) as proxy:
        engine = engine_for(proxy.url)
        connection = await engine.connect()
        proxy.freeze()
        closing = asyncio.create_task(connection.invalidate())
        await asyncio.sleep(0.1)  # it waits for the server's answer
        closing.cancel()
        await asyncio.wait([closing])
        await engine.dispose()

    assert closing.cancelled() is at_least("sqlalchemy", "2.0.42")


async def test_a_column_that_stays_naive(session: AsyncSession) -> None:
    noon = dt.datetime(2026, 7, 1, 12)  # noqa: DTZ001 - naive is the point
    session.add(LetterReceipt(received_at=noon))
    await session.commit()

    assert (await session.exec(select(LetterReceipt.received_at))).one() == noon


def test_extra_of_sqlmodel() -> None:
    extras = metadata("sqlmodel").get_all("Provides-Extra") or []

    assert ("asyncio" in extras) is at_least("sqlmodel", "0.0.48")


def test_what_an_aiosqlite_connection_is() -> None:
    is_thread = issubclass(aiosqlite.Connection, threading.Thread)

    assert is_thread is not at_least("aiosqlite", "0.22")


AUTOGENERATE = "tests/migrations/test_autogenerate.py"
# The first cell of a row, and what proves it: a test above, or one of the topic's own.
PROOFS: dict[str, Callable[..., object] | str] = {
    "greenlet comes with SQLAlchemy": test_greenlet_comes_with_sqlalchemy,
    "any SQLModel does": test_which_sqlmodel_allows_which_sqlalchemy,
    "`postgresql://` means psycopg2": test_which_driver_postgresql_means,
    "`can't call await_only() here`": test_words_of_an_io_outside_of_greenlet,
    "`text()` does not flush": test_what_flushes,
    "`filter_by(id=1)` takes the last entity of a join": test_filter_by_after_a_join,
    "`str(exc.orig)` has DETAIL and the driver's class (asyncpg)": (
        test_what_the_text_of_a_conflict_has
    ),
    "a missing database raises asyncpg's own error": test_class_of_an_error_at_connect,
    "uuid is CHAR(32) on MariaDB": test_type_of_a_uuid,
    "`Table.drop()` drops the enum's type on PostgreSQL": test_the_type_of_a_dropped_enum,
    "`add_all` alone": test_what_takes_many_objects,
    "a mypy plugin": test_mypy_plugin,
    "OpenTelemetry's instrumentor (0.66b2) makes spans": (
        "tests/production_patterns/test_mistakes.py::test_instrument_sqlalchemy_2_1"
    ),
    "a task cancelled while it connects leaves the connection open": (
        test_what_becomes_of_a_connection_that_was_cancelled
    ),
    "asyncpg's `cannot switch to state` is no `DBAPIError`, and fails the ping": (
        test_what_a_connection_whose_end_is_half_read_raises
    ),
    "a cancellation is lost that meets the closing of a broken connection (asyncpg)": (
        test_whether_a_close_lets_a_cancellation_through
    ),
    "`datetime` is naive": "tests/models/test_mistakes.py::test_naive_timestamp",
    "`sqlmodel` alone": test_extra_of_sqlmodel,
    "code after `yield` runs before the answer": (
        "tests/fastapi_integration/test_mistakes.py::test_commit_after_the_answer"
    ),
    "CHECKs are never compared": f"{AUTOGENERATE}::test_a_named_check_is_seen_from_1_19_on",
    "a new enum member goes unseen": (
        f"{AUTOGENERATE}::test_a_new_member_of_an_enum_is_seen_on_mariadb_alone"
    ),
    "an aiosqlite connection is a thread": test_what_an_aiosqlite_connection_is,
    "bytes parameters work with aiomysql": "tests/models/test_mistakes.py::test_plain_bytes",
}


def test_every_row_of_the_page_has_its_proof() -> None:
    page = (ROOT / "references" / "versions.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| .+ \| .+ \|$", page, re.MULTILINE)

    assert rows[0] == "old habit"
    assert rows[2:] == list(PROOFS)
    for proof in PROOFS.values():
        if isinstance(proof, str):
            path, _, name = proof.partition("::")
            assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), proof
