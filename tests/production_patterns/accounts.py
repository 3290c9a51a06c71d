"""Accounts with money that must neither vanish nor be doubled, and transfers made for deadlocks."""

import asyncio

from sqlalchemy import func, text
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.async_operations.transactions import Account, Transfer, withdraw
from snippets.database_setup.session import session_scope

Factory = async_sessionmaker[AsyncSession]
PATIENT = {"attempts": 200, "seconds": 120}


async def fill(factory: Factory, count: int = 2) -> None:
    """Accounts 1, 2, ... with 1000 cents each, and nothing else."""
    async with session_scope(factory) as session:
        for model in (Transfer, Account):
            await session.exec(delete(model))
        session.add_all(
            Account(id=number + 1, owner="ann", balance_cents=1000) for number in range(count)
        )


async def balances(factory: Factory) -> list[int]:
    async with factory() as session:
        found = await session.exec(select(Account.balance_cents).order_by(col(Account.id)))
        return list(found)


async def transfers(factory: Factory) -> int:
    async with factory() as session:
        return (await session.exec(select(func.count()).select_from(Transfer))).one()


async def transfer_unordered(
    session: AsyncSession, source: int, target: int, cents: int = 1
) -> dict[str, int]:
    """As `transfer`, but locks the rows in the order of the caller: made for deadlocks."""
    if session.get_bind().dialect.name == "postgresql":
        await session.exec(text("SET LOCAL deadlock_timeout = '20ms'"))
    await withdraw(session, source, cents)
    await asyncio.sleep(0)
    await withdraw(session, target, -cents)
    done = Transfer(source_id=source, target_id=target, cents=cents)
    session.add(done)
    await session.flush()
    return {"transfer": done.id or 0}
