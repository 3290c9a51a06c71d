import asyncio
import datetime as dt
import re
from collections.abc import Sequence

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlalchemy.orm.exc import StaleDataError
from sqlmodel import col, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.async_operations.locking import (
    Blueprint,
    Job,
    StaleBlueprintError,
    claim_jobs,
    finish_job,
    lock_accounts,
    redraw_blueprint,
)
from snippets.async_operations.transactions import Account
from snippets.database_setup.session import session_scope

TABLES = [Account, Job, Blueprint]
Factory = async_sessionmaker[AsyncSession]
LEASE = dt.timedelta(minutes=5)


@pytest.fixture
async def accounts(factory: Factory) -> None:
    async with session_scope(factory) as session:
        session.add_all([Account(id=n, owner="Ada", balance_cents=100) for n in (1, 2)])


async def test_a_second_lock_waits_and_then_sees_what_the_first_one_did(
    accounts: None, factory: Factory
) -> None:
    async def spend(cents: int) -> int:
        async with session_scope(factory) as session:
            (account,) = await lock_accounts(session, 1)
            await asyncio.sleep(0.02)  # time for the other to read the old balance
            account.balance_cents -= cents
            return account.balance_cents

    left = await asyncio.gather(spend(30), spend(50))

    assert min(left) == 20


async def test_accounts_are_locked_in_one_order(accounts: None, factory: Factory) -> None:
    async def touch(*ids: int) -> None:
        async with session_scope(factory) as session:
            for account in await lock_accounts(session, *ids):
                account.balance_cents += 1

    await asyncio.gather(*[touch(*ids) for ids in ((1, 2), (2, 1)) * 5])

    async with factory() as session:
        assert set(await session.exec(select(Account.balance_cents))) == {110}


@pytest.mark.not_on("sqlite", reason="there the lock must be the first thing in a transaction")
async def test_a_locked_object_has_the_values_of_now(
    accounts: None, session: AsyncSession, factory: Factory
) -> None:
    loaded = await session.get(Account, 1)
    async with session_scope(factory) as other:
        await other.exec(update(Account).values(balance_cents=7))

    (locked,) = await lock_accounts(session, 1)

    assert locked is loaded
    assert locked.balance_cents == 7


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
    second = await asyncio.wait_for(claim(factory, "two"), 2)

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


@pytest.fixture
async def blueprint(session: AsyncSession) -> Blueprint:
    blueprint = Blueprint(drawing="first")
    session.add(blueprint)
    await session.commit()
    return blueprint


async def test_the_orm_counts_versions(session: AsyncSession, blueprint: Blueprint) -> None:
    assert blueprint.version == 1

    blueprint.drawing = "second"
    await session.commit()

    assert blueprint.version == 2


async def test_a_change_of_what_somebody_else_has_changed_is_stale(
    session: AsyncSession, factory: Factory, blueprint: Blueprint
) -> None:
    async with session_scope(factory) as other:
        (same,) = await other.exec(select(Blueprint))
        same.drawing = "theirs"

    blueprint.drawing = "mine"
    message = "UPDATE statement on table 'blueprint' expected to update 1 row(s); 0 were matched"
    with pytest.raises(StaleDataError, match=re.escape(message)):
        await session.flush()


async def test_after_a_rollback_the_stale_change_passes(
    session: AsyncSession, factory: Factory, blueprint: Blueprint
) -> None:
    async with session_scope(factory) as other:
        (same,) = await other.exec(select(Blueprint))
        same.drawing = "theirs"
    blueprint.drawing = "mine"
    with pytest.raises(StaleDataError):
        await session.flush()
    await session.rollback()

    blueprint.drawing = "mine"
    await session.commit()

    assert (await session.exec(select(Blueprint.drawing))).one() == "mine"


async def test_the_version_that_a_client_saw_is_checked(
    session: AsyncSession, blueprint: Blueprint
) -> None:
    key = blueprint.id
    assert key is not None

    await redraw_blueprint(session, key, 1, "second")

    with pytest.raises(StaleBlueprintError, match="no longer at version 1") as caught:
        await redraw_blueprint(session, key, 1, "lost")
    assert (caught.value.key, caught.value.version) == (key, 1)
    found = await session.exec(select(Blueprint.drawing, Blueprint.version))
    assert tuple(found.one()) == ("second", 2)


@pytest.mark.only_on("sqlite", reason="the other databases have row locks")
async def test_for_update_is_not_rendered_on_sqlite(engine: AsyncEngine) -> None:
    statement = select(Job).order_by(col(Job.id)).with_for_update(skip_locked=True)

    assert "FOR UPDATE" not in str(statement.compile(dialect=engine.dialect))
