"""Do the work once for a key, however often it is asked for, and whatever becomes of its commit."""

import datetime as dt
from typing import Any
from uuid import UUID

from sqlalchemy import JSON
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import Field, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.async_operations.savepoints import add_unless_refused
from snippets.models.timestamps import UTCTimestamp, utc_now
from snippets.production_patterns.retries import CommitUnclearError, Work, run_with_retries


class Receipt(SQLModel, table=True):
    """Written in the same transaction as the work: where it is, the work was done."""

    key: UUID = Field(primary_key=True)
    at: dt.datetime = Field(default_factory=utc_now, sa_type=UTCTimestamp, index=True)
    answer: dict[str, Any] | None = Field(default=None, sa_type=JSON(none_as_null=True))


async def run_once(
    factory: async_sessionmaker[AsyncSession],
    key: UUID,
    work: Work[dict[str, Any]],
    **options: Any,
) -> dict[str, Any] | None:
    """Run the work exactly once for the key, however often it is called or its commit is lost.

    The key is inserted first. If another transaction holds it, also one whose COMMIT is still on
    its way, the INSERT waits for the outcome; a SELECT would not. On SQLite the engine needs
    `configure_sqlite`, or the savepoint round that INSERT commits.

    Args:
        factory: makes the sessions.
        key: chosen by the client, the same for each of its tries (`Idempotency-Key`). Bind it to
            who asks for what, or another's key brings another's answer:
            `uuid5(client_key, f"{user_id} transfer")`.
        work: returns the answer, as JSON; later calls get it without doing the work.
        options: see `run_with_retries`.
    """

    async def once(session: AsyncSession) -> dict[str, Any] | None:
        receipt = Receipt(key=key)
        if await add_unless_refused(session, receipt):
            found = await session.get(Receipt, key)
            if found is None:  # committed after the snapshot of REPEATABLE READ
                raise CommitUnclearError("its receipt is not to be seen yet")
            return found.answer
        receipt.answer = await work(session)
        return receipt.answer

    options["also"] = (*options.get("also", ()), CommitUnclearError)
    return await run_with_retries(factory, once, **options)
