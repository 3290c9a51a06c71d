"""Which database the tests use.

A SQLite file by default; `TEST_DATABASE_URL` names an empty database to use instead.
"""

import asyncio
import os
from pathlib import Path

import pytest
from sqlalchemy import URL, inspect
from sqlalchemy.pool import NullPool

from app.database.engine import engine_for
from app.database.urls import async_url


def empty_database(folder: Path) -> URL:
    """Return the URL of a database without tables; a file would be made in the folder."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given is None:
        return URL.create("sqlite+aiosqlite", database=str(folder / "test.db"))
    url = async_url(given)
    if tables := asyncio.run(tables_of(url)) - {"alembic_version"}:
        names = ", ".join(sorted(tables))
        message = f"TEST_DATABASE_URL must name an empty database; it has {names}"
        pytest.fail(message, pytrace=False)
    return url


async def tables_of(url: URL) -> set[str]:
    engine = engine_for(url, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            return set(await connection.run_sync(lambda sync: inspect(sync).get_table_names()))
    finally:
        await engine.dispose()
