"""Size the pool from what the server allows, and see how full it is."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import QueuePool


class PoolPlanError(ValueError):
    """The processes need more connections than the server gives."""


@dataclass(frozen=True)
class PoolPlan:
    """Per process: `pool_size` connections are kept, `max_overflow` more are opened under load."""

    processes: int
    pool_size: int
    max_overflow: int

    @property
    def connections(self) -> int:
        """What all processes together may open."""
        return self.processes * (self.pool_size + self.max_overflow)

    def engine_options(self) -> dict[str, Any]:
        return {"pool_size": self.pool_size, "max_overflow": self.max_overflow}


def plan_pool(*, processes: int, server_connections: int, reserved: int = 5) -> PoolPlan:
    """Return the largest pool for which processes x (size + overflow) <= connections - reserved.

    Args:
        processes: all that have an engine: workers x machines, twice that during a rolling deploy,
            and the ones that run jobs and migrations.
        server_connections: see `server_connection_limit`.
        reserved: left for people, monitoring and backups.

    Raises:
        PoolPlanError: not even one connection for each process.
    """
    if processes < 1 or reserved < 0:
        raise PoolPlanError("processes must be at least 1, reserved at least 0")
    each = (server_connections - reserved) // processes
    if each < 1:
        raise PoolPlanError(
            f"{processes} processes do not fit into {server_connections} connections with "
            f"{reserved} reserved; run fewer, raise max_connections, or put PgBouncer between"
        )
    pool_size = max(1, each // 2)
    return PoolPlan(processes, pool_size, each - pool_size)


async def server_connection_limit(connection: AsyncConnection) -> int | None:
    """Return how many connections this user may open; None on SQLite, which has no server."""
    match connection.dialect.name:
        case "postgresql":
            statement = (
                "SELECT least(nullif(rolconnlimit, -1), current_setting('max_connections')::int"
                " - current_setting('superuser_reserved_connections')::int"
                # since PostgreSQL 16, for those who are granted them
                " - coalesce(current_setting('reserved_connections', true), '0')::int)"
                " FROM pg_roles WHERE rolname = session_user"
            )
        case "mysql" | "mariadb":
            statement = (
                "SELECT least(@@max_connections, coalesce(nullif(@@max_user_connections, 0),"
                " @@max_connections))"
            )
        case _:
            return None
    return int(await connection.scalar(text(statement)) or 0)


@dataclass(frozen=True)
class PoolFigures:
    """`in_use` of at most `limit` connections; `idle` are open and free."""

    limit: int
    in_use: int
    idle: int


def pool_figures(engine: AsyncEngine) -> PoolFigures | None:
    """Return how full the pool is, for metrics and health; None where the engine keeps no queue."""
    pool = engine.pool
    if not isinstance(pool, QueuePool):
        return None
    # overflow() counts up from -size: it is negative until the pool has been full once.
    limit = pool.size() + pool._max_overflow
    return PoolFigures(limit=limit, in_use=pool.checkedout(), idle=pool.checkedin())
