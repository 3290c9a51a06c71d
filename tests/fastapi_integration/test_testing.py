import asyncio

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.fastapi_integration._cinema import Booking, Film, Screening
from snippets.fastapi_integration.dependencies import get_factory
from snippets.fastapi_integration.testing import rolled_back, rolled_back_sessions, running_client

TABLES = [Film, Screening, Booking]
METROPOLIS = {"title": "Metropolis", "year": 1927}


async def test_the_client_starts_and_stops_the_application(app: FastAPI) -> None:
    async with running_client(app) as client:
        assert (await client.get("/films")).status_code == 200
        assert client.is_closed is False

    assert client.is_closed


async def test_nothing_is_kept_of_what_requests_commit(client: AsyncClient, app: FastAPI) -> None:
    async with rolled_back(app):
        path = (await client.post("/films", json=METROPOLIS)).headers["location"]
        assert (await client.post("/films", json=METROPOLIS)).status_code == 409
        assert (await client.get(path)).json()["title"] == "Metropolis"
        assert (await client.get("/films")).json()["total"] == 1

    assert (await client.get("/films")).json()["total"] == 0


async def test_the_test_and_the_requests_see_each_others_rows(
    client: AsyncClient, app: FastAPI
) -> None:
    async with rolled_back(app) as factory:
        async with factory() as session:
            session.add(Film(title="M", year=1931))
            await session.commit()
        assert (await client.get("/films?title=M")).json()["total"] == 1
        await client.post("/films", json=METROPOLIS)
        async with factory() as session:
            assert len((await session.exec(select(Film))).all()) == 2

    assert (await client.get("/films")).json()["total"] == 0


async def test_a_rollback_keeps_what_was_committed_before(
    client: AsyncClient, app: FastAPI
) -> None:
    async with rolled_back(app) as factory:
        await client.post("/films", json=METROPOLIS)
        async with factory() as session:
            session.add(Film(title="M", year=1931))
            await session.flush()
            await session.rollback()
        async with factory() as session:
            session.add(Film(title="Nosferatu", year=1922))
            await session.flush()  # and closed without a commit
        films = (await client.get("/films")).json()["items"]

    assert [film["title"] for film in films] == ["Metropolis"]


async def test_background_work_and_streams_are_rolled_back_too(
    client: AsyncClient, app: FastAPI, screening: int
) -> None:
    body = {"screening_id": screening, "seats": 1}
    answer = await client.post("/bookings", json=body, headers={"Idempotency-Key": "a"})
    path = f"/bookings/{answer.json()['id']}"

    async with rolled_back(app):
        await client.post("/films", json=METROPOLIS | {"year": 1926})
        assert len((await client.get("/film-export")).text.splitlines()) == 2
        await client.post(f"/screenings/{screening}/closing")
        assert (await client.delete(path)).status_code == 404

    assert (await client.delete(path)).status_code == 204


async def test_the_override_ends_with_the_block(client: AsyncClient, app: FastAPI) -> None:
    with pytest.raises(ZeroDivisionError):
        async with rolled_back(app):
            assert get_factory in app.dependency_overrides
            raise ZeroDivisionError

    assert app.dependency_overrides == {}
    assert app.state.engine.pool.checkedout() == 0


async def test_an_override_of_before_is_there_again(client: AsyncClient, app: FastAPI) -> None:
    def own() -> async_sessionmaker[AsyncSession]:
        return app.state.session_factory

    app.dependency_overrides[get_factory] = own
    async with rolled_back(app):
        assert app.dependency_overrides[get_factory] is not own
    assert app.dependency_overrides == {get_factory: own}

    async with rolled_back(app):
        app.dependency_overrides.clear()
    assert app.dependency_overrides == {get_factory: own}


async def test_a_test_may_clear_all_overrides(client: AsyncClient, app: FastAPI) -> None:
    async with rolled_back(app):
        app.dependency_overrides.clear()

    assert app.dependency_overrides == {}


async def test_requests_may_run_in_parallel_without_rollback(client: AsyncClient) -> None:
    bodies = [{"title": f"Film {number}", "year": 1960} for number in range(20)]

    answers = await asyncio.gather(*(client.post("/films", json=body) for body in bodies))

    assert {answer.status_code for answer in answers} == {201}
    assert (await client.get("/films")).json()["total"] == 20


async def test_sessions_without_an_application_are_rolled_back_also_after_an_error(
    engine: AsyncEngine, factory: async_sessionmaker[AsyncSession]
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with rolled_back_sessions(engine) as undone:
            async with undone() as session:
                session.add(Film(title="M", year=1931))
                await session.commit()
            async with undone() as session:
                assert (await session.exec(select(Film.title))).all() == ["M"]
                await session.rollback()
                assert (await session.exec(select(Film.title))).all() == ["M"]
            raise ZeroDivisionError

    async with factory() as session:
        assert (await session.exec(select(Film.title))).all() == []
