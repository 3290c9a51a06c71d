"""Let the database refuse what the application must never do."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Connection, event, text
from sqlalchemy.ext.asyncio import AsyncConnection, async_sessionmaker
from sqlalchemy.orm import Session, SessionTransaction
from sqlmodel.ext.asyncio.session import AsyncSession

QUERY_ONLY = "PRAGMA query_only = ON", "PRAGMA query_only = OFF"
# The transaction alone would not do on MariaDB: DDL ends it, and whatever follows is written.
SESSION_READ_ONLY = "SET SESSION TRANSACTION READ ONLY", "SET SESSION TRANSACTION READ WRITE"


@asynccontextmanager
async def read_only_scope(factory: async_sessionmaker[AsyncSession]) -> AsyncIterator[AsyncSession]:
    """Yield a session in which the server refuses writes and DDL; for reports, exports and GET.

    The factory is one of an engine: a connection that has begun a transaction is too late.
    """
    async with factory() as session:
        event.listen(session.sync_session, "after_begin", _refuse_writes)
        yield session


def _refuse_writes(
    _session: Session, transaction: SessionTransaction, connection: Connection
) -> None:
    """Begin each transaction so: after a rollback in the scope comes another."""
    if transaction.nested:
        return
    database = connection.dialect.name
    if database != "sqlite":
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
    if database == "postgresql":
        return
    # Stays with the connection, however the scope ends: whoever gets that next switches it off.
    on, off = QUERY_ONLY if database == "sqlite" else SESSION_READ_ONLY
    event.listen(connection.engine.pool, "checkout", _allow_writes)
    connection.info["read_only"] = off
    connection.exec_driver_sql(on)


def _allow_writes(dbapi_connection: Any, record: Any, _proxy: Any) -> None:
    if off := record.info.pop("read_only", None):
        cursor = dbapi_connection.cursor()
        cursor.execute(off)
        cursor.close()


ROWS = "SELECT, INSERT, UPDATE, DELETE"


async def grant_rows_only(connection: AsyncConnection, role: str) -> None:
    """Let the application's role read and write rows; tables change only through migrations' role.

    For tables that are there and, on PostgreSQL, for those that the caller's role makes later.

    Args:
        connection: of the role that owns the tables.
        role: its name; MariaDB's are users of any host.
    """
    quote = connection.dialect.identifier_preparer.quote_identifier
    to = f"TO {quote(role)}"
    if connection.dialect.name == "postgresql":
        schema = quote(str(await connection.scalar(text("SELECT current_schema()"))))
        later = f"ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT"
        grants = [
            f"GRANT USAGE ON SCHEMA {schema} {to}",
            f"GRANT {ROWS} ON ALL TABLES IN SCHEMA {schema} {to}",
            f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} {to}",
            f"{later} {ROWS} ON TABLES {to}",
            f"{later} USAGE ON SEQUENCES {to}",
        ]
    else:
        database = str(await connection.scalar(text("SELECT DATABASE()")))
        # In a GRANT for all tables the database's name is a pattern, as of LIKE.
        database = quote(re.sub(r"([\\_%])", r"\\\1", database))
        grants = [f"GRANT {ROWS} ON {database}.* {to}"]
    for grant in grants:  # GRANT takes no parameters, so the names are quoted
        await connection.execute(text(grant.replace(":", "\\:")))
