"""Answer every error as a problem (RFC 9457) that names the fields, and shows no SQL."""

import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from http.client import responses
from importlib.util import find_spec
from typing import Any

from fastapi import FastAPI, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.status import WS_1011_INTERNAL_ERROR
from starlette.websockets import WebSocketState

from snippets.async_operations.errors import ErrorKind, classify, is_failed_connect, is_retryable
from snippets.servicebase.errors import (
    CheckFailedError,
    InvalidCursorError,
    InvalidInputError,
    InvalidValueError,
    NotFoundError,
    RequiredValueError,
    ServiceError,
    UnfilteredWriteError,
    ValueRangeError,
    WriteError,
)

logger = logging.getLogger(__name__)
Handler = Callable[[Any, Any], Awaitable[Any]]
PROBLEM = "application/problem+json"
BODILESS = {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}
SHOWN = 1000  # characters of a message; some repeat a name that the client chose


class Problem(BaseModel):
    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] = []  # each has `field` and `message`


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what a route's `responses=` says about the problems that it may answer with."""
    content = {PROBLEM: {"schema": Problem.model_json_schema()}}
    return {status: {"description": _phrase(status), "content": content} for status in statuses}


def _phrase(status: int) -> str:
    """Return its name; of a number that nobody registered, such as nginx's 499, the word Error."""
    return responses.get(status, "Error")


