"""Connect through PgBouncer in transaction mode, where a server is yours for one transaction."""

from typing import Any

from sqlalchemy import URL, Connection, event, func
from sqlalchemy import select as core_select
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.database_setup.engine import CONNECT_TIMEOUT, engine_for, postgresql_settings
from snippets.database_setup.urls import async_url


def engine_for_pgbouncer(
    url: str | URL,
    *,
    application_name: str = "app",
    statement_timeout: float = 30,
    lock_timeout: float = 5,
    **options: Any,
) -> AsyncEngine:
    """Return an engine like that of `engine_for`, which leaves nothing on a server's connection.

    Its timeouts hold within transactions, so not under AUTOCOMMIT. Pooled connections are cheap:
    PgBouncer gives a server only to those in a transaction. Migrations, LISTEN and session locks
    need another engine, past PgBouncer.

    Args:
        url: PgBouncer's.
        application_name: as for `engine_for`, like those below.
        statement_timeout: seconds.
        lock_timeout: seconds.
        options: go to `engine_for`.

    Raises:
        DatabaseURLError: no async engine can use the URL.
    """
    url = async_url(url)
    settings = postgresql_settings(application_name, statement_timeout, lock_timeout)
    # The only one that PgBouncer takes at connect, and hands to whichever server it gives.
    name = settings.pop("application_name")
    connect_args = pgbouncer_connect_args(url.get_driver_name(), name)
    engine = engine_for(url, **{"connect_args": connect_args} | options)
    # SET would stay on the server's connection, for whoever gets it next.
    local = core_select(*(func.set_config(key, value, True) for key, value in settings.items()))

    def set_local(connection: Connection) -> None:
        connection.execute(local)

    event.listen(engine.sync_engine, "begin", set_local)
    return engine


def pgbouncer_connect_args(driver: str, application_name: str) -> dict[str, Any]:
    """Turn prepared statements off: the next transaction may be on a server without them."""
    if driver == "asyncpg":
        return {
            "timeout": CONNECT_TIMEOUT,
            "statement_cache_size": 0,
            "prepared_statement_name_func": str,  # unnamed; asyncpg 0.30 would name them still
            "server_settings": {"application_name": application_name},
        }
    return {
        "connect_timeout": CONNECT_TIMEOUT,
        "prepare_threshold": None,
        "application_name": application_name,
    }


async def lock_name(session: AsyncSession, name: str) -> None:
    """Wait for a lock that ends with the transaction; one of the session would outlive it."""
    await session.exec(select(func.pg_advisory_xact_lock(func.hashtext(name))))
