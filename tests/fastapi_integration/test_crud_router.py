import asyncio
import datetime as dt
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response
from httpx import ASGITransport, AsyncClient
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.ext.asyncio import AsyncEngine
from statements import StatementLog

from snippets.database_setup.settings import DatabaseSettings
from snippets.fastapi_integration import app as app_module
from snippets.fastapi_integration import crud_router
from snippets.fastapi_integration._cinema import Booking, Film, Screening
from snippets.fastapi_integration.dependencies import path_of
from snippets.fastapi_integration.testing import running_client

TABLES = [Film, Screening, Booking]
METROPOLIS = {"title": "Metropolis", "year": 1927}


async def test_a_created_film_is_there(client: AsyncClient) -> None:
    created = await client.post("/films", json=METROPOLIS)

    assert created.status_code == 201
    key = created.json()["id"]
    assert created.headers["location"] == f"/films/{key}"
    read = await client.get(created.headers["location"])
    assert read.status_code == 200
    assert read.json() == {**METROPOLIS, "id": key, "synopsis": None} == created.json()


async def test_the_location_is_what_the_client_of_a_proxy_can_ask_for(
    client: AsyncClient, app: FastAPI
) -> None:
    whole = FastAPI()
    whole.mount("/cinema", app)
    for served, prefix, below in ((app, "/api", ""), (whole, "/api", "/cinema")):
        transport = ASGITransport(app=served, root_path=prefix)
        async with AsyncClient(transport=transport, base_url="http://test") as outside:
            body = METROPOLIS | {"title": f"Metropolis of {below}"}
            headers = {"host": "a/b["}  # which is the client's, and may be anything
            created = await outside.post(f"{prefix}{below}/films", json=body, headers=headers)
            read = await outside.get(created.headers["location"])

        assert created.headers["location"] == f"{prefix}{below}/films/{created.json()['id']}"
        assert read.json() == created.json()


