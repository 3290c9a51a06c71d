"""The application does on these versions what it did before, on tables that the old ones made."""

import datetime as dt
import uuid
from collections.abc import AsyncIterator

import parcels
import pytest
from httpx import ASGITransport, AsyncClient
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session
from sqlmodel.ext.asyncio.session import AsyncSession

Sessions = async_sessionmaker[AsyncSession]
KEY = uuid.UUID("0b2d4e8c-6a1f-4c3b-9d5e-7f8091a2b3c4")
MOMENT = dt.datetime(2026, 7, 1, 10, 20, 30, tzinfo=dt.UTC)
UUID_TYPES = {"sqlite": "CHAR(32)", "postgresql": "UUID", "mysql": "CHAR(32)"}
MOMENT_TYPES = {
    "sqlite": "DATETIME",
    "postgresql": "TIMESTAMP WITHOUT TIME ZONE",
    "mysql": "DATETIME",
}
NUMBERS = {
    "sqlite": "INTEGER NOT NULL PRIMARY KEY",
    "postgresql": "SERIAL NOT NULL PRIMARY KEY",
    "mysql": "INTEGER NOT NULL PRIMARY KEY AUTO_INCREMENT",
}


def old_tables(name: str) -> list[str]:
    """Return what makes the tables as the old versions did, and fills them."""
    key = str(KEY) if name == "postgresql" else KEY.hex
    columns = (
        f"id {UUID_TYPES[name]} NOT NULL PRIMARY KEY, code VARCHAR(20) NOT NULL UNIQUE,"
        f" arrived_at {MOMENT_TYPES[name]} NOT NULL, depot_id INTEGER REFERENCES depot (id)"
    )
    row = f"'{key}', 'old', '2026-07-01 10:20:30', 1"
    return [
        f"CREATE TABLE depot (id {NUMBERS[name]}, name VARCHAR(50) NOT NULL)",
        f"CREATE TABLE parcel ({columns})",
        "INSERT INTO depot (name) VALUES ('North')",
        "INSERT INTO depot (name) VALUES ('South')",
        f"INSERT INTO parcel (id, code, arrived_at, depot_id) VALUES ({row})",
    ]


@pytest.fixture
async def engine(url: str) -> AsyncIterator[AsyncEngine]:
    """An engine on tables of the old versions, with two depots and a parcel."""
    engine = create_async_engine(url)
    name = engine.dialect.name
    async with engine.begin() as connection:
        if name == "postgresql":
            database = engine.url.database
            await connection.execute(
                text(f"ALTER DATABASE \"{database}\" SET timezone TO 'Asia/Tokyo'")
            )
        for statement in old_tables(name):
            await connection.execute(text(statement))
    await engine.dispose()  # the next connections have the database's zone
    yield engine
    await engine.dispose()


@pytest.fixture
async def client(engine: AsyncEngine, url: str) -> AsyncIterator[AsyncClient]:
    app = parcels.create_app(url)
    transport = ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield client


async def stored(engine: AsyncEngine, query: str) -> list[object]:
    async with engine.connect() as connection:
        return list((await connection.execute(text(query))).scalars())


def as_utc(moment: dt.datetime) -> dt.datetime:
    return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment


async def test_old_rows_are_found_by_their_key(session: AsyncSession) -> None:
    found = await session.get(parcels.Parcel, KEY)
    assert found is not None
    assert (found.code, found.id) == ("old", KEY)


async def test_old_moments_mean_what_they_meant(session: AsyncSession) -> None:
    found = await session.get(parcels.Parcel, KEY)
    assert found is not None
    assert as_utc(found.arrived_at) == MOMENT


async def test_new_parcels_are_stored_with_the_moment_in_utc(
    session: AsyncSession, engine: AsyncEngine
) -> None:
    before = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=2)
    parcel = await parcels.receive(session, "new", 2)
    await session.commit()
    query = "SELECT CAST(arrived_at AS CHAR(19)) FROM parcel WHERE code = 'new'"
    [moment] = await stored(engine, query)
    arrived = dt.datetime.fromisoformat(str(moment)[:19]).replace(tzinfo=dt.UTC)
    assert before <= arrived <= dt.datetime.now(dt.UTC)
    session.expunge_all()
    again = await session.get(parcels.Parcel, parcel.id)
    assert again is not None
    assert abs(as_utc(again.arrived_at) - arrived) <= dt.timedelta(seconds=1)


async def test_new_keys_are_stored_as_the_old_ones(
    session: AsyncSession, engine: AsyncEngine
) -> None:
    parcel = await parcels.receive(session, "new")
    await session.commit()
    [key] = await stored(engine, "SELECT id FROM parcel WHERE code = 'new'")
    assert uuid.UUID(str(key)) == parcel.id
    assert engine.dialect.name == "postgresql" or len(str(key)) == 32


async def test_a_duplicate_names_its_column(session: AsyncSession) -> None:
    with pytest.raises(parcels.DuplicateError) as caught:
        await parcels.receive(session, "old")
    assert caught.value.column == "code"


async def test_a_duplicate_is_a_conflict(client: AsyncClient) -> None:
    assert (await client.post("/parcels/new")).status_code == 201
    answer = await client.post("/parcels/new")
    assert (answer.status_code, answer.json()["detail"]) == (409, "code")


async def test_the_number_is_of_those_before(session: AsyncSession) -> None:
    parcel, before = await parcels.receive_numbered(session, "second")
    assert before == 1
    await session.commit()
    assert await session.get(parcels.Parcel, parcel.id) is not None


async def test_parcels_of_a_depot(session: AsyncSession) -> None:
    await parcels.receive(session, "new", 1)
    await parcels.receive(session, "other", 2)
    assert [parcel.code for parcel in await parcels.in_depot(session, 1)] == ["new", "old"]


@pytest.mark.filterwarnings("ignore:coroutine '.*' was never awaited:RuntimeWarning")
async def test_a_depot_that_is_not_loaded_has_no_name(session: AsyncSession) -> None:
    parcel = await session.get(parcels.Parcel, KEY)
    assert parcel is not None
    assert parcels.depot_name(parcel) is None
    await session.rollback()
    await session.refresh(parcel, ["id", "depot"])
    assert parcels.depot_name(parcel) == "North"


async def test_statements_have_spans(engine: AsyncEngine) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    try:
        parcels.trace(engine, provider)
        async with engine.connect() as connection:
            await connection.execute(text("SELECT code FROM parcel"))
        texts = [str(dict(span.attributes or {})) for span in exporter.get_finished_spans()]
        assert any("SELECT code FROM parcel" in each for each in texts)
    finally:
        SQLAlchemyInstrumentor().uninstrument()


async def test_no_success_before_the_commit(client: AsyncClient, engine: AsyncEngine) -> None:
    def refuse(_session: Session) -> None:
        raise RuntimeError("the disk is full")

    event.listen(Session, "before_commit", refuse)
    try:
        answer = await client.post("/parcels/new")
    finally:
        event.remove(Session, "before_commit", refuse)
    assert answer.status_code >= 500
    assert await stored(engine, "SELECT code FROM parcel") == ["old"]
