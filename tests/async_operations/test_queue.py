import asyncio
import datetime as dt
from collections.abc import Sequence

import pytest
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlmodel import col, select, text, update
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.async_operations.queue import (
    MAX_ATTEMPTS,
    Job,
    claim_jobs,
    dead_jobs,
    finish_job,
)
from snippets.database_setup.session import session_factory, session_scope

TABLES = [Job]
Factory = async_sessionmaker[AsyncSession]
LEASE = dt.timedelta(minutes=5)


async def add_jobs(factory: Factory, number: int) -> None:
    async with session_scope(factory) as session:
        session.add_all([Job(payload=str(n)) for n in range(number)])


async def claim(factory: Factory, worker: str, limit: int = 10) -> list[str]:
    async with session_scope(factory) as session:
        jobs = await claim_jobs(session, worker, limit=limit, lease=LEASE)
        await asyncio.sleep(0.01)
        return [job.payload for job in jobs]


async def test_workers_never_share_a_job(factory: Factory) -> None:
    await add_jobs(factory, 12)

    claims = await asyncio.gather(*[claim(factory, f"w{n}", 3) for n in range(4)])

    taken = sorted(payload for jobs in claims for payload in jobs)
    assert len(taken) == len(set(taken))
    taken += await claim(factory, "last")
    assert sorted(taken, key=int) == [str(n) for n in range(12)]


@pytest.mark.not_on("sqlite", reason="SQLite has one writer: the second waits for the first")
async def test_locked_jobs_are_skipped_without_waiting(
    session: AsyncSession, factory: Factory
) -> None:
    await add_jobs(factory, 4)

    first = await claim_jobs(session, "one", limit=2, lease=LEASE)
    second = await claim(factory, "two")  # a wait for the lock would be an error, in seconds

    assert [job.payload for job in first] == ["0", "1"]
    assert second == ["2", "3"]


async def test_a_claimed_job_is_free_again_when_its_lease_is_over(factory: Factory) -> None:
    await add_jobs(factory, 1)
    assert await claim(factory, "one") == ["0"]
    assert await claim(factory, "two") == []
    async with session_scope(factory) as session:
        past = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)
        await session.exec(update(Job).values(lease_until=past))

    assert await claim(factory, "two") == ["0"]

    async with session_scope(factory) as session:
        (job,) = await session.exec(select(Job))
        assert (job.worker, job.attempts) == ("two", 2)
        assert not await finish_job(session, job.id, "one")
        assert await finish_job(session, job.id, "two")
        assert not await finish_job(session, job.id, "two")
    assert await claim(factory, "one") == []


async def test_a_claim_inside_an_open_transaction_works_too(
    session: AsyncSession, factory: Factory
) -> None:
    session.add(Job(payload="own"))
    await session.flush()

    jobs: Sequence[Job] = await claim_jobs(session, "one", lease=LEASE)

    assert [job.payload for job in jobs] == ["own"]


@pytest.mark.not_on("sqlite", reason="SQLite has one writer: the others wait for the commit")
async def test_an_open_claim_stops_neither_new_jobs_nor_those_of_others(
    session: AsyncSession, factory: Factory
) -> None:
    await add_jobs(factory, 3)
    assert await claim(factory, "other", 1) == ["0"]

    assert len(await claim_jobs(session, "one", limit=10, lease=LEASE)) == 2  # not committed
    async with factory() as other:  # a wait for a lock would be an error, in seconds
        await add_jobs(factory, 1)
        assert await finish_job(other, 1, "other")
        await other.commit()
        assert await claim(factory, "two") == ["0"]  # the new one


async def test_a_claim_is_the_first_in_a_block_that_has_begun(factory: Factory) -> None:
    await add_jobs(factory, 8)

    async def take(worker: str) -> list[str]:
        async with factory() as session, session.begin():
            jobs = await claim_jobs(session, worker, limit=2, lease=LEASE)
            return [job.payload for job in jobs]

    claims = await asyncio.gather(*[take(f"w{n}") for n in range(4)])

    taken = [payload for jobs in claims for payload in jobs]
    assert len(taken) == len(set(taken))


@pytest.mark.only_on("sqlite", reason="about an engine without hooks")
async def test_workers_take_turns_on_a_plain_engine(database_url: URL, factory: Factory) -> None:
    await add_jobs(factory, 40)
    plain = create_async_engine(database_url)
    of_plain = session_factory(plain)

    claims = await asyncio.gather(*[claim(of_plain, f"w{n}", 4) for n in range(10)])
    await plain.dispose()

    taken = sorted((payload for jobs in claims for payload in jobs), key=int)
    assert taken == [str(n) for n in range(40)]


async def test_workers_whose_names_differ_in_case_are_two(factory: Factory) -> None:
    await add_jobs(factory, 1)
    await claim(factory, "w1")

    async with session_scope(factory) as session:
        assert not await finish_job(session, 1, "W1")
        assert await finish_job(session, 1, "w1")


async def test_a_job_that_nobody_finishes_is_dead_in_the_end(factory: Factory) -> None:
    await add_jobs(factory, 2)
    past = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)
    async with session_scope(factory) as session:
        await session.exec(update(Job).where(col(Job.id) == 1).values(attempts=MAX_ATTEMPTS - 1))

    assert await claim(factory, "last") == ["0", "1"]
    async with session_scope(factory) as session:
        assert await dead_jobs(session) == []  # its worker may be at it
        await session.exec(update(Job).values(lease_until=past))
    assert await claim(factory, "one") == ["1"]
    async with session_scope(factory) as session:
        assert [job.id for job in await dead_jobs(session)] == [1]


async def test_many_claims_and_finishes_at_once_meet_in_no_deadlock(
    factory: Factory,
) -> None:
    await add_jobs(factory, 120)
    worked: list[str] = []

    async def work(worker: str) -> None:
        while True:
            async with session_scope(factory) as session:
                jobs = await claim_jobs(session, worker, limit=3, lease=LEASE)
            if not jobs:
                return
            for job in jobs:
                async with session_scope(factory) as session:
                    assert job.id is not None
                    assert await finish_job(session, job.id, worker)
                worked.append(job.payload)
            if len(worked) % 10 == 0:
                await add_jobs(factory, 1)

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(work(f"w{number}"))

    async with factory() as session:
        left = (await session.exec(select(Job).where(col(Job.done).is_(False)))).all()
    assert left == []
    assert len(worked) >= 120


@pytest.mark.only_on("mysql", reason="its `done IS false` finds no index, and reads all rows")
async def test_a_claim_reads_no_finished_jobs(session: AsyncSession, factory: Factory) -> None:
    await add_jobs(factory, 2000)
    await session.exec(update(Job).where(col(Job.id) <= 1990).values(done=True))
    await session.commit()
    connection = await session.connection()
    await connection.execute(text("ANALYZE TABLE job"))
    await connection.execute(text("FLUSH STATUS"))

    await claim_jobs(session, "one", limit=5, lease=LEASE)

    status = await connection.execute(text("SHOW SESSION STATUS LIKE 'Handler_read%'"))
    assert sum(int(number) for _, number in status) < 100


@pytest.mark.only_on("sqlite", reason="the other databases have row locks")
async def test_for_update_is_not_rendered_on_sqlite(engine: AsyncEngine) -> None:
    statement = select(Job).order_by(col(Job.id)).with_for_update(skip_locked=True)

    assert "FOR UPDATE" not in str(statement.compile(dialect=engine.dialect))
