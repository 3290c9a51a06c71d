import asyncio
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlalchemy.pool import NullPool
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.types import Message, Receive, Scope, Send

from snippets.database_setup.engine import engine_for
from snippets.database_setup.session import session_factory
from snippets.production_patterns.observability import (
    Observer,
    RequestCosts,
    StatementBudgetError,
    counted,
    measure_pool,
    statement_budget,
    trace_statements,
)
from snippets.relationships.eager_loading import shelves_with_jars
from snippets.relationships.one_to_many import Cellar, Jar, Shelf

TABLES = [Cellar, Shelf, Jar]
Factory = async_sessionmaker[AsyncSession]
SECRET = "hunter2"
SLEEP = {
    "sqlite": "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 300000) "
    "SELECT max(n) FROM c WHERE :secret <> ''",
    "postgresql": "SELECT pg_sleep(0.05), CAST(:secret AS text)",
    "mysql": "SELECT sleep(0.05), :secret",
}
LIMIT = {
    "postgresql": "SET statement_timeout = '200ms'",
    "mysql": "SET max_statement_time = 0.2",
}
ENDLESS = {
    "postgresql": "SELECT pg_sleep(3600)",
    # sleep() would be interrupted without an error
    "mysql": "SELECT count(*) FROM information_schema.columns a, information_schema.columns b, "
    "information_schema.columns c, information_schema.columns d",
}


async def ask(factory: Factory, times: int) -> None:
    async with factory() as session:
        for _ in range(times):
            await session.exec(select(1))
            await asyncio.sleep(0.01)  # so that the others come between


@pytest.fixture
def observed(engine: AsyncEngine) -> AsyncEngine:
    Observer(slow=1000).observe(engine)
    return engine


# Costs


