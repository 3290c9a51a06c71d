"""Let the caller own the transaction: functions flush, the outermost scope commits once."""

from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import Field, SQLModel, col, update
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.database_setup.session import session_scope


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
    """
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
    """Pay everybody or nobody."""
    async with session_scope(factory) as session:
        for account_id, cents in salaries.items():
            await transfer(session, employer, account_id, cents)
