import asyncio

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import URL, text
from sqlalchemy.exc import OperationalError
from sqlmodel import select

from snippets.database_setup.urls import with_password
from snippets.fastapi_integration._cinema import Booking, Film, Screening
from snippets.fastapi_integration.app import create_app
from snippets.fastapi_integration.testing import running_client

TABLES = [Film, Screening, Booking]


async def test_the_engine_lives_from_start_to_end(app: FastAPI) -> None:
    assert not hasattr(app.state, "engine")

    async with running_client(app) as client:
        assert (await client.get("/films")).status_code == 200
        pool = app.state.engine.pool
        assert pool.checkedin() == 1

    assert pool.checkedin() == 0  # disposed


async def test_the_engine_is_disposed_of_when_the_application_dies(app: FastAPI) -> None:
    with pytest.raises(ZeroDivisionError):
        async with app.router.lifespan_context(app):
            async with app.state.session_factory() as session:
                await session.exec(text("SELECT 1"))
            pool = app.state.engine.pool
            raise ZeroDivisionError

    assert pool.checkedin() == 0


async def test_an_application_can_be_started_again(app: FastAPI) -> None:
    for _ in range(2):
        async with running_client(app) as client:
            assert (await client.get("/films")).status_code == 200


async def test_settings_come_from_the_environment(
    database_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", with_password(database_url))
    monkeypatch.setenv("DATABASE_POOL_SIZE", "3")

    async with running_client(create_app()):
        pass
    app = create_app()
    async with running_client(app):
        assert app.state.engine.pool.size() == 3


async def test_concurrent_changes_of_one_row_all_succeed(
    client: AsyncClient, app: FastAPI, film: int
) -> None:
    """Each reads first; on SQLite a transaction that reads, then writes, would be refused."""
    requests = [
        client.patch(f"/films/{film}", json={"year": 1930 + number}) for number in range(20)
    ]
    answers = await asyncio.gather(*requests)

    assert {answer.status_code for answer in answers} == {200}
    async with app.state.session_factory() as session:
        assert 1930 <= (await session.exec(select(Film.year))).one() < 1950


async def read_then_write(app: FastAPI, maker: str, film: int) -> None:
    """Two transactions read the film, then both change it, one after the other."""
    factory = getattr(app.state, maker)
    async with factory() as first, factory() as second:
        for session in (first, second):
            await session.get_one(Film, film)
        for session in (first, second):
            (await session.get_one(Film, film)).year += 1
            await session.commit()


@pytest.mark.only_on("sqlite", reason="it refuses to write on what another has changed since")
async def test_without_the_lock_a_read_then_a_write_is_refused(
    client: AsyncClient, app: FastAPI, film: int
) -> None:
    with pytest.raises(OperationalError, match="database is locked"):
        await read_then_write(app, "reading_factory", film)


@pytest.mark.not_on("sqlite", reason="it refuses to write on what another has changed since")
async def test_rows_are_locked_when_they_are_written(
    client: AsyncClient, app: FastAPI, film: int
) -> None:
    await read_then_write(app, "reading_factory", film)
