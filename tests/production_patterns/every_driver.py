"""An engine for each installed driver of a database, and how to wait for what they do."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from snippets.database_setup.engine import engine_for

DRIVERS = {
    "sqlite": ("aiosqlite",),
    "postgresql": ("asyncpg", "psycopg"),
    "mysql": ("aiomysql", "asyncmy"),
}


def urls(url: URL) -> list[URL]:
    """The URL with each driver that is installed."""
    name = url.get_backend_name()
    return [url.set(drivername=f"{name}+{each}") for each in DRIVERS[name] if find_spec(each)]


@asynccontextmanager
async def running_engine(url: URL, **options: Any) -> AsyncIterator[AsyncEngine]:
    engine = engine_for(url, **options)
    try:
        yield engine
    finally:
        await engine.dispose()


async def until(condition: Callable[[], object], limit: float = 60) -> None:
    """Wait for what another task, or a server, does."""
    async with asyncio.timeout(limit):
        while not condition():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.01)
