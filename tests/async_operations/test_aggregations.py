import datetime as dt
from decimal import Decimal

import pytest
from sqlalchemy import func
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

from snippets.async_operations.aggregations import (
    Reading,
    StationSummary,
    count_readings,
    latest_readings,
    station_summaries,
    total_rain,
)

TABLES = [Reading]


@pytest.fixture
async def readings(session: AsyncSession) -> AsyncSession:
    def reading(station: str, day: int, celsius: float | None, rain_mm: int = 0) -> Reading:
        date = dt.date(2026, 1, day)
        return Reading(station=station, day=date, celsius=celsius, rain_mm=rain_mm)

    session.add_all(
        [
            reading("hill", 1, -4.0, 3),
            reading("hill", 3, None, 2),
            reading("hill", 2, 7.0),
            reading("lake", 1, None),
        ]
    )
    await session.commit()
    return session


async def test_a_count_counts_on_the_server(
    readings: AsyncSession, statements: StatementLog
) -> None:
    assert await count_readings(readings, "hill") == 3
    assert await count_readings(readings, "sea") == 0
    assert statements.count == 2


async def test_the_sum_of_nothing_is_zero_and_every_sum_an_int(readings: AsyncSession) -> None:
    totals = [await total_rain(readings, station) for station in ("hill", "sea")]

    assert totals == [5, 0]
    assert all(type(total) is int for total in totals)


async def test_a_raw_sum_differs_between_the_databases(readings: AsyncSession) -> None:
    raw = (await readings.exec(select(func.sum(Reading.rain_mm)))).one()

    mysql = readings.get_bind().dialect.name == "mysql"
    assert type(raw) is (Decimal if mysql else int)
    nothing = select(func.sum(Reading.rain_mm)).where(Reading.station == "sea")
    assert (await readings.exec(nothing)).one() is None


async def test_null_is_left_out_of_means_and_counts(readings: AsyncSession) -> None:
    assert await station_summaries(readings) == [
        StationSummary("hill", measured=2, frosty=1, mean_celsius=1.5),
        StationSummary("lake", measured=0, frosty=0, mean_celsius=None),
    ]


async def test_having_filters_the_groups(readings: AsyncSession) -> None:
    (summary,) = await station_summaries(readings, min_readings=2)

    assert summary.station == "hill"


async def test_the_latest_of_each_group_comes_whole_in_one_statement(
    readings: AsyncSession, statements: StatementLog
) -> None:
    latest = await latest_readings(readings)

    assert [(type(r), r.station, r.day.day) for r in latest] == [
        (Reading, "hill", 3),
        (Reading, "lake", 1),
    ]
    assert statements.count == 1
