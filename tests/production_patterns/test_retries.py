import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

import pytest
from hosts import resolve
from production_patterns.accounts import PATIENT, balances, fill, transfer_unordered, transfers
from production_patterns.every_driver import running_engine, until, urls
from production_patterns.lossy_proxy import Loss, LossyProxy
from sqlalchemy import URL, event, func
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlalchemy.orm.exc import StaleDataError
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.async_operations.errors import ErrorKind, classify
from snippets.async_operations.isolation import isolated_scope
from snippets.async_operations.locking import Blueprint
from snippets.async_operations.transactions import Account, Transfer, withdraw
from snippets.database_setup.pooling import pool_figures
from snippets.database_setup.session import session_factory, session_scope
from snippets.database_setup.sqlite_pragmas import begin_immediate
from snippets.production_patterns.retries import CommitUnclearError, run_with_retries

TABLES = [Account, Transfer, Blueprint]
Factory = async_sessionmaker[AsyncSession]


def meeting(
    work: Callable[[AsyncSession, int, int, Callable[[], Awaitable[None]]], Awaitable[None]],
    tries: list[int],
) -> Callable[[int, int], Callable[[AsyncSession], Awaitable[None]]]:
    """Make two works that wait for each other in the middle of their first try."""
    barrier = asyncio.Barrier(2)

    def made(first: int, second: int) -> Callable[[AsyncSession], Awaitable[None]]:
        async def run(session: AsyncSession) -> None:
            tries.append(first)

            async def meet() -> None:
                if tries.count(first) == 1:
                    await barrier.wait()

            await work(session, first, second, meet)

        return run

    return made


@pytest.mark.not_on("sqlite", reason="one writer at a time cannot deadlock")
async def test_both_of_two_transactions_that_deadlock_are_done_in_the_end(
    factory: Factory, database_url: URL
) -> None:
    async def opposite(
        session: AsyncSession, first: int, second: int, meet: Callable[[], Awaitable[None]]
    ) -> None:
        await withdraw(session, first, 10)
        await meet()
        await withdraw(session, second, -10)

    for url in urls(database_url):
        await fill(factory)
        tries: list[int] = []
        work = meeting(opposite, tries)
        async with running_engine(url) as engine, asyncio.TaskGroup() as group:
            for one, other in ((1, 2), (2, 1)):
                run = run_with_retries(session_factory(engine), work(one, other), **PATIENT)
                group.create_task(run)

        assert len(tries) >= 3  # again, if it is back before the other has got its lock
        assert await balances(factory) == [1000, 1000]


async def test_of_two_transactions_that_disturb_each_other_one_sees_what_the_other_did(
    factory: Factory, database_url: URL
) -> None:
    refused = []

    async def empty_both(
        session: AsyncSession, first: int, _second: int, meet: Callable[[], Awaitable[None]]
    ) -> None:
        total = (await session.exec(select(func.sum(Account.balance_cents)))).one()
        await meet()
        if total < 2000:
            refused.append(first)
        else:
            await withdraw(session, first, 1000)

    for url in urls(database_url):
        await fill(factory)
        refused.clear()
        tries: list[int] = []
        work = meeting(empty_both, tries)
        async with running_engine(url) as engine, asyncio.TaskGroup() as group:
            for one, other in ((1, 2), (2, 1)):
                run = run_with_retries(
                    session_factory(engine), work(one, other), level="SERIALIZABLE", **PATIENT
                )
                group.create_task(run)

        assert len(tries) >= 3  # again, if it is back before the other has committed
        assert len(refused) == 1
        assert sorted(await balances(factory)) == [0, 1000]


async def test_with_a_level_too_sqlites_write_lock_may_be_taken_first(factory: Factory) -> None:
    await fill(factory)
    tries = 0

    async def work(session: AsyncSession) -> None:
        nonlocal tries
        tries += 1
        await begin_immediate(session)
        account = await session.get_one(Account, 1)
        await asyncio.sleep(0.05)
        account.balance_cents -= 10

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(run_with_retries(factory, work, level="SERIALIZABLE", **PATIENT))

    assert await balances(factory) == [970, 1000]
    sqlite = factory.kw["bind"].dialect.name == "sqlite"
    assert tries == 3 if sqlite else tries >= 3  # one after the other, nobody in vain


async def test_a_lock_that_is_free_again_is_waited_for(
    factory: Factory, database_url: URL, caplog: pytest.LogCaptureFixture
) -> None:
    for url in urls(database_url):
        await fill(factory)
        tries: list[int] = []

        async def work(session: AsyncSession, tries: list[int] = tries) -> None:
            tries.append(id(session))
            await withdraw(session, 1, 10)

        caplog.clear()
        async with running_engine(url, lock_timeout=0.2) as engine:
            async with factory() as holder:
                await withdraw(holder, 1, 5)
                with caplog.at_level(logging.INFO, "snippets.production_patterns.retries"):
                    run = run_with_retries(session_factory(engine), work, **PATIENT)
                    task = asyncio.create_task(run)
                    await until(lambda: caplog.records)
                await holder.commit()
            await task

        assert len(tries) >= 2
        assert await balances(factory) == [985, 1000]


