import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.async_operations.concurrency import run_despite_cancel, run_each, run_within
from snippets.async_operations.errors import ErrorKind, classify
from snippets.async_operations.queries import Machine
from snippets.database_setup.session import session_scope

TABLES = [Machine]
Factory = async_sessionmaker[AsyncSession]
ENDLESS = {
    "sqlite": "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r)"
    " SELECT max(i) FROM r",
    "postgresql": "SELECT pg_sleep(3600)",
    "mysql": "SELECT sleep(3600)",
}
ASLEEP = text(
    "SELECT id FROM information_schema.processlist"
    " WHERE db = DATABASE() AND info = 'SELECT sleep(3600)'"
)
PATIENCE = 20  # seconds, fewer than any server lets a statement run


@pytest.fixture
async def abandoned(engine: AsyncEngine) -> AsyncIterator[None]:
    """End what MariaDB goes on running when its client has left: the tables wait for it."""
    yield
    if engine.dialect.name != "mysql":
        return
    async with engine.connect() as connection:
        for number in (await connection.scalars(ASLEEP)).all():
            with suppress(DBAPIError):  # it has ended by itself
                await connection.execute(text(f"KILL {number}"))


async def add(session: AsyncSession, name: str) -> str:
    session.add(Machine(name=name, hall="A"))
    await session.flush()
    if name == "broken":
        raise LookupError(name)
    return name.upper()


async def names(factory: Factory) -> set[str]:
    async with factory() as session:
        return set(await session.exec(select(Machine.name)))


def checked_out(engine: AsyncEngine) -> int:
    return engine.pool.checkedout()  # type: ignore[attr-defined]


async def test_results_come_in_the_order_of_the_items(factory: Factory) -> None:
    assert await run_each(factory, ["saw", "mill", "press"], add) == ["SAW", "MILL", "PRESS"]

    assert await names(factory) == {"saw", "mill", "press"}


async def test_each_item_has_a_session_alone_and_no_more_run_than_allowed(
    factory: Factory,
) -> None:
    sessions: set[int] = set()
    most = 0

    async def work(session: AsyncSession, item: int) -> None:
        nonlocal most
        sessions.add(id(session))
        most = max(most, len(sessions))
        await session.exec(select(Machine))
        await asyncio.sleep(0.005)
        sessions.remove(id(session))

    await run_each(factory, range(12), work, at_once=3)

    assert most == 3


async def test_a_failing_item_cancels_the_others_and_is_raised_in_a_group(
    factory: Factory, engine: AsyncEngine
) -> None:
    with pytest.RaisesGroup(LookupError):
        await run_each(factory, ["saw", "broken", "mill"], add, at_once=1)

    assert await names(factory) == {"saw"}
    assert checked_out(engine) == 0


async def test_work_within_its_time_is_committed(factory: Factory) -> None:
    assert await run_within(factory, 10, lambda session: add(session, "saw")) == "SAW"

    assert await names(factory) == {"saw"}


@pytest.mark.usefixtures("abandoned")
async def test_work_that_takes_too_long_is_rolled_back_at_once(
    factory: Factory, engine: AsyncEngine
) -> None:
    async def work(session: AsyncSession) -> None:
        await add(session, "lost")
        await session.exec(text(ENDLESS[engine.dialect.name]))

    late = asyncio.create_task(run_within(factory, 0.1, work))
    await asyncio.wait([late], timeout=PATIENCE)

    assert late.done()  # though the statement has no end
    assert isinstance(late.exception(), TimeoutError)
    assert checked_out(engine) == 0
    assert await names(factory) == set()


@pytest.mark.not_on("mysql", reason="the next test shows what MariaDB does")
async def test_the_locks_of_a_cancelled_statement_are_free_at_once(
    factory: Factory, engine: AsyncEngine
) -> None:
    async def work(session: AsyncSession) -> None:
        await add(session, "lost")
        await session.exec(text(ENDLESS[engine.dialect.name]))

    with pytest.raises(TimeoutError):
        await run_within(factory, 0.1, work)
    async with factory() as session:  # who waits for a lock gives up long before the statement
        if engine.dialect.name == "postgresql":
            await session.exec(text("LOCK TABLE machine"))
        await add(session, "next")
        await session.commit()

    assert await names(factory) == {"next"}


@pytest.mark.only_on("mysql", reason="the server does not look whether its client is still there")
@pytest.mark.usefixtures("abandoned")
async def test_on_mariadb_a_cancelled_statement_keeps_its_locks_until_it_ends(
    factory: Factory, engine: AsyncEngine, put_clock_forward: Callable[[float], None]
) -> None:
    async with session_scope(factory) as session:
        await add(session, "saw")
    row = select(Machine).with_for_update(nowait=True)

    async def work(session: AsyncSession) -> None:
        await session.exec(row)
        await session.exec(text(ENDLESS["mysql"]))

    late = asyncio.create_task(run_within(factory, 3600, work))
    async with engine.connect() as connection:
        while not (await connection.scalars(ASLEEP)).all():  # noqa: ASYNC110 - the server tells
            await asyncio.sleep(0.01)
    put_clock_forward(3600)
    with pytest.raises(TimeoutError):
        await late

    async with factory() as session:
        with pytest.raises(DBAPIError) as caught:
            await session.exec(row)
        assert classify(caught.value).kind is ErrorKind.LOCK_TIMEOUT


@pytest.mark.usefixtures("abandoned")
async def test_a_session_whose_statement_was_cancelled_needs_a_rollback(
    session: AsyncSession, engine: AsyncEngine
) -> None:
    await add(session, "lost")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await session.exec(text(ENDLESS[engine.dialect.name]))

    with pytest.raises(
        PendingRollbackError, match="Can't reconnect until invalid transaction is rolled back"
    ):
        await session.exec(select(Machine))
    await session.rollback()
    assert (await session.exec(select(Machine))).all() == []


async def test_work_is_finished_although_the_caller_is_cancelled(factory: Factory) -> None:
    begun = asyncio.Event()

    async def work(session: AsyncSession) -> None:
        begun.set()
        await asyncio.sleep(0.02)
        await add(session, "saved")

    task = asyncio.create_task(run_despite_cancel(factory, work))
    await begun.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert await names(factory) == {"saved"}


async def test_work_that_nobody_cancels_gives_its_result(factory: Factory) -> None:
    assert await run_despite_cancel(factory, lambda session: add(session, "saw")) == "SAW"
