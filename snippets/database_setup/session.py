"""Make sessions, and end each transaction in exactly one way."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

T = TypeVar("T")


def session_factory(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    """Return the maker of SQLModel sessions, whose objects stay readable after a commit."""
    return async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)


@asynccontextmanager
async def session_scope(factory: async_sessionmaker[AsyncSession]) -> AsyncIterator[AsyncSession]:
    """Yield a session; commit when the block ends. When it raises or is cancelled, nothing is kept.

    Closing the session rolls back, and SQLAlchemy closes it even when cancelled meanwhile.
    """
    async with factory() as session:
        yield session
        await run_to_end(session.commit())


async def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` to its end, whatever cancels the caller; the cancellation is raised after it.

    A commit that is cancelled half-way leaves nobody knowing whether it happened. Where the work
    fails as well, its error is the cancellation's cause: alone, it would be retried.
    """
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled from task.exception()
    return task.result()