async def test_the_last_error_is_raised_as_it_is(factory: Factory, database_url: URL) -> None:
    for url in urls(database_url):
        await fill(factory)
        tries = 0

        async def work(session: AsyncSession) -> None:
            nonlocal tries
            tries += 1
            await withdraw(session, 1, 10)

        async with running_engine(url, lock_timeout=0.2) as engine, factory() as holder:
            await withdraw(holder, 1, 5)
            with pytest.raises(DBAPIError) as caught:
                await run_with_retries(session_factory(engine), work, attempts=2)

            assert classify(caught.value).kind is ErrorKind.LOCK_TIMEOUT
            assert tries == 2
            figures = pool_figures(engine)
            assert figures is not None
            assert figures.in_use == 0


async def test_no_try_begins_when_the_time_is_over(factory: Factory, database_url: URL) -> None:
    await fill(factory)
    tries = 0

    async def work(session: AsyncSession) -> None:
        nonlocal tries
        tries += 1
        await withdraw(session, 1, 10)

    async with running_engine(database_url, lock_timeout=0.2) as engine, factory() as holder:
        await withdraw(holder, 1, 5)
        with pytest.raises(DBAPIError):
            await run_with_retries(session_factory(engine), work, attempts=100, seconds=0.2)

    assert tries == 1


async def test_an_error_that_would_come_again_is_raised_at_once(factory: Factory) -> None:
    await fill(factory)
    tries = 0

    async def work(session: AsyncSession) -> None:
        nonlocal tries
        tries += 1
        session.add(Account(id=1, owner="bob"))

    with pytest.raises(IntegrityError):
        await run_with_retries(factory, work)

    assert tries == 1


@pytest.mark.only_on(
    "postgresql", reason="it alone finds out at COMMIT that two disturb each other"
)
async def test_whoever_is_cancelled_in_a_commit_that_fails_does_not_try_again(
    factory: Factory, engine: AsyncEngine
) -> None:
    await fill(factory)
    tries = 0

    async def work(session: AsyncSession) -> None:
        nonlocal tries
        tries += 1
        async with isolated_scope(factory, "SERIALIZABLE") as other:
            for each, account_id in ((session, 1), (other, 2)):
                await each.exec(select(func.sum(Account.balance_cents)))
                await withdraw(each, account_id, 1)
        event.listen(engine.sync_engine, "commit", lambda _connection: task.cancel(), once=True)

    task = asyncio.create_task(run_with_retries(factory, work, level="SERIALIZABLE"))
    with pytest.raises(asyncio.CancelledError) as caught:
        await task

    assert isinstance(caught.value.__cause__, DBAPIError)
    assert tries == 1
    assert await balances(factory) == [1000, 999]


@pytest.mark.not_on("sqlite", reason="the database itself refuses the write, and may be retried")
@pytest.mark.parametrize("asked_for", [True, False])
async def test_a_stale_object_is_retried_where_it_is_asked_for(
    factory: Factory, asked_for: bool
) -> None:
    async with session_scope(factory) as session:
        session.add(Blueprint(id=1, drawing="old"))
    tries = 0

    async def work(session: AsyncSession) -> str:
        nonlocal tries
        tries += 1
        blueprint = await session.get_one(Blueprint, 1)
        before = blueprint.drawing
        if tries == 1:
            async with session_scope(factory) as other:
                (await other.get_one(Blueprint, 1)).drawing = "theirs"
        blueprint.drawing = "mine"
        return before

    run = run_with_retries(factory, work, also=(StaleDataError,) if asked_for else ())
    if asked_for:
        assert await run == "theirs"
        assert tries == 2
    else:
        with pytest.raises(StaleDataError):
            await run
        assert tries == 1


@pytest.mark.not_on("sqlite", reason="there is no connection that could be lost")
@pytest.mark.parametrize("reset", [False, True])
async def test_a_connection_that_is_lost_before_the_commit_costs_one_try(
    factory: Factory, database_url: URL, reset: bool
) -> None:
    for url in urls(database_url):
        await fill(factory)
        sessions: list[AsyncSession] = []
        async with LossyProxy(url) as proxy, running_engine(proxy.url) as engine:

            async def work(
                session: AsyncSession,
                sessions: list[AsyncSession] = sessions,
                proxy: LossyProxy = proxy,
            ) -> None:
                sessions.append(session)
                await withdraw(session, 1, 10)
                if len(sessions) == 1:
                    proxy.cut(reset=reset)
                await withdraw(session, 2, -10)

            await run_with_retries(session_factory(engine), work)

        assert len(sessions) == 2
        assert sessions[0] is not sessions[1]
        assert await balances(factory) == [990, 1010]


