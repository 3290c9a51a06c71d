import asyncio
import datetime as dt
import gc
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlmodel import func, select
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

from snippets.async_operations.aggregations import Reading
from snippets.async_operations.streaming import readings_in_batches, stream_readings

TABLES = [Reading]
Factory = async_sessionmaker[AsyncSession]
MANY = 6_000


async def fill(engine: AsyncEngine, number: int) -> None:
    day = dt.date(2026, 1, 1)
    rows = [{"station": "hill", "day": day, "rain_mm": n} for n in range(1, number + 1)]
    async with engine.begin() as connection:
        await connection.execute(insert(Reading.__table__), rows)  # type: ignore[attr-defined]


async def total_of_stream(session: AsyncSession, station: str = "hill") -> int:
    return sum([reading.rain_mm async for reading in stream_readings(session, station)])


async def total_of_batches(session: AsyncSession) -> int:
    batches = readings_in_batches(session, "hill")
    return sum([sum(reading.rain_mm for reading in batch) async for batch in batches])


async def total_of_exec(session: AsyncSession) -> int:
    statement = select(Reading).execution_options(yield_per=500)
    return sum(reading.rain_mm for reading in await session.exec(statement))


async def peak(factory: Factory, total: Callable[[AsyncSession], Awaitable[int]]) -> int:
    """Return the most memory that was in use while adding up, in bytes."""
    async with factory() as session:
        assert await total_of_stream(session, "sea") == 0  # compiles the statement
    gc.collect()
    tracemalloc.start()
    try:
        async with factory() as session:
            assert await total(session) == MANY * (MANY + 1) // 2
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


async def test_memory_is_bounded_but_not_by_yield_per_on_exec(
    engine: AsyncEngine, factory: Factory
) -> None:
    await fill(engine, MANY)

    everything = await peak(factory, total_of_exec)

    assert await peak(factory, total_of_stream) < everything / 4
    assert await peak(factory, total_of_batches) < everything / 4


async def test_a_stream_is_one_statement_and_batches_are_one_each(
    engine: AsyncEngine, session: AsyncSession, statements: StatementLog
) -> None:
    await fill(engine, 1000)
    statements.clear()

    assert await total_of_stream(session) == 500_500
    assert statements.count == 1

    statements.clear()
    assert await total_of_batches(session) == 500_500
    assert statements.count == 3  # the last one is empty


async def test_no_rows_are_no_batch(session: AsyncSession) -> None:
    assert [batch async for batch in readings_in_batches(session, "sea")] == []
    assert [reading async for reading in stream_readings(session, "sea")] == []


async def test_a_short_last_batch_ends_the_reading(
    engine: AsyncEngine, session: AsyncSession, statements: StatementLog
) -> None:
    await fill(engine, 5)
    statements.clear()

    sizes = [len(batch) async for batch in readings_in_batches(session, "hill", size=2)]

    assert sizes == [2, 2, 1]
    assert statements.count == 3


async def test_a_stream_that_is_left_early_frees_the_session(
    engine: AsyncEngine, session: AsyncSession
) -> None:
    await fill(engine, 1000)

    async with aclosing(stream_readings(session, "hill", at_once=10)) as stream:
        async for reading in stream:
            if reading.rain_mm == 3:
                break

    assert (await session.exec(select(func.count()).select_from(Reading))).one() == 1000


async def test_a_reader_of_batches_may_write_and_commit(
    engine: AsyncEngine, session: AsyncSession
) -> None:
    await fill(engine, 50)

    async for batch in readings_in_batches(session, "hill", size=20):
        for reading in batch:
            reading.celsius = 1.0
        await session.commit()

    session.expunge_all()
    counted = select(func.count()).select_from(Reading).where(Reading.celsius == 1.0)
    assert (await session.exec(counted)).one() == 50


@pytest.mark.only_on("postgresql", reason="its view of cursors shows what the server holds")
async def test_the_cursor_is_on_the_server(engine: AsyncEngine, session: AsyncSession) -> None:
    await fill(engine, 100)
    stream = stream_readings(session, "hill", at_once=10)

    await anext(stream)
    query = text("SELECT count(*) FROM pg_cursors WHERE statement LIKE 'SELECT reading.id%'")
    open_cursors = await session.exec(query)
    await stream.aclose()

    assert open_cursors.scalar_one() == 1


@pytest.mark.only_on("mysql", reason="the others time a fetch, not the reader between two of them")
async def test_a_slow_reader_of_a_cursor_is_cut_off(engine: AsyncEngine) -> None:
    # More than what fits between server and client.
    rows = text("SELECT REPEAT('x', 10000) FROM seq_1_to_3000")

    async with engine.connect() as connection:
        await connection.execute(text("SET max_statement_time = 0.2"))
        with pytest.raises(DBAPIError) as caught:
            async with connection.stream(rows) as result:
                await anext(result)
                await asyncio.sleep(1)
                assert await result.fetchall() == "never comes"
        await connection.invalidate()  # with its limit

    assert caught.value.orig is not None
    assert caught.value.orig.args[0] == 1969
