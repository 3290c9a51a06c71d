"""A database with all tables for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import URL
from sqlalchemy.pool import NullPool

from app.database.create_tables import create_tables, drop_tables
from app.database.engine import engine_for
from app.models import metadata
from tests.database import empty_database


@pytest.fixture
def database_url(tmp_path: Path) -> URL:
    return empty_database(tmp_path)


@pytest.fixture
async def database(database_url: URL) -> AsyncIterator[URL]:
    """Yield the URL of a database that has all tables; they are dropped after the test."""
    engine = engine_for(database_url, poolclass=NullPool)
    await create_tables(engine, metadata)
    yield database_url
    await drop_tables(engine, metadata)
    await engine.dispose()
