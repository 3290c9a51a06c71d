"""Keep an engine within one event loop and one process, and close it when they end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import NullPool, Pool

from snippets.database_setup.engine import engine_for
from snippets.database_setup.session import run_to_end


@asynccontextmanager
async def running_engine(url: str | URL) -> AsyncIterator[AsyncEngine]:
    """Yield an engine made inside the running loop, and dispose of it before the loop ends.

    The form for scripts, workers and FastAPI's lifespan alike.
    """
    engine = engine_for(url)
    try:
        yield engine
    finally:
        await run_to_end(engine.dispose())


_inherited: list[Pool] = []


async def forget_inherited_connections(engine: AsyncEngine) -> None:
    """Call first in a forked child or in a second loop: its connections belong to the other one.

    They are neither closed nor collected, which would end the parent's session, or make its loop
    deaf: asyncpg and aiomysql close what is collected. They stay open until this process ends.
    """
    _inherited.append(engine.pool)
    await engine.dispose(close=False)


def engine_for_many_loops(url: str | URL) -> AsyncEngine:
    """Return an engine that keeps no connection, so that each `asyncio.run` opens its own."""
    return engine_for(url, poolclass=NullPool)
