from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy import URL
from sqlalchemy.exc import StatementError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlmodel import Field, SQLModel, col, func, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.database_setup.engine import engine_for
from snippets.database_setup.session import session_factory
from snippets.models.timestamps import (
    Moment,
    TimestampError,
    UTCTimestamp,
    server_utc_now,
    utc_now,
)


class MeasurementBase(SQLModel):
    measured_at: Moment = Field(sa_type=UTCTimestamp)
    celsius: float


class Measurement(MeasurementBase, table=True):
    id: int | None = Field(default=None, primary_key=True)
    received_at: datetime = Field(
        default_factory=utc_now,
        sa_type=UTCTimestamp,
        sa_column_kwargs={"server_default": server_utc_now()},
    )


class MeasurementCreate(MeasurementBase):
    pass


class OldMeasurement(SQLModel, table=True):
    """A table from the time before SQLModel 0.0.45, not migrated yet."""

    id: int | None = Field(default=None, primary_key=True)
    measured_at: datetime = Field(sa_type=UTCTimestamp(with_zone=False))


TABLES = [Measurement, OldMeasurement]
Factory = async_sessionmaker[AsyncSession]
NOON = datetime(2026, 7, 1, 12, 0, 0, 123456, tzinfo=UTC)

bounded = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
offsets = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
zones = st.sampled_from(["UTC", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"])
moments = st.datetimes(
    min_value=datetime(1, 1, 3),  # noqa: DTZ001 - hypothesis adds the zone
    max_value=datetime(9999, 12, 29, 23, 59, 59, 999999),  # noqa: DTZ001
    timezones=offsets | zones.map(ZoneInfo),
)
measurements = pytest.mark.parametrize("model", [Measurement, OldMeasurement])


def measured(
    model: type[Measurement] | type[OldMeasurement], at: datetime
) -> Measurement | OldMeasurement:
    return (
        Measurement(measured_at=at, celsius=4.5)
        if model is Measurement
        else OldMeasurement(measured_at=at)
    )


async def stored(
    factory: Factory, model: type[Measurement] | type[OldMeasurement], values: list[datetime]
) -> list[datetime]:
    async with factory() as session:
        rows = [measured(model, value) for value in values]
        session.add_all(rows)
        await session.flush()
        ids = {row.id: number for number, row in enumerate(rows)}
        await session.commit()
    async with factory() as session:
        found = (await session.exec(select(model).where(col(model.id).in_(ids)))).all()
    return [row.measured_at for row in sorted(found, key=lambda row: ids[row.id])]


@measurements
@bounded
@given(values=st.lists(moments, min_size=10, max_size=10))
async def test_a_moment_comes_back_the_same_in_utc_with_microseconds(
    factory: Factory, model: type[Measurement] | type[OldMeasurement], values: list[datetime]
) -> None:
    found = await stored(factory, model, values)

    assert found == [value.astimezone(UTC) for value in values]
    assert all(value.tzinfo is UTC for value in found)


@measurements
async def test_the_first_and_the_last_moment_are_kept(
    factory: Factory, model: type[Measurement] | type[OldMeasurement]
) -> None:
    ends = [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]

    assert await stored(factory, model, ends) == ends


@bounded
@given(values=st.lists(moments, min_size=2, max_size=6, unique=True))
async def test_moments_sort_and_compare_in_sql_whatever_their_zone(
    factory: Factory, values: list[datetime]
) -> None:
    at = col(Measurement.measured_at)
    async with factory() as session:
        session.add_all([Measurement(measured_at=value, celsius=0) for value in values])
        await session.flush()

        ordered = (await session.exec(select(at).order_by(at))).all()
        later = (await session.exec(select(at).where(at > values[0]))).all()
        last = (await session.exec(select(func.max(at)))).one()

    assert list(ordered) == sorted(value.astimezone(UTC) for value in values)
    assert set(later) == {value for value in values if value > values[0]}
    assert last == max(values)


REFUSED = [
    (datetime(2026, 7, 1, 12), "2026-07-01 12:00:00 has no time zone; use datetime.now(UTC)"),  # noqa: DTZ001
    (datetime.min.replace(tzinfo=timezone(timedelta(hours=14))), "0001-01-01 00:00:00+14:00 is out of range in UTC"),  # noqa: E501
    (datetime.max.replace(tzinfo=timezone(-timedelta(hours=1))), "-01:00 is out of range in UTC"),
    (date(2026, 7, 1), "expected a datetime, got date"),
    ("2026-07-01T12:00:00Z", "expected a datetime, got str"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "message"), REFUSED)
async def test_what_is_no_moment_is_refused_at_the_flush(
    session: AsyncSession, value: datetime, message: str
) -> None:
    session.add(Measurement(measured_at=value, celsius=0))

    with pytest.raises(StatementError) as caught:
        await session.flush()

    assert isinstance(caught.value.orig, TimestampError)
    assert message in str(caught.value.orig)
    assert "(snippets.models.timestamps.TimestampError)" in str(caught.value)


async def test_a_naive_value_is_refused_in_conditions_and_updates_too(
    session: AsyncSession,
) -> None:
    naive = datetime(2026, 7, 1)  # noqa: DTZ001
    for statement in (
        select(Measurement).where(col(Measurement.measured_at) > naive),
        update(Measurement).values(measured_at=naive),
    ):
        with pytest.raises(StatementError, match="has no time zone"):
            await session.exec(statement)


async def test_adding_a_timedelta_in_sql_is_refused_on_every_database(
    session: AsyncSession,
) -> None:
    with pytest.raises(StatementError, match="expected a datetime, got timedelta"):
        await session.exec(select(col(Measurement.measured_at) + timedelta(days=1)))


def test_a_schema_turns_every_zone_into_utc() -> None:
    data = MeasurementCreate.model_validate(
        {"measured_at": "2026-07-01T14:00:00+02:00", "celsius": 1}
    )

    assert data.measured_at == datetime(2026, 7, 1, 12, tzinfo=UTC)
    assert data.measured_at.tzinfo is UTC


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ("2026-07-01T12:00:00", "has no time zone"),
        ("0001-01-01T00:00:00+14:00", "is out of range in UTC"),
    ],
)
def test_a_schema_refuses_what_the_column_would_refuse(sent: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MeasurementCreate.model_validate({"measured_at": sent, "celsius": 1})


async def test_null_stays_null(session: AsyncSession) -> None:
    nothing = select(sa.literal(None, UTCTimestamp()))

    assert (await session.exec(nothing)).one() is None


async def test_the_server_clock_is_utc_with_fractions(engine: AsyncEngine) -> None:
    insert = sa.text("INSERT INTO measurement (measured_at, celsius) VALUES (:at, 1)")
    typed = insert.bindparams(sa.bindparam("at", NOON, UTCTimestamp()))
    async with AsyncSession(engine) as session:
        if engine.dialect.name == "mysql":
            await session.exec(sa.text("SET time_zone = '+05:00'"))
        for _ in range(3):
            await session.exec(typed)
            await session.commit()
        received = (await session.exec(select(Measurement.received_at))).all()

    assert all(abs(value - utc_now()) < timedelta(minutes=1) for value in received)
    assert any(value.microsecond for value in received)


async def test_values_of_the_server_and_of_python_compare_on_sqlite_too(
    session: AsyncSession,
) -> None:
    await session.exec(
        sa.text("INSERT INTO measurement (measured_at, celsius) VALUES (:at, 1)").bindparams(
            sa.bindparam("at", NOON, UTCTimestamp())
        )
    )
    (received,) = (await session.exec(select(Measurement.received_at))).all()

    equal = select(Measurement.id).where(col(Measurement.received_at) == received)

    assert len((await session.exec(equal)).all()) == 1


@pytest.fixture
def new_york(database_url: URL) -> AsyncEngine:
    """An engine whose sessions have another TimeZone than ours."""
    connect_args = {"server_settings": {"timezone": "America/New_York"}}
    return engine_for(database_url, connect_args=connect_args)


@pytest.mark.only_on("postgresql", reason="others have no time zone in a column's type")
@pytest.mark.parametrize("model", [Measurement, OldMeasurement])
async def test_the_right_type_reads_and_writes_utc_in_any_session_time_zone(
    engine: AsyncEngine, new_york: AsyncEngine, model: type[Measurement] | type[OldMeasurement]
) -> None:
    try:
        assert await stored(session_factory(new_york), model, [NOON]) == [NOON]
        assert await stored(session_factory(engine), model, [NOON]) == [NOON]
        async with AsyncSession(engine) as session:
            at = sa.cast(col(model.measured_at), sa.Text)
            texts = (await session.exec(select(at))).all()
    finally:
        await new_york.dispose()

    assert {text.removesuffix("+00") for text in texts} == {"2026-07-01 12:00:00.123456"}


@pytest.mark.only_on("postgresql", reason="others have no time zone in a column's type")
async def test_the_zoned_type_on_an_old_column_is_right_only_in_sessions_in_utc(
    engine: AsyncEngine, new_york: AsyncEngine
) -> None:
    old = sa.table("oldmeasurement", sa.column("measured_at", UTCTimestamp()))
    at = sa.cast(old.c.measured_at, sa.Text)
    try:
        async with AsyncSession(engine) as session:
            await session.exec(sa.insert(old).values(measured_at=NOON))
            assert (await session.exec(select(old.c.measured_at))).all() == [NOON]
            assert (await session.exec(select(at))).all() == ["2026-07-01 12:00:00.123456"]
        async with AsyncSession(new_york) as session:
            await session.exec(sa.insert(old).values(measured_at=NOON))
            assert (await session.exec(select(at))).all() == ["2026-07-01 08:00:00.123456"]
    finally:
        await new_york.dispose()


@pytest.mark.only_on("postgresql", reason="others have no time zone in a column's type")
async def test_an_old_column_is_converted_with_the_zone_that_it_means(
    engine: AsyncEngine, new_york: AsyncEngine
) -> None:
    await stored(session_factory(engine), OldMeasurement, [NOON])
    alter = sa.text(
        "ALTER TABLE oldmeasurement ALTER measured_at TYPE timestamptz"
        " USING measured_at AT TIME ZONE 'UTC'"
    )
    try:
        async with new_york.begin() as connection:
            await connection.execute(alter)
            new = sa.table("oldmeasurement", sa.column("measured_at", UTCTimestamp()))
            assert (await connection.execute(sa.select(new))).scalars().all() == [NOON]
    finally:
        await new_york.dispose()


@pytest.mark.only_on("mysql", reason="the clock of the others does not follow the session")
async def test_func_now_is_local_time_on_mariadb(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(sa.text("SET time_zone = '+05:00'"))
        clocks = sa.select(sa.cast(func.now(), UTCTimestamp()), func.utc_timestamp(6))
        now, utc = (await connection.execute(clocks)).one()

    assert timedelta(hours=4) < now - utc.replace(tzinfo=UTC) < timedelta(hours=6)


def test_types_write_themselves_into_a_migration() -> None:
    assert repr(UTCTimestamp()) == "UTCTimestamp()"
    assert repr(UTCTimestamp(with_zone=False)) == "UTCTimestamp(with_zone=False)"
