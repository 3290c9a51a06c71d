"""Send messages about committed changes, all of them, whatever process dies; receive each once."""

import asyncio
import datetime as dt
import logging
import random
import uuid
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from sqlalchemy import ColumnElement, Index, and_
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import aliased
from sqlmodel import Field, SQLModel, col, delete, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.async_operations.errors import ErrorKind, classify
from snippets.database_setup.session import session_scope
from snippets.database_setup.sqlite_pragmas import begin_immediate
from snippets.models.columns import exact_text
from snippets.models.enums_and_json import json_type
from snippets.models.keys import uuid7
from snippets.models.timestamps import UTCTimestamp, utc_now
from snippets.production_patterns.retries import is_transient

MAX_ATTEMPTS = 8
LONGEST_WAIT = dt.timedelta(minutes=10)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Message:
    """What goes out; `key` is the same each time it goes out again."""

    key: uuid.UUID
    topic: str
    payload: dict[str, Any]


class OutboxRow(SQLModel, table=True):
    """A message not yet delivered: `due_at` says when to try, None that a person must look."""

    __table_args__ = (
        Index("ix_outbox_due", "due_at"),
        Index("ix_outbox_stream", "stream", "id"),
    )

    id: int | None = Field(default=None, primary_key=True)
    key: uuid.UUID = Field(default_factory=uuid7)
    topic: str = Field(max_length=100)
    payload: dict[str, Any] = Field(sa_type=json_type())
    stream: str | None = Field(default=None, sa_type=exact_text(100))
    due_at: dt.datetime | None = Field(default_factory=utc_now, sa_type=UTCTimestamp)
    attempts: int = 0
    last_error: str | None = Field(default=None, max_length=200)

    def message(self) -> Message:
        return Message(self.key, self.topic, self.payload)


class InboxRow(SQLModel, table=True):
    """A message that a consumer has dealt with, in the consumer's own database."""

    consumer: str = Field(sa_type=exact_text(50), primary_key=True)
    key: uuid.UUID = Field(primary_key=True)
    received_at: dt.datetime = Field(default_factory=utc_now, sa_type=UTCTimestamp)


async def publish(
    session: AsyncSession, topic: str, payload: dict[str, Any], *, stream: str | None = None
) -> OutboxRow:
    """Write the message into the caller's transaction.

    Messages of one `stream`, such as `order:17`, are delivered one after the other, in the order
    of their commits: change the row that the stream is about first; its lock makes others wait.
    """
    await session.flush()  # takes that lock before the message gets its number
    row = OutboxRow(topic=topic, payload=payload, stream=stream)
    session.add(row)
    await session.flush()
    return row