def problem(
    status: int,
    detail: str,
    *,
    errors: list[dict[str, str]] | None = None,
    members: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """Return the answer; `members` are more of its own, and win over all but the status."""
    body = Problem(title=_phrase(status), status=status, detail=detail)
    body.errors = errors or []
    content = body.model_dump() | (members or {}) | {"status": status}
    # Lone surrogates of a name that the client chose can't be sent.
    return JSONResponse(_sendable(content), status, headers=headers, media_type=PROBLEM)


def _sendable(value: Any) -> Any:
    match value:
        case str():
            return value[:SHOWN].encode("utf-8", "replace").decode()
        case dict():
            return {_sendable(key): _sendable(item) for key, item in value.items()}
        case list():
            return [_sendable(item) for item in value]
    return value


def status_of(error: ServiceError) -> int:
    """Return 409 for what depends on the rows that there are, 422 for what never can be."""
    match error:
        case NotFoundError() | InvalidCursorError():  # a place that is not there
            return 404
        case RequiredValueError() | CheckFailedError() | ValueRangeError() | InvalidInputError():
            return 422
        case UnfilteredWriteError():  # a mistake of the program
            return 500
    return 409


def service_problem(error: ServiceError) -> JSONResponse:
    status = status_of(error)
    if isinstance(error, InvalidValueError) and error.__cause__ is not None:
        return problem(status, "a value can't be stored")  # its text is the driver's
    if isinstance(error, InvalidCursorError):
        return problem(status, "this is no cursor for this list")
    if isinstance(error, WriteError):
        detail = f"{error.model.__name__} {error.reason}"
        errors = [{"field": name, "message": error.reason} for name in error.columns]
        return problem(status, detail, errors=errors)
    return problem(status, "internal error" if status == 500 else str(error))


def validation_problem(error: RequestValidationError) -> JSONResponse:
    """Say where and why; FastAPI's own answer repeats the input, and dies of NaN."""
    errors = [
        {"field": ".".join(str(part) for part in found["loc"]), "message": found["msg"]}
        for found in error.errors()
    ]
    return problem(422, "the request is not valid", errors=errors[:100])


def database_problem(error: DBAPIError) -> JSONResponse:
    """Say whether to come again: that is for deadlocks, lost connections and timeouts."""
    if is_retryable(error) or classify(error).kind is ErrorKind.STATEMENT_TIMEOUT:
        return problem(503, "the database is busy; try again", headers={"Retry-After": "1"})
    return problem(500, "internal error")


def http_problem(app: FastAPI, request: Request, error: HTTPException) -> Response:
    """Take over its detail: the members of a dict are the problem's, other JSON becomes text."""
    headers = dict(error.headers or {})
    if error.status_code < HTTPStatus.OK or error.status_code in BODILESS:
        return Response(status_code=error.status_code, headers=headers)  # servers refuse a body
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = _methods(app, request, headers.get("Allow", ""))
    detail = jsonable_encoder(_sendable(error.detail))  # FastAPI takes any object
    if isinstance(detail, dict):
        phrase = _phrase(error.status_code)
        return problem(error.status_code, phrase, members=detail, headers=headers)
    text = detail if isinstance(detail, str) else json.dumps(detail, ensure_ascii=False)
    return problem(error.status_code, text, headers=headers)


def _methods(app: FastAPI, request: Request, known: str) -> str:
    """Add those that OpenAPI shows for the path; Starlette names those of one route."""
    route = request.scope.get("route")  # none on older versions: /docs, static files
    path = app.openapi()["paths"].get(getattr(route, "path", None), {})
    return ", ".join(sorted({*filter(None, known.split(", ")), *map(str.upper, path)}))


async def not_connected(_request: Request, error: Exception) -> JSONResponse:
    """Answer what SQLAlchemy does not wrap; the OSErrors of files and other servers stay errors."""
    if not is_failed_connect(error):
        raise error
    answer = problem(503, "the database can't be reached", headers={"Retry-After": "1"})
    return _logged(answer, error)


def _unwrapped_errors() -> tuple[type[Exception], ...]:
    if find_spec("asyncpg") is None:
        return ()
    import asyncpg

    return OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError


def _logged(answer: JSONResponse, error: Exception) -> JSONResponse:
    """Leave a 500 to the last handler, where the server logs it; say why a 503 was answered."""
    if answer.status_code == HTTPStatus.INTERNAL_SERVER_ERROR:
        raise error
    if answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
        logger.warning("answered 503: %s", _reason(error))
    return answer


def _reason(error: Exception) -> str:
    """Of a statement only kind and code: its text may have the values of people."""
    if isinstance(error, DBAPIError):
        failure = classify(error)
        return f"{failure.kind}, {failure.code}"
    return f"{type(error).__name__}: {error}"


def _for_sockets_too(handler: Handler) -> Handler:
    """Keep its answer out of a websocket that is open: Starlette would send it there."""

    async def handle(connection: Request | WebSocket, error: Exception) -> Any:
        if not isinstance(connection, WebSocket):
            return await handler(connection, error)
        if connection.application_state is WebSocketState.CONNECTING:
            await _deny(connection, await handler(connection, error))
        else:
            await _break_off(connection, error)
        return None

    return handle


async def _deny(socket: WebSocket, answer: Response) -> None:
    if "websocket.http.response" in socket.scope.get("extensions", {}):
        await socket.send_denial_response(answer)
    else:
        await socket.close()  # before it is accepted: the server answers 403


async def _break_off(socket: WebSocket, error: Exception) -> None:
    logger.error("an error ends a websocket", exc_info=error)
    if socket.application_state is WebSocketState.CONNECTED:
        with suppress(WebSocketDisconnect):  # the client was quicker
            await socket.close(WS_1011_INTERNAL_ERROR)


def add_error_handlers(app: FastAPI) -> None:
    """Answer all errors of the routes; an open websocket is closed with 1011, the error logged."""

    @app.exception_handler(ServiceError)
    @_for_sockets_too
    async def service(_request: Request, error: ServiceError) -> JSONResponse:
        return _logged(service_problem(error), error)

    @app.exception_handler(RequestValidationError)
    @_for_sockets_too
    async def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        return validation_problem(error)

    @app.exception_handler(HTTPException)
    @_for_sockets_too
    async def http(request: Request, error: HTTPException) -> Response:
        return http_problem(app, request, error)

    @app.exception_handler(DBAPIError)
    @_for_sockets_too
    async def database(_request: Request, error: DBAPIError) -> JSONResponse:
        return _logged(database_problem(error), error)

    @app.exception_handler(PoolTimeoutError)
    @_for_sockets_too
    async def pool(_request: Request, error: PoolTimeoutError) -> JSONResponse:
        answer = problem(503, "too many requests at once", headers={"Retry-After": "1"})
        return _logged(answer, error)

    for kind in _unwrapped_errors():
        app.add_exception_handler(kind, _for_sockets_too(not_connected))

    @app.exception_handler(Exception)  # Starlette sends this, then raises the error for the log
    async def unexpected(_request: Request, _error: Exception) -> JSONResponse:
        return problem(500, "internal error")
