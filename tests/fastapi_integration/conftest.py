"""The cinema, running on an empty database, and what tests put into it."""

from collections.abc import AsyncIterator, Iterator

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from pydantic import SecretStr
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine
from statements import StatementLog

from snippets.database_setup.settings import DatabaseSettings
from snippets.database_setup.urls import with_password
from snippets.fastapi_integration.app import create_app
from snippets.fastapi_integration.testing import running_client


@pytest.fixture
def settings(database_url: URL) -> DatabaseSettings:
    """Patient ones: what is tested is that nothing gets lost, not how fast a busy machine is."""
    url = SecretStr(with_password(database_url))
    return DatabaseSettings(url=url, pool_timeout=60, lock_timeout=60, statement_timeout=60)


@pytest.fixture
def app(settings: DatabaseSettings, engine: AsyncEngine) -> FastAPI:
    """The application, not yet running; `engine` has made its tables."""
    return create_app(settings)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[AsyncClient]:
    """A client of the running application; no request may keep a connection."""
    async with running_client(app) as client:
        yield client
        assert app.state.engine.pool.checkedout() == 0


@pytest.fixture
def sent(app: FastAPI, client: AsyncClient) -> Iterator[StatementLog]:
    """What the application sends to the database."""
    with StatementLog(app.state.engine) as log:
        yield log


@pytest.fixture
async def film(client: AsyncClient) -> int:
    """The id of a film that is there."""
    answer = await client.post("/films", json={"title": "Metropolis", "year": 1927})
    return int(answer.json()["id"])


@pytest.fixture
async def screening(client: AsyncClient, film: int) -> int:
    """The id of a screening with ten seats."""
    body = {
        "film_id": film,
        "auditorium": "red",
        "starts_at": "2026-01-31T21:15:00+01:00",
        "seats_left": 10,
    }
    return int((await client.post("/screenings", json=body)).json()["id"])
