"""Tell how many SQL statements each request took, in the header `X-SQL-Statements`.

The header carries what was sent before the answer began; a number that grows with the number of
rows is the sign of a query in a loop.
"""

from contextvars import ContextVar
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "X-SQL-Statements"


class Counter:
    """Shared by all tasks of a request: a copied context still refers to the same counter."""

    def __init__(self) -> None:
        self.count = 0


_current: ContextVar[Counter | None] = ContextVar("statement_counter", default=None)


def count_statements(engine: AsyncEngine) -> None:
    event.listen(engine.sync_engine, "before_cursor_execute", _count)


def _count(_conn: Any, _cursor: Any, text: str, _params: Any, _context: Any, _many: bool) -> None:
    # SQLite's explicit BEGIN is no statement that a route chose.
    if (counter := _current.get()) is not None and not text.startswith("BEGIN"):
        counter.count += 1


class StatementCounter:
    """ASGI middleware, not a BaseHTTPMiddleware: that one runs the route in another task."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        counter = Counter()

        async def send_with_count(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = str(counter.count)
            await send(message)

        token = _current.set(counter)
        try:
            await self.app(scope, receive, send_with_count)
        finally:
            _current.reset(token)
