import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

from snippets.async_operations.transactions import (
    Account,
    AccountError,
    Transfer,
    pay_salaries,
    transfer,
    withdraw,
)

TABLES = [Account, Transfer]
Factory = async_sessionmaker[AsyncSession]


@pytest.fixture(autouse=True)
async def accounts(factory: Factory) -> None:
    async with factory() as session:
        session.add_all([Account(id=n, owner="Ada", balance_cents=100) for n in (1, 2, 3)])
        await session.commit()


async def balances(factory: Factory) -> list[int]:
    async with factory() as session:
        return list(await session.exec(select(Account.balance_cents).order_by(col(Account.id))))


async def test_a_transfer_is_flushed_and_not_committed(
    session: AsyncSession, factory: Factory
) -> None:
    done = await transfer(session, 1, 2, 30)

    assert done.id is not None
    await session.rollback()
    assert await balances(factory) == [100, 100, 100]


async def test_a_committed_transfer_moves_the_money(
    session: AsyncSession, factory: Factory
) -> None:
    await transfer(session, 2, 1, 30)
    await session.commit()

    assert await balances(factory) == [130, 70, 100]


async def test_everybody_is_paid_or_nobody(factory: Factory) -> None:
    with pytest.raises(AccountError, match="account 1 is missing or has too little"):
        await pay_salaries(factory, 1, {2: 60, 3: 60})
    assert await balances(factory) == [100, 100, 100]

    await pay_salaries(factory, 1, {2: 60, 3: 40})
    assert await balances(factory) == [0, 160, 140]


async def test_a_missing_account_is_an_error(session: AsyncSession) -> None:
    with pytest.raises(AccountError) as caught:
        await transfer(session, 1, 9, 30)

    assert caught.value.account_id == 9


async def test_check_and_change_are_one_statement_and_loaded_objects_follow(
    session: AsyncSession, statements: StatementLog
) -> None:
    account = await session.get(Account, 1)
    statements.clear()

    await withdraw(session, 1, 40)

    assert statements.count == 1
    assert account is not None
    assert account.balance_cents == 60


async def test_accounts_are_changed_in_one_order_whoever_pays(
    session: AsyncSession, statements: StatementLog
) -> None:
    await transfer(session, 1, 2, 1)
    await transfer(session, 2, 1, 1)

    changed = [
        p for t, p in zip(statements.texts, statements.parameters, strict=True) if "UPDATE" in t
    ]
    amounts = [parameters[0] for parameters in changed]
    assert amounts == [1, -1, -1, 1]
