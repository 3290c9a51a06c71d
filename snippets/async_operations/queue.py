"""A queue of work in a table: many workers take jobs, each job goes to one of them at a time."""

import datetime as dt
from collections.abc import Sequence
from contextlib import suppress

from sqlalchemy import Index, false, or_
from sqlalchemy.exc import OperationalError
from sqlmodel import Field, SQLModel, col, select, text, update
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.models.columns import LONG_TEXT, exact_text
from snippets.models.timestamps import UTCTimestamp, utc_now

MAX_ATTEMPTS = 5


class Job(SQLModel, table=True):
    __table_args__ = (Index("ix_job_queue", "done", "id"),)

    id: int | None = Field(default=None, primary_key=True)
    payload: str = Field(sa_type=LONG_TEXT)
    done: bool = False
    attempts: int = 0
    worker: str | None = Field(default=None, sa_type=exact_text(50))  # "w1" is not "W1"
    lease_until: dt.datetime | None = Field(default=None, sa_type=UTCTimestamp)


async def claim_jobs(
    session: AsyncSession, worker: str, *, limit: int = 10, lease: dt.timedelta
) -> Sequence[Job]:
    """Take jobs that nobody else has, for as long as the lease. Commit before working on them.

    Call it first in its transaction. A worker that dies keeps no lock: its jobs are free again when
    the lease is over, until they have been claimed `MAX_ATTEMPTS` times.
    """
    await _keep_to_own_rows(session)
    now = utc_now()
    statement = (
        select(Job)
        # `is_(False)` finds no index on MariaDB, and all rows that are looked at are locked.
        .where(col(Job.done) == false(), col(Job.attempts) < MAX_ATTEMPTS)
        .where(or_(col(Job.lease_until).is_(None), col(Job.lease_until) < now))
        .order_by(col(Job.id))
        .limit(limit)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    )
    jobs = (await session.exec(statement)).all()
    for job in jobs:
        job.worker, job.lease_until, job.attempts = worker, now + lease, job.attempts + 1
    await session.flush()
    return jobs


async def _keep_to_own_rows(session: AsyncSession) -> None:
    dialect = session.get_bind().dialect.name
    if dialect == "sqlite":  # takes the file's lock, with our hooks and without
        await session.exec(update(Job).where(false()).values(done=False))
    elif dialect in {"mysql", "mariadb"}:
        # REPEATABLE READ locks what it looks at, and the gaps: new jobs would wait. Once a
        # transaction has begun the server refuses, and it goes on as it is.
        connection = await session.connection()
        with suppress(OperationalError):
            await connection.execute(text("SET TRANSACTION ISOLATION LEVEL READ COMMITTED"))


async def finish_job(session: AsyncSession, job_id: int, worker: str) -> bool:
    """Mark it done; False when the lease went to another worker, whose result counts."""
    statement = (
        update(Job)
        .where(col(Job.id) == job_id, col(Job.worker) == worker, col(Job.done) == false())
        .values(done=True)
    )
    return (await session.exec(statement)).rowcount == 1


async def dead_jobs(session: AsyncSession) -> Sequence[Job]:
    """Return the jobs that nobody will claim again; for an alert."""
    statement = select(Job).where(
        col(Job.done) == false(),
        col(Job.attempts) >= MAX_ATTEMPTS,
        col(Job.lease_until) < utc_now(),
    )
    return (await session.exec(statement.order_by(col(Job.id)))).all()
