import asyncio
import datetime as dt
import json
import logging
import socket
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from fastapi.staticfiles import StaticFiles
from hosts import resolve
from httpx import AsyncClient, Response
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine

from snippets.database_setup import engine as engine_module
from snippets.database_setup.settings import DatabaseSettings
from snippets.database_setup.urls import with_password
from snippets.fastapi_integration import app as app_module
from snippets.fastapi_integration import error_handlers
from snippets.fastapi_integration._cinema import Booking, Film, FilmService, Screening
from snippets.fastapi_integration.dependencies import SessionDep
from snippets.fastapi_integration.error_handlers import (
    add_error_handlers,
    database_problem,
    documented,
    problem,
    service_problem,
    status_of,
)
from snippets.fastapi_integration.testing import running_client
from snippets.servicebase.errors import (
    CheckFailedError,
    ConflictError,
    InvalidCursorError,
    InvalidFilterError,
    InvalidValueError,
    MissingReferenceError,
    NotFoundError,
    RequiredValueError,
    ServiceError,
    StaleVersionError,
    StillReferencedError,
    UnfilteredWriteError,
    ValueRangeError,
)

TABLES = [Film, Screening, Booking]
PROBLEM = "application/problem+json"
router = APIRouter()


@router.get("/broken-sql")
async def broken_sql(session: SessionDep) -> None:
    await session.exec(text("SELECT secret FROM nowhere"))


@router.get("/broken")
async def broken() -> None:
    raise RuntimeError("a secret")


@router.post("/everything")
async def change_everything(session: SessionDep) -> None:
    await FilmService(session).update_where(values={"year": 2000})


@router.post("/too-long")
async def too_long(session: SessionDep) -> None:
    await FilmService(session).update_where(values={"year": 2**70}, id=1)


@pytest.fixture(autouse=True)
def routes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(app_module, "ROUTERS", (*app_module.ROUTERS, router))
    return


