"""Make SQLite keep its promises: foreign keys, WAL, real transactions, savepoints, cancellation."""

import sqlite3
from typing import Any

from sqlalchemy import Connection, ExceptionContext, StaticPool, event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel.ext.asyncio.session import AsyncSession


def configure_sqlite(engine: AsyncEngine) -> None:
    """Install the hooks on an engine of aiosqlite; call once, before the first connect."""
    event.listen(engine.sync_engine, "connect", _set_pragmas)
    event.listen(engine.sync_engine, "begin", _begin)
    event.listen(engine.sync_engine, "invalidate", _stop_statement)
    event.listen(engine.sync_engine, "handle_error", _leave_ended_transaction)


def _set_pragmas(dbapi_connection: Any, _record: Any) -> None:
    cursor = dbapi_connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")  # per connection, and off by default
    _turn_on_wal(cursor)
    cursor.execute("PRAGMA synchronous = NORMAL")  # with WAL: no fsync per commit, never corrupt
    cursor.close()


def _turn_on_wal(cursor: Any) -> None:
    try:
        cursor.execute("PRAGMA journal_mode = WAL")  # kept in the file: readers block no writer
    except sqlite3.OperationalError as error:
        if not error.sqlite_errorname.startswith("SQLITE_READONLY"):
            raise  # else there is no writer, and what mode the file has does not matter


def _begin(connection: Connection) -> None:
    # sqlite3 begins by itself only before INSERT, UPDATE and DELETE: too late for a SAVEPOINT.
    if _is_autocommit(connection):
        return
    mode = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
    if mode not in {"DEFERRED", "IMMEDIATE", "EXCLUSIVE"}:
        raise ValueError(f"sqlite_begin={mode!r}; use DEFERRED, IMMEDIATE or EXCLUSIVE")
    connection.exec_driver_sql(f"BEGIN {mode}")


def _is_autocommit(connection: Connection) -> bool:
    return connection.connection.dbapi_connection.isolation_level is None  # type: ignore[union-attr]


def _stop_statement(dbapi_connection: Any, _record: Any, _error: BaseException | None) -> None:
    """End a cancelled statement and free its locks, else both live until the statement is done."""
    dbapi_connection.run_async(lambda connection: connection.interrupt())
    dbapi_connection.rollback()


def _leave_ended_transaction(context: ExceptionContext) -> None:
    """Refuse what follows in a transaction that SQLite has rolled back: it would be saved alone.

    It does so for an interrupted write, and for `ON CONFLICT ROLLBACK`.
    """
    connection = context.connection
    if context.statement is None or connection is None or not connection.in_transaction():
        return
    if connection.invalidated or _is_autocommit(connection):
        return
    if isinstance(connection.engine.pool, StaticPool):  # in memory: the connection is all there is
        return
    if not connection.connection.driver_connection.in_transaction:  # type: ignore[union-attr]
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False


async def begin_immediate(session: AsyncSession) -> None:
    """Take SQLite's write lock now, as the first thing in a transaction that reads, then writes.

    Waits up to the engine's lock timeout. On other databases it only opens the transaction.
    """
    sqlite = session.get_bind().dialect.name == "sqlite"
    # Elsewhere the transaction may have begun, with an isolation level; options would warn.
    await session.connection(execution_options={"sqlite_begin": "IMMEDIATE"} if sqlite else None)
