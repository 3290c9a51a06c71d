import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from httpx import ASGITransport, AsyncClient
from production_patterns.every_driver import running_engine, until, urls
from production_patterns.lossy_proxy import LossyProxy
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlmodel import insert, select
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.types import ASGIApp
from statements import StatementLog

from snippets.async_operations.errors import ErrorKind, classify, is_retryable
from snippets.async_operations.queries import Machine
from snippets.database_setup.pooling import pool_figures
from snippets.database_setup.session import session_factory, session_scope
from snippets.fastapi_integration.dependencies import SessionDep
from snippets.fastapi_integration.error_handlers import add_error_handlers
from snippets.production_patterns.timeouts import (
    DeadlineError,
    Gate,
    LimitRequests,
    OverloadedError,
    enforce_limits,
    limit_transaction,
    within,
)

TABLES = [Machine]
Factory = async_sessionmaker[AsyncSession]
PutForward = Callable[[float], None]
# Long enough to be stopped, and short enough to be waited for where nothing stops it.
SLOW = {
    "sqlite": "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < 3000000)"
    " SELECT max(i) FROM r",
    "postgresql": "SELECT pg_sleep(1)",
    # sleep() that is interrupted may return 1 instead of failing
    "mysql": "SELECT max(seq * 2) FROM seq_1_to_10000000",
}
# For what must not get to its commit, however long the client itself is held up.
ENDLESS = {
    "sqlite": "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r)"
    " SELECT max(i) FROM r",
    "postgresql": "SELECT pg_sleep(3600)",
    "mysql": "SELECT max(seq * 2) FROM seq_1_to_1000000000000",
}


def slow(session: AsyncSession) -> str:
    return SLOW[session.get_bind().dialect.name]


def endless(session: AsyncSession) -> str:
    return ENDLESS[session.get_bind().dialect.name]


@pytest.fixture
async def abandoned(engine: AsyncEngine) -> AsyncIterator[None]:
    """End what MariaDB goes on running when its client has left."""
    yield
    if engine.dialect.name != "mysql":
        return
    others = "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND info LIKE"
    async with engine.connect() as connection:
        for number in (await connection.scalars(text(f"{others} 'SELECT max%'"))).all():
            with suppress(DBAPIError):  # it has ended by itself
                await connection.execute(text(f"KILL {number}"))


def in_use(engine: AsyncEngine) -> int:
    figures = pool_figures(engine)
    assert figures is not None
    return figures.in_use


async def names(factory: Factory) -> set[str]:
    async with factory() as session:
        return set(await session.exec(select(Machine.name)))


async def test_a_transaction_has_a_limit_of_its_own_and_the_next_has_it_not(
    database_url: URL, engine: AsyncEngine
) -> None:
    for url in urls(database_url):
        async with running_engine(url, pool_size=1, max_overflow=0) as limited:
            enforce_limits(limited)
            factory = session_factory(limited)

            with pytest.raises(DBAPIError) as caught:
                async with session_scope(factory) as session:
                    await limit_transaction(session, statement=0.05)
                    session.add(Machine(name="lost", hall="A"))
                    await session.flush()
                    await session.exec(text(slow(session)))
            assert classify(caught.value).kind is ErrorKind.STATEMENT_TIMEOUT

            async with session_scope(factory) as session:
                await limit_transaction(session, statement=0.5)  # committed, not rolled back
            async with session_scope(factory) as session:
                session.add(Machine(name=f"kept by {url.drivername}", hall="A"))
                await session.exec(text(slow(session)))
            assert "lost" not in await names(factory)
            assert f"kept by {url.drivername}" in await names(factory)


@pytest.mark.parametrize("seconds", [0, -1, 0.0002])
async def test_a_limit_of_no_time_at_all_is_the_shortest(
    database_url: URL, engine: AsyncEngine, seconds: float
) -> None:
    """As of a deadline that is over; a server would take 0 for no limit."""
    for url in urls(database_url):
        async with running_engine(url) as limited:
            enforce_limits(limited)
            async with session_factory(limited)() as session:
                await limit_transaction(session, statement=seconds, lock=seconds)
                with pytest.raises(DBAPIError) as caught:
                    await session.exec(text(slow(session)))

            assert classify(caught.value).kind is ErrorKind.STATEMENT_TIMEOUT