async def claim_messages(
    session: AsyncSession, *, limit: int, lease: dt.timedelta, attempts: int = MAX_ATTEMPTS
) -> Sequence[OutboxRow]:
    """Take due messages for as long as the lease. Commit before delivering them.

    A message that was tried before comes alone: one that kills its worker harms no others.
    """
    await begin_immediate(session)
    now = utc_now()
    earlier = aliased(OutboxRow)
    waits = select(earlier.id).where(
        col(earlier.stream) == col(OutboxRow.stream), col(earlier.id) < col(OutboxRow.id)
    )
    statement = (
        select(OutboxRow)
        .where(col(OutboxRow.due_at) <= now, ~waits.exists())
        .order_by(col(OutboxRow.due_at), col(OutboxRow.id))
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    found = (await session.exec(statement)).all()
    claimed = list(takewhile(lambda row: row.attempts == 0, found)) or found[:1]
    for row in claimed:
        row.attempts, row.due_at = row.attempts + 1, now + lease
        if row.attempts > attempts:
            row.due_at, row.last_error = None, row.last_error or "its workers died"
    await session.flush()
    return [row for row in claimed if row.due_at is not None]


async def mark_failed(
    session: AsyncSession, row: OutboxRow, error: Exception, *, attempts: int = MAX_ATTEMPTS
) -> None:
    """Try again later, each time after twice as long; park the message after the last attempt."""
    doubled = dt.timedelta(seconds=2 ** min(row.attempts, 16))  # more would overflow at last
    wait = min(doubled, LONGEST_WAIT)
    again = utc_now() + wait * random.uniform(0.5, 1)  # noqa: S311 - not all at the same moment
    statement = (
        update(OutboxRow)
        # The number of the attempt: another worker may have taken it over.
        .where(_is_still(row), col(OutboxRow.attempts) == row.attempts)
        .values(due_at=again if row.attempts < attempts else None, last_error=repr(error)[:200])
    )
    await session.exec(statement)


async def unpark(session: AsyncSession, keys: Collection[uuid.UUID] | None = None) -> int:
    """Let parked messages, all or some, be tried again as if they were new; return how many."""
    parked = update(OutboxRow).where(col(OutboxRow.due_at).is_(None))
    if keys is not None:
        parked = parked.where(col(OutboxRow.key).in_(keys))
    return (await session.exec(parked.values(due_at=utc_now(), attempts=0))).rowcount


Deliver = Callable[[Message], Awaitable[None]]


async def deliver_due(
    factory: async_sessionmaker[AsyncSession],
    deliver: Deliver,
    *,
    limit: int = 10,
    lease: dt.timedelta = dt.timedelta(minutes=1),
    attempts: int = MAX_ATTEMPTS,
) -> int:
    """Deliver what is due, at least once; return how many messages were tried.

    Args:
        factory: makes the sessions.
        deliver: sends to the broker or the receiver, within lease / limit; no transaction is open.
        limit: messages claimed at once.
        lease: after this time another worker takes them over.
        attempts: tries at most, then the message is parked.
    """
    async with session_scope(factory) as session:
        rows = await claim_messages(session, limit=limit, lease=lease, attempts=attempts)
    for row in rows:
        try:
            await deliver(row.message())
        except Exception as error:
            log.warning("message %s failed, attempt %d", row.key, row.attempts, exc_info=error)
            async with session_scope(factory) as session:
                await mark_failed(session, row, error, attempts=attempts)
        else:
            async with session_scope(factory) as session:
                await session.exec(delete(OutboxRow).where(_is_still(row)))
    return len(rows)


def _is_still(row: OutboxRow) -> ColumnElement[bool]:
    """Match that message: when another worker has removed it, SQLite gives its id to a new one."""
    return and_(col(OutboxRow.id) == row.id, col(OutboxRow.key) == row.key)


async def run_worker(
    factory: async_sessionmaker[AsyncSession],
    deliver: Deliver,
    stop: asyncio.Event,
    *,
    poll: float = 1,
    lease: dt.timedelta = dt.timedelta(minutes=1),
    attempts: int = MAX_ATTEMPTS,
) -> None:
    """Deliver until `stop` is set; a batch that has begun is finished.

    An outage is waited for: what a lost connection leaves undone is due again after the lease.
    An error that trying again does not mend is raised.
    """
    while not stop.is_set():
        try:
            tried = await deliver_due(factory, deliver, lease=lease, attempts=attempts)
        except Exception as error:
            if not _another_try_may_help(error):
                raise
            log.warning("the outbox is out of reach", exc_info=error)
            tried = 0
        if tried == 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), poll)


def _another_try_may_help(error: Exception) -> bool:
    if isinstance(error, DBAPIError):
        # A table may be locked for longer than a statement may take. Lost in COMMIT: claimed or
        # not, delivered twice or not, a receiver must bear it.
        too_long = classify(error).kind is ErrorKind.STATEMENT_TIMEOUT
        return too_long or error.connection_invalidated or is_transient(error)
    return isinstance(error, PoolTimeoutError | OSError) or is_transient(error)  # connecting


async def first_receipt(session: AsyncSession, consumer: str, key: uuid.UUID) -> bool:
    """Return whether the consumer sees the message for the first time; ask before acting on it.

    The note and what the consumer does are one transaction: both are kept, or none.
    """
    await session.flush()  # what is refused of the consumer's earlier work is no second receipt
    try:
        async with session.begin_nested():
            session.add(InboxRow(consumer=consumer, key=key))
            await session.flush()
    except DBAPIError as error:
        if classify(error).kind is not ErrorKind.UNIQUE:
            raise
        return False
    return True