def assert_problem(answer: Any, status: int) -> dict[str, Any]:
    """The body is a problem, and shows nothing of the database."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    for word in ("SELECT", "INSERT", "UPDATE", "sqlalchemy", "secret", "Traceback", "codec"):
        assert word not in answer.text
    body: dict[str, Any] = answer.json()
    assert set(body) == {"title", "status", "detail", "errors"}
    assert body["status"] == status
    return body


def fields(body: dict[str, Any]) -> set[str]:
    return {error["field"] for error in body["errors"]}


async def test_a_taken_value_is_a_conflict_that_names_its_fields(
    client: AsyncClient, film: int
) -> None:
    answer = await client.post("/films", json={"title": "Metropolis", "year": 1927})

    body = assert_problem(answer, 409)
    assert body["detail"] == "Film conflicts with another row"
    assert fields(body) == {"title", "year"}


async def test_a_missing_reference_is_a_conflict_that_names_its_field(client: AsyncClient) -> None:
    body = {
        "film_id": 4711,
        "auditorium": "red",
        "starts_at": "2026-01-31T20:15:00Z",
        "seats_left": 10,
    }

    problem = assert_problem(await client.post("/screenings", json=body), 409)

    assert fields(problem) == {"film_id"}


async def test_a_row_that_is_referred_to_can_not_be_deleted(
    client: AsyncClient, film: int, screening: int
) -> None:
    body = assert_problem(await client.delete(f"/films/{film}"), 409)

    assert body["detail"] == "Film is still referred to by another row"
    assert (await client.get(f"/films/{film}")).status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"title": "M"}', "body.year"),
        (b'{"title": "M", "year": 1931, "rating": 5}', "body.rating"),
        (b'{"title": "M", "year": 1931, "id": 5}', "body.id"),
        (b'{"title": "M", "year": "1931"}', "body.year"),
        (b'{"title": "M", "year": true}', "body.year"),
        (b'{"title": "M", "year": NaN}', "body.year"),
        (b'{"title": "M", "year": 1e999}', "body.year"),
        (b'{"title": "M", "year": 1931.5}', "body.year"),
        (b'{"title": "M", "year": 99999999999999999999999999}', "body.year"),
        (b'{"title": "", "year": 1931}', "body.title"),
        (b'{"title": "a\\u0000b", "year": 1931}', "body.title"),
        (b'{"title": "a\\ud800b", "year": 1931}', "body.title"),
        (b'{"title": "' + b"x" * 121 + b'", "year": 1931}', "body.title"),
        (b'{"title": "M", "year": 1931, "synopsis": "' + b"x" * 200_000 + b'"}', "body.synopsis"),
        (b'{"title": "M", "year": 1931, "\\ud800": 1}', "body"),
        (b'{"title": "M", "year": 1931, "' + b"x" * 5000 + b'": 1}', "body." + "x" * 995),
        (b"[]", "body"),
        (b"null", "body"),
        (b"{", "body.1"),
        (b"[" * 100_000, None),
        (b'{"title": "\xff"}', None),
        (b"", "body"),
    ],
    ids=range(22),
)
async def test_no_body_is_answered_with_a_server_error(
    client: AsyncClient, body: bytes, field: str | None
) -> None:
    headers = {"content-type": "application/json"}

    answer = await client.post("/films", content=body, headers=headers)

    if field is None:  # what can't be read at all
        assert_problem(answer, 400)
    else:
        assert fields(assert_problem(answer, 422)) == {field}
    assert (await client.get("/films")).json()["total"] == 0


@pytest.mark.parametrize(
    "moment",
    [5, "5", "2026-01-31", "2026-01-31T20:15:00", "0001-01-01T00:00:00+14:00", "soon", None],
)
async def test_a_moment_needs_a_date_a_time_and_a_zone(client: AsyncClient, moment: Any) -> None:
    body = {"film_id": 1, "auditorium": "red", "starts_at": moment, "seats_left": 10}

    answer = await client.post("/screenings", json=body)

    assert fields(assert_problem(answer, 422)) == {"body.starts_at"}


async def test_the_first_hundred_errors_are_enough(client: AsyncClient) -> None:
    answer = await client.post("/bulk/films", json=[{}] * 500)

    assert len(assert_problem(answer, 422)["errors"]) == 100


async def test_an_unknown_path_is_a_problem_too(client: AsyncClient) -> None:
    assert assert_problem(await client.get("/nothing"), 404)["detail"] == "Not Found"


async def test_a_method_that_is_not_allowed_hears_which_are(client: AsyncClient) -> None:
    answer = await client.put("/films/1")

    assert_problem(answer, 405)
    assert answer.headers["allow"] == "DELETE, GET, PATCH"


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/docs", "GET, HEAD"),
        ("/openapi.json", "GET, HEAD"),
        ("/metrics", "GET, HEAD"),
        ("/hidden", "GET"),
        ("/half-hidden", "GET, PATCH"),
    ],
)
async def test_a_path_that_openapi_does_not_show_keeps_its_own_methods(
    path: str, allowed: str
) -> None:
    answer = await plain_app_answers("POST", path)

    assert_problem(answer, 405)
    assert answer.headers["allow"] == allowed


async def test_static_files_can_not_be_posted() -> None:
    """Which methods they allow, newer versions of Starlette say."""
    assert_problem(await plain_app_answers("POST", "/static/test_app.py"), 405)


@pytest.mark.parametrize("status", [103, 204, 304])
async def test_a_status_that_has_no_body_gets_none(status: int) -> None:
    answer = await plain_app_answers("GET", f"/status/{status}")

    assert (answer.status_code, answer.content) == (status, b"")
    assert answer.headers["etag"] == "x"
    assert "content-type" not in answer.headers
    assert "content-length" not in answer.headers


async def test_a_status_that_nobody_registered_is_sent_as_it_is() -> None:
    body = assert_problem(await plain_app_answers("GET", "/status/499"), 499)

    assert (body["title"], body["detail"]) == ("Error", "why")
    assert documented(499)[499]["description"] == "Error"


async def plain_app_answers(method: str, path: str) -> Response:
    """Ask an application that has what only some of its users have."""
    app = FastAPI()
    add_error_handlers(app)

    @app.get("/hidden", include_in_schema=False)
    @app.patch("/half-hidden")
    @app.get("/half-hidden", include_in_schema=False)
    async def hidden() -> None: ...

    @app.get("/status/{status}")
    async def answer(status: int) -> None:
        raise HTTPException(status, "why", headers={"ETag": "x"})

    async def metrics(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("")

    app.add_route("/metrics", metrics, methods=["GET"])
    app.mount("/static", StaticFiles(directory=Path(__file__).parent))
    async with running_client(app) as client:
        return await client.request(method, path)


@pytest.mark.parametrize("path", ["/broken-sql", "/broken"])
async def test_an_unexpected_error_shows_nothing(client: AsyncClient, path: str) -> None:
    assert assert_problem(await client.get(path), 500)["detail"] == "internal error"


async def test_a_mistake_of_the_program_is_a_server_error(client: AsyncClient) -> None:
    assert assert_problem(await client.post("/everything"), 500)["detail"] == "internal error"


def test_a_value_that_the_driver_refuses_shows_nothing_of_it() -> None:
    error = InvalidValueError("Film: 'utf-8' codec can't encode a secret")
    error.__cause__ = UnicodeError("secret")

    answer = service_problem(error)

    assert answer.status_code == 422
    assert json.loads(answer.body)["detail"] == "a value can't be stored"


def test_an_unknown_field_is_named() -> None:
    answer = service_problem(InvalidValueError("Film has no colour; it has title, year"))

    assert json.loads(answer.body)["detail"] == "Film has no colour; it has title, year"


def test_a_name_that_can_not_be_sent_is_replaced() -> None:
    answer = problem(422, "\ud800", errors=[{"field": "x" * 5000, "message": "\ud800"}])

    body = json.loads(answer.body)
    assert (body["detail"], body["errors"][0]["message"]) == ("?", "?")
    assert body["errors"][0]["field"] == "x" * 1000


async def test_a_value_that_does_not_fit_is_the_clients_fault(
    client: AsyncClient, film: int
) -> None:
    assert_problem(await client.post("/too-long"), 422)


async def test_an_exhausted_pool_asks_to_come_again(
    settings: DatabaseSettings, engine: object, caplog: pytest.LogCaptureFixture
) -> None:
    small = settings.model_copy(update={"pool_size": 1, "max_overflow": 0, "pool_timeout": 0.05})
    app = app_module.create_app(small)
    async with running_client(app) as client, app.state.engine.connect():
        answer = await client.get("/films")

    assert_problem(answer, 503)
    assert answer.headers["retry-after"] == "1"
    assert "answered 503: TimeoutError: QueuePool limit of size 1 overflow 0" in caplog.text


@pytest.mark.only_on("postgresql", reason="SQLAlchemy 2.0 does not wrap what asyncpg raises")
async def test_a_server_with_too_many_connections_asks_to_come_again(
    settings: DatabaseSettings, engine: AsyncEngine
) -> None:
    role = f"r{uuid.uuid4().hex[:20]}"
    url = engine.url.set(username=role, password=role)
    async with engine.connect() as connection:
        admin = await connection.execution_options(isolation_level="AUTOCOMMIT")
        limited = f"CREATE ROLE {role} LOGIN PASSWORD '{role}' CONNECTION LIMIT 0"
        await admin.execute(text(limited))
        try:
            secret = SecretStr(with_password(url))
            app = app_module.create_app(settings.model_copy(update={"url": secret}))
            async with running_client(app) as client:
                answer = await client.get("/films")
        finally:
            await admin.execute(text(f"DROP ROLE {role}"))

    assert_problem(answer, 503)
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (asyncpg.TooManyConnectionsError("secret"), 503),
        (asyncpg.ConnectionDoesNotExistError("secret"), 503),
        (asyncpg.CannotConnectNowError("secret"), 503),
        (asyncpg.InterfaceError("secret"), 503),
        (asyncpg.exceptions.TargetServerAttributeNotMatched("secret"), 503),
        (asyncpg.InvalidPasswordError("secret"), 500),
        (asyncpg.InvalidCatalogNameError("secret"), 500),
        (asyncpg.exceptions.ClientConfigurationError("secret"), 500),
    ],
)
async def test_what_asyncpg_raises_while_connecting(error: Exception, status: int) -> None:
    assert_problem(await answer_to(error), status)


async def answer_to(error: Exception) -> Response:
    app = FastAPI()
    add_error_handlers(app)

    @app.get("/")
    async def fail() -> None:
        raise error

    async with running_client(app) as client:
        return await client.get("/")


async def test_without_asyncpg_none_of_its_errors_are_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(error_handlers, "find_spec", lambda _name: None)

    assert_problem(await answer_to(asyncpg.TooManyConnectionsError("secret")), 500)


@pytest.mark.parametrize("driver", ["postgresql+asyncpg", "postgresql+psycopg", "mysql+aiomysql"])
async def test_a_server_that_is_down_asks_to_come_again(driver: str) -> None:
    with socket.socket() as nobody:  # bound, and not listening
        nobody.bind(("127.0.0.1", 0))
        url = SecretStr(f"{driver}://ann@127.0.0.1:{nobody.getsockname()[1]}/none")
        app = app_module.create_app(DatabaseSettings(url=url))
        async with running_client(app) as client:
            answer = await client.get("/films")

    assert_problem(answer, 503)
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize("place", ["two-addresses:1/d", "nobody:1/d", "?host=/none"])
async def test_whatever_stops_asyncpg_from_connecting_asks_to_come_again(
    place: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    resolve(monkeypatch, "two-addresses", "::1", "127.0.0.1")  # as localhost
    resolve(monkeypatch, "nobody")
    app = app_module.create_app(DatabaseSettings(url=SecretStr(f"postgresql://ann@{place}")))
    async with running_client(app) as client:
        answer = await client.get("/films")

    assert assert_problem(answer, 503)["detail"] == "the database can't be reached"
    assert answer.headers["retry-after"] == "1"
    assert [message.split(":")[0] for message in caplog.messages] == ["answered 503"]


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
async def test_a_server_that_never_answers_asks_to_come_again(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setattr(engine_module, "CONNECT_TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # nobody accepts
        url = SecretStr(f"{scheme}://ann@127.0.0.1:{silent.getsockname()[1]}/none")
        app = app_module.create_app(DatabaseSettings(url=url))
        async with running_client(app) as client:
            answer = await client.get("/films")

    assert_problem(answer, 503)


async def ask_nobody() -> None:
    """As if Redis were down, or the mail server."""
    await asyncio.open_connection("127.0.0.1", 1)


async def ask_no_socket() -> None:
    await asyncio.open_unix_connection("/none")


async def wait_in_vain() -> None:
    async with asyncio.timeout(0):
        await asyncio.Event().wait()


@pytest.mark.parametrize("broken", [ask_nobody, ask_no_socket, wait_in_vain])
async def test_an_oserror_that_is_not_the_databases_is_a_server_error(broken: Any) -> None:
    app = FastAPI()
    add_error_handlers(app)
    app.add_api_route("/", broken)
    async with running_client(app) as client:
        answer = await client.get("/")

    assert assert_problem(answer, 500)["detail"] == "internal error"


async def test_a_lock_that_does_not_come_asks_to_come_again(
    settings: DatabaseSettings, engine: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    app = app_module.create_app(settings.model_copy(update={"lock_timeout": 1}))
    async with running_client(app) as client:
        created = await client.post("/films", json={"title": "M", "year": 1931})
        path = created.headers["location"]
        async with app.state.session_factory() as session:
            film = await session.get(Film, created.json()["id"], with_for_update=True)
            film.year = 1932
            await session.flush()
            answer = await asyncio.wait_for(client.patch(path, json={"year": 1933}), 60)

    assert_problem(answer, 503)
    assert answer.headers["retry-after"] == "1"
    codes = {"sqlite": "SQLITE_BUSY", "postgresql": "55P03", "mysql": 1205}
    assert caplog.messages == [f"answered 503: lock_timeout, {codes[engine.dialect.name]}"]


def test_a_database_error_that_will_not_pass_is_not_asked_again() -> None:
    answer = database_problem(DBAPIError("SELECT secret", {}, Exception("secret")))

    assert answer.status_code == 500
    assert json.loads(answer.body)["detail"] == "internal error"


@pytest.mark.parametrize(
    ("detail", "members"),
    [
        ({"reason": "sold out", "left": 0}, {"reason": "sold out", "left": 0}),
        ({"detail": "Sold out.", "errors": [5]}, {"detail": "Sold out.", "errors": [5]}),
        ({"type": "/sold-out", "status": 1}, {"type": "/sold-out"}),
        ({}, {}),
        ({1: 2, "\ud800": ["\ud800"]}, {"1": 2, "?": ["?"]}),
        ({"at": dt.date(2026, 1, 31), "n": Decimal(5)}, {"at": "2026-01-31", "n": 5}),
        (["ä", 1], {"detail": '["ä", 1]'}),
        (5, {"detail": "5"}),
        (None, {}),
    ],
    ids=range(9),
)
async def test_a_detail_that_is_no_text_stays_json(detail: Any, members: dict[str, Any]) -> None:
    answer = await answer_to(HTTPException(409, detail))

    usual = {"title": "Conflict", "status": 409, "detail": "Conflict", "errors": []}
    assert (answer.status_code, answer.headers["content-type"]) == (409, PROBLEM)
    assert answer.json() == usual | members


class SoldOutError(ConflictError):
    reason = "is sold out"


async def test_an_own_conflict_names_its_fields() -> None:
    body = assert_problem(await answer_to(SoldOutError(Screening, columns=["seats_left"])), 409)

    assert body["detail"] == "Screening is sold out"
    assert body["errors"] == [{"field": "seats_left", "message": "is sold out"}]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFoundError(Film, 1), 404),
        (InvalidCursorError("x"), 404),
        (ConflictError(Film), 409),
        (MissingReferenceError(Film), 409),
        (StillReferencedError(Film), 409),
        (StaleVersionError(Film), 409),
        (RequiredValueError(Film), 422),
        (CheckFailedError(Film), 422),
        (ValueRangeError(Film), 422),
        (InvalidFilterError("x"), 422),
        (UnfilteredWriteError(Film), 500),
    ],
)
def test_each_error_has_its_status(error: ServiceError, status: int) -> None:
    assert status_of(error) == status


# Websockets


async def socket_gets(
    app: FastAPI, *, extensions: dict[str, Any] | None = None, gone: bool = False
) -> list[Any]:
    """Open a websocket; return what the server sends: words, closing codes, statuses, bodies.

    As a server does, refuse what the protocol does not have in that moment. Who is `gone` gets
    no more than the word that the socket is accepted.
    """
    got: list[Any] = []
    allowed = {"websocket.accept", "websocket.close", "websocket.http.response.start"}
    after = {
        "websocket.accept": {"websocket.send", "websocket.close"},
        "websocket.http.response.start": {"websocket.http.response.body"},
    }

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        nonlocal allowed
        kind = message["type"]
        assert kind in allowed
        if gone and got:
            raise OSError
        allowed = after.get(kind, set())
        got.append(message.get("code") or message.get("status") or message.get("body") or kind)

    scope = {
        "type": "websocket",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "headers": [],
        "subprotocols": [],
        "extensions": extensions or {},
    }
    await app(scope, receive, send)  # type: ignore[arg-type]
    return got


def socket_app(error: Exception, *, accepts: bool = True, closes: bool = False) -> FastAPI:
    """An application whose websocket raises: in a dependency, or when it has been accepted."""
    app = FastAPI()
    add_error_handlers(app)

    async def refuse() -> None:
        if not accepts:
            raise error

    @app.websocket("/", dependencies=[Depends(refuse)])
    async def serve(socket: WebSocket) -> None:
        await socket.accept()
        if closes:
            await socket.close()
        raise error

    return app


ERRORS = [
    NotFoundError(Film, 1),
    UnfilteredWriteError(Film),
    HTTPException(409, "why"),
    RequestValidationError([]),
    DBAPIError("SELECT secret", {}, Exception("secret")),
    PoolTimeoutError(),
    ConnectionRefusedError("secret"),
    asyncpg.TooManyConnectionsError("secret"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_an_error_closes_an_open_websocket_and_is_logged(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    assert await socket_gets(socket_app(error)) == ["websocket.accept", 1011]
    (record,) = caplog.records
    assert (record.levelno, record.exc_info[1]) == (logging.ERROR, error)  # type: ignore[index]


async def test_a_websocket_that_is_closed_is_not_closed_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = socket_app(PoolTimeoutError(), closes=True)

    assert await socket_gets(app) == ["websocket.accept", 1000]
    assert caplog.messages == ["an error ends a websocket"]


async def test_a_client_that_left_its_websocket_is_no_second_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert await socket_gets(socket_app(PoolTimeoutError()), gone=True) == ["websocket.accept"]
    assert caplog.messages == ["an error ends a websocket"]


@pytest.mark.parametrize(
    ("error", "status"),
    [(HTTPException(401, "who are you?"), 401), (PoolTimeoutError(), 503)],
)
async def test_a_websocket_that_is_not_open_yet_gets_the_problem(
    error: Exception, status: int
) -> None:
    app = socket_app(error, accepts=False)

    got_status, body = await socket_gets(app, extensions={"websocket.http.response": {}})
    assert got_status == json.loads(body)["status"] == status
    assert await socket_gets(app) == [1000]  # which a server answers with 403


async def test_an_unexpected_error_before_a_websocket_is_open_is_the_servers() -> None:
    error = DBAPIError("SELECT secret", {}, Exception("secret"))

    with pytest.raises(DBAPIError):  # it is logged, and answered with 500
        await socket_gets(socket_app(error, accepts=False))
