import asyncio

import jobs
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture
def engine(plain_engine: AsyncEngine) -> AsyncEngine:
    return plain_engine


async def fill(sessions: Sessions, count: int) -> None:
    async with sessions() as session:
        for number in range(count):
            await jobs.enqueue(session, f"p{number}")
        await session.commit()


async def claim(sessions: Sessions, worker: str, count: int, lease: float = 60) -> list[int]:
    async with sessions() as session:
        claimed = await jobs.claim(session, worker, count, lease)
        ids = [job.id for job in claimed]
        await session.commit()
    return ids


async def finish(sessions: Sessions, job: int, worker: str) -> bool:
    async with sessions() as session:
        done = await jobs.finish(session, job, worker)
        await session.commit()
    return done


async def test_each_job_goes_to_one_of_many_workers(sessions: Sessions) -> None:
    await fill(sessions, 60)
    taken: list[int] = []

    async def work(name: str) -> None:
        while ids := await claim(sessions, name, 4):
            taken.extend(ids)
            for job in ids:
                assert await finish(sessions, job, name) is True

    await asyncio.gather(*[work(f"w{n}") for n in range(6)])
    assert len(taken) == len(set(taken)) == 60


async def test_a_claimed_job_is_not_claimed_again(sessions: Sessions) -> None:
    await fill(sessions, 2)
    assert len(await claim(sessions, "a", 5)) == 2
    assert await claim(sessions, "b", 5) == []


async def test_a_lease_that_ran_out_goes_to_another(sessions: Sessions) -> None:
    await fill(sessions, 1)
    (job,) = await claim(sessions, "a", 1, lease=1)
    await asyncio.sleep(2.2)
    assert await claim(sessions, "b", 1) == [job]
    assert await finish(sessions, job, "a") is False
    assert await finish(sessions, job, "b") is True
    assert await claim(sessions, "c", 1) == []


async def test_a_job_that_kills_its_workers_is_parked(sessions: Sessions) -> None:
    await fill(sessions, 1)
    for number in range(5):
        (job,) = await claim(sessions, f"w{number}", 1, lease=0)
        await asyncio.sleep(1.1)  # a column may hold whole seconds
    assert await claim(sessions, "w9", 1) == []
    async with sessions() as session:
        assert list(await jobs.dead(session)) == [job]
    await fill(sessions, 1)
    assert len(await claim(sessions, "w9", 5)) == 1  # it stops no other


async def test_claiming_does_not_wait_for_another_claim(sessions: Sessions, url: str) -> None:
    if url.startswith("sqlite"):
        pytest.skip("one writer at a time")
    await fill(sessions, 4)
    async with sessions() as first, sessions() as second:
        one = [job.id for job in await jobs.claim(first, "a", 2, 60)]
        async with asyncio.timeout(20):
            two = [job.id for job in await jobs.claim(second, "b", 2, 60)]
        assert len({*one, *two}) == 4
        await first.commit()
        await second.commit()


async def test_nothing_is_committed(sessions: Sessions) -> None:
    async with sessions() as session:
        await jobs.enqueue(session, "p")
    assert await claim(sessions, "a", 1) == []
    await fill(sessions, 1)
    async with sessions() as session:
        assert len(await jobs.claim(session, "a", 1, 60)) == 1
    (job,) = await claim(sessions, "b", 1)
    async with sessions() as session:
        assert await jobs.finish(session, job, "b") is True
    assert await finish(sessions, job, "b") is True
