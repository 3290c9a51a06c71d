"""Stream any number of rows while holding no connection between two batches."""

from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

from fastapi.responses import StreamingResponse
from sqlalchemy import ColumnElement, inspect
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm.interfaces import ORMOption
from sqlmodel import SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

ModelT = TypeVar("ModelT", bound=SQLModel)
NDJSON = "application/x-ndjson"


async def batches_by_key(
    factory: async_sessionmaker[AsyncSession],
    model: type[ModelT],
    *conditions: ColumnElement[bool],
    size: int = 1000,
    options: Sequence[ORMOption] = (),
) -> AsyncIterator[Sequence[ModelT]]:
    """Yield the rows in the order of their key, a statement for each batch.

    Its session is closed before the batch is handed on, so that neither a slow client nor one that
    leaves keeps a connection. A batch sees what is committed when it is read.

    Args:
        factory: makes the sessions.
        model: what is read.
        conditions: all of them must hold.
        size: rows at once; the batch before is in memory too, until the next one is there.
        options: `selectinload(...)` and the like, for what the body shows.

    Raises:
        ValueError: the primary key has several columns, or the size is not positive.
    """
    key, *others = inspect(model).primary_key
    if size < 1:
        raise ValueError(f"size={size}: use a positive number")
    if others:
        raise ValueError(f"the key of {model.__name__} has several columns: use ServiceBase.stream")
    statement = select(model).where(*conditions).options(*options).order_by(key).limit(size)
    page = statement
    while True:
        async with factory() as session:
            rows = (await session.exec(page)).unique().all()
        if rows:
            yield rows
        if len(rows) < size:
            return
        page = statement.where(key > inspect(rows[-1]).identity[0])


async def streamed(batches: AsyncIterator[str], media_type: str = NDJSON) -> StreamingResponse:
    """Return the response; its first batch is read before the status is sent.

    An error in it is answered like any other; a later one can only cut the body short.
    """
    first = await anext(batches, "")
    return StreamingResponse(_with_first(first, batches), media_type=media_type)


async def _with_first(first: str, rest: AsyncIterator[str]) -> AsyncIterator[str]:
    yield first
    async for batch in rest:
        yield batch
