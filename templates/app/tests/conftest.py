"""A migrated database for each test."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import URL

from tests.database import empty_database

ROOT = Path(__file__).parent.parent


@pytest.fixture
def database_url(tmp_path: Path) -> URL:
    return empty_database(tmp_path)


@pytest.fixture
async def migrations(database_url: URL) -> AsyncIterator[Config]:
    """Upgrade before the test, downgrade after it: both ways are tried all the time."""
    config = Config(str(ROOT / "alembic.ini"))
    config.set_main_option("script_location", str(ROOT / "migrations").replace("%", "%%"))
    config.attributes["database_url"] = database_url
    await asyncio.to_thread(command.upgrade, config, "head")
    yield config
    await asyncio.to_thread(command.downgrade, config, "base")


@pytest.fixture
def database(database_url: URL, migrations: Config) -> URL:
    """Return the URL of a database that has all tables."""
    return database_url
