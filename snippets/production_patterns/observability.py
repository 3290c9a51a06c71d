"""See what the database costs: per request, per statement, per pool; and fail tests on N+1."""

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.types import ASGIApp, Receive, Scope, Send

from snippets.database_setup.pooling import pool_figures

if TYPE_CHECKING:  # optional
    from opentelemetry.metrics import CallbackOptions, Meter, Observation
    from opentelemetry.trace import TracerProvider

CONTROL = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE")  # what hooks send
STARTED = "_observed_since"
logger = logging.getLogger(__name__)


@dataclass
class Cost:
    """What a request, or any other piece of work, asked of the database."""

    statements: int = 0
    seconds: float = 0


_costs: ContextVar[tuple[Cost, ...]] = ContextVar("database_costs", default=())


@contextmanager
def counted() -> Iterator[Cost]:
    """Yield the cost of the block, tasks started in it included; others' work is not counted.

    What a block inside it costs is counted in both.
    """
    cost = Cost()
    token = _costs.set((*_costs.get(), cost))
    try:
        yield cost
    finally:
        _costs.reset(token)


class Observer:
    """Feeds `counted` and logs slow statements, without their parameters.

    Those are data of people, and so are literals: write values as parameters.
    """

    def __init__(self, *, slow: float) -> None:
        self.slow = slow

    def observe(self, engine: AsyncEngine) -> None:
        """Call once per engine; what `execution_options` makes of it is observed, too."""
        # Events belong to the synchronous core: an AsyncEngine raises NotImplementedError.
        event.listen(engine.sync_engine, "before_cursor_execute", self._before)
        event.listen(engine.sync_engine, "after_cursor_execute", self._after)
        # A statement that ran into a timeout is the slowest of all, and has no "after".
        event.listen(engine.sync_engine, "handle_error", self._failed)

    def _before(
        self, _conn: Any, _cursor: Any, _text: str, _params: Any, context: Any, _many: bool
    ) -> None:
        setattr(context, STARTED, time.perf_counter())

    def _after(
        self, _conn: Any, _cursor: Any, text: str, _params: Any, context: Any, _many: bool
    ) -> None:
        self._ended(text, context)

    def _failed(self, error: ExceptionContext) -> None:
        if error.statement is not None and hasattr(error.execution_context, STARTED):
            self._ended(error.statement, error.execution_context)

    def _ended(self, text: str, context: Any) -> None:
        seconds = time.perf_counter() - getattr(context, STARTED)
        if not text.startswith(CONTROL):
            for cost in _costs.get():
                cost.statements += 1
                cost.seconds += seconds
        if seconds >= self.slow:
            extra = {"statement": text, "seconds": seconds}
            logger.warning("slow statement, %.3f s: %s", seconds, text, extra=extra)


class RequestCosts:
    """ASGI middleware that logs each request's cost when it is over.

    A number of statements that grows with the number of rows is a query in a loop.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        with counted() as cost:
            try:
                await self.app(scope, receive, send)
            finally:
                route = getattr(scope.get("route"), "path", "no route")  # paths hold ids
                extra = {"statements": cost.statements, "database_seconds": cost.seconds}
                what = f"{scope['method']} {route}"
                logger.info("%s: %s statements", what, cost.statements, extra=extra)


class StatementBudgetError(AssertionError):
    """More statements than allowed; the text lists them."""


@contextmanager
def statement_budget(
    engine: AsyncEngine, *, at_most: int, alike: int = 2
) -> Iterator[Counter[str]]:
    """Yield the statements that the engine sends in the block, by text.

    Args:
        engine: the one that the code under test uses.
        at_most: statements in all; transaction control is not counted, an executemany is one.
        alike: how often the same text may be sent; more is a query in a loop.

    Raises:
        StatementBudgetError: at the end of the block.
    """
    sent: Counter[str] = Counter()

    def record(_conn: Any, _cursor: Any, text: str, _params: Any, _ctx: Any, _many: bool) -> None:
        if not text.startswith(CONTROL):
            sent[text] += 1

    event.listen(engine.sync_engine, "before_cursor_execute", record)
    try:
        yield sent
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", record)
    if sent.total() > at_most or max(sent.values(), default=0) > alike:
        raise StatementBudgetError(_report(sent, at_most, alike))


def _report(sent: Counter[str], at_most: int, alike: int) -> str:
    listing = "".join(f"\n{count} x {text}" for text, count in sent.most_common())
    allowed = f"{at_most} allowed, the same one {alike} times"
    return f"{sent.total()} statements, {allowed}:{listing}"


def trace_statements(
    engines: Iterable[AsyncEngine], tracer_provider: "TracerProvider | None" = None
) -> None:
    """Make an OpenTelemetry span of each statement, its text without parameters.

    Call once per process: the instrumentor ignores a second call. All engines are named, since it
    does not see what is made by a `create_async_engine` that was imported before.
    """
    from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor

    SQLAlchemyInstrumentor().instrument(
        engines=[engine.sync_engine for engine in engines],
        tracer_provider=tracer_provider,
        # 0.66b2 says `sqlalchemy < 2.1.0`; unless told, it logs an error and traces nothing.
        skip_dep_check=True,
    )


def measure_pool(meter: "Meter", engine: AsyncEngine | None = None, **engines: AsyncEngine) -> None:
    """Report the pool's figures whenever metrics are collected; `in_use` at `limit` is full.

    Call once per meter, which ignores a second call. Several engines get names, which tell their
    figures apart: `measure_pool(meter, primary=engine, replica=other)`.
    """
    from opentelemetry.metrics import Observation

    named = [*([("", engine)] if engine is not None else []), *engines.items()]

    def read(_options: "CallbackOptions") -> "Iterable[Observation]":
        for name, each in named:
            pool = {"pool": name} if name else {}
            if figures := pool_figures(each):
                yield Observation(figures.in_use, {**pool, "state": "used"})
                yield Observation(figures.idle, {**pool, "state": "idle"})
                yield Observation(figures.limit, {**pool, "state": "limit"})

    meter.create_observable_gauge("db.client.connections", callbacks=[read])
