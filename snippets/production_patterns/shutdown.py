"""Leave without losing a request: say so first, serve on meanwhile, then let the server stop."""

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from types import FrameType
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Handler = Callable[[int, FrameType | None], Any] | int
logger = logging.getLogger(__name__)
_left_behind: set[asyncio.Task[None]] = set()


class Drain:
    """What happens between SIGTERM and the end of the listener.

    The server alone closes it at once, and whoever still sends requests here is refused.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.begun = asyncio.Event()

    @asynccontextmanager
    async def lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield  # no signal comes here: a test client's thread
            return
        loop = asyncio.get_running_loop()

        def on_signal(_number: int, _frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(self._begin, server)

        server: Handler = signal.signal(signal.SIGTERM, on_signal) or signal.SIG_DFL
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, server)

    def _begin(self, server: Handler) -> None:
        if self.begun.is_set():  # systemd and uvicorn's parent both send the signal
            return
        self.begun.set()
        logger.info("draining for %s s", self.seconds)
        asyncio.get_running_loop().call_later(self.seconds, _stop, server)


def _stop(handler: Handler) -> None:
    """Do what the server's own handler of SIGTERM does."""
    server = getattr(handler, "__self__", None)
    if isinstance(server, uvicorn.Server):
        server.should_exit = True  # its handler would also end the process with -15 instead of 0
        return
    signal.signal(signal.SIGTERM, handler)
    signal.raise_signal(signal.SIGTERM)


class CloseConnections:
    """While draining, answer with `Connection: close`: no request follows on a dying connection."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self.app = app
        self.drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_closing(message: Message) -> None:
            if message["type"] == "http.response.start" and self.drain.begun.is_set():
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        one = scope["type"] == "http" and scope["http_version"].startswith("1")  # HTTP/2 forbids it
        await self.app(scope, receive, send_closing if one else send)


def add_drain(app: FastAPI, *, seconds: float = 10) -> Drain:
    """Make SIGTERM drain first.

    Args:
        app: served by uvicorn, whose `timeout_graceful_shutdown` must be set: it waits for ever.
        seconds: longer than the load balancer takes to see that `/health/ready` answers 503. With
            the graceful timeout and the clean-up, less than what the orchestrator grants.
    """
    drain = Drain(seconds)
    app.include_router(APIRouter(lifespan=drain.lifespan))
    app.add_middleware(CloseConnections, drain=drain)
    return drain


@asynccontextmanager
async def repeating(
    work: Callable[[], Awaitable[object]],
    *,
    pause: float,
    patience: float = 10,
    grace: float = 1,
) -> AsyncIterator[None]:
    """Do `work` again and again while the block runs; its end waits for the work that is going on.

    Open it within the engine's life: in the lifespan, after the engine is made.

    Args:
        work: one round, as sending what is in an outbox; its errors are logged.
        pause: seconds between two rounds.
        patience: seconds until a round that does not end is cancelled.
        grace: seconds for its clean-up; a round that needs more is left behind.
    """
    ending = asyncio.Event()
    task = asyncio.create_task(_repeat(work, pause, ending))
    _left_behind.add(task)  # asyncio itself keeps no running task alive
    task.add_done_callback(_left_behind.discard)
    try:
        yield
    finally:
        ending.set()
        try:
            await asyncio.wait([task], timeout=patience)
        finally:  # also when whoever waits is cancelled
            task.cancel()
            _done, late = await asyncio.wait([task], timeout=grace)
            if late:
                logger.error("a round does not end, though cancelled %s s ago", grace)


async def _repeat(
    work: Callable[[], Awaitable[object]], pause: float, ending: asyncio.Event
) -> None:
    while not ending.is_set():
        try:
            await work()
        except Exception:
            logger.exception("a round failed; the next one comes")
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
            logger.exception("a round waited for what others cancelled; the next one comes")
        with suppress(TimeoutError):
            await asyncio.wait_for(ending.wait(), pause)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