async def test_the_location_has_the_prefix_of_the_router(
    settings: DatabaseSettings, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    versioned = APIRouter(prefix="/v1")
    versioned.include_router(crud_router.router, prefix="/cinema")
    monkeypatch.setattr(app_module, "ROUTERS", [versioned])
    async with running_client(app_module.create_app(settings)) as client:
        created = await client.post("/v1/cinema/films", json=METROPOLIS)

        assert created.headers["location"] == f"/v1/cinema/films/{created.json()['id']}"
        assert (await client.get(created.headers["location"])).json() == created.json()


async def test_the_location_has_a_key_of_any_letters() -> None:
    """`é` in a header was a 500 after the row was written, and `?` cut the key."""
    app = FastAPI()

    @app.get("/labels/{name}")
    async def read_label(name: str) -> str:
        return name

    @app.post("/labels")
    async def create_label(name: str, request: Request, response: Response) -> None:
        response.headers["Location"] = path_of(request, "read_label", name=name)

    transport = ASGITransport(app=app, root_path="/é")
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        for name in ("plain", "café", "東", "a?b#c", "50% off", "a:b@c"):
            created = await client.post("/é/labels", params={"name": name})
            read = await client.get(created.headers["location"])

            assert read.json() == name


async def test_a_change_takes_what_was_sent_and_null_is_a_value(client: AsyncClient) -> None:
    body = {**METROPOLIS, "synopsis": "A city."}
    path = (await client.post("/films", json=body)).headers["location"]

    changed = await client.patch(path, json={"year": 1926})
    assert changed.status_code == 200
    assert changed.json() == (await client.get(path)).json()
    assert (changed.json()["year"], changed.json()["synopsis"]) == (1926, "A city.")

    assert (await client.patch(path, json={"synopsis": None})).json()["synopsis"] is None
    assert (await client.patch(path, json={})).json()["year"] == 1926


async def test_a_whole_number_may_be_written_as_a_float(client: AsyncClient) -> None:
    """As JSON has it; pydantic's strict mode would refuse it."""
    body = b'{"title": "Metropolis", "year": 1927.0}'
    answer = await client.post("/films", content=body, headers={"content-type": "application/json"})

    assert answer.status_code == 201
    assert answer.json()["year"] == 1927
    with pytest.raises(ValidationError, match="valid integer"):
        TypeAdapter(int).validate_python(1927.0, strict=True)
    with pytest.raises(ValidationError, match="valid datetime"):
        TypeAdapter(dt.datetime).validate_python("2026-01-31T20:15:00Z", strict=True)


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
async def test_the_path_for_bulk_is_no_key(client: AsyncClient, method: str) -> None:
    answer = await client.request(method, "/bulk/films")

    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("field", ["title", "year"])
async def test_null_is_refused_where_the_column_has_none(
    client: AsyncClient, film: int, field: str
) -> None:
    answer = await client.patch(f"/films/{film}", json={field: None})

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == f"body.{field}"


async def test_a_deleted_film_is_gone(client: AsyncClient, film: int) -> None:
    deleted = await client.delete(f"/films/{film}")

    assert (deleted.status_code, deleted.content) == (204, b"")
    assert (await client.get(f"/films/{film}")).status_code == 404
    assert (await client.delete(f"/films/{film}")).status_code == 404
    assert (await client.patch(f"/films/{film}", json={})).status_code == 404


@pytest.mark.parametrize("key", ["0", "-1", "4711", "2147483648", "9" * 19, "9" * 40])
async def test_a_key_that_names_no_row_is_not_found(client: AsyncClient, key: str) -> None:
    answer = await client.get(f"/films/{key}")

    assert answer.status_code == 404
    assert answer.json()["detail"] == f"no Film has the key {key}"


async def test_many_films_are_created_in_their_order(
    client: AsyncClient, sent: StatementLog
) -> None:
    bodies = [{"title": f"Part {number}", "year": 2000 + number % 7} for number in range(50)]

    sent.clear()
    answer = await client.post("/bulk/films", json=bodies)

    assert answer.status_code == 201
    assert [film["title"] for film in answer.json()] == [body["title"] for body in bodies]
    assert sent.count == 1


async def test_a_bulk_request_is_all_or_nothing(client: AsyncClient, film: int) -> None:
    bodies = [{"title": "Nosferatu", "year": 1922}, METROPOLIS, {"title": "M", "year": 1931}]

    answer = await client.post("/bulk/films", json=bodies)

    assert answer.status_code == 409
    assert (await client.get("/films")).json()["total"] == 1


@pytest.mark.parametrize("count", [0, 501])
async def test_a_bulk_request_has_bounds(client: AsyncClient, count: int) -> None:
    assert (await client.post("/bulk/films", json=[METROPOLIS] * count)).status_code == 422


async def test_two_hundred_clients_share_a_pool_of_fifteen(
    client: AsyncClient, app: FastAPI, screening: int
) -> None:
    """Each creates and changes a film, and books one of the seats, which are too few."""

    async def visit(number: int) -> list[int]:
        body = {"title": f"Film {number}", "year": 1950}
        created = await client.post("/films", json=body)
        path = created.headers["location"]
        answers = [
            created,
            await client.patch(path, json={"synopsis": "…"}),
            await client.post(
                "/bookings",
                json={"screening_id": screening, "seats": 1},
                headers={"Idempotency-Key": f"client-{number}"},
            ),
        ]
        return [answer.status_code for answer in answers]

    visits = await asyncio.gather(*(visit(number) for number in range(200)))

    assert {tuple(codes[:2]) for codes in visits} == {(201, 200)}
    assert sorted(codes[2] for codes in visits) == [201] * 10 + [409] * 190
    pool = app.state.engine.pool
    assert (pool.size(), pool._max_overflow, pool.checkedout()) == (5, 10, 0)


@pytest.mark.skipif(find_spec("schemathesis") is None, reason="schemathesis is not installed")
async def test_the_application_keeps_its_contract(
    app: FastAPI, engine: AsyncEngine, tmp_path: Path
) -> None:
    """Every check of schemathesis: no 5xx, answers as documented, bad input refused, good taken."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]

    st = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("st"),
        *("run", f"http://127.0.0.1:{port}/openapi.json", "--checks", "all", "--seed", "1"),
        *("--max-examples", "5", "--no-color"),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    report = (await st.communicate())[0].decode()
    server.should_exit = True
    await serving

    assert st.returncode == 0, report
    assert "No issues found" in report
    assert "14 selected / 14 total" in report
