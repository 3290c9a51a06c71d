"""A migrated database and a client for each test.

A SQLite file by default; `TEST_DATABASE_URL` names an empty database to use instead.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from pydantic import SecretStr
from sqlalchemy import URL, inspect
from sqlalchemy.pool import NullPool

from app.database.engine import engine_for
from app.database.settings import DatabaseSettings
from app.database.urls import async_url, with_password
from app.main import create_app
from app.settings import ApiSettings

ROOT = Path(__file__).parent.parent


@pytest.fixture
def database_url(tmp_path: Path) -> URL:
    given = os.environ.get("TEST_DATABASE_URL")
    if given is None:
        return URL.create("sqlite+aiosqlite", database=str(tmp_path / "test.db"))
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
async def app(database_url: URL, migrations: Config) -> AsyncIterator[FastAPI]:
    database = DatabaseSettings(url=SecretStr(with_password(database_url)))
    app = create_app(database, ApiSettings(count_statements=True))
    # ASGITransport does not run the lifespan by itself.
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[AsyncClient]:
    # An error of the application is answered with 500, as a server would.
    transport = ASGITransport(app=app, raise_app_exceptions=False)
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        yield client
