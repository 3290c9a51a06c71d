"""Run database work side by side: a session for each task, a bound, a deadline."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.database_setup.session import run_to_end, session_scope

Item = TypeVar("Item")
Result = TypeVar("Result")


async def run_each(
    factory: async_sessionmaker[AsyncSession],
    items: Iterable[Item],
    work: Callable[[AsyncSession, Item], Awaitable[Result]],
    *,
    at_once: int = 5,
) -> list[Result]:
    """Return the results in the order of the items; each ran in a session and transaction alone.

    Args:
        factory: makes the sessions.
        items: one task each.
        work: gets a session and an item.
        at_once: at most the pool's size, or tasks wait for connections until they time out.

    Raises:
        ExceptionGroup: a task failed and the unfinished ones were cancelled; what others have
            committed stays.
    """
    free = asyncio.Semaphore(at_once)

    async def run(item: Item) -> Result:
        async with free, session_scope(factory) as session:
            return await work(session, item)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(item)) for item in items]
    return [task.result() for task in tasks]


async def run_within(
    factory: async_sessionmaker[AsyncSession],
    seconds: float,
    work: Callable[[AsyncSession], Awaitable[Result]],
) -> Result:
    """Run the work in a transaction of its own, rolled back when it takes longer.

    The clock is outside the scope, so that the scope sees the cancellation and gives its
    connection back. A commit that has begun is awaited.

    Raises:
        TimeoutError: the time is over.
    """
    async with asyncio.timeout(seconds), session_scope(factory) as session:
        return await work(session)


async def run_despite_cancel(
    factory: async_sessionmaker[AsyncSession], work: Callable[[AsyncSession], Awaitable[Result]]
) -> Result:
    """Finish and commit the work even when the caller is cancelled, as by a client that left."""

    async def transaction() -> Result:
        async with session_scope(factory) as session:
            return await work(session)

    return await run_to_end(transaction())
