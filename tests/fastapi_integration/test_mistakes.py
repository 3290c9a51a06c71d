"""Each mistake, with the symptom that the page quotes."""

import asyncio
import gc

import fastapi
import pytest
from fastapi import FastAPI
from fastapi.exceptions import ResponseValidationError
from httpx import ASGITransport, AsyncClient
from sqlalchemy import URL
from sqlalchemy.exc import IntegrityError, SAWarning
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlmodel import func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.fastapi_integration import mistakes
from snippets.fastapi_integration._cinema import Booking, Film, Screening
from snippets.fastapi_integration.testing import running_client

TABLES = [Film, Screening, Booking]
Factory = async_sessionmaker[AsyncSession]
METROPOLIS = {"title": "Metropolis", "year": 1927}
ANSWERS_BEFORE_COMMIT = tuple(map(int, fastapi.__version__.split(".")[:2])) >= (0, 118)


def client_of(app: FastAPI, *, raising: bool = False) -> AsyncClient:
    transport = ASGITransport(app=app, raise_app_exceptions=raising)
    return AsyncClient(transport=transport, base_url="http://test")


@pytest.fixture
async def film(factory: Factory) -> int:
    async with factory() as session:
        film = Film(title="Metropolis", year=1927)
        session.add(film)
        await session.commit()
        assert film.id is not None
        return film.id


async def test_commit_after_the_answer(factory: Factory, film: int) -> None:
    async with client_of(mistakes.commit_after_the_answer(factory)) as client:
        answer = await client.post("/films", json=METROPOLIS)

    # 0.118 and newer send the answer first; before, the failed commit was a 500.
    if ANSWERS_BEFORE_COMMIT:
        assert (answer.status_code, answer.text) == (201, '{"status":"saved"}')
    else:
        assert answer.status_code == 500
    async with factory() as session:
        assert (await session.exec(select(func.count()).select_from(Film))).one() == 1


async def test_commit_after_the_answer_fails_too_late(factory: Factory, film: int) -> None:
    async with client_of(mistakes.commit_after_the_answer(factory), raising=True) as client:
        with pytest.raises(IntegrityError):
            await client.post("/films", json=METROPOLIS)


async def test_answer_with_an_expired_object(engine: AsyncEngine, factory: Factory) -> None:
    async with client_of(mistakes.answer_with_an_expired_object(engine)) as client:
        answer = await client.post("/films", json=METROPOLIS)

    assert (answer.status_code, answer.text) == (200, "{}")
    async with factory() as session:
        assert (await session.exec(select(Film.title))).all() == ["Metropolis"]


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_lazy_field_in_the_response(factory: Factory, film: int) -> None:
    app = mistakes.lazy_field_in_the_response(factory)

    async with client_of(app, raising=True) as client:
        with pytest.raises(ResponseValidationError) as error:
            await client.get(f"/films/{film}")
    found = error.value.errors()[0]
    async with client_of(app) as client:
        assert (await client.get(f"/films/{film}")).status_code == 500

    assert found["type"] == "get_attribute_error"
    assert found["loc"] == ("response", "screenings")
    assert "greenlet_spawn has not been called" in found["msg"]
    error.value.__traceback__ = None
    gc.collect()


async def test_answer_that_repeats_the_input() -> None:
    app = mistakes.answer_that_repeats_the_input()
    body, headers = b'{"title": "M", "year": NaN}', {"content-type": "application/json"}

    async with client_of(app) as client:
        assert (await client.post("/films", content=body, headers=headers)).status_code == 500
    async with client_of(app, raising=True) as client:
        with pytest.raises(ValueError, match="not JSON compliant") as error:
            await client.post("/films", content=body, headers=headers)

    assert str(error.value).startswith("Out of range float values are not JSON compliant")


async def test_driver_text_in_the_answer(factory: Factory, film: int, database_url: URL) -> None:
    async with client_of(mistakes.driver_text_in_the_answer(factory)) as client:
        answer = await client.post("/films", json=METROPOLIS)

    assert answer.status_code == 400
    assert "[SQL: INSERT INTO film" in answer.json()["detail"]


async def test_stream_over_the_request_session(
    factory: Factory, engine: AsyncEngine, film: int
) -> None:
    async with client_of(mistakes.stream_over_the_request_session(factory)) as client:
        answer = await client.get("/films")

    # It works, in a session that was closed before and that nobody closes again.
    assert '"title":"Metropolis"' in answer.text
    assert engine.pool.checkedout() == 1  # type: ignore[attr-defined]
    lost = "The garbage collector is trying to clean up non-checked-in connection"
    with pytest.warns(SAWarning, match=lost):
        gc.collect()
        await asyncio.sleep(0.05)


async def test_client_without_lifespan(app: FastAPI) -> None:
    async with mistakes.client_without_lifespan(app) as client:
        with pytest.raises(AttributeError) as error:
            await client.get("/films")

    assert str(error.value) == "'State' object has no attribute 'reading_factory'"


async def test_an_app_below_another_runs_no_lifespan_of_its_own(app: FastAPI) -> None:
    whole = FastAPI()
    whole.mount("/cinema", app)

    async with running_client(whole) as client:
        assert (await client.get("/cinema/films")).status_code == 500
        async with app.router.lifespan_context(app):
            assert (await client.get("/cinema/films")).status_code == 200


def test_app_given_to_the_client() -> None:
    with pytest.raises(TypeError) as error:
        mistakes.app_given_to_the_client(FastAPI())

    assert str(error.value) == "AsyncClient.__init__() got an unexpected keyword argument 'app'"


def test_limits_behind_a_validator() -> None:
    schema = mistakes.limits_behind_a_validator()

    assert schema["type"] == "integer"
    assert "minimum" not in schema
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        mistakes.LimitsBehindAValidator(seats=0)
