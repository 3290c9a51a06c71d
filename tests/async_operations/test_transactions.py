import asyncio

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
    withdraw_from_owner,
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


@pytest.mark.parametrize(("target", "cents"), [(1, 30), (2, 0), (2, -30)])
async def test_no_money_is_made_or_taken_by_a_transfer(
    session: AsyncSession, factory: Factory, target: int, cents: int
) -> None:
    with pytest.raises(ValueError, match="two accounts, and more than nothing to move"):
        await transfer(session, 1, target, cents)
    await session.commit()

    assert await balances(factory) == [100, 100, 100]


async def test_everybody_is_paid_or_nobody(factory: Factory) -> None:
    with pytest.raises(AccountError, match="account 1 is missing or has too little"):
        await pay_salaries(factory, 1, {2: 60, 3: 60})
    assert await balances(factory) == [100, 100, 100]

    await pay_salaries(factory, 1, {2: 60, 3: 40})
    assert await balances(factory) == [0, 160, 140]


async def test_many_employers_pay_the_same_people_at_once(factory: Factory) -> None:
    """They lock their accounts in one order; person by person, two of them met in a deadlock."""
    async with factory() as session:
        session.add_all([Account(id=n, owner="Bob", balance_cents=1000) for n in (8, 9)])
        await session.commit()
    people = [{2: 1, 3: 1}, {3: 1, 2: 1}]

    async with asyncio.TaskGroup() as group:
        for number in range(20):
            employer = 8 + number % 2
            group.create_task(pay_salaries(factory, employer, people[number // 2 % 2]))

    assert await balances(factory) == [100, 120, 120, 980, 980]


@pytest.mark.parametrize("account", [3, 99])
async def test_an_owner_withdraws_from_own_accounts_alone(factory: Factory, account: int) -> None:
    async with factory() as session:
        (await session.get_one(Account, 3)).owner = "Bob"
        await session.commit()

    with pytest.raises(AccountError, match=f"account {account} is missing or has too little"):
        await withdraw_from_owner(factory, "Ada", account, 50)

    assert await balances(factory) == [100, 100, 100]


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
