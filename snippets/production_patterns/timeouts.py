"""Bound a statement, a transaction and a request in time, and refuse early what would wait."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from sqlalchemy import Connection, event, func
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from snippets.fastapi_integration.error_handlers import problem

Result = TypeVar("Result")
CHECK_EVERY = 10_000  # SQLite's instructions, well below a millisecond
SHORTEST = 0.001  # seconds; to the servers 0 means without limit


async def limit_transaction(
    session: AsyncSession, *, statement: float | None = None, lock: float | None = None
) -> None:
    """Limit, in seconds, each further statement and wait for a lock until the transaction ends.

    Nothing and less than nothing, as of a deadline that is over, is the shortest limit.

    SQLite and MariaDB need `enforce_limits` on their engine. SQLite has the engine's
    `lock_timeout` alone.
    """
    wanted = {"statement_timeout": statement, "lock_timeout": lock}
    limits = {name: max(SHORTEST, limit) for name, limit in wanted.items() if limit is not None}
    connection = await session.connection()
    if connection.dialect.name != "postgresql":
        await connection.execution_options(**limits)
        return
    for name, seconds in limits.items():
        # SET LOCAL with a parameter: it goes with the transaction, not with the connection.
        await session.exec(select(func.set_config(name, f"{round(seconds * 1000)}ms", True)))


def enforce_limits(engine: AsyncEngine, *, statement: float = 30) -> None:
    """Let SQLite and MariaDB obey `limit_transaction`; call once, before the first connect.

    Args:
        engine: of any database.
        statement: seconds a statement may run on SQLite, which has no such setting.
    """
    if engine.dialect.name == "sqlite":
        _limit_sqlite(engine, statement)
    elif engine.dialect.name in {"mysql", "mariadb"}:
        event.listen(engine.sync_engine, "before_cursor_execute", _limit_mariadb, retval=True)


def _limit_mariadb(
    connection: Connection, _cursor: Any, text: str, parameters: Any, _context: Any, many: bool
) -> tuple[str, Any]:
    options = connection.get_execution_options()
    limits = []
    if "statement_timeout" in options:
        limits.append(f"max_statement_time={options['statement_timeout']:.3f}")
    if "lock_timeout" in options:
        limits.append(f"innodb_lock_wait_timeout={max(1, round(options['lock_timeout']))}")
    if many or not limits:  # PyMySQL would send the rows one by one
        return text, parameters
    return f"SET STATEMENT {', '.join(limits)} FOR {text}", parameters


def _limit_sqlite(engine: AsyncEngine, statement: float) -> None:
    def watch(dbapi_connection: DBAPIConnection, record: Any) -> None:
        def is_over() -> bool:  # in the connection's thread
            return bool(time.monotonic() > record.info.get("deadline", float("inf")))

        dbapi_connection.run_async(
            lambda connection: connection.set_progress_handler(is_over, CHECK_EVERY)
        )

    def begin(connection: Connection, *_statement: Any) -> None:
        seconds = connection.get_execution_options().get("statement_timeout", statement)
        connection.info["deadline"] = time.monotonic() + seconds

    def end(connection: Connection, *_statement: Any) -> None:
        connection.info.pop("deadline", None)

    event.listen(engine.sync_engine, "connect", watch)
    event.listen(engine.sync_engine, "before_cursor_execute", begin)
    event.listen(engine.sync_engine, "after_cursor_execute", end)


class DeadlineError(TimeoutError):
    """The work was cancelled because its time was over."""


_left_behind: set[asyncio.Task[Any]] = set()


async def within(seconds: float, work: Coroutine[Any, Any, Result], *, grace: float = 1) -> Result:
    """Return what the work returns, or cancel it and raise after `seconds + grace` at the latest.

    `asyncio.timeout` waits for whatever cleans up, and some drivers never get to the end of that
    when the server does not answer. Here they do it behind the caller's back.

    Raises:
        DeadlineError: a commit that had begun may yet succeed.
    """
    task = asyncio.create_task(work)
    _left_behind.add(task)  # asyncio itself keeps no running task alive
    task.add_done_callback(_forget)
    try:
        await asyncio.wait([task], timeout=seconds)
    finally:  # also when the caller is cancelled
        late = not task.done()
        if late:
            task.cancel()
            await asyncio.wait([task], timeout=grace)
    if late:
        raise DeadlineError(f"not done within {seconds} s")
    return task.result()


def _forget(task: asyncio.Task[Any]) -> None:
    _left_behind.discard(task)
    if not task.cancelled():
        task.exception()  # seen, or asyncio logs it


class OverloadedError(Exception):
    """As many requests as allowed are running, and as many as allowed wait."""


class Gate:
    """Let `at_once` in, keep `waiting` more in a queue, refuse the others without delay."""

    def __init__(self, at_once: int, waiting: int) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._waiting = 0
        self._most_waiting = waiting

    @asynccontextmanager
    async def enter(self) -> AsyncIterator[None]:
        if self._free.locked() and self._waiting >= self._most_waiting:
            raise OverloadedError
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._free.release()


class LimitRequests:
    """Middleware: 503 at once when too many wait, 504 when a request takes too long.

    `app.add_middleware(LimitRequests, at_once=15, waiting=30, seconds=10)`, with `at_once` no
    larger than the pool. Streams and background tasks are part of their request.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        at_once: int,
        waiting: int,
        seconds: float,
        exempt: Collection[str] = (),
    ) -> None:
        self._app = app
        self._gate = Gate(at_once, waiting)
        self._seconds = seconds
        self._exempt = frozenset(exempt)  # paths: health checks must pass when all else waits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _own_path(scope) in self._exempt:
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        try:
            await within(self._seconds, self._admitted(scope, receive, answer.send))
        except OverloadedError:
            await problem(503, "too many requests", headers={"Retry-After": "1"})(
                scope, receive, send
            )
        except DeadlineError:
            answer.closed = True
            if answer.started:
                raise
            await problem(504, "not done in time")(scope, receive, send)

    async def _admitted(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._gate.enter():
            await self._app(scope, receive, send)


def _own_path(scope: Scope) -> str:
    """Return the path as the application's routes have it: `--root-path` puts another before it."""
    path: str = scope["path"]
    prefix = scope.get("root_path", "")
    return path.removeprefix(prefix) if path.startswith(f"{prefix}/") else path


class _Answer:
    """What the application sends, until its time is over."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False
        self.closed = False

    async def send(self, message: Message) -> None:
        if not self.closed:
            self.started = True
            await self._send(message)
