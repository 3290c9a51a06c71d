"""Test on the database that production has: one for each worker, every test undone."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.best_practices.query_plans import Letter
from snippets.database_setup.urls import async_url


@asynccontextmanager
async def scratch_database(url: str | URL) -> AsyncIterator[URL]:
    """Create an empty database beside the one of the URL, yield its URL, drop it.

    The name is new each time, so workers of pytest-xdist do not meet. No other database is
    touched. On SQLite it is a file beside the given one.

    Args:
        url: an existing database whose user may create others.
    """
    url = async_url(url)
    name = f"scratch_{uuid.uuid4().hex}"
    if url.get_backend_name() == "sqlite":
        path = Path(url.database or "").with_name(f"{name}.db")
        try:
            yield url.set(database=str(path))
        finally:
            for end in ("", "-wal", "-shm"):
                path.with_name(path.name + end).unlink(missing_ok=True)
        return
    server = create_async_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    try:
        await _run(server, f"CREATE DATABASE {name}")
        try:
            yield url.set(database=name)
        finally:
            force = " WITH (FORCE)" if url.get_backend_name() == "postgresql" else ""
            await _run(server, f"DROP DATABASE {name}{force}")
    finally:
        await server.dispose()


async def _run(engine: AsyncEngine, statement: str) -> None:
    async with engine.connect() as connection:
        await connection.execute(text(statement))  # no name in it comes from outside


# Example: scaffold.py leaves out what follows.

_numbers = count(1)


async def new_letter(session: AsyncSession, **values: Any) -> Letter:
    """Add a letter that no other resembles; a test names only what it is about.

    Flushed, so that a refused value fails here and the id is there.
    """
    letter = Letter.model_validate({"code": f"L{next(_numbers):06}", "town": "Oslo"} | values)
    session.add(letter)
    await session.flush()
    return letter
