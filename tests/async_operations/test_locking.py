import asyncio
import re

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm.exc import StaleDataError
from sqlmodel import select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.async_operations.locking import (
    Blueprint,
    StaleBlueprintError,
    lock_accounts,
    redraw_blueprint,
    transfer_within_limit,
)
from snippets.async_operations.transactions import Account, AccountError, Transfer
from snippets.database_setup.session import session_scope

TABLES = [Account, Transfer, Blueprint]
Factory = async_sessionmaker[AsyncSession]


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


async def test_a_rule_over_several_rows_holds_for_twenty_at_once(
    accounts: None, factory: Factory
) -> None:
    async def attempt() -> bool:
        try:
            await transfer_within_limit(factory, 1, 2, 1, limit=3)
        except AccountError:
            return False
        return True

    made = await asyncio.gather(*[attempt() for _ in range(20)])

    assert sum(made) == 3
    async with factory() as session:
        assert len((await session.exec(select(Transfer))).all()) == 3


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
