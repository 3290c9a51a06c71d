import asyncio

import pytest
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError, SAWarning
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import func, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.async_operations.errors import ErrorKind, classify, is_retryable
from snippets.async_operations.isolation import isolated_scope
from snippets.async_operations.transactions import Account, AccountError, withdraw_from_owner
from snippets.database_setup.engine import engine_for
from snippets.database_setup.session import session_factory, session_scope
from snippets.database_setup.sqlite_pragmas import begin_immediate

TABLES = [Account]
Factory = async_sessionmaker[AsyncSession]


@pytest.fixture(autouse=True)
async def accounts(factory: Factory) -> None:
    async with session_scope(factory) as session:
        session.add_all([Account(id=n, owner="Ada", balance_cents=100) for n in (1, 2)])


async def total(session: AsyncSession) -> int:
    return int((await session.exec(select(func.sum(Account.balance_cents)))).one())


async def test_of_two_withdrawals_that_read_the_same_total_one_must_run_again(
    factory: Factory,
) -> None:
    both_have_read = asyncio.Barrier(2)

    async def withdraw(account_id: int) -> None:
        async with isolated_scope(factory, "SERIALIZABLE") as session:
            assert await total(session) == 200
            await both_have_read.wait()
            account = await session.get(Account, account_id)
            assert account is not None
            account.balance_cents -= 150

    results = await asyncio.gather(withdraw(1), withdraw(2), return_exceptions=True)

    (error,) = [result for result in results if result is not None]
    assert isinstance(error, DBAPIError)
    assert is_retryable(error)
    assert classify(error).code in {"SQLITE_BUSY", "SQLITE_BUSY_SNAPSHOT", "40001", 1213}
    async with factory() as session:
        assert await total(session) == 50


@pytest.mark.not_on("sqlite", reason="SQLite is always serializable")
async def test_at_the_default_level_both_withdrawals_pass(factory: Factory) -> None:
    both_have_read = asyncio.Barrier(2)

    async def withdraw(account_id: int) -> None:
        async with session_scope(factory) as session:
            assert await total(session) == 200
            await both_have_read.wait()
            account = await session.get(Account, account_id)
            assert account is not None
            account.balance_cents -= 150

    await asyncio.gather(withdraw(1), withdraw(2))

    async with factory() as session:
        assert await total(session) == -100


async def test_a_rule_over_several_rows_is_kept(factory: Factory) -> None:
    await withdraw_from_owner(factory, "Ada", 1, 150)

    with pytest.raises(AccountError):
        await withdraw_from_owner(factory, "Ada", 1, 51)
    with pytest.raises(AccountError):
        await withdraw_from_owner(factory, "Nobody", 1, 1)

    async with factory() as session:
        assert await total(session) == 50


async def test_a_report_reads_one_moment(factory: Factory) -> None:
    async with isolated_scope(factory, "REPEATABLE READ") as report:
        before = await total(report)
        async with session_scope(factory) as other:
            await other.exec(update(Account).values(balance_cents=0))

        assert await total(report) == before == 200


@pytest.mark.only_on("postgresql", reason="its default level is READ COMMITTED")
async def test_at_the_default_level_of_postgresql_each_statement_reads_anew(
    factory: Factory,
) -> None:
    async with session_scope(factory) as report:
        assert await total(report) == 200
        async with session_scope(factory) as other:
            await other.exec(update(Account).values(balance_cents=0))

        assert await total(report) == 0


@pytest.mark.not_on("sqlite", reason="there is one level only")
async def test_the_level_ends_with_the_transaction(factory: Factory) -> None:
    async def level() -> str:
        async with factory() as session:
            return await (await session.connection()).get_isolation_level()

    before = await level()
    async with isolated_scope(factory, "SERIALIZABLE") as session:
        assert await (await session.connection()).get_isolation_level() == "SERIALIZABLE"

    assert await level() == before != "SERIALIZABLE"


async def test_sqlites_write_lock_can_be_taken_in_the_scope(
    factory: Factory, database_url: URL
) -> None:
    impatient = engine_for(database_url, lock_timeout=0.1)
    async with isolated_scope(factory, "SERIALIZABLE") as session:
        await begin_immediate(session)
        if impatient.dialect.name == "sqlite":
            async with session_factory(impatient)() as other:
                with pytest.raises(DBAPIError) as caught:
                    await begin_immediate(other)
            assert classify(caught.value).kind is ErrorKind.LOCK_TIMEOUT
        assert await (await session.connection()).get_isolation_level() == "SERIALIZABLE"
        await session.exec(update(Account).values(balance_cents=0))
    await impatient.dispose()

    async with factory() as session:
        assert await total(session) == 0


async def test_a_level_that_is_set_late_is_ignored_with_a_warning(session: AsyncSession) -> None:
    await total(session)

    with pytest.warns(SAWarning, match="Connection is already established for the given bind"):
        await session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