async def test_each_of_several_requests_at_once_is_charged_its_own_statements(
    observed: AsyncEngine, factory: Factory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    app = FastAPI()
    app.add_middleware(RequestCosts)

    @app.get("/asked/{times}")
    async def asked(times: int) -> None:
        await asyncio.gather(ask(factory, times), ask(factory, times))

    @app.get("/broken")
    async def broken() -> None:
        await ask(factory, 3)
        raise RuntimeError("broken on purpose")

    transport = ASGITransport(app=app, raise_app_exceptions=False)
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        urls = ["/asked/1", "/asked/5", "/asked/2", "/broken", "/missing"]
        await asyncio.gather(*[client.get(url) for url in urls])

    costs = [record for record in caplog.records if hasattr(record, "statements")]
    assert sorted(record.getMessage() for record in costs) == [
        "GET /asked/{times}: 10 statements",
        "GET /asked/{times}: 2 statements",
        "GET /asked/{times}: 4 statements",
        "GET /broken: 3 statements",
        "GET no route: 0 statements",
    ]
    assert all((r.database_seconds > 0) == (r.statements > 0) for r in costs)


async def test_other_connections_than_requests_are_left_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    seen: list[str] = []

    async def inner(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope["type"])

    async def receive() -> Message:
        return {}

    async def send(_message: Message) -> None: ...

    await RequestCosts(inner)({"type": "websocket"}, receive, send)

    assert seen == ["websocket"]
    assert caplog.records == []


async def test_what_is_not_in_the_block_is_not_counted(
    observed: AsyncEngine, factory: Factory
) -> None:
    async def others() -> None:
        await ask(factory, 4)

    task = asyncio.create_task(others())  # before the block
    with counted() as cost:
        await ask(factory, 2)
        await task
    await ask(factory, 1)

    assert cost.statements == 2
    assert cost.seconds > 0


async def test_a_block_inside_another_is_counted_in_both(
    observed: AsyncEngine, factory: Factory
) -> None:
    with counted() as outer:
        await ask(factory, 1)
        with counted() as inner:
            await ask(factory, 2)
        with counted() as second:
            await asyncio.create_task(ask(factory, 3))
        await ask(factory, 4)

    assert (outer.statements, inner.statements, second.statements) == (10, 2, 3)
    assert outer.seconds > inner.seconds + second.seconds


async def test_an_engine_with_other_options_is_observed_too(observed: AsyncEngine) -> None:
    with counted() as cost:
        await ask(session_factory(observed.execution_options(sqlite_begin="IMMEDIATE")), 2)

    assert cost.statements == 2


# Slow statements


async def test_a_slow_statement_is_logged_without_its_parameters(
    engine: AsyncEngine, session: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    Observer(slow=0.01).observe(engine)
    statement = SLEEP[engine.dialect.name]

    await session.exec(text(statement), params={"secret": SECRET})

    record = next(record for record in caplog.records if hasattr(record, "seconds"))
    assert record.levelno == logging.WARNING
    assert record.seconds >= 0.01
    assert record.statement[:20] == statement[:20]
    assert re.match(r"slow statement, \d+\.", record.getMessage())
    assert SECRET not in caplog.text
    assert SECRET not in str([vars(record) for record in caplog.records])


async def test_a_quick_statement_is_not_logged(
    observed: AsyncEngine, session: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    await session.exec(select(1))

    assert caplog.records == []


@pytest.mark.not_on("sqlite", reason="no statement timeout")
async def test_a_statement_that_ran_into_its_timeout_is_logged(
    database_url: URL, caplog: pytest.LogCaptureFixture
) -> None:
    engine = engine_for(database_url, poolclass=NullPool)
    Observer(slow=0.1).observe(engine)
    async with engine.connect() as connection:
        await connection.execute(text(LIMIT[engine.dialect.name]))  # not for those that connect
        caplog.clear()
        with pytest.raises(DBAPIError), counted() as cost:
            await connection.execute(text(ENDLESS[engine.dialect.name]))
    await engine.dispose()

    assert [r.statement for r in caplog.records] == [ENDLESS[engine.dialect.name]]  # type: ignore[attr-defined]
    assert cost.statements == 1


@pytest.mark.not_on("sqlite", reason="aiosqlite ends the statement first")
async def test_a_statement_that_was_cancelled_is_logged(
    database_url: URL, caplog: pytest.LogCaptureFixture
) -> None:
    # MariaDB goes on when its client has left, until this limit.
    engine = engine_for(database_url, statement_timeout=10)
    Observer(slow=0.1).observe(engine)
    async with engine.connect() as connection:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):  # the connection is there: it is the statement's
                await connection.execute(text(ENDLESS[engine.dialect.name]))
    await engine.dispose()

    assert [r.statement for r in caplog.records] == [ENDLESS[engine.dialect.name]]  # type: ignore[attr-defined]


async def test_an_error_without_a_statement_is_no_statement(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = engine_for("mysql+aiomysql://root@127.0.0.1:1/none", poolclass=NullPool)
    Observer(slow=0).observe(engine)
    with pytest.raises(DBAPIError):
        await engine.connect().start()

    assert caplog.records == []


# Budgets


@pytest.fixture
async def shelves(session: AsyncSession) -> None:
    for label in ("top", "middle", "low", "floor"):
        session.add(Shelf(label=label, jars=[Jar(fruit="plum")]))
    await session.commit()
    session.expunge_all()


async def fruits_in_a_loop(session: AsyncSession) -> list[str]:
    fruits: list[str] = []
    for shelf in (await session.exec(select(Shelf))).all():
        jars = await session.exec(select(Jar).where(col(Jar.shelf_id) == shelf.id))
        fruits += [jar.fruit for jar in jars]
    return fruits


async def test_a_query_in_a_loop_is_over_budget_and_the_error_shows_it(
    engine: AsyncEngine, session: AsyncSession, shelves: None
) -> None:
    with pytest.raises(StatementBudgetError) as caught, statement_budget(engine, at_most=3):
        await fruits_in_a_loop(session)

    first, repeated, *_ = str(caught.value).splitlines()
    assert first == "5 statements, 3 allowed, the same one 2 times:"
    assert repeated.startswith("4 x SELECT ")
    assert "FROM shelf" in str(caught.value)


async def test_a_query_in_a_loop_is_found_within_a_budget_that_is_too_large(
    engine: AsyncEngine, session: AsyncSession, shelves: None
) -> None:
    found = pytest.raises(StatementBudgetError, match="4 x SELECT")

    with found, statement_budget(engine, at_most=100):
        await fruits_in_a_loop(session)


async def test_a_text_may_be_sent_as_often_as_is_allowed_and_no_more(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        with statement_budget(engine, at_most=9, alike=2):
            for _ in range(2):
                await connection.execute(text("SELECT 1"))
        with pytest.raises(StatementBudgetError), statement_budget(engine, at_most=9, alike=1):
            for _ in range(2):
                await connection.execute(text("SELECT 1"))


async def test_eager_loading_stays_within_its_budget(
    engine: AsyncEngine, session: AsyncSession, shelves: None
) -> None:
    with statement_budget(engine, at_most=2) as sent:
        found = await shelves_with_jars(session)
    await fruits_in_a_loop(session)  # no longer counted

    assert len(found) == 4
    assert sent.total() == 2


async def test_transaction_control_is_free_and_no_statement_is_a_budget_too(
    engine: AsyncEngine, session: AsyncSession
) -> None:
    with statement_budget(engine, at_most=1):
        async with session.begin_nested():
            await session.exec(select(1))
        await session.commit()

    with statement_budget(engine, at_most=0):
        pass


async def test_the_error_of_the_block_wins_over_the_budget(
    engine: AsyncEngine, session: AsyncSession
) -> None:
    with pytest.raises(ZeroDivisionError), statement_budget(engine, at_most=0):
        await session.exec(select(1))
        raise ZeroDivisionError


# OpenTelemetry


@pytest.fixture
def spans() -> Iterator[tuple[TracerProvider, InMemorySpanExporter]]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider, exporter
    SQLAlchemyInstrumentor().uninstrument()
    provider.shutdown()


async def test_each_statement_is_a_span_below_the_request_s_and_has_no_parameters(
    engine: AsyncEngine,
    session: AsyncSession,
    spans: tuple[TracerProvider, InMemorySpanExporter],
) -> None:
    provider, exporter = spans
    trace_statements([engine], provider)

    with provider.get_tracer("test").start_as_current_span("request") as request:
        session.add(Shelf(label=SECRET))
        await session.commit()

    found = [span for span in exporter.get_finished_spans() if span.name.startswith("INSERT")]
    (insert,) = found
    assert insert.parent is not None
    assert insert.parent.span_id == request.get_span_context().span_id
    assert insert.attributes is not None
    assert str(insert.attributes["db.statement"]).startswith("INSERT INTO shelf")
    assert SECRET not in "".join(span.to_json() for span in exporter.get_finished_spans())


async def test_a_failed_statement_is_a_span_with_an_error(
    engine: AsyncEngine,
    session: AsyncSession,
    spans: tuple[TracerProvider, InMemorySpanExporter],
) -> None:
    provider, exporter = spans
    trace_statements([engine], provider)

    with pytest.raises(DBAPIError):
        await session.exec(text("SELECT * FROM missing"))

    found = [span for span in exporter.get_finished_spans() if not span.status.is_unset]
    assert [span.status.status_code.name for span in found] == ["ERROR"]


async def test_the_figures_of_the_pool_are_metrics(engine: AsyncEngine) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    measure_pool(provider.get_meter("test"), engine)

    async with engine.connect(), engine.connect():
        used = figures(reader)
    after = figures(reader)
    provider.shutdown()

    assert used == {"used": 2, "idle": used["idle"], "limit": 15}
    assert after == {"used": 0, "idle": 2, "limit": 15}


async def test_several_pools_are_told_apart(engine: AsyncEngine) -> None:
    """Of two calls the second one was ignored: a full pool of the replica was never seen."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    other = engine_for(engine.url)
    measure_pool(provider.get_meter("test"), primary=engine, replica=other)

    async with engine.connect(), other.connect(), other.connect():
        found = points(reader)
    await other.dispose()
    provider.shutdown()

    used = {p.attributes["pool"]: p.value for p in found if p.attributes["state"] == "used"}
    assert used == {"primary": 1, "replica": 2}


async def test_an_engine_without_a_pool_has_no_metrics() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    measure_pool(provider.get_meter("test"), engine_for("sqlite://", poolclass=NullPool))

    assert reader.get_metrics_data() is None
    provider.shutdown()


def figures(reader: InMemoryMetricReader) -> dict[str, float]:
    return {str(point.attributes["state"]): point.value for point in points(reader)}


def points(reader: InMemoryMetricReader) -> Any:
    data = reader.get_metrics_data()
    assert data is not None
    (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
    assert metric.name == "db.client.connections"
    return metric.data.data_points
