import threading
from collections.abc import Iterator
from typing import Annotated, Any

import fastapi
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException
from httpx import AsyncClient
from sqlmodel import func, select
from starlette.types import Message, Receive, Scope, Send

from snippets.fastapi_integration import app as app_module
from snippets.fastapi_integration._cinema import (
    Booking,
    Film,
    FilmCreate,
    FilmService,
    Screening,
    ScreeningService,
)
from snippets.fastapi_integration.dependencies import (
    FactoryDep,
    SessionDep,
    provided,
    scope_option,
)
from snippets.fastapi_integration.testing import running_client

TABLES = [Film, Screening, Booking]
Films = Annotated[FilmService, Depends(provided(FilmService))]
Screenings = Annotated[ScreeningService, Depends(provided(ScreeningService))]
seen: dict[str, Any] = {}
router = APIRouter()
METROPOLIS = FilmCreate(title="Metropolis", year=1927)


@router.get("/same-session")
async def same_session(films: Films, screenings: Screenings, session: SessionDep) -> bool:
    return films.session is screenings.session is session


@router.get("/factory")
@router.post("/factory")
async def factory_of_the_request(factory: FactoryDep) -> None:
    seen["factory"] = factory


@router.post("/written")
async def written(films: Films) -> None:
    await films.create(METROPOLIS)


@router.post("/refused")
async def refused(films: Films) -> None:
    await films.create(METROPOLIS)
    raise HTTPException(418)


@router.post("/failed")
async def failed(films: Films) -> None:
    await films.create(METROPOLIS)
    raise ZeroDivisionError


@router.post("/unsendable", response_model=int)
async def unsendable(films: Films) -> str:
    await films.create(METROPOLIS)
    return "no number"


@pytest.fixture(autouse=True)
def routes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(app_module, "ROUTERS", (*app_module.ROUTERS, router))
    seen.clear()
    return


async def films_stored(app: FastAPI) -> int:
    async with app.state.reading_factory() as session:
        count: int = (await session.exec(select(func.count()).select_from(Film))).one()
        return count


@pytest.mark.parametrize("version", ["0.115.0", "0.117.1"])
def test_old_versions_commit_before_the_answer_by_themselves(version: str) -> None:
    assert scope_option(version) == {}


@pytest.mark.parametrize("version", ["0.118.0", "0.120.4"])
def test_versions_that_can_only_commit_too_late_are_refused(version: str) -> None:
    with pytest.raises(RuntimeError) as error:
        scope_option(version)

    assert str(error.value) == (
        f"FastAPI {version} sends the answer before the commit; use 0.121 or newer"
    )


@pytest.mark.parametrize("version", ["0.121.0", "0.165.0", "1.0.0"])
def test_new_versions_are_asked_to(version: str) -> None:
    assert scope_option(version) == {"scope": "function"}


def test_the_installed_version_is_one_that_can() -> None:
    assert scope_option() in ({}, {"scope": "function"})
    assert scope_option() == scope_option(fastapi.__version__)


async def test_all_services_of_a_request_have_one_session(client: AsyncClient) -> None:
    assert (await client.get("/same-session")).json() is True


async def test_a_plain_dependency_runs_in_a_thread() -> None:
    app = FastAPI()

    def thread() -> int:
        return threading.get_ident()

    async def loop() -> int:
        return threading.get_ident()

    @app.get("/")
    async def threads(
        plain: Annotated[int, Depends(thread)], awaited: Annotated[int, Depends(loop)]
    ) -> list[bool]:
        return [plain == threading.get_ident(), awaited == threading.get_ident()]

    async with running_client(app) as client:
        assert (await client.get("/")).json() == [False, True]


async def test_requests_that_read_take_no_write_lock(client: AsyncClient, app: FastAPI) -> None:
    await client.get("/factory")
    reading = seen["factory"]
    await client.post("/factory")

    assert reading is app.state.reading_factory
    assert seen["factory"] is app.state.session_factory


async def test_a_request_commits_when_its_route_has_returned(
    client: AsyncClient, app: FastAPI
) -> None:
    assert (await client.post("/written")).status_code == 200
    assert await films_stored(app) == 1


@pytest.mark.parametrize(
    ("path", "status"), [("/refused", 418), ("/failed", 500), ("/unsendable", 500)]
)
async def test_a_request_that_fails_keeps_nothing(
    client: AsyncClient, app: FastAPI, path: str, status: int
) -> None:
    assert (await client.post(path)).status_code == status
    assert await films_stored(app) == 0


async def test_the_connection_is_free_before_the_answer_is_sent(
    client: AsyncClient, app: FastAPI
) -> None:
    """A client that reads slowly must not hold one."""
    in_use = []
    inner = client._transport.app  # type: ignore[attr-defined]

    async def watching(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            in_use.append(app.state.engine.pool.checkedout())
            await send(message)

        await inner(scope, receive, sending)

    client._transport.app = watching  # type: ignore[attr-defined]
    assert (await client.post("/written")).status_code == 200
    assert in_use == [0, 0]
