"""Migrate from a program: in a running loop, and when several processes start at once."""

import asyncio
import hashlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from functools import partial

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import NullPool

from snippets.database_setup.engine import engine_for
from snippets.database_setup.session import run_to_end

POLL = 0.2  # seconds


class MigrationLockError(TimeoutError):
    """Another process is still migrating this database."""


class PendingMigrationsError(RuntimeError):
    """The database is not at the revision that this code was written for."""


def config_for(script_location: str, url: URL) -> Config:
    """Return a configuration without alembic.ini; its values double percent signs, so the URL is
    handed over as an object.
    """
    config = Config()
    config.set_main_option("script_location", script_location.replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["database_url"] = url
    return config


async def upgrade_database(config: Config, revision: str = "head", *, wait: float = 300) -> None:
    """Upgrade; of several processes that call this at once, one works and the others wait for it.

    Raises:
        MigrationLockError: the lock was not free within `wait` seconds.
    """
    async with migration_lock(config.attributes["database_url"], wait=wait):
        # env.py runs a loop of its own: it needs a thread, which no cancellation stops.
        await run_to_end(asyncio.to_thread(command.upgrade, config, revision))


async def require_current(engine: AsyncEngine, config: Config) -> None:
    """Check at start-up, where deployment migrates and the application must not.

    Raises:
        PendingMigrationsError: the database has another revision than the newest.
    """
    heads = set(ScriptDirectory.from_config(config).get_heads())
    async with engine.connect() as connection:
        current = await connection.run_sync(_current_heads)
    if current != heads:
        raise PendingMigrationsError(
            f"the database is at {_names(current)}, this code needs {_names(heads)};"
            " run: alembic upgrade head"
        )


def _current_heads(connection: sa.Connection) -> set[str]:
    return set(MigrationContext.configure(connection).get_current_heads())


def _names(revisions: set[str]) -> str:
    return ", ".join(sorted(revisions)) or "no revision"


@asynccontextmanager
async def migration_lock(url: URL, *, wait: float = 300) -> AsyncIterator[None]:
    """Hold a lock that the database itself frees when this process dies.

    Raises:
        MigrationLockError: it was not free within `wait` seconds.
    """
    if url.get_backend_name() == "sqlite":
        async with _sqlite_lock(url, wait):
            yield
        return
    # A transaction left open would stop CREATE INDEX CONCURRENTLY, and be ended by its timeout.
    engine = engine_for(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as connection:
            await _take_lock(partial(_try_lock, connection), wait)
            yield
    finally:
        await engine.dispose()


async def _take_lock(try_lock: Callable[[], Awaitable[bool]], wait: float) -> None:
    try:
        async with asyncio.timeout(wait):
            while not await try_lock():  # noqa: ASYNC110 - another process frees it
                await asyncio.sleep(POLL)
    except TimeoutError:
        message = f"the migration lock was not free in {wait} seconds"
        raise MigrationLockError(message) from None


async def _try_lock(connection: AsyncConnection) -> bool:
    """Try, never wait: a waiting statement deadlocks with CREATE INDEX CONCURRENTLY."""
    if connection.dialect.name == "postgresql":
        query = sa.text("SELECT pg_try_advisory_lock(hashtext('migrations'))")
    else:
        # Its names are the server's, not the database's, and have at most 64 characters.
        database = (connection.engine.url.database or "").encode()
        name = f"migrations-{hashlib.sha256(database).hexdigest()[:40]}"
        query = sa.text("SELECT GET_LOCK(:name, 0)").bindparams(name=name)
    return bool((await connection.execute(query)).scalar_one())


@asynccontextmanager
async def _sqlite_lock(url: URL, wait: float) -> AsyncIterator[None]:
    """Lock a file beside the database: a lock inside of it would stop the migration itself."""
    if _is_in_memory(url):  # no other process has it
        yield
        return
    path, is_uri = f"{url.database}.migrating", "uri" in url.query
    # Never wait: a connection that waits in a thread can be closed only after that.
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None, uri=is_uri)) as connection:
        await _take_lock(partial(_try_sqlite_lock, connection), wait)
        yield


def _is_in_memory(url: URL) -> bool:
    is_memory = url.database in {None, "", ":memory:", "file::memory:"}
    return is_memory or url.query.get("mode") == "memory"


async def _try_sqlite_lock(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True
