import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import FrameType

import httpx
import pytest
from fastapi import FastAPI
from production_patterns.serving import PATIENCE, Served, Traffic
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.types import Message

from snippets.fastapi_integration._cinema import Booking, Film, Screening
from snippets.fastapi_integration.testing import running_client
from snippets.production_patterns.shutdown import add_drain, repeating

TABLES = [Film, Screening, Booking]
CLIENTS = 4


@pytest.fixture
async def titles(engine: AsyncEngine, factory: async_sessionmaker[AsyncSession]) -> AsyncIterator:
    async def read() -> list[str]:
        async with factory() as session:
            return list((await session.exec(select(Film.title))).all())

    return read


async def post_until_refused(url: str, traffic: Traffic) -> None:
    """Post on one connection, as long as the server allows, until nobody listens any more."""
    async with httpx.AsyncClient(timeout=PATIENCE) as client:
        while not traffic.refused:
            await traffic.post_film(client, url)
            await asyncio.sleep(0.03)  # leave the machine to others


async def test_every_acknowledged_write_is_there_after_sigterm_under_load(
    database_url: URL, titles, tmp_path: Path, tally: Callable[..., None]
) -> None:
    traffic = Traffic()
    options = ["--timeout-graceful-shutdown", str(PATIENCE)]
    async with Served(database_url, tmp_path / "log", *options, drain=5) as served:
        async with httpx.AsyncClient(timeout=PATIENCE) as client, asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(post_until_refused(served.url, traffic))
            query = {"title": "slow", "seconds": 8}
            slow = group.create_task(client.post(f"{served.url}/slow-films/1", params=query))
            await served.happened("slow request begun")
            before = len(traffic.acknowledged)
            served.terminate()
            ready = await client.get(f"{served.url}/health/ready")
            while ready.status_code == 200:  # the signal is on its way
                ready = await client.get(f"{served.url}/health/ready")
            served.terminate()  # managers repeat it
        code = await served.ended()

    assert code == 0, served.output
    assert (ready.status_code, ready.json()["reason"]) == (503, "draining")
    assert ready.headers["Connection"] == "close"
    assert slow.result().status_code == 200  # longer than the drain
    assert served.events[-3:] == ["slow request done", "loop ended", "engine disposed"]
    assert len(traffic.acknowledged) > before  # served while draining
    assert traffic.refused
    # A connection that waited in the closing listener is reset; its request never began.
    assert all(error.startswith("ReadError") for error in traffic.failed.values()), traffic.failed
    found = await titles()
    assert Counter(found) == Counter([*traffic.acknowledged, "slow"])
    tally("server told to end", 1, served=[*traffic.acknowledged, "slow"], stored=found)


class Balancer:
    """Sends requests to the servers that said they are ready, as a load balancer does."""

    def __init__(self, servers: list[Served]) -> None:
        self.ready: dict[str, bool] = {}
        self.urls = [server.url for server in servers]
        self.client = httpx.AsyncClient(timeout=PATIENCE)
        self.looked = asyncio.Condition()

    async def look(self) -> None:
        while True:
            for url in self.urls:
                try:
                    answer = await self.client.get(f"{url}/health/ready")
                    self.ready[url] = answer.status_code == 200
                except httpx.TransportError:
                    self.ready[url] = False
            async with self.looked:
                self.looked.notify_all()
            await asyncio.sleep(
                0.5
            )  # during which it sends requests to who has left without notice

    async def until(self, url: str, ready: bool) -> None:
        async with asyncio.timeout(PATIENCE), self.looked:
            await self.looked.wait_for(lambda: self.ready.get(url) is ready)

    async def post(self, traffic: Traffic) -> None:
        turn = 0
        while True:
            usable = [url for url in self.urls if self.ready.get(url)]
            turn += 1
            await traffic.post_film(self.client, usable[turn % len(usable)])
            await asyncio.sleep(0.03)  # leave the machine to others


async def test_a_rolling_restart_under_load_fails_no_request(
    database_url: URL, titles, tmp_path: Path, tally: Callable[..., None]
) -> None:
    traffic = Traffic()
    options = ["--timeout-graceful-shutdown", str(PATIENCE)]
    logs = [tmp_path / f"{n}.log" for n in range(3)]
    servers = [Served(database_url, log, *options, drain=5) for log in logs]
    codes = []
    async with AsyncExitStack() as stack:
        await asyncio.gather(*[stack.enter_async_context(server) for server in servers])
        balancer = Balancer(servers[:2])
        looking = asyncio.create_task(balancer.look())
        for server in servers[:2]:
            await balancer.until(server.url, True)
        posting = [asyncio.create_task(balancer.post(traffic)) for _ in range(CLIENTS)]
        balancer.urls.append(servers[2].url)
        await balancer.until(servers[2].url, True)
        for leaving in servers[:2]:
            leaving.terminate()
            codes.append(await leaving.ended())
            balancer.urls.remove(leaving.url)
        served_by_old = len(traffic.acknowledged)
        while len(traffic.acknowledged) < served_by_old + 2 * CLIENTS:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        for task in [looking, *posting]:
            task.cancel()
        await asyncio.gather(looking, *posting, return_exceptions=True)
        await balancer.client.aclose()

    assert codes == [0, 0]
    assert (traffic.failed, traffic.refused) == ({}, [])
    found = await titles()
    tally("server told to end", 2, served=traffic.acknowledged, stored=found)
    assert len(found) <= len(traffic.acknowledged) + CLIENTS  # those cancelled by the test


