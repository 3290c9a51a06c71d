"""The application, and a client that talks to it."""

from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from pydantic import SecretStr
from sqlalchemy import URL

from app.database.settings import DatabaseSettings
from app.database.urls import with_password
from app.main import create_app
from app.settings import ApiSettings


@pytest.fixture
async def app(database: URL) -> AsyncIterator[FastAPI]:
    settings = DatabaseSettings(url=SecretStr(with_password(database)))
    app = create_app(settings, ApiSettings(count_statements=True))
    # ASGITransport does not run the lifespan by itself.
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[AsyncClient]:
    # An error of the application is answered with 500, as a server would.
    transport = ASGITransport(app=app, raise_app_exceptions=False)
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        yield client
