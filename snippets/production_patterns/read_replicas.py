"""Read from a replica what it has, and from the primary what it does not have yet."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.async_operations.errors import is_retryable
from snippets.database_setup.session import session_factory

T = TypeVar("T")
POLL = 0.02  # seconds
log = logging.getLogger(__name__)

# Numbers, not PostgreSQL's texts such as 0/3000148: what a client sends back is easily checked.
WRITTEN = text("SELECT CAST(pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0') AS bigint)")
# Null on a server that is a primary, which has everything.
REPLAYED = text(
    "SELECT CASE WHEN pg_is_in_recovery() THEN"
    " CAST(pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0') AS bigint) END"
)


async def written_position(factory: async_sessionmaker[AsyncSession]) -> int:
    """Return where the primary's log ends: call it after the commit, and give it to the client.

    In a cookie, say: its next read passes it on as `after`, and sees what it has written.
    """
    async with factory() as session:
        connection = await session.connection()
        return int((await connection.execute(WRITTEN)).scalar_one())


class ReadRouter:
    """Sessions that read; for writes you take the primary's session, in plain sight.

    These can't write, on the primary neither. A replica that failed is left alone for a while.
    """

    def __init__(
        self,
        primary: AsyncEngine,
        replica: AsyncEngine,
        *,
        patience: float = 0.5,
        retry_after: float = 5,
    ) -> None:
        """Take the engines of both.

        Args:
            primary: read from when the replica can't serve.
            replica: its server, or a name behind which there are several.
            patience: seconds to wait until it answers, and as many until it has caught up.
            retry_after: seconds until one that failed is asked again.
        """
        self._primary = session_factory(_reading(primary))
        self._replica = _reading(replica)
        self._on_replica = session_factory(self._replica)
        self._patience = patience
        self._retry_after = retry_after
        self._avoid_until = 0.0
        self._leaving: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def session(self, *, after: int | None = None) -> AsyncIterator[AsyncSession]:
        """Yield a session of the replica, or of the primary when the replica can't serve.

        Args:
            after: what it must see: the result of `written_position`.
        """
        connection = await self._replica_connection(after)
        if connection is None:
            async with self._primary() as session:
                yield session
            return
        async with AsyncExitStack() as stack:
            stack.push_async_exit(connection)
            # For all transactions: behind one name there may be several replicas.
            session = self._on_replica(bind=connection)
            yield await stack.enter_async_context(session)

    async def read(
        self, work: Callable[[AsyncSession], Awaitable[T]], *, after: int | None = None
    ) -> T:
        """Return what `work` reads; where the replica fails it halfway, the primary does it again.

        A replica also ends statements that keep it from replaying: `conflict with recovery`.
        """
        try:
            async with self.session(after=after) as session:
                return await work(session)
        except DBAPIError as error:
            if not (is_retryable(error) or error.connection_invalidated):
                raise
            log.warning("read again on the primary: %s", error.orig)
        async with self._primary() as session:
            return await work(session)

    async def _replica_connection(self, after: int | None) -> AsyncConnection | None:
        if time.monotonic() < self._avoid_until:
            return None
        connection = self._replica.connect()
        # A task, because a driver may take long to give up on a server that does not answer.
        asked = asyncio.create_task(_has_replayed(connection, after, self._patience))
        try:
            await asyncio.wait([asked], timeout=2 * self._patience)
            if not asked.done():
                raise TimeoutError("no answer")
            if asked.result():
                return connection
        except Exception as error:  # noqa: BLE001 - drivers' connect errors have no common base
            log.warning("the replica does not serve, the primary does: %r", error)
            self._avoid_until = time.monotonic() + self._retry_after
        except asyncio.CancelledError:
            self._leave(asked, connection)
            raise
        self._leave(asked, connection)
        return None

    def _leave(self, asked: asyncio.Task[bool], connection: AsyncConnection) -> None:
        """Close the connection when its question has ended, and do not wait for that."""
        asked.cancel()
        task = asyncio.create_task(_close_after(asked, connection))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)


async def _close_after(asked: asyncio.Task[bool], connection: AsyncConnection) -> None:
    await asyncio.gather(asked, return_exceptions=True)
    if connection.sync_connection is not None:  # it got so far
        await connection.close()


def _reading(engine: AsyncEngine) -> AsyncEngine:
    return engine.execution_options(postgresql_readonly=True)


async def _has_replayed(connection: AsyncConnection, after: int | None, patience: float) -> bool:
    """Ask on the connection that will read."""
    end = time.monotonic() + patience
    await connection.start()  # connects, or pings
    while after is not None:
        replayed = (await connection.execute(REPLAYED)).scalar_one()
        await connection.rollback()  # else REPEATABLE READ would go on reading what was there now
        if replayed is None or replayed >= after:
            break
        if time.monotonic() >= end:
            return False
        await asyncio.sleep(POLL)
    return True
