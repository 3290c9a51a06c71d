import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from production_patterns import galera as galera_module
from production_patterns.extra_servers import need
from production_patterns.galera import DATABASE, Node, galera, library, wait_until
from sqlalchemy import URL, event, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlmodel import SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.async_operations.errors import ErrorKind, classify, is_retryable
from snippets.database_setup.session import session_factory, session_scope
from snippets.production_patterns import scaling_out
from snippets.production_patterns.exactly_once import Receipt, run_once
from snippets.production_patterns.retries import CommitUnclearError, run_with_retries
from snippets.production_patterns.scaling_out import (
    NOT_READY,
    Boarding,
    Ferry,
    FerryFullError,
    TooLateError,
    board,
    cluster_engine,
    see_all_commits,
)

Factory = async_sessionmaker[AsyncSession]
CALLERS = 6
REQUESTS = 90


@pytest.fixture
def nodes(record_property: Callable[[str, object], None]) -> Iterator[list[Node]]:
    with galera() as nodes:
        record_property("ran", f"Galera, {len(nodes)} nodes of MariaDB {nodes[0].version}")
        yield nodes


async def test_a_cluster_conflicts_lags_and_loses_nodes_but_no_commit(
    nodes: list[Node], tally: Callable[..., None]
) -> None:
    """One test, since all of it needs the same three servers, which take long to start."""
    async with engines(nodes[:1], nodes[1:2], nodes[2:], nodes) as (*single, everywhere):
        async with everywhere.begin() as connection:
            tables = [model.__table__ for model in (Ferry, Boarding, Receipt)]
            await connection.run_sync(lambda sync: SQLModel.metadata.create_all(sync, tables))
        factories = [session_factory(engine) for engine in single]

        await ids_from_several_nodes_leave_gaps(factories)
        await a_lock_is_known_to_one_node_only(factories[0], factories[1])
        await two_phases_are_refused(factories[0])
        await a_conflict_shows_at_the_commit_and_is_retryable(factories[0], factories[1])
        await a_schema_change_ends_transactions_on_other_nodes(nodes[0], factories[1])
        await a_request_sent_to_two_nodes_takes_one_place(factories, tally)
        await a_node_that_lags_shows_old_rows_unless_asked_to_wait(nodes[1], *factories[:2])
        await connections_avoid_a_node_that_is_not_synced(nodes, everywhere)
        await connections_avoid_a_node_that_is_halted(nodes)
        await a_wrong_password_is_no_reason_to_try_the_next_node(nodes)
        await a_killed_node_costs_no_request(nodes, everywhere, factories, tally)
        await a_node_without_the_others_is_left(nodes, factories[2])


@asynccontextmanager
async def engines(*groups: list[Node]) -> AsyncIterator[list[AsyncEngine]]:
    async with AsyncExitStack() as stack:
        made = []
        for nodes in groups:
            engine = cluster_engine(nodes[0].url, [node.address for node in nodes])
            stack.push_async_callback(engine.dispose)
            made.append(engine)
        yield made


async def ferry(factory: Factory, places: int) -> int:
    row = Ferry(places=places)
    async with session_scope(factory) as session:
        await see_all_commits(session)  # the tables, too: their creation would end this
        session.add(row)
    assert row.id is not None
    return row.id


async def passengers(factory: Factory, ferry_id: int) -> list[str]:
    """Who is on board; as many as places are taken."""
    async with session_scope(factory) as session:
        await see_all_commits(session)
        ferry = await session.get_one(Ferry, ferry_id)
        found = select(Boarding.passenger).where(Boarding.ferry_id == ferry_id)
        names = sorted((await session.exec(found)).all())
        assert ferry.taken == len(names)
        return names


async def take_place(factory: Factory, ferry_id: int, key: UUID) -> None:
    """What a server does with the request that has the key."""

    async def work(session: AsyncSession) -> dict[str, str]:
        await board(session, ferry_id, str(key))
        return {"passenger": str(key)}

    answer = await run_once(factory, key, work, attempts=100, seconds=120)
    assert answer == {"passenger": str(key)}


@contextmanager
def counted_errors(*engines: AsyncEngine) -> Iterator[Counter[object]]:
    """How often the engines met each error, by its code."""
    codes: Counter[object] = Counter()

    def count(context: ExceptionContext) -> None:
        codes[context.original_exception.args[0]] += 1

    for engine in engines:
        event.listen(engine.sync_engine, "handle_error", count)
    yield codes
    for engine in engines:
        event.remove(engine.sync_engine, "handle_error", count)


