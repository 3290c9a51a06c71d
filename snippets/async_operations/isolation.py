"""Choose how much a transaction sees of the others."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

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
        if session.get_bind().dialect.name != "sqlite":  # there `begin_immediate` may come first
            await session.connection(execution_options={"isolation_level": level})
        yield session
