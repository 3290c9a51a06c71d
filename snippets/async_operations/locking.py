"""Lock rows, or notice that somebody else was quicker."""

from collections.abc import Sequence

from sqlalchemy import Column, Integer
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import Field, SQLModel, col, func, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.async_operations.isolation import isolated_scope
from snippets.async_operations.transactions import Account, AccountError, Transfer, transfer
from snippets.database_setup.sqlite_pragmas import begin_immediate


async def lock_accounts(session: AsyncSession, *ids: int) -> Sequence[Account]:
    """Lock the rows until the transaction ends, and return them as they are now.

    On SQLite, which has no row locks, this must come first in its transaction: it locks the file.
    """
    if not session.in_transaction():
        await begin_immediate(session)
    statement = (
        select(Account)
        .where(col(Account.id).in_(ids))
        .order_by(col(Account.id))  # all lock in the same order, so no deadlock
        .with_for_update()
        .execution_options(populate_existing=True)  # or a loaded object keeps its old values
    )
    return (await session.exec(statement)).all()


async def transfer_within_limit(
    factory: async_sessionmaker[AsyncSession], source: int, target: int, cents: int, *, limit: int
) -> Transfer:
    """Keep a rule over several rows, here their number: lock what they share, then look.

    At READ COMMITTED the look sees what others have committed while this one waited for the lock;
    at REPEATABLE READ it may see what was there before.

    Raises:
        AccountError: the source has made so many transfers, or see `withdraw`.
    """
    async with isolated_scope(factory, "READ COMMITTED") as session:
        await lock_accounts(session, source, target)
        made = select(func.count()).where(Transfer.source_id == source)
        if (await session.exec(made)).one() >= limit:
            raise AccountError(source)
        return await transfer(session, source, target, cents)


_blueprint_version = Column("version", Integer, nullable=False)


class Blueprint(SQLModel, table=True):
    """Each UPDATE by the ORM checks the version it read, and raises StaleDataError."""

    __mapper_args__ = {"version_id_col": _blueprint_version}

    id: int | None = Field(default=None, primary_key=True)
    drawing: str = Field(max_length=200)
    version: int | None = Field(default=None, sa_column=_blueprint_version)


class StaleBlueprintError(Exception):
    """The blueprint was changed, or deleted, since the caller read it."""

    def __init__(self, key: int, version: int) -> None:
        super().__init__(f"blueprint {key} is no longer at version {version}; read it again")
        self.key = key
        self.version = version


async def redraw_blueprint(session: AsyncSession, key: int, version: int, drawing: str) -> None:
    """Change it only if it still is what the caller saw, perhaps minutes ago in a browser.

    Raises:
        StaleBlueprintError: it is not.
    """
    statement = (
        update(Blueprint)
        .where(col(Blueprint.id) == key, col(Blueprint.version) == version)
        .values(drawing=drawing, version=version + 1)
    )
    if (await session.exec(statement)).rowcount == 0:
        raise StaleBlueprintError(key, version)
