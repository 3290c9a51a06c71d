"""Try a write that may fail, and keep what was done before it."""

from collections.abc import Iterable

from sqlalchemy.exc import DBAPIError
from sqlmodel import Field, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.async_operations.errors import DatabaseFailure, ErrorKind, classify

# What is wrong with the row itself. All else concerns the transaction, or the server.
ROW_FAULTS = {
    ErrorKind.UNIQUE,
    ErrorKind.FOREIGN_KEY,
    ErrorKind.NOT_NULL,
    ErrorKind.CHECK,
    ErrorKind.TOO_LONG,
    ErrorKind.OUT_OF_RANGE,
}


class Payment(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    reference: str = Field(max_length=20, unique=True)
    cents: int


async def add_unless_refused(session: AsyncSession, row: SQLModel) -> DatabaseFailure | None:
    """Insert the row; return why the database refused it, with the session as good as before.

    Raises:
        DBAPIError: no fault of the row, such as a deadlock, which has ended the transaction.
    """
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


async def import_payments(
    session: AsyncSession, payments: Iterable[Payment]
) -> list[tuple[Payment, DatabaseFailure]]:
    """Add the payments one by one; return the refused ones. The caller commits the others."""
    return [
        (payment, failure)
        for payment in payments
        if (failure := await add_unless_refused(session, payment))
    ]
