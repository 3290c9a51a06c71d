"""Tell the orchestrator whether to restart this process, and whether to send it requests."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import NullPool

from snippets.async_operations.errors import classify
from snippets.database_setup.engine import engine_for
from snippets.database_setup.pooling import pool_figures
from snippets.database_setup.settings import DatabaseSettings

Check = Callable[[AsyncEngine], Awaitable[object]]
logger = logging.getLogger(__name__)


class Health:
    """Whether this process can serve.

    Args:
        engine: see `probe_engine`.
        timeout: seconds; less than the orchestrator's own.
        at_start: what must be true once, as that migrations are done; raises while it is not. Not
            asked for ever: a schema that a newer release has migrated must not take this one out.
    """

    def __init__(
        self, engine: AsyncEngine, *, timeout: float = 2, at_start: Check | None = None
    ) -> None:
        self._engine = engine
        self._timeout = timeout
        self._at_start = at_start
        self._abandoned: set[asyncio.Task[None]] = set()
        self._last_reason: str | None = None

    async def reason(self) -> str | None:
        """Return why the database can't be used, in a word without secrets; None when it can."""
        reason = None
        try:
            await self._in_time(self._ask())
        except Exception as error:
            # Any: asyncpg raises OSError where it can't connect, and errors of its own.
            reason = reason_of(error)
            if reason != self._last_reason:  # not at every probe of an outage
                logger.warning("not ready: %s", reason, exc_info=True)
        self._last_reason = reason
        return reason

    async def _ask(self) -> None:
        async with self._engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
        if self._at_start is not None:
            await self._at_start(self._engine)
            self._at_start = None

    async def _in_time(self, work: Coroutine[Any, Any, None]) -> None:
        """Leave late work behind: asyncio.timeout waits for its clean-up.

        Where the network has died, that takes asyncpg two seconds, 0.30 for ever, psycopg ten.
        """
        task = asyncio.create_task(work)
        self._abandoned.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self._forget)
        try:
            await asyncio.wait([task], timeout=self._timeout)
            if not task.done():
                raise TimeoutError
        finally:
            task.cancel()
        task.result()

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._abandoned.discard(task)
        if not task.cancelled():
            task.exception()  # seen, or asyncio logs it


def reason_of(error: Exception) -> str:
    """Return what kind of error it is: texts hold hosts, users and statements."""
    if not isinstance(error, DBAPIError):
        return type(error).__name__
    failure = classify(error)
    return " ".join(str(part) for part in (failure.kind, failure.code) if part)


def probe_engine(settings: DatabaseSettings) -> AsyncEngine:
    """Return an engine for `Health`; behind PgBouncer take its engine, with `poolclass=NullPool`.

    Not the pool of the requests: a full one is load, which 503 would make worse elsewhere. And no
    pool of its own: a connection whose clean-up hangs would keep its place.
    """
    name = settings.application_name
    return engine_for(settings.async_url(), application_name=name, poolclass=NullPool)


def health_router(health: Health, *, leaving: Callable[[], bool] = bool) -> APIRouter:
    """Return routes for `app.include_router`; the application has its engine in its state.

    Args:
        health: what readiness asks.
        leaving: whether the process is on its way out, as `Drain.begun.is_set`.
    """
    router = APIRouter(prefix="/health", tags=["health"])

    @router.get("/live")
    async def live() -> dict[str, str]:
        """Say that the loop turns; never ask the database: no restart repairs it."""
        return {"status": "live"}

    @router.get("/ready", responses={503: {"description": "Send no requests here"}})
    async def ready(request: Request) -> JSONResponse:
        reason = "draining" if leaving() else await health.reason()
        answer: dict[str, Any] = {"status": "ready"}
        if reason is not None:
            answer = {"status": "not ready", "reason": reason}
        if figures := pool_figures(request.app.state.engine):
            answer["pool"] = asdict(figures)
        return JSONResponse(answer, 200 if reason is None else 503)

    return router
