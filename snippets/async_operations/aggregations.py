"""Count, sum and group with the same Python types and the same NULL rules on every database."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import case, func
from sqlalchemy.orm import aliased
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession


class Reading(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    station: str = Field(max_length=30, index=True)
    day: dt.date
    celsius: float | None = None  # the sensor may have failed
    rain_mm: int = 0


@dataclass(frozen=True)
class StationSummary:
    station: str
    measured: int
    frosty: int
    mean_celsius: float | None  # None: every reading failed


async def count_readings(session: AsyncSession, station: str) -> int:
    statement = select(func.count()).select_from(Reading).where(Reading.station == station)
    return (await session.exec(statement)).one()


async def total_rain(session: AsyncSession, station: str) -> int:
    # SUM of no rows is NULL, and on MariaDB SUM of integers is a Decimal.
    statement = select(func.coalesce(func.sum(Reading.rain_mm), 0)).where(
        Reading.station == station
    )
    return int((await session.exec(statement)).one())


async def station_summaries(
    session: AsyncSession, *, min_readings: int = 1
) -> list[StationSummary]:
    celsius = col(Reading.celsius)
    statement = (
        select(
            Reading.station,
            func.count(celsius),  # leaves NULL out, func.count() counts all rows
            func.count(case((celsius < 0, 1))),  # FILTER (WHERE ...) does not exist on MariaDB
            func.avg(celsius),
        )
        .group_by(Reading.station)
        .having(func.count() >= min_readings)
        .order_by(Reading.station)
    )
    return [StationSummary(*row) for row in await session.exec(statement)]


async def latest_readings(session: AsyncSession) -> Sequence[Reading]:
    """Return the newest reading of each station, whole, in one statement."""
    newest_first = func.row_number().over(
        partition_by=Reading.station, order_by=(col(Reading.day).desc(), col(Reading.id).desc())
    )
    ranked = select(Reading, newest_first.label("rank")).subquery()
    latest = aliased(Reading, ranked)
    statement = select(latest).where(ranked.c.rank == 1).order_by(latest.station)
    return (await session.exec(statement)).all()
