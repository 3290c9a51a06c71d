"""Let the caller own the transaction: functions flush, the outermost scope commits once."""

from sqlalchemy import func
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import Field, SQLModel, col, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.async_operations.isolation import isolated_scope
from snippets.database_setup.session import session_scope
from snippets.database_setup.sqlite_pragmas import begin_immediate


class Account(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    owner: str = Field(max_length=50)
    balance_cents: int = 0


class Transfer(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    source_id: int = Field(foreign_key="account.id")
    target_id: int = Field(foreign_key="account.id")
    cents: int


class AccountError(Exception):
    """The account is missing or has too little; nothing of the transfer may be kept."""

    def __init__(self, account_id: int) -> None:
        super().__init__(f"account {account_id} is missing or has too little")
        self.account_id = account_id


async def withdraw(session: AsyncSession, account_id: int, cents: int) -> None:
    """Check and change in one statement: no other transaction fits between the two.

    Raises:
        AccountError: no such account, or too little on it.
    """
    statement = (
        update(Account)
        .where(col(Account.id) == account_id, col(Account.balance_cents) >= cents)
        .values(balance_cents=col(Account.balance_cents) - cents)
    )
    if (await session.exec(statement)).rowcount == 0:
        raise AccountError(account_id)


async def transfer(session: AsyncSession, source: int, target: int, cents: int) -> Transfer:
    """Move money and write it down; flushed, not committed.

    Raises:
        AccountError: see `withdraw`.
        ValueError: both accounts are the same, or there is nothing to move.
    """
    if source == target or cents <= 0:  # money out of nothing, or out of the other's account
        raise ValueError("a transfer needs two accounts, and more than nothing to move")
    moves = {source: cents, target: -cents}
    for account_id in sorted(moves):  # all lock in the same order, so no deadlock
        await withdraw(session, account_id, moves[account_id])
    done = Transfer(source_id=source, target_id=target, cents=cents)
    session.add(done)
    await session.flush()
    return done


async def pay_salaries(
    factory: async_sessionmaker[AsyncSession], employer: int, salaries: dict[int, int]
) -> None:
    """Pay everybody or nobody; lock all accounts first, in one order, so no deadlock."""
    async with session_scope(factory) as session:
        await begin_immediate(session)  # SQLite, where nothing else locks
        key = col(Account.id)
        accounts = select(key).where(key.in_([employer, *salaries]))
        await session.exec(accounts.order_by(key).with_for_update())
        for account_id, cents in salaries.items():
            await transfer(session, employer, account_id, cents)


async def withdraw_from_owner(
    factory: async_sessionmaker[AsyncSession], owner: str, account_id: int, cents: int
) -> None:
    """Withdraw when the owner's accounts together hold enough: a rule across several rows.

    Raises:
        AccountError: they do not, or the account is not the owner's.
        DBAPIError: retryable, when another transaction changed one of them meanwhile.
    """
    async with isolated_scope(factory, "SERIALIZABLE") as session:
        total = select(func.sum(Account.balance_cents)).where(Account.owner == owner)
        if ((await session.exec(total)).one() or 0) < cents:
            raise AccountError(account_id)
        own = select(Account).where(col(Account.id) == account_id, Account.owner == owner)
        account = (await session.exec(own)).one_or_none()
        if account is None:
            raise AccountError(account_id)
        account.balance_cents -= cents
