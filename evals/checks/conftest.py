"""Runs a task's checks against the folder that the variable SOLUTION names, on every database."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from servers import KINDS, Server, ServerUnavailableError, chosen_names
from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

SOLUTION = Path(os.environ["SOLUTION"]).resolve()
sys.path.insert(0, str(SOLUTION))
Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture
def solution() -> Path:
    return SOLUTION


@pytest.fixture(scope="session")
def running() -> Iterator[dict[str, Server]]:
    servers: dict[str, Server] = {}
    yield servers
    for server in servers.values():
        server.close()


@pytest.fixture(params=chosen_names())
def url(request: pytest.FixtureRequest, running: dict[str, Server]) -> Iterator[str]:
    """The URL of an empty database."""
    name: str = request.param
    if name not in running:
        try:
            running[name] = KINDS[name]()
        except ServerUnavailableError as error:
            pytest.skip(f"{name}: {error}")
    yield running[name].url.render_as_string(hide_password=False)
    running[name].empty()


@pytest.fixture
async def engine(url: str) -> AsyncIterator[AsyncEngine]:
    """An engine with the tables of the solution; on SQLite as an application should set it up."""
    async with _with_tables(create_async_engine(url)) as engine:
        yield engine


@pytest.fixture
async def plain_engine(url: str) -> AsyncIterator[AsyncEngine]:
    """As `engine`, with nothing set up on SQLite."""
    async with _with_tables(create_async_engine(url), plain=True) as engine:
        yield engine


@asynccontextmanager
async def _with_tables(engine: AsyncEngine, *, plain: bool = False) -> AsyncIterator[AsyncEngine]:
    if engine.dialect.name == "sqlite" and not plain:
        event.listen(engine.sync_engine, "connect", _set_up_sqlite)
        event.listen(engine.sync_engine, "begin", _begin)
    async with engine.begin() as connection:
        await connection.run_sync(SQLModel.metadata.create_all)
    yield engine
    await engine.dispose()


def _set_up_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # no BEGIN of the driver's, which comes after a SAVEPOINT
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


class Connections:
    """Counts those that are out of a pool of any class; make it while none is out."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.out = 0
        event.listen(engine.sync_engine.pool, "checkout", self._add)
        event.listen(engine.sync_engine.pool, "checkin", self._remove)

    def _add(self, *_arguments: Any) -> None:
        self.out += 1

    def _remove(self, *_arguments: Any) -> None:
        self.out -= 1

    async def are_back(self, seconds: float = 10) -> bool:
        """Wait until none is out."""
        for _ in range(int(seconds / 0.05)):
            if self.out == 0:
                return True
            await asyncio.sleep(0.05)
        return False


@pytest.fixture
def count_connections() -> type[Connections]:
    return Connections


@pytest.fixture
def sessions(engine: AsyncEngine) -> Sessions:
    return async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)


@pytest.fixture
async def session(sessions: Sessions) -> AsyncIterator[AsyncSession]:
    async with sessions() as session:
        yield session


@pytest.fixture
def statements(engine: AsyncEngine) -> Iterator[StatementLog]:
    with StatementLog(engine) as log:
        yield log