@pytest.mark.not_on("sqlite", reason="a file has one lock, and its engine one limit")
async def test_a_lock_that_may_not_be_waited_for_is_given_up(
    database_url: URL, factory: Factory
) -> None:
    async with session_scope(factory) as session:
        session.add(Machine(id=1, name="saw", hall="A"))
    row = select(Machine).where(Machine.id == 1).with_for_update()
    async with running_engine(database_url, lock_timeout=60) as limited, factory() as holder:
        enforce_limits(limited)
        await holder.exec(row)

        for seconds in (0, -1):
            with pytest.raises(DBAPIError) as caught:
                async with session_scope(session_factory(limited)) as session:
                    await limit_transaction(session, lock=seconds)
                    await session.exec(row)
            assert classify(caught.value).kind is ErrorKind.LOCK_TIMEOUT


async def test_statements_within_their_limits_are_let_alone(
    database_url: URL, engine: AsyncEngine
) -> None:
    async with running_engine(database_url) as limited:
        enforce_limits(limited)
        async with session_scope(session_factory(limited)) as session:
            await limit_transaction(session, statement=20, lock=20)
            with StatementLog(limited) as log:
                rows = [{"name": f"m{number}", "hall": "100%"} for number in range(3)]
                await session.exec(insert(Machine), params=rows)
                found = await session.exec(select(Machine.name).where(Machine.hall == "100%"))

            assert set(found) == {"m0", "m1", "m2"}
            assert log.count == 2


@pytest.mark.only_on("sqlite", reason="the other databases have a setting for it")
async def test_on_sqlite_each_statement_has_a_limit(database_url: URL) -> None:
    async with running_engine(database_url) as engine:
        enforce_limits(engine, statement=0.05)
        async with session_factory(engine)() as session:
            with pytest.raises(DBAPIError) as caught:
                await session.exec(text(SLOW["sqlite"]))
            with pytest.raises(DBAPIError):
                await session.exec(text("SELECT * FROM nowhere"))
            await asyncio.sleep(0.06)
            await session.rollback()

            assert classify(caught.value).kind is ErrorKind.STATEMENT_TIMEOUT
            assert (await session.exec(text("SELECT 1"))).scalar() == 1


@pytest.mark.only_on("sqlite", reason="it rolls back what an interrupted write has begun")
async def test_a_write_beyond_its_limit_is_known_as_that_in_a_savepoint_too(
    database_url: URL,
) -> None:
    async with running_engine(database_url) as engine:
        enforce_limits(engine)
        async with session_factory(engine)() as session:
            await session.exec(text("CREATE TABLE filled (n INTEGER)"))
            await session.commit()
            await limit_transaction(session, statement=0)
            with pytest.raises(DBAPIError) as caught:
                async with session.begin_nested():
                    await session.exec(text(f"INSERT INTO filled {SLOW['sqlite']}"))
            with pytest.raises(PendingRollbackError):
                await session.commit()

        assert classify(caught.value).kind is ErrorKind.STATEMENT_TIMEOUT
        assert not is_retryable(caught.value)


@pytest.mark.not_on("sqlite", reason="a file has one lock, and its engine one limit")
async def test_a_wait_for_a_lock_has_a_limit_of_its_own(
    database_url: URL, factory: Factory
) -> None:
    async with session_scope(factory) as session:
        session.add(Machine(id=1, name="saw", hall="A"))
    row = select(Machine).where(Machine.id == 1).with_for_update()
    for url in urls(database_url):
        async with running_engine(url, lock_timeout=60) as limited, factory() as holder:
            enforce_limits(limited)
            await holder.exec(row)

            with pytest.raises(DBAPIError) as caught:
                async with session_scope(session_factory(limited)) as session:
                    await limit_transaction(session, lock=0.2)
                    await session.exec(row)

            assert classify(caught.value).kind is ErrorKind.LOCK_TIMEOUT


async def test_work_within_its_time_returns_its_result_or_its_error() -> None:
    async def work(value: int) -> int:
        return 6 // value

    assert await within(60, work(2)) == 3
    with pytest.raises(ZeroDivisionError):
        await within(60, work(0))


@pytest.mark.usefixtures("abandoned")
async def test_work_beyond_its_time_is_rolled_back_and_gives_its_connection_back(
    factory: Factory, engine: AsyncEngine
) -> None:
    async def work() -> None:
        async with session_scope(factory) as session:
            session.add(Machine(name="lost", hall="A"))
            await session.exec(text(endless(session)))

    with pytest.raises(DeadlineError, match=r"not done within 0\.1 s"):
        await within(0.1, work(), grace=30)

    assert in_use(engine) == 0
    assert await names(factory) == set()