async def withdraw_in_spite_of_an_outage(proxy: LossyProxy, engine: AsyncEngine) -> None:
    """It ends when the work has been tried twice."""
    tries = 0

    async def work(session: AsyncSession) -> None:
        nonlocal tries
        tries += 1
        await withdraw(session, 1, 10)

    await proxy.refuse()
    task = asyncio.create_task(
        run_with_retries(session_factory(engine), work, attempts=1000, seconds=60)
    )
    await until(lambda: tries >= 2 or task.done())
    await proxy.accept()
    await task


@pytest.mark.not_on("sqlite", reason="nobody can refuse to connect")
async def test_a_server_that_refuses_connections_is_asked_again(
    factory: Factory, database_url: URL
) -> None:
    for url in urls(database_url):
        await fill(factory)
        async with LossyProxy(url) as proxy, running_engine(proxy.url) as engine:
            await withdraw_in_spite_of_an_outage(proxy, engine)

        assert await balances(factory) == [990, 1000]


@pytest.mark.only_on("postgresql", reason="asyncpg raises a bare OSError")
async def test_a_host_none_of_whose_addresses_answers_is_asked_again(
    factory: Factory, database_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve(monkeypatch, "two-addresses", "::1", "127.0.0.1")
    await fill(factory)
    async with (
        LossyProxy(database_url) as proxy,
        running_engine(proxy.url.set(host="two-addresses")) as engine,
    ):
        await withdraw_in_spite_of_an_outage(proxy, engine)

    assert await balances(factory) == [990, 1000]


@pytest.mark.not_on("sqlite", reason="there is no connection that could be lost")
@pytest.mark.parametrize(("loss", "saved"), [("before", 0), ("after", 1)])
async def test_a_commit_whose_answer_is_lost_is_not_run_again(
    factory: Factory, database_url: URL, loss: Loss, saved: int
) -> None:
    for url in urls(database_url):
        await fill(factory)
        tries = 0

        async def work(session: AsyncSession) -> None:
            nonlocal tries
            tries += 1
            await transfer_unordered(session, 1, 2)

        async with LossyProxy(url) as proxy, running_engine(proxy.url) as engine:
            proxy.lose_commit.append(loss)
            with pytest.raises(CommitUnclearError) as caught:
                await run_with_retries(session_factory(engine), work)

        assert isinstance(caught.value.__cause__, DBAPIError)
        assert tries == 1
        assert await transfers(factory) == saved


async def test_a_thousand_transfers_in_any_order_are_each_done_once(
    factory: Factory, engine: AsyncEngine, tally: Callable[..., None]
) -> None:
    await fill(factory, 8)
    tries = 0
    served: list[tuple[int, int]] = []
    chance = random.Random(7)

    async def clerk() -> None:
        for _ in range(50):
            source, target = chance.sample(range(1, 9), 2)

            async def work(session: AsyncSession, pair: tuple[int, int] = (source, target)) -> None:
                nonlocal tries
                tries += 1
                await transfer_unordered(session, *pair)

            await run_with_retries(factory, work, **PATIENT)  # type: ignore[arg-type]
            served.append((source, target))

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(clerk())

    assert await transfers(factory) == 1000
    assert sum(await balances(factory)) == 8000
    async with factory() as session:
        done = (await session.exec(select(Transfer))).all()
    pairs = [(each.source_id, each.target_id) for each in done]
    tally("transaction refused for another's sake", tries - 1000, served=served, stored=pairs)
    expected = [1000] * 8
    for each in done:
        expected[each.source_id - 1] -= each.cents
        expected[each.target_id - 1] += each.cents
    assert await balances(factory) == expected
    assert engine.dialect.name == "sqlite" or tries > 1000


@pytest.mark.parametrize(
    ("served", "stored"),
    [
        (["a", "b"], ["a"]),
        (["a", "a"], ["a"]),
        (["a"], ["a", "a"]),
        ([], ["a", "a"]),
    ],
)
def test_the_tally_fails_for_what_is_lost_or_doubled(
    tally: Callable[..., None], served: list[str], stored: list[str]
) -> None:
    with pytest.raises(AssertionError, match=r"lost, doubled \(fault\)"):
        tally("fault", 1, served=served, stored=stored)


def test_the_tally_takes_once_what_was_never_acknowledged(
    tally: Callable[..., None], request: pytest.FixtureRequest
) -> None:
    tally("fault of a test", 1, served=["a", "b", "b"], stored=["b", "c", "a", "b"])

    assert request.node.user_properties.pop() == ("fault", ("fault of a test", 1, 3))
