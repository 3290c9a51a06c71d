"""Errors as problem details (RFC 9457), without echoing what the client sent."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import IntegrityError


class ConflictError(Exception):
    """The request contradicts what is stored; the message is for the client."""


def is_unique_violation(error: IntegrityError) -> bool:
    """Whether a value was taken already, by the codes of the drivers of all three databases."""
    original = error.orig
    return (
        getattr(original, "sqlstate", None) == "23505"  # PostgreSQL
        or getattr(original, "args", ())[:1] == (1062,)  # MySQL, MariaDB
        or getattr(original, "sqlite_errorname", None) == "SQLITE_CONSTRAINT_UNIQUE"
    )


def problem(status: HTTPStatus, detail: str, **more: Any) -> JSONResponse:
    body = {"title": status.phrase, "status": status.value, "detail": detail} | more
    return JSONResponse(body, status_code=status, media_type="application/problem+json")


def add_problem_handlers(app: FastAPI) -> None:
    @app.exception_handler(ConflictError)
    async def conflict(_request: Request, error: ConflictError) -> JSONResponse:
        return problem(HTTPStatus.CONFLICT, str(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        # FastAPI's own answer repeats the input, and fails on input that JSON can't carry.
        errors = [{key: found[key] for key in ("loc", "msg", "type")} for found in error.errors()]
        return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "the request is not valid", errors=errors)
