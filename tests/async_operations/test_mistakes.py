import asyncio
import datetime as dt
import gc
import re
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

import pytest
import sqlalchemy
from sqlalchemy.exc import (
    DBAPIError,
    InvalidRequestError,
    OperationalError,
    PendingRollbackError,
    StatementError,
)
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

from snippets.async_operations import mistakes
from snippets.async_operations.aggregations import Reading
from snippets.async_operations.create_read_update_delete import StockItem
from snippets.async_operations.errors import ErrorKind, classify, is_retryable
from snippets.async_operations.queries import Machine
from snippets.async_operations.transactions import Account
from snippets.database_setup.session import session_scope

TABLES = [Account, Machine, Reading, StockItem]
Factory = async_sessionmaker[AsyncSession]
SQLALCHEMY_2_0 = sqlalchemy.__version__.startswith("2.0")


async def test_one_session_for_all_tasks(session: AsyncSession) -> None:
    message = (
        "This session is provisioning a new connection; concurrent operations are not permitted"
    )
    with pytest.raises(InvalidRequestError, match=message):
        await mistakes.one_session_for_all_tasks(session)

    await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()})  # gather left one running


async def test_one_session_for_all_tasks_goes_unnoticed_once_it_has_a_connection(
    session: AsyncSession,
) -> None:
    await session.connection()

    await mistakes.one_session_for_all_tasks(session)


async def test_select_of_sqlalchemy(session: AsyncSession) -> None:
    session.add(Machine(name="saw", hall="A"))

    with pytest.raises(AttributeError) as caught:
        await mistakes.select_of_sqlalchemy(session)

    assert f"AttributeError: {caught.value}" == "AttributeError: hall"


async def test_scalars_instead_of_exec(session: AsyncSession) -> None:
    with pytest.warns(DeprecationWarning, match="You probably want to use `session.exec") as seen:
        await mistakes.scalars_instead_of_exec(session)

    assert "`session.exec()` instead of `session.execute()`" in str(seen[0].message)


async def test_commit_in_a_helper(session: AsyncSession, factory: Factory) -> None:
    with pytest.raises(
        InvalidRequestError, match="Can't operate on closed transaction inside context manager"
    ):
        await mistakes.commit_in_a_helper(session)

    async with factory() as other:
        assert (await other.exec(select(Account.owner))).all() == ["Ada"]


async def test_begin_after_a_query(session: AsyncSession) -> None:
    with pytest.raises(InvalidRequestError, match="A transaction is already begun on this Session"):
        await mistakes.begin_after_a_query(session)


async def test_carry_on_after_a_failed_flush(session: AsyncSession) -> None:
    await mistakes.carry_on_after_a_failed_flush(session, StockItem(code="bolt"))
    await session.commit()

    with pytest.raises(
        PendingRollbackError,
        match="This Session's transaction has been rolled back due to a previous exception "
        "during flush",
    ):
        await mistakes.carry_on_after_a_failed_flush(session, StockItem(code="bolt"))


async def both(
    monkeypatch: pytest.MonkeyPatch, work: Callable[[], Awaitable[None]]
) -> list[BaseException]:
    """Do it twice at once; where the work sleeps, it waits until both have looked."""
    barrier = asyncio.Barrier(2)
    with monkeypatch.context() as meeting:
        sleeping = SimpleNamespace(sleep=lambda _seconds: barrier.wait())
        meeting.setattr(mistakes, "asyncio", sleeping)
        results = await asyncio.gather(work(), work(), return_exceptions=True)
    return [result for result in results if isinstance(result, BaseException)]


async def test_read_then_insert(
    engine: AsyncEngine, factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    (error,) = await both(monkeypatch, lambda: mistakes.read_then_insert(factory, "bolt"))

    assert isinstance(error, DBAPIError)
    expected = {
        "sqlite": "database is locked",
        "postgresql": 'duplicate key value violates unique constraint "stockitem_code_key"',
        "mysql": "Duplicate entry 'bolt' for key 'code'",
    }
    assert expected[engine.dialect.name] in str(error)
    await mistakes.read_then_insert(factory, "bolt")  # with time to look, all is well


async def test_lost_update(
    engine: AsyncEngine, factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with session_scope(factory) as session:
        session.add(Account(id=1, owner="Ada", balance_cents=100))

    errors = await both(monkeypatch, lambda: mistakes.lost_update(factory, 1))

    async with factory() as session:
        assert (await session.exec(select(Account.balance_cents))).one() == 110
    if engine.dialect.name == "sqlite":
        (error,) = errors
        assert "database is locked" in str(error)
    else:
        assert errors == []


async def test_retry_operational_errors_only(
    engine: AsyncEngine, session: AsyncSession, factory: Factory
) -> None:
    session.add(Account(id=1, owner="Ada"))
    await session.commit()
    await session.exec(select(Account).with_for_update())

    async with factory() as other:
        if engine.dialect.driver != "asyncpg":
            locked = await mistakes.retry_operational_errors_only(other, 1)
            assert locked == (engine.dialect.name != "sqlite")
            return
        with pytest.raises(DBAPIError) as caught:
            await mistakes.retry_operational_errors_only(other, 1)

    assert not isinstance(caught.value, OperationalError)
    assert 'could not obtain lock on row in relation "account"' in str(caught.value)
    assert classify(caught.value).kind is ErrorKind.LOCK_TIMEOUT
    assert is_retryable(caught.value)


async def test_bulk_insert_with_some_nulls(session: AsyncSession, statements: StatementLog) -> None:
    rows = [
        {"station": "hill", "day": dt.date(2026, 1, 1), "celsius": None if n % 2 else 1.0}
        for n in range(100)
    ]

    await mistakes.bulk_insert_with_some_nulls(session, rows)

    assert statements.count == 100


@pytest.mark.filterwarnings(
    "ignore:coroutine 'Connection.cursor' was never awaited:RuntimeWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)
async def test_read_after_an_update_in_sql(session: AsyncSession) -> None:
    machine = Machine(name="saw", hall="A", power_kw=5)
    session.add(machine)
    await session.flush()

    called = "await_only()" if SQLALCHEMY_2_0 else "await_()"
    with pytest.raises(
        (StatementError, InvalidRequestError),
        match=re.escape(f"greenlet_spawn has not been called; can't call {called} here"),
    ):
        await mistakes.read_after_an_update_in_sql(session, machine)
    gc.collect()  # the driver's coroutine warns here, and not in a later test