async def test_a_commit_that_has_begun_is_finished(factory: Factory) -> None:
    begun = asyncio.Event()

    async def work() -> None:
        async with session_scope(factory) as session:
            session.add(Machine(name="kept", hall="A"))
            begun.set()

    task = asyncio.create_task(within(60, work(), grace=30))
    await begun.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert await names(factory) == {"kept"}


async def test_work_that_does_not_end_when_cancelled_is_left_behind() -> None:
    released = asyncio.Event()
    ended = asyncio.Event()

    async def stubborn() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await released.wait()
            ended.set()
            raise LookupError

    with pytest.raises(DeadlineError):
        await within(0.01, stubborn(), grace=0.01)
    assert not ended.is_set()

    released.set()
    await until(ended.is_set)


@pytest.mark.not_on("sqlite", reason="there is no network")
async def test_a_server_that_does_not_answer_does_not_hold_the_caller(
    database_url: URL, engine: AsyncEngine
) -> None:
    for url in urls(database_url):
        async with LossyProxy(url) as proxy, running_engine(proxy.url) as through:
            factory = session_factory(through)

            async with AsyncExitStack() as stack:
                session = await stack.enter_async_context(session_scope(factory))
                session.add(Machine(name="lost", hall="A"))
                await session.flush()
                proxy.freeze()
                commit = stack.pop_all().aclose  # the commit is sent, and nobody answers

            async with asyncio.timeout(60):
                with pytest.raises(DeadlineError):
                    await within(0.1, commit(), grace=0.1)

            assert in_use(through) == 1
            proxy.cut()  # now the driver notices
            proxy.thaw()
            await until(lambda through=through: in_use(through) == 0)
            async with factory() as session:
                await session.exec(text("SELECT 1"))


async def test_the_gate_lets_some_in_keeps_some_waiting_and_refuses_the_others() -> None:
    gate = Gate(at_once=2, waiting=1)
    leave = asyncio.Event()
    inside = 0

    async def visit() -> str:
        nonlocal inside
        try:
            async with gate.enter():
                inside += 1
                await leave.wait()
                return "served"
        except OverloadedError:
            return "refused"

    visits = [asyncio.create_task(visit()) for _ in range(5)]
    await until(lambda: sum(each.done() for each in visits) == 2)
    assert inside == 2
    leave.set()

    assert sorted(await asyncio.gather(*visits)) == ["refused"] * 2 + ["served"] * 3


async def test_who_stops_waiting_at_the_gate_takes_no_place() -> None:
    gate = Gate(at_once=1, waiting=1)

    async with gate.enter():
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01), gate.enter():
                    pytest.fail("the gate was full")
    async with gate.enter():
        pass


def workshop(factory: Factory, **limits: object) -> FastAPI:
    """An application; `state.gate` is what its middleware lets requests through."""
    app = FastAPI()
    app.state.session_factory = app.state.reading_factory = factory
    app.state.begun = asyncio.Event()
    state = app.state
    add_error_handlers(app)

    def limited(app: ASGIApp) -> LimitRequests:
        middleware = LimitRequests(app, exempt=["/health"], **limits)  # type: ignore[arg-type]
        state.gate = middleware._gate
        return middleware

    if limits:
        app.add_middleware(limited)

    @app.post("/machines/{name}")
    async def add(name: str, session: SessionDep) -> None:
        session.add(Machine(name=name, hall="A"))
        await session.flush()

    @app.post("/slow/{name}")
    async def add_slowly(name: str, session: SessionDep) -> None:
        session.add(Machine(name=name, hall="A"))
        await session.exec(text(endless(session)))

    @app.get("/wait")
    async def wait(seconds: float) -> None:
        await asyncio.sleep(seconds)

    @app.get("/deadline")
    async def deadline() -> None:
        raise TimeoutError

    @app.get("/health")
    async def health() -> str:
        return "ok"

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            yield "begun"
            app.state.begun.set()
            await asyncio.Event().wait()

        return StreamingResponse(body())

    return app


def is_full(app: FastAPI) -> bool:
    """Whether the next request is refused; the middleware is made for the first one."""
    gate = getattr(app.state, "gate", None)
    return gate is not None and gate._free.locked() and gate._waiting == gate._most_waiting


def client(app: FastAPI) -> AsyncClient:
    return AsyncClient(transport=ASGITransport(app=app), base_url="http://test")


