"""Read any number of rows in bounded memory."""

from collections.abc import AsyncIterator, Sequence

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.async_operations.aggregations import Reading


async def stream_readings(
    session: AsyncSession, station: str, *, at_once: int = 500
) -> AsyncIterator[Reading]:
    """Yield from a cursor on the server. Do not leave early; one open cursor, one transaction.

    Where a reader may stop early, wrap it: `async with aclosing(stream_readings(...)) as stream`.
    """
    statement = (
        select(Reading)
        .where(Reading.station == station)
        .order_by(col(Reading.id))
        .execution_options(yield_per=at_once)
    )
    result = await session.stream_scalars(statement)
    try:
        # By batches: iterating row by row changes greenlets for each of them.
        async for batch in result.partitions():
            for reading in batch:
                yield reading
    finally:
        await result.close()


async def readings_in_batches(
    session: AsyncSession, station: str, *, size: int = 500
) -> AsyncIterator[Sequence[Reading]]:
    """Yield batches, one statement each: the reader may write, commit and stop between them."""
    last = 0
    while True:
        statement = (
            select(Reading)
            .where(Reading.station == station, col(Reading.id) > last)
            .order_by(col(Reading.id))
            .limit(size)
        )
        batch = (await session.exec(statement)).all()
        if batch:
            last = batch[-1].id or last
            yield batch
        if len(batch) < size:
            return