async def ids_from_several_nodes_leave_gaps(factories: list[Factory]) -> None:
    ids = [await ferry(factory, places=1) for factory in (*factories, factories[0])]

    assert sorted(key % 3 for key in ids[:3]) == [0, 1, 2]
    assert ids[3] >= ids[0] + 3


async def a_lock_is_known_to_one_node_only(one: Factory, other: Factory) -> None:
    key = await ferry(one, places=1)
    async with one() as first, other() as second, one() as neighbour:
        await see_all_commits(second)
        for session in (first, second):
            assert await locked(session, key)
            assert await named_lock(session)
        assert not await locked(neighbour, key)
        assert not await named_lock(neighbour)
        for session in (first, second):
            await (await session.connection()).execute(text("DO RELEASE_ALL_LOCKS()"))


async def locked(session: AsyncSession, key: int) -> bool:
    row = select(Ferry).where(Ferry.id == key).with_for_update(skip_locked=True)
    return (await session.exec(row)).first() is not None


async def named_lock(session: AsyncSession) -> bool:
    return bool(await (await session.connection()).scalar(text("SELECT GET_LOCK('deploy', 0)")))


async def two_phases_are_refused(factory: Factory) -> None:
    async with factory() as session:
        with pytest.raises(DBAPIError, match="XA transactions with Galera replication"):
            await (await session.connection()).execute(text("XA START 'transfer'"))


async def a_conflict_shows_at_the_commit_and_is_retryable(one: Factory, other: Factory) -> None:
    key = await ferry(one, places=2)
    async with one() as first, other() as second:
        await see_all_commits(second)
        for session, passenger in ((first, "first"), (second, "second")):
            await board(session, key, passenger)
            await session.flush()
        await first.commit()
        with pytest.raises(DBAPIError, match="Deadlock found when trying to get lock") as caught:
            await second.commit()
        await second.rollback()

    assert caught.value.statement is None
    assert not caught.value.connection_invalidated
    assert classify(caught.value).code == 1213
    assert is_retryable(caught.value)
    assert await passengers(one, key) == ["first"]


async def a_schema_change_ends_transactions_on_other_nodes(node: Node, other: Factory) -> None:
    async with other() as session:
        await see_all_commits(session)
        session.add(Ferry(places=1))
        await session.flush()
        await asyncio.to_thread(node.query, f"ALTER TABLE {DATABASE}.ferry COMMENT 'of all'")
        with pytest.raises(DBAPIError) as caught:
            await session.commit()
        await session.rollback()

    assert classify(caught.value).code == 1213