async def test_a_full_pool_is_answered_with_503(database_url: URL, engine: AsyncEngine) -> None:
    async with running_engine(database_url, pool_size=1, max_overflow=0, pool_timeout=0.1) as small:
        factory = session_factory(small)
        async with client(workshop(factory)) as http:
            async with factory() as holder:
                await holder.connection()
                with pytest.raises(PoolTimeoutError):
                    async with factory() as session:
                        await session.connection()
                answer = await http.post("/machines/saw")
            later = await http.post("/machines/saw")

    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert later.status_code == 200


async def test_too_many_requests_are_refused_at_once_except_those_for_health(
    factory: Factory,
) -> None:
    app = workshop(factory, at_once=1, waiting=1, seconds=60)
    async with client(app) as http:
        running = [asyncio.create_task(http.get("/wait?seconds=60")) for _ in range(2)]
        await until(lambda: is_full(app))
        refused = await http.get("/wait?seconds=0")
        health = await http.get("/health")
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        later = await http.get("/wait?seconds=0")

    assert (refused.status_code, refused.json()["detail"]) == (503, "too many requests")
    assert refused.headers["Retry-After"] == "1"
    assert health.status_code == later.status_code == 200


@pytest.mark.parametrize(
    ("root_path", "path", "status"),
    [
        ("/api", "/api/health", 200),  # uvicorn --root-path /api
        ("/api", "/health", 200),  # FastAPI(root_path="/api"): the proxy has taken it off
        ("", "/health", 200),
        ("", "/api/health", 503),
        ("/he", "/health", 200),
    ],
)
async def test_exempt_paths_are_those_of_the_routes(
    factory: Factory, root_path: str, path: str, status: int
) -> None:
    app = workshop(factory, at_once=1, waiting=0, seconds=60)
    transport = ASGITransport(app=app, root_path=root_path)
    async with AsyncClient(transport=transport, base_url="http://test") as http:
        running = asyncio.create_task(http.get("/wait?seconds=60"))
        await until(lambda: is_full(app))
        health = await http.get(path)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    assert health.status_code == status


@pytest.mark.usefixtures("abandoned")
async def test_a_request_that_takes_too_long_is_answered_with_504_and_keeps_nothing(
    factory: Factory, engine: AsyncEngine
) -> None:
    async with client(workshop(factory, at_once=5, waiting=5, seconds=0.3)) as http:
        answer = await http.post("/slow/lost")

    assert (answer.status_code, answer.json()["detail"]) == (504, "not done in time")
    await until(lambda: in_use(engine) == 0)
    assert "lost" not in await names(factory)


async def test_an_answer_that_has_begun_is_broken_off(
    factory: Factory, put_clock_forward: PutForward
) -> None:
    app = workshop(factory, at_once=5, waiting=5, seconds=3600)
    async with client(app) as http:
        answer = asyncio.create_task(http.get("/stream"))
        await app.state.begun.wait()
        put_clock_forward(3600)
        with pytest.raises(DeadlineError):
            await answer


async def test_a_timeout_of_the_application_itself_is_no_deadline(factory: Factory) -> None:
    app = workshop(factory, at_once=5, waiting=5, seconds=60)
    async with client(app) as http:
        with pytest.raises(TimeoutError) as caught:
            await http.get("/deadline")

    assert not isinstance(caught.value, DeadlineError)


async def test_what_a_request_sends_after_its_time_goes_nowhere(factory: Factory) -> None:
    late = asyncio.Event()
    sent: list[str] = []

    async def stubborn(_scope: object, _receive: object, send: object) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        await asyncio.sleep(1.2)
        await send({"type": "http.response.start"})  # type: ignore[operator]
        late.set()

    async def send(message: dict[str, object]) -> None:
        sent.append(f"{message['type']} {message.get('status', '')}")

    limited = LimitRequests(stubborn, at_once=1, waiting=0, seconds=0.05)  # type: ignore[arg-type]
    await limited({"type": "http", "path": "/"}, None, send)  # type: ignore[arg-type]
    await late.wait()

    assert sent == ["http.response.start 504", "http.response.body "]


async def test_a_hundred_requests_whose_clients_leave_hold_no_connection(
    factory: Factory, engine: AsyncEngine
) -> None:
    async with client(workshop(factory)) as http:
        for _ in range(10):
            requests = [
                asyncio.create_task(http.post(f"/machines/lost{number}")) for number in range(10)
            ]
            await asyncio.sleep(0.01)
            for each in requests:
                each.cancel()
            await asyncio.gather(*requests, return_exceptions=True)

        await until(lambda: in_use(engine) == 0)
        assert (await http.post("/machines/last")).status_code == 200

    assert "last" in await names(factory)
    assert in_use(engine) == 0
