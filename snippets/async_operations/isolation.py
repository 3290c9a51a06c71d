"""Choose how much a transaction sees of the others."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from sqlalchemy import func
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.async_operations.transactions import Account, AccountError
from snippets.database_setup.session import session_scope

Level = Literal["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]


@asynccontextmanager
async def isolated_scope(
    factory: async_sessionmaker[AsyncSession], level: Level
) -> AsyncIterator[AsyncSession]:
    """Yield a session whose transaction has the level; commit or roll back as `session_scope`.

    The level is set before the first statement; later it is ignored with a mere warning. Be ready
    to run the whole block again when `is_retryable` says so. SQLite is always SERIALIZABLE.
    """
    async with session_scope(factory) as session:
        sqlite = session.get_bind().dialect.name == "sqlite"
        await session.connection(
            execution_options={"isolation_level": "SERIALIZABLE" if sqlite else level}
        )
        yield session


async def withdraw_from_owner(
    factory: async_sessionmaker[AsyncSession], owner: str, account_id: int, cents: int
) -> None:
    """Withdraw when the owner's accounts together hold enough: a rule across several rows.

    Raises:
        AccountError: they do not.
        DBAPIError: retryable, when another transaction changed one of them meanwhile.
    """
    async with isolated_scope(factory, "SERIALIZABLE") as session:
        total = select(func.sum(Account.balance_cents)).where(Account.owner == owner)
        if ((await session.exec(total)).one() or 0) < cents:
            raise AccountError(account_id)
        account = (await session.exec(select(Account).where(col(Account.id) == account_id))).one()
        account.balance_cents -= cents
