"""Try a write that may fail, and keep what was done before it."""

from collections.abc import Iterable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.async_operations.errors import DatabaseFailure, ErrorKind, classify

RowT = TypeVar("RowT", bound=SQLModel)
# What is wrong with the row itself. All else concerns the transaction, or the server.
ROW_FAULTS = {
    ErrorKind.UNIQUE,
    ErrorKind.FOREIGN_KEY,
    ErrorKind.NOT_NULL,
    ErrorKind.CHECK,
    ErrorKind.TOO_LONG,
    ErrorKind.OUT_OF_RANGE,
}


async def add_unless_refused(session: AsyncSession, row: SQLModel) -> DatabaseFailure | None:
    """Insert the row; return why the database refused it, with the session as good as before.

    Raises:
        DBAPIError: no fault of the row, such as a deadlock, or that of one added before.
    """
    await session.flush()
    try:
        async with session.begin_nested():
            session.add(row)
            await session.flush()
    except DBAPIError as error:
        failure = classify(error)
        if failure.kind not in ROW_FAULTS:
            raise
        return failure
    return None


async def add_all_unless_refused(
    session: AsyncSession, rows: Iterable[RowT]
) -> list[tuple[RowT, DatabaseFailure]]:
    """Insert the rows one by one; return the refused ones. The caller commits the others."""
    return [(row, failure) for row in rows if (failure := await add_unless_refused(session, row))]