async def test_a_request_that_outlives_the_graceful_timeout_is_rolled_back(
    database_url: URL, titles, tmp_path: Path
) -> None:
    options = ["--timeout-graceful-shutdown", "1"]
    async with (
        Served(database_url, tmp_path / "log", *options, drain=0) as served,
        httpx.AsyncClient(timeout=PATIENCE) as client,
    ):
        query = {"title": "endless", "seconds": 3600}
        endless = asyncio.create_task(client.post(f"{served.url}/slow-films/1", params=query))
        await served.happened("slow request begun")
        served.terminate()
        code = await served.ended()
        with suppress(httpx.TransportError):
            assert (await endless).status_code == 500

    assert code == 0
    assert "timeout graceful shutdown exceeded" in served.output
    assert "engine disposed" in served.events
    assert await titles() == []


# In this process: what a server would do is done here


@pytest.fixture
def signals() -> AsyncIterator[list[int]]:
    """The SIGTERMs that got to the handler which was there before the application."""
    received: list[int] = []

    def handler(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    before = signal.signal(signal.SIGTERM, handler)
    yield received
    signal.signal(signal.SIGTERM, before)


def small_app(seconds: float) -> tuple[FastAPI, asyncio.Event]:
    app = FastAPI()
    drain = add_drain(app, seconds=seconds)

    @app.get("/")
    async def home() -> str:
        return "here"

    return app, drain.begun


async def test_the_signal_comes_late_to_another_server_and_once(
    signals: list[int], put_clock_forward: Callable[[float], None]
) -> None:
    app, begun = small_app(3600)

    async with running_client(app) as client:
        before = await client.get("/")
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            await begun.wait()
        during, so_far = await client.get("/"), list(signals)
        put_clock_forward(3600)
        async with asyncio.timeout(PATIENCE):
            while not signals:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    assert "Connection" not in before.headers
    assert (during.text, during.headers["Connection"]) == ('"here"', "close")
    assert so_far == []
    assert signals == [signal.SIGTERM]


async def test_uvicorn_is_asked_to_stop_without_its_signal_handler() -> None:
    import uvicorn

    app, begun = small_app(0)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)

    signal.raise_signal(signal.SIGTERM)

    async with asyncio.timeout(PATIENCE):
        await serving  # its handler would end this process with SIGTERM now
    assert begun.is_set()


async def test_the_server_has_its_handler_back_at_the_end(signals: list[int]) -> None:
    app, _begun = small_app(0)
    before = signal.getsignal(signal.SIGTERM)

    async with running_client(app):
        during = signal.getsignal(signal.SIGTERM)

    assert during is not before
    assert signal.getsignal(signal.SIGTERM) is before


async def test_another_thread_needs_no_signal() -> None:
    app, begun = small_app(0)
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    async def use() -> None:
        begun.set()
        async with running_client(app) as client:
            seen.append((await client.get("/")).status_code)
            seen.append(signal.getsignal(signal.SIGTERM))

    await asyncio.to_thread(asyncio.run, use())

    assert seen == [200, before]


async def test_http_2_gets_no_header_that_it_forbids() -> None:
    app, begun = small_app(0)
    begun.set()
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
    await app(scope | {"http_version": "2"}, receive, send)

    assert sent[0]["status"] == 200
    assert b"connection" not in dict(sent[0]["headers"])


async def test_repeated_work_goes_on_after_an_error_and_ends_with_its_round(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rounds: list[str] = []
    third = asyncio.Event()

    async def work() -> None:
        rounds.append("begun")
        if len(rounds) == 1:
            raise RuntimeError("broken on purpose")
        if len(rounds) >= 3:
            third.set()
            await asyncio.sleep(0.2)
        rounds.append("done")

    async with asyncio.timeout(PATIENCE), repeating(work, pause=0.01):
        await third.wait()

    assert rounds == ["begun", "begun", "done", "begun", "done"]
    assert "broken on purpose" in caplog.text


class EndlessRound:
    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.cancelled = False

    async def __call__(self) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


async def test_a_round_that_does_not_end_is_cancelled() -> None:
    work = EndlessRound()

    async with asyncio.timeout(PATIENCE), repeating(work, pause=0.01, patience=0.05):
        await work.begun.wait()

    assert work.cancelled


async def test_a_round_that_waited_for_what_others_cancelled_is_not_the_last(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rounds = 0
    third = asyncio.Event()

    async def work() -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 3:
            third.set()
            return
        others = asyncio.get_running_loop().create_future()
        others.cancel()
        await others

    async with asyncio.timeout(PATIENCE), repeating(work, pause=0.01):
        await third.wait()

    assert rounds == 3
    assert caplog.text.count("what others cancelled; the next one comes") == 2


async def test_a_round_that_does_not_end_when_cancelled_is_left_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    begun, released, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await released.wait()
            ended.set()

    async with asyncio.timeout(PATIENCE):
        async with repeating(work, pause=0.01, patience=0.05, grace=0.05):
            await begun.wait()
        assert not ended.is_set()
        released.set()
        await ended.wait()

    assert "a round does not end, though cancelled" in caplog.text


async def test_a_round_is_cancelled_when_nobody_waits_for_it_any_more() -> None:
    work = EndlessRound()

    async def block() -> None:
        async with repeating(work, pause=0.01, patience=PATIENCE):
            await asyncio.Event().wait()

    serving = asyncio.create_task(block())
    await work.begun.wait()
    serving.cancel()
    await asyncio.sleep(0)  # now it waits for the round
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving

    assert work.cancelled
