"""Work on every node of a Galera cluster: connect to one that serves, read what others wrote."""

import asyncio
import random
from collections.abc import Sequence
from functools import partial
from typing import Any

from sqlalchemy import URL, event, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import Field, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.database_setup.engine import connect_in_time, engine_for

Node = tuple[str, int]  # host, port
CONNECT_TIMEOUT = 3  # seconds for each node: the next one may be well
# What a node says that has lost the others; it still takes connections and answers a ping.
NOT_READY = 1047  # to a statement
COMMIT_UNCLEAR = 1180  # to a COMMIT that was on its way
# Too many connections, not ready, shutting down, unreachable, lost: another node may do it.
NEXT_NODE = {1040, NOT_READY, 1053, 2003, 2006, 2013}
SYNCED = "4"
WAIT_FOR_ALL_COMMITS = "SET STATEMENT wsrep_sync_wait = 1 FOR SELECT @@in_transaction"


def cluster_engine(url: str | URL, nodes: Sequence[Node], **options: Any) -> AsyncEngine:
    """Return an engine whose connections spread over the nodes, and pass over those in trouble.

    The URL has user, password and database; its host and port are not used. What fails on one
    node is an error all the same: run the whole transaction again, and it meets another.
    """
    engine = engine_for(url, **options)
    event.listen(engine.sync_engine, "do_connect", partial(_choose_node, tuple(nodes)))
    event.listen(engine.sync_engine, "handle_error", _leave_node)
    return engine


def _choose_node(
    nodes: tuple[Node, ...], dialect: Any, _record: Any, _args: Any, options: dict[str, Any]
) -> None:
    options["async_creator_fn"] = partial(_connect_to_synced_node, nodes, dialect)


async def _connect_to_synced_node(nodes: tuple[Node, ...], dialect: Any, **options: Any) -> Any:
    refusals = []
    for host, port in random.sample(nodes, len(nodes)):
        place = {"host": host, "port": port, "connect_timeout": CONNECT_TIMEOUT}
        try:
            connection = await connect_in_time(dialect, **(options | place))
            if (state := await _state_or_leave(connection)) == SYNCED:
                return connection
            refusals.append(f"{host}:{port} is in state {state}")
            connection.close()
        except TimeoutError:
            refusals.append(f"{host}:{port} does not tell its state in {CONNECT_TIMEOUT} s")
        except dialect.loaded_dbapi.Error as error:
            if error.args[0] not in NEXT_NODE:
                raise
            refusals.append(f"{host}:{port}: {error}")
    raise dialect.loaded_dbapi.OperationalError(2003, f"no node serves: {'; '.join(refusals)}")


async def _state_or_leave(connection: Any) -> str | None:
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            return await _state(connection)
    except BaseException:  # also a CancelledError: nobody else knows of the connection
        connection.close()
        raise


async def _state(connection: Any) -> str | None:
    async with connection.cursor() as cursor:
        await cursor.execute("SHOW GLOBAL STATUS LIKE 'wsrep_local_state'")
        row = await cursor.fetchone()
    return row[1] if row else None


def _leave_node(context: ExceptionContext) -> None:
    """Treat it as a lost connection: the pool drops it, and `is_retryable` knows what to say."""
    code, *_ = context.original_exception.args or (None,)
    if code in {NOT_READY, COMMIT_UNCLEAR} or context.statement == WAIT_FOR_ALL_COMMITS:
        context.is_disconnect = True


class TooLateError(Exception):
    """Inside a transaction the server does not wait, and what was read is already old."""


async def see_all_commits(session: AsyncSession) -> None:
    """Wait until this node has what all nodes have committed; the first statement of a transaction.

    Raises:
        TooLateError: it is not the first.
    """
    # For one statement: with a SET of its own the connection would take it along into the pool.
    if await (await session.connection()).scalar(text(WAIT_FOR_ALL_COMMITS)):
        raise TooLateError("see_all_commits() must come first in the transaction")


# Example: scaffold.py leaves out what follows.


class Ferry(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    places: int
    taken: int = 0


class Boarding(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    ferry_id: int = Field(foreign_key="ferry.id")
    passenger: str = Field(max_length=40)


class FerryFullError(Exception):
    def __init__(self, ferry_id: int) -> None:
        super().__init__(f"ferry {ferry_id} is full")
        self.ferry_id = ferry_id


async def board(session: AsyncSession, ferry_id: int, passenger: str) -> None:
    """Take a place; give the whole, with its commit, to `run_once` or `run_with_retries`.

    Raises:
        FerryFullError: no place is left.
    """
    # The lock holds on this node alone. Across nodes it is the write that counts: of two
    # transactions that change the same row, the one that commits later is refused.
    ferry = await session.get_one(Ferry, ferry_id, with_for_update=True, populate_existing=True)
    if ferry.taken >= ferry.places:
        raise FerryFullError(ferry_id)
    ferry.taken += 1
    session.add(Boarding(ferry_id=ferry_id, passenger=passenger))
