"""Lock rows, share a queue of work, or notice that somebody else was quicker."""

import datetime as dt
from collections.abc import Sequence

from sqlalchemy import Column, Index, Integer, or_
from sqlmodel import Field, SQLModel, col, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.async_operations.transactions import Account
from snippets.database_setup.sqlite_pragmas import begin_immediate
from snippets.models.timestamps import UTCTimestamp, utc_now


async def lock_accounts(session: AsyncSession, *ids: int) -> Sequence[Account]:
    """Lock the rows until the transaction ends, and return them as they are now.

    On SQLite, which has no row locks, this must come first in its transaction: it locks the file.
    """
    if not session.in_transaction():
        await begin_immediate(session)
    statement = (
        select(Account)
        .where(col(Account.id).in_(ids))
        .order_by(col(Account.id))  # all lock in the same order, so no deadlock
        .with_for_update()
        .execution_options(populate_existing=True)  # or a loaded object keeps its old values
    )
    return (await session.exec(statement)).all()


class Job(SQLModel, table=True):
    __table_args__ = (Index("ix_job_queue", "done", "id"),)

    id: int | None = Field(default=None, primary_key=True)
    payload: str = Field(max_length=200)
    done: bool = False
    attempts: int = 0
    worker: str | None = Field(default=None, max_length=50)
    lease_until: dt.datetime | None = Field(default=None, sa_type=UTCTimestamp)


async def claim_jobs(
    session: AsyncSession, worker: str, *, limit: int = 10, lease: dt.timedelta
) -> Sequence[Job]:
    """Take jobs that nobody else has, for as long as the lease. Commit before working on them.

    A worker that dies keeps no lock: its jobs are free again when the lease is over.
    """
    if not session.in_transaction():
        await begin_immediate(session)
    now = utc_now()
    free = or_(col(Job.lease_until).is_(None), col(Job.lease_until) < now)
    statement = (
        select(Job)
        .where(col(Job.done).is_(False), free)
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


async def finish_job(session: AsyncSession, job_id: int, worker: str) -> bool:
    """Mark it done; False when the lease went to another worker, whose result counts."""
    statement = (
        update(Job)
        .where(col(Job.id) == job_id, col(Job.worker) == worker, col(Job.done).is_(False))
        .values(done=True)
    )
    return (await session.exec(statement)).rowcount == 1


_blueprint_version = Column("version", Integer, nullable=False)


class Blueprint(SQLModel, table=True):
    """Each UPDATE by the ORM checks the version it read, and raises StaleDataError."""

    __mapper_args__ = {"version_id_col": _blueprint_version}

    id: int | None = Field(default=None, primary_key=True)
    drawing: str = Field(max_length=200)
    version: int | None = Field(default=None, sa_column=_blueprint_version)


class StaleBlueprintError(Exception):
    """The blueprint was changed, or deleted, since the caller read it."""

    def __init__(self, key: int, version: int) -> None:
        super().__init__(f"blueprint {key} is no longer at version {version}; read it again")
        self.key = key
        self.version = version


async def redraw_blueprint(session: AsyncSession, key: int, version: int, drawing: str) -> None:
    """Change it only if it still is what the caller saw, perhaps minutes ago in a browser.

    Raises:
        StaleBlueprintError: it is not.
    """
    statement = (
        update(Blueprint)
        .where(col(Blueprint.id) == key, col(Blueprint.version) == version)
        .values(drawing=drawing, version=version + 1)
    )
    if (await session.exec(statement)).rowcount == 0:
        raise StaleBlueprintError(key, version)