async def a_request_sent_to_two_nodes_takes_one_place(
    factories: list[Factory], tally: Callable[..., None]
) -> None:
    """And there are fewer places than requests."""
    key = await ferry(factories[0], places=REQUESTS // 2)
    for factory in factories:
        await passengers(factory, key)
    requests = [uuid4() for _ in range(REQUESTS)]
    refused: Counter[UUID] = Counter()

    async def caller(number: int) -> None:
        factory = factories[(number + number // 3) % 3]
        for request in requests[number % 3 :: 3]:
            try:
                await take_place(factory, key, request)
            except FerryFullError:
                refused[request] += 1

    with counted_errors(*(factory.kw["bind"] for factory in factories)) as codes:
        await asyncio.gather(*map(caller, range(CALLERS)))

    assert codes[1213] > 0
    assert set(refused.values()) == {2}  # whoever has a place is never told that there is none
    for factory in factories:
        names = await passengers(factory, key)
        assert names == sorted(str(request) for request in set(requests) - set(refused))
        assert len(names) == REQUESTS // 2
    boarded = [str(request) for request in set(requests) - set(refused)]
    tally("commit refused by the cluster", codes[1213], served=boarded, stored=names)


async def a_node_that_lags_shows_old_rows_unless_asked_to_wait(
    node: Node, written: Factory, read: Factory
) -> None:
    key = await ferry(written, places=1)
    await passengers(read, key)

    async def places() -> int:
        async with read() as session:
            await see_all_commits(session)
            return (await session.get_one(Ferry, key)).places

    with node.standing_still():
        async with session_scope(written) as session:
            (await session.get_one(Ferry, key)).places = 7
        async with read() as session:
            assert (await session.get_one(Ferry, key)).places == 1
            with pytest.raises(TooLateError):
                await see_all_commits(session)
        waiting = asyncio.create_task(places())
        await asyncio.to_thread(wait_until, lambda: waits_for_writes(node), lambda: "no waiting")
        assert not waiting.done()
    assert await waiting == 7


def waits_for_writes(node: Node) -> bool:
    return any("wsrep_sync_wait" in str(row[7]) for row in node.query("SHOW FULL PROCESSLIST"))


async def connections_avoid_a_node_that_is_not_synced(
    nodes: list[Node], everywhere: AsyncEngine
) -> None:
    assert await ports(everywhere) == {node.port for node in nodes}
    with nodes[1].standing_still():
        async with engines(nodes, nodes[1:2]) as (others, one):
            assert await ports(others) == {nodes[0].port, nodes[2].port}
            with pytest.raises(DBAPIError, match=r"no node serves: .* is in state 2") as caught:
                await ports(one)
    assert classify(caught.value).kind is ErrorKind.CONNECTION_LOST
    assert is_retryable(caught.value)
    await asyncio.to_thread(nodes[1].wait_for_members, 3)


async def connections_avoid_a_node_that_is_halted(nodes: list[Node]) -> None:
    """The system takes connections for it."""
    with silent_server() as halted:
        engine = cluster_engine(nodes[0].url, [nodes[0].address, halted.getsockname()])
        halted.settimeout(0)
        met = 0
        while not met:
            async with engine.connect() as connection:
                assert await connection.scalar(text("SELECT @@port")) == nodes[0].port
            await engine.dispose()
            with suppress(BlockingIOError):
                halted.accept()[0].close()
                met += 1


@contextmanager
def silent_server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # nobody accepts
        yield silent


async def ports(engine: AsyncEngine) -> set[int]:
    """The servers' ports behind sixty new connections."""
    found = set()
    for _ in range(4):
        await engine.dispose()
        async with AsyncExitStack() as stack:
            for _ in range(15):
                connection = await stack.enter_async_context(engine.connect())
                found.add(await connection.scalar(text("SELECT @@port")))
    return found


async def a_wrong_password_is_no_reason_to_try_the_next_node(nodes: list[Node]) -> None:
    engine = cluster_engine(nodes[0].url.set(username="nobody"), [node.address for node in nodes])
    with pytest.raises(DBAPIError, match="Access denied for user 'nobody'") as caught:
        await ports(engine)
    await engine.dispose()
    assert classify(caught.value).code == 1045


async def a_killed_node_costs_no_request(
    nodes: list[Node],
    everywhere: AsyncEngine,
    factories: list[Factory],
    tally: Callable[..., None],
) -> None:
    key = await ferry(factories[0], places=10 * REQUESTS)
    for factory in factories:
        await passengers(factory, key)
    requests = [uuid4() for _ in range(REQUESTS)]
    answered: set[UUID] = set()
    time_to_die = asyncio.Event()

    async def caller(number: int) -> None:
        for request in requests[number::CALLERS]:
            await take_place(session_factory(everywhere), key, request)
            answered.add(request)
            if len(answered) == REQUESTS // 3:
                time_to_die.set()

    async def power_cut() -> Node:
        await time_to_die.wait()
        async with everywhere.connect() as connection:  # so that the load has been there, too
            port = await connection.scalar(text("SELECT @@port"))
            (victim,) = [node for node in nodes if node.port == port]
            victim.kill()
            with pytest.raises(DBAPIError) as caught:
                await connection.scalar(text("SELECT 1"))
        assert classify(caught.value).kind is ErrorKind.CONNECTION_LOST
        return victim

    async with asyncio.TaskGroup() as group:
        death = group.create_task(power_cut())
        for number in range(CALLERS):
            group.create_task(caller(number))

    victim = death.result()
    assert answered == set(requests)
    for node, factory in zip(nodes, factories, strict=True):
        if node is not victim:
            assert await passengers(factory, key) == sorted(map(str, requests))
    others = [node.group_port for node in nodes if node is not victim]
    await asyncio.to_thread(victim.start, others)
    await asyncio.to_thread(victim.wait_for_members, 3)
    names = await passengers(factories[nodes.index(victim)], key)
    assert names == sorted(map(str, requests))
    tally("node of the cluster killed", 1, served=map(str, answered), stored=names)


async def a_node_without_the_others_is_left(nodes: list[Node], factory: Factory) -> None:
    """It answers a ping, so its connections stay in the pool until a statement is refused."""
    alone = nodes[2]
    key = await ferry(factory, places=1)
    async with engines(*[[alone]] * 3) as pools:
        for engine in pools:
            async with engine.connect():
                pass
        reading, waiting, committing = map(session_factory, pools)

        async def the_others_die_before_the_commit(session: AsyncSession) -> None:
            await board(session, key, "last")
            await session.flush()
            for node in nodes[:2]:
                node.kill()

        with pytest.raises(CommitUnclearError) as unclear:
            await run_with_retries(committing, the_others_die_before_the_commit)
        await asyncio.to_thread(
            wait_until, lambda: alone.status("wsrep_ready") == "OFF", lambda: "still ready"
        )
        async with reading() as session:
            with pytest.raises(DBAPIError, match="WSREP has not yet prepared node") as refused:
                await session.get(Ferry, key)
        with pytest.raises(DBAPIError, match="Lock wait timeout exceeded") as waited:
            await passengers(waiting, key)

        assert is_retryable(refused.value)
        assert is_retryable(waited.value)
        cause = unclear.value.__cause__
        assert isinstance(cause, DBAPIError)
        assert classify(cause).code == 1180
        for engine in pools:  # and none has kept its connection
            with pytest.raises(DBAPIError, match=r"no node serves: .*WSREP has not yet prepared"):
                await ports(engine)


def address_of(url: URL) -> tuple[str, int]:
    return url.host or "127.0.0.1", url.port or 3306


@pytest.mark.only_on("mysql", reason="Galera is a form of MariaDB")
async def test_a_server_outside_of_a_cluster_is_refused(database_url: URL) -> None:
    engine = cluster_engine(database_url, [address_of(database_url)])

    with pytest.raises(DBAPIError, match=r"no node serves: .* is in state None"):
        async with engine.connect():
            pass
    await engine.dispose()


async def test_a_node_that_is_halted_is_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling_out, "CONNECT_TIMEOUT", 0.05)
    with silent_server() as halted:
        engine = cluster_engine("mysql://ann@/none", [halted.getsockname()])
        with pytest.raises(DBAPIError, match=r"no node serves: .*no answer in 0.05 s") as caught:
            await engine.connect()

    assert is_retryable(caught.value)
    await engine.dispose()


@pytest.mark.only_on("mysql", reason="Galera is a form of MariaDB")
async def test_a_node_that_is_halted_before_it_tells_its_state_is_refused_in_time(
    database_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def halted(_connection: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(scaling_out, "_state", halted)
    engine = cluster_engine(database_url, [address_of(database_url)])
    with pytest.raises(DBAPIError, match=r"no node serves: .* does not tell its state"):
        await engine.connect()
    await engine.dispose()


@pytest.mark.only_on("mysql", reason="Galera is a form of MariaDB")
@pytest.mark.parametrize("code", [NOT_READY, 1064])
async def test_a_connection_whose_node_does_not_tell_its_state_is_closed(
    database_url: URL, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Whether the next node is tried or not."""
    made = []

    async def refused(connection: Any) -> None:
        made.append(connection)  # nothing else may close it
        raise engine.dialect.loaded_dbapi.OperationalError(code, "refused on purpose")

    monkeypatch.setattr(scaling_out, "_state", refused)
    cluster = cluster_engine(database_url, [address_of(database_url)])
    here = text("SELECT id FROM information_schema.processlist WHERE db = DATABASE()")
    async with engine.connect() as connection:
        before = set(await connection.scalars(here))
        for _ in range(3):
            with pytest.raises(DBAPIError, match="refused on purpose"):
                await cluster.connect()
        async with asyncio.timeout(30):
            while set(await connection.scalars(here)) - before:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    await cluster.dispose()

    assert len(made) == 3


@pytest.mark.parametrize(
    ("look", "missing"),
    [(partial(need, "galera", "mariadbd-13"), "mariadbd-13"), (library, "libgalera_smm.so")],
)
def test_what_is_missing_skips_the_test_or_fails_where_it_is_promised(
    monkeypatch: pytest.MonkeyPatch, look: Callable[[], object], missing: str
) -> None:
    monkeypatch.setattr(galera_module, "LIBRARIES", [Path("/nowhere/libgalera_smm.so")])

    monkeypatch.setenv("REQUIRED_SERVERS", "replica")
    with pytest.raises(pytest.skip.Exception, match=f"galera: no {missing} on this machine"):
        look()

    monkeypatch.setenv("REQUIRED_SERVERS", "replica,galera")
    with pytest.raises(pytest.fail.Exception, match="but REQUIRED_SERVERS names it"):
        look()
