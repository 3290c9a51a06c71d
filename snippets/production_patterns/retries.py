"""Run a transaction again when that may help, in a new session, from its start."""

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession
from tenacity import (
    AsyncRetrying,
    before_sleep_log,
    retry_if_exception,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)

from snippets.async_operations.errors import ErrorKind, classify, is_failed_connect, is_retryable
from snippets.async_operations.isolation import Level, isolated_scope
from snippets.database_setup.session import session_scope

logger = logging.getLogger(__name__)
Result = TypeVar("Result")
Work = Callable[[AsyncSession], Awaitable[Result]]


class CommitUnclearError(Exception):
    """The connection was lost in COMMIT: all of the work is saved, or nothing; nobody knows."""


async def run_with_retries(
    factory: async_sessionmaker[AsyncSession],
    work: Work[Result],
    *,
    level: Level | None = None,
    attempts: int = 5,
    seconds: float = 10,
    also: tuple[type[Exception], ...] = (),
) -> Result:
    """Run the work in a transaction, again from its start where `is_retryable` says so.

    Each try has a new session, so read everything inside `work`; nothing but the database may
    feel it, for it runs more than once. The last error is raised as it is.

    Args:
        factory: makes the sessions.
        work: flushes and never commits; that is done here.
        level: see `isolated_scope`.
        attempts: tries at most.
        seconds: no try begins later.
        also: to be retried too: StaleDataError; CommitUnclearError if the work may happen twice.

    Raises:
        CommitUnclearError: look whether it was saved, or use `run_once`.
    """
    retrying = AsyncRetrying(
        retry=retry_if_exception(lambda error: isinstance(error, also) or is_transient(error)),
        wait=wait_random_exponential(multiplier=0.05, max=1),  # at random, or they meet again
        stop=stop_after_attempt(attempts) | stop_before_delay(seconds),
        before_sleep=before_sleep_log(logger, logging.INFO),
        reraise=True,
    )
    return await retrying(_run, factory, work, level)


def is_transient(error: BaseException) -> bool:
    """Return whether another try may help; an error of COMMIT is none to ask about here."""
    if isinstance(error, DBAPIError):
        # Not lost in COMMIT, which is a CommitUnclearError here; perhaps in ROLLBACK.
        return is_retryable(error) or _connection_lost(error)
    return isinstance(error, ConnectionError) or is_failed_connect(error)


async def _run(
    factory: async_sessionmaker[AsyncSession], work: Work[Result], level: Level | None
) -> Result:
    committing = False
    try:
        async with isolated_scope(factory, level) if level else session_scope(factory) as session:
            result = await work(session)
            await session.flush()  # what fails here has not begun to commit
            committing = True
    except (DBAPIError, OSError) as error:
        if committing and _connection_lost(error):
            raise CommitUnclearError("the connection was lost in COMMIT") from error
        raise
    return result


def _connection_lost(error: DBAPIError | OSError) -> bool:
    return isinstance(error, OSError) or classify(error).kind is ErrorKind.CONNECTION_LOST
