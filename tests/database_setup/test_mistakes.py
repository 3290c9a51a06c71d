import asyncio
import gc
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy
from pydantic import ValidationError
from servers import Server
from sqlalchemy import URL, make_url, text
from sqlalchemy.exc import InvalidRequestError, MissingGreenlet, OperationalError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlmodel import Field, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.database_setup import mistakes
from snippets.database_setup.engine import engine_for
from snippets.database_setup.session import session_factory


class Postcard(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    text: str = Field(max_length=20)


TABLES = [Postcard]
SQLALCHEMY_21 = not sqlalchemy.__version__.startswith("2.0.")


async def test_session_class_left_out(engine: AsyncEngine) -> None:
    with pytest.raises(AttributeError, match="'AsyncSession' object has no attribute 'exec'"):
        await mistakes.session_class_left_out(engine)


@pytest.mark.parametrize("plain_engine", [False, True])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
async def test_expire_on_commit_left_on(engine: AsyncEngine, plain_engine: bool) -> None:
    used = create_async_engine(engine.url) if plain_engine else engine

    with pytest.raises((StatementError, MissingGreenlet)) as caught:
        await mistakes.expire_on_commit_left_on(used, Postcard(text="hi"), "text")

    assert "greenlet_spawn has not been called; can't call" in str(caught.value)
    assert type(caught.value) is lazy_load_error(engine.dialect.driver, plain_engine)
    del caught
    gc.collect()  # the coroutine that was never awaited warns here, not in the next test
    await used.dispose()


def lazy_load_error(driver: str, plain_engine: bool) -> type[Exception]:
    """Pre-ping and the BEGIN hook do their IO before a statement could wrap the error."""
    if driver == "asyncpg" or not plain_engine or (driver == "aiosqlite" and not SQLALCHEMY_21):
        return MissingGreenlet
    return StatementError


@pytest.mark.only_on("sqlite", reason="the error comes before any server is asked")
def test_sync_driver(database_url: URL) -> None:
    text = (
        "The asyncio extension requires an async driver to be used. "
        "The loaded 'pysqlite' is not async."
    )
    with pytest.raises(InvalidRequestError, match=text):
        mistakes.sync_driver(database_url)


async def test_greenlet_left_to_luck() -> None:
    await mistakes.greenlet_left_to_luck()  # here something else has brought it

    program = (
        "import sys; sys.modules['greenlet'] = None\n"
        "import asyncio, snippets.database_setup.mistakes as m\n"
        "asyncio.run(m.greenlet_left_to_luck())\n"
    )
    root = Path(mistakes.__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=root, check=False
    )

    expected = (
        "The SQLAlchemy asyncio module requires that the Python 'greenlet' library is installed"
        if SQLALCHEMY_21
        else "the greenlet library is required to use this function"
    )
    assert run.returncode == 1
    assert expected in run.stderr


@pytest.mark.only_on("postgresql", reason="sslmode is libpq's")
async def test_libpq_options_for_asyncpg(database_url: URL) -> None:
    with pytest.raises(TypeError, match="got an unexpected keyword argument 'sslmode'"):
        await mistakes.libpq_options_for_asyncpg(database_url)


def test_url_as_text() -> None:
    url = make_url("mysql+aiomysql://u:secret@h/d")

    assert make_url(mistakes.url_as_text(url)).password == "***"
    # The server's answer to that password, "Access denied for user", is provoked in test_urls.


def test_settings_that_print_the_url() -> None:
    with pytest.raises(ValidationError) as caught:
        mistakes.settings_that_print_the_url("mysql://u:secret@h/d")

    assert "input_value='mysql://u:secret@h/d'" in str(caught.value)


@pytest.mark.not_on("sqlite", reason="aiosqlite's thread serves any loop, which hides the mistake")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
def test_engine_in_two_loops(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # What keeps frames keeps connections, which another test would be blamed for: also the log,
    # and what pytest is told of while they are collected.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    caplog.set_level(logging.CRITICAL + 1, "sqlalchemy.pool")
    engine = create_async_engine(server.url)

    with pytest.raises(RuntimeError) as caught:
        mistakes.engine_in_two_loops(engine)

    error: BaseException | None = caught.value
    texts = ""
    while error is not None:
        texts += f"{error}\n"
        error = error.__context__
    assert "attached to a different loop" in texts or "Event loop is closed" in texts
    del caught, engine
    for _ in range(3):  # closing one leaves frames that keep the next
        gc.collect()


async def test_second_session_inside_the_first(server: Server) -> None:
    engine = engine_for(server.url, pool_size=1, max_overflow=0, pool_timeout=0.05)

    message = "QueuePool limit of size 1 overflow 0 reached, connection timed out, timeout 0.05"
    with pytest.raises(PoolTimeoutError, match=message):
        await mistakes.second_session_inside_the_first(session_factory(engine))
    await engine.dispose()


@pytest.mark.not_on("sqlite", reason="the thread of a connection never closed outlives the test")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_session_never_closed(engine: AsyncEngine) -> None:
    message = "The garbage collector is trying to clean up non-checked-in connection"
    with pytest.warns(sqlalchemy.exc.SAWarning, match=message):
        await mistakes.session_never_closed(session_factory(engine))
        gc.collect()
        await asyncio.sleep(0.01)


@pytest.mark.only_on("sqlite", reason="the other databases need no hooks")
async def test_sqlite_without_hooks(database_url: URL) -> None:
    kept, orphans = await mistakes.sqlite_without_hooks(database_url)

    assert (kept, orphans) == (1, 1)


async def test_memory_database_for_two_sessions() -> None:
    plain = create_async_engine("sqlite+aiosqlite://")
    assert await mistakes.memory_database_for_two_sessions(plain) == 0
    await plain.dispose()

    hooked = engine_for("sqlite://")
    message = "cannot start a transaction within a transaction"
    with pytest.raises(OperationalError, match=message):
        await mistakes.memory_database_for_two_sessions(hooked)
    await hooked.dispose()


async def test_read_then_write(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE tally (a INTEGER)"))
    factory: async_sessionmaker[AsyncSession] = session_factory(engine)

    if engine.dialect.name != "sqlite":
        await mistakes.read_then_write(factory)
        return
    with pytest.raises(OperationalError, match="database is locked") as caught:
        await mistakes.read_then_write(factory)
    assert getattr(caught.value.orig, "sqlite_errorname", None) == "SQLITE_BUSY_SNAPSHOT"
