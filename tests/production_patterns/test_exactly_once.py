import asyncio
import random
from uuid import uuid4, uuid5

import pytest
from production_patterns.accounts import PATIENT, balances, fill, transfer_unordered, transfers
from production_patterns.every_driver import running_engine, until, urls
from production_patterns.lossy_proxy import Loss, LossyProxy
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.async_operations.isolation import Level
from snippets.async_operations.transactions import Account, Transfer
from snippets.database_setup.pooling import pool_figures
from snippets.database_setup.session import session_factory
from snippets.production_patterns.exactly_once import Receipt, run_once
from snippets.production_patterns.lost_connections import survive_lost_connections

TABLES = [Account, Transfer, Receipt]
Factory = async_sessionmaker[AsyncSession]


@pytest.mark.not_on("sqlite", reason="there is no connection that could be lost")
@pytest.mark.parametrize("loss", ["before", "after", "late"])
async def test_work_with_a_key_is_done_once_whatever_becomes_of_its_commit(
    factory: Factory, database_url: URL, loss: Loss
) -> None:
    for url in urls(database_url):
        await fill(factory)
        answers = []

        async def work(
            session: AsyncSession, answers: list[dict[str, int]] = answers
        ) -> dict[str, int]:
            answers.append(await transfer_unordered(session, 1, 2, 1000))
            return answers[-1]

        async with LossyProxy(url) as proxy, running_engine(proxy.url) as engine:
            proxy.lose_commit.append(loss)
            key = uuid4()
            task = asyncio.create_task(run_once(session_factory(engine), key, work))
            if loss == "late":
                await until(lambda proxy=proxy: proxy.connections >= 2)
                await asyncio.sleep(0.2)
                assert not task.done()
                proxy.release_commits()
            answer = await task
            again = await run_once(session_factory(engine), key, work)

        assert proxy.lost == [loss]
        assert answer == again == answers[-1]
        assert len(answers) == (2 if loss == "before" else 1)
        # A second transfer would have failed by itself: the account is empty.
        assert await balances(factory) == [0, 2000]


async def test_a_clients_key_bound_to_the_asker_brings_nobody_anothers_answer(
    factory: Factory,
) -> None:
    await fill(factory)
    client_key = uuid4()

    async def work(session: AsyncSession) -> dict[str, int]:
        return await transfer_unordered(session, 1, 2, 100)

    keys = [uuid5(client_key, f"{user_id} transfer") for user_id in (1, 2, 2)]
    answers = [await run_once(factory, key, work) for key in keys]

    assert answers[0] != answers[1] == answers[2]
    assert await balances(factory) == [800, 1200]


@pytest.mark.parametrize("level", [None, "REPEATABLE READ", "SERIALIZABLE"])
async def test_callers_with_the_same_key_at_the_same_time_get_one_answer(
    factory: Factory, engine: AsyncEngine, level: Level | None
) -> None:
    if engine.dialect.name == "sqlite" and level == "REPEATABLE READ":
        level = "SERIALIZABLE"  # the only one that it has
    await fill(factory)
    key = uuid4()

    async def work(session: AsyncSession) -> dict[str, int]:
        return await transfer_unordered(session, 1, 2)

    answers = await asyncio.gather(
        *(run_once(factory, key, work, level=level, **PATIENT) for _ in range(10))
    )

    assert answers == answers[:1] * 10
    assert await transfers(factory) == 1


async def test_work_that_fails_leaves_no_receipt(factory: Factory) -> None:
    await fill(factory)
    key = uuid4()

    async def broken(_session: AsyncSession) -> dict[str, int]:
        raise LookupError

    with pytest.raises(LookupError):
        await run_once(factory, key, broken)

    async def work(session: AsyncSession) -> dict[str, int]:
        return await transfer_unordered(session, 1, 2)

    assert await run_once(factory, key, work) is not None


@pytest.mark.not_on("sqlite", reason="there is no network")
async def test_on_a_network_that_keeps_failing_all_transfers_are_done_once(
    factory: Factory, database_url: URL
) -> None:
    await fill(factory, 8)
    chance = random.Random(11)
    done = 0

    async with LossyProxy(database_url) as proxy, running_engine(proxy.url) as engine:
        survive_lost_connections(engine)
        through = session_factory(engine)

        async def clerk() -> None:
            nonlocal done
            for _ in range(12):
                source, target = chance.sample(range(1, 9), 2)

                async def work(
                    session: AsyncSession, pair: tuple[int, int] = (source, target)
                ) -> dict[str, int]:
                    return await transfer_unordered(session, *pair)

                await run_once(through, uuid4(), work, **PATIENT)  # type: ignore[arg-type]
                done += 1

        async def saboteur() -> None:
            # As the work goes on, not by the clock: a slow machine must get on, too.
            for goal in range(4, 120, 4):
                await until(lambda goal=goal: done >= goal)
                proxy.lose_commit.append(chance.choice(["before", "after"]))
                if goal % 12 == 0:
                    proxy.cut(reset=chance.choice([True, False]))

        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(clerk())
            group.create_task(saboteur())
        figures = pool_figures(engine)

    assert set(proxy.lost) == {"before", "after"}
    assert await transfers(factory) == 120
    assert sum(await balances(factory)) == 8000
    assert figures is not None
    assert figures.in_use == 0
