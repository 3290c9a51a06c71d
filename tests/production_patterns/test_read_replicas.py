import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from production_patterns.cluster import Node, primary_with_replica, wait_until_replayed
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

from snippets.async_operations.errors import classify, is_retryable
from snippets.database_setup.engine import engine_for
from snippets.database_setup.session import session_factory, session_scope
from snippets.production_patterns import read_replicas
from snippets.production_patterns.lost_connections import survive_lost_connections
from snippets.production_patterns.read_replicas import ReadRouter, written_position

DRIVERS = pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
Factory = async_sessionmaker[AsyncSession]
NOTES = "CREATE TABLE note (id serial PRIMARY KEY, body text NOT NULL UNIQUE)"


@pytest.fixture(scope="module")
def shared_pair() -> Iterator[tuple[Node, Node]]:
    # The replica does not wait for its readers when it has something to replay.
    with primary_with_replica(max_standby_streaming_delay="0") as pair:
        yield pair


@pytest.fixture
def pair(shared_pair: tuple[Node, Node]) -> Iterator[tuple[Node, Node]]:
    """A primary and its replica, both with an empty table of notes."""
    primary, replica = shared_pair
    primary.query("DROP TABLE IF EXISTS note")
    primary.query(NOTES)
    wait_until_replayed(primary, replica)
    yield primary, replica
    if not (replica.data / "postmaster.pid").exists():
        replica.start()
    replica.query("SELECT pg_wal_replay_resume()")
    wait_until_replayed(primary, replica)


@pytest.fixture
def own_pair() -> Iterator[tuple[Node, Node]]:
    """A pair for a test that leaves it changed for good."""
    with primary_with_replica() as (primary, replica):
        primary.query(NOTES)
        wait_until_replayed(primary, replica)
        yield primary, replica


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what makes it true is another process or thread
        await asyncio.sleep(0.02)


@contextmanager
def paused(replica: Node) -> Iterator[None]:
    replica.query("SELECT pg_wal_replay_pause()")
    while replica.query("SELECT pg_get_wal_replay_pause_state()") != "paused":
        pass
    yield
    replica.query("SELECT pg_wal_replay_resume()")


@asynccontextmanager
async def engines(pair: tuple[Node, Node], driver: str = "asyncpg") -> AsyncIterator[list[Any]]:
    made = [engine_for(node.url.set(drivername=f"postgresql+{driver}")) for node in pair]
    for engine in made:
        survive_lost_connections(engine)
    try:
        yield made
    finally:
        for engine in made:
            await engine.dispose()


async def write(factory: Factory, body: str) -> None:
    async with session_scope(factory) as session:
        await insert(session, body)


async def insert(session: AsyncSession, body: str) -> None:
    await session.exec(text("INSERT INTO note (body) VALUES (:body)"), params={"body": body})


async def server_and_notes(session: AsyncSession) -> tuple[str, int]:
    """Who serves, and how many notes it knows."""
    query = "SELECT pg_is_in_recovery(), (SELECT count(*) FROM note)"
    in_recovery, notes = (await session.exec(text(query))).one()
    return "replica" if in_recovery else "primary", notes


@DRIVERS
async def test_reads_are_served_by_the_replica(pair: tuple[Node, Node], driver: str) -> None:
    async with engines(pair, driver) as (primary, replica):
        router = ReadRouter(primary, replica, patience=30)
        with StatementLog(replica) as on_replica, StatementLog(primary) as on_primary:
            async with router.session() as session:
                served = await server_and_notes(session)

    assert served == ("replica", 0)
    assert (on_replica.count, on_primary.count) == (1, 0)  # no question beside the read


@DRIVERS
async def test_a_read_after_a_write_sees_it(pair: tuple[Node, Node], driver: str) -> None:
    async with engines(pair, driver) as (primary, replica):
        factory = session_factory(primary)
        router = ReadRouter(primary, replica, patience=30)
        seen = []
        for number in range(1, 21):
            await write(factory, f"note {number}")
            after = await written_position(factory)
            seen.append(await router.read(server_and_notes, after=after))

    assert [notes for _, notes in seen] == list(range(1, 21))
    assert {server for server, _ in seen} == {"replica"}


@DRIVERS
async def test_while_the_replica_lags_the_primary_serves_what_was_written(
    pair: tuple[Node, Node], driver: str
) -> None:
    async with engines(pair, driver) as (primary, replica):
        factory = session_factory(primary)
        hasty = ReadRouter(primary, replica, patience=0.2)
        patient = ReadRouter(primary, replica, patience=30)
        with paused(pair[1]):
            await write(factory, "new")
            after = await written_position(factory)
            own = await hasty.read(server_and_notes, after=after)
            others = await patient.read(server_and_notes)
        later = await patient.read(server_and_notes, after=after)

    assert own == ("primary", 1)
    assert others == ("replica", 0)  # one that lags serves those who have written nothing
    assert later == ("replica", 1)


async def test_a_read_waits_for_a_replica_that_is_about_to_have_it(pair: tuple[Node, Node]) -> None:
    async with engines(pair) as (primary, replica):
        factory = session_factory(primary)
        router = ReadRouter(primary, replica, patience=60)
        with paused(pair[1]), StatementLog(replica) as asked:
            await write(factory, "new")
            after = await written_position(factory)
            reading = asyncio.create_task(router.read(server_and_notes, after=after))
            await until(lambda: asked.count >= 3)
        served = await reading

    assert served == ("replica", 1)


@DRIVERS
async def test_a_read_that_has_waited_sees_the_write_in_a_snapshot_too(
    pair: tuple[Node, Node], driver: str
) -> None:
    """The question whether the replica has it must not be the read's first statement."""
    async with engines(pair, driver) as (primary, replica):
        factory = session_factory(primary)
        steady = replica.execution_options(isolation_level="REPEATABLE READ")
        router = ReadRouter(primary, steady, patience=60)
        with paused(pair[1]), StatementLog(replica) as asked:
            await write(factory, "new")
            after = await written_position(factory)
            reading = asyncio.create_task(router.read(server_and_notes, after=after))
            await until(lambda: asked.count >= 2)
        served = await reading

    assert served == ("replica", 1)


async def test_all_transactions_of_a_session_use_the_connection_that_was_asked(
    pair: tuple[Node, Node],
) -> None:
    backend = text("SELECT pg_backend_pid()")
    async with engines(pair) as (primary, replica):
        async with replica.connect(), replica.connect():
            pass  # two wait in the pool
        router = ReadRouter(primary, replica, patience=30)
        async with router.session() as session:
            first = (await session.exec(backend)).scalar_one()
            await session.commit()
            second = (await session.exec(backend)).scalar_one()
            with pytest.raises(DBAPIError, match="cannot execute INSERT in a read-only"):
                await insert(session, "new")

        assert first == second
        assert replica.pool.checkedout() == 0


async def test_where_both_are_the_primary_nothing_waits(pair: tuple[Node, Node]) -> None:
    async with engines((pair[0], pair[0])) as (primary, same):
        router = ReadRouter(primary, same, patience=30)
        with StatementLog(primary) as on_primary:
            served = await router.read(server_and_notes, after=2**62)

    assert served == ("primary", 0)
    assert on_primary.count == 0  # the other engine has answered


async def test_a_position_that_never_comes_is_served_by_the_primary(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(read_replicas, "time", SimpleNamespace(monotonic=lambda: now))
    async with engines(pair) as (primary, replica):
        router = ReadRouter(primary, replica, patience=60)
        with StatementLog(replica) as asked:
            reading = asyncio.create_task(router.read(server_and_notes, after=2**62))
            await until(lambda: asked.count >= 2)
            now = 60.0  # it has waited, and the replica has answered in time
            served = await reading
        next_served = await router.read(server_and_notes)

    assert served == ("primary", 0)
    assert next_served == ("replica", 0)  # whoever invents one costs the others nothing


@DRIVERS
async def test_sessions_that_read_can_not_write_anywhere(
    pair: tuple[Node, Node], driver: str
) -> None:
    async with engines(pair, driver) as (primary, replica):
        router = ReadRouter(primary, replica, patience=1)
        failures = []
        for after in (None, 2**62):  # the replica, the primary
            with pytest.raises(DBAPIError, match="cannot execute INSERT in a read-only") as caught:
                async with router.session(after=after) as session:
                    await insert(session, "new")
            failures.append(classify(caught.value).code)
        await write(session_factory(primary), "new")  # the same pool, and writes as before

    assert failures == ["25006", "25006"]


@DRIVERS
async def test_a_plain_session_of_a_replica_refuses_to_write(
    pair: tuple[Node, Node], driver: str
) -> None:
    message = "cannot execute INSERT in a read-only transaction"
    async with engines(pair, driver) as (_, replica):
        with pytest.raises(DBAPIError, match=message) as caught:
            await write(session_factory(replica), "new")

    assert classify(caught.value).code == "25006"


@DRIVERS
async def test_a_replica_that_is_down_costs_no_read_and_serves_again_when_back(
    pair: tuple[Node, Node], driver: str
) -> None:
    async with engines(pair, driver) as (primary, replica):
        attempts = count_connects(replica)
        router = ReadRouter(primary, replica, patience=30, retry_after=0.2)
        before = await router.read(server_and_notes)
        pair[1].kill()
        down = [(await router.read(server_and_notes))[0] for _ in range(50)]
        pair[1].start()
        while (await router.read(server_and_notes))[0] == "primary":  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        connected = len(attempts)

    assert before == ("replica", 0)
    assert down == ["primary"] * 50
    assert connected == 2


def count_connects(engine: AsyncEngine) -> list[object]:
    made: list[object] = []
    event.listen(engine.sync_engine, "connect", lambda connection, _: made.append(connection))
    return made


@DRIVERS
async def test_a_replica_that_answers_nothing_holds_a_read_for_a_bounded_time(
    pair: tuple[Node, Node], driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with engines(pair, driver) as (primary, replica):
        router = ReadRouter(primary, replica, patience=0.2, retry_after=600)
        patient = ReadRouter(primary, replica, patience=30)
        await patient.read(server_and_notes)  # one connection is open; another can't be
        async with asyncio.timeout(120):
            with pair[1].frozen():
                served = await asyncio.gather(*[router.read(server_and_notes) for _ in range(3)])
                later = [await router.read(server_and_notes) for _ in range(20)]
        await until(lambda: not router._leaving)

    assert [server for server, _ in served + later] == ["primary"] * 23
    assert 1 <= caplog.text.count("the replica does not serve") <= 3  # the others did not ask it


async def test_a_reader_that_is_cancelled_while_it_waits_leaves_no_session_open(
    pair: tuple[Node, Node],
) -> None:
    async with engines(pair) as (primary, replica):
        router = ReadRouter(primary, replica, patience=60)
        with StatementLog(replica) as asked:
            reading = asyncio.create_task(router.read(server_and_notes, after=2**62))
            await until(lambda: asked.count >= 3)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        await until(lambda: not router._leaving)

        assert replica.pool.checkedout() == 0


@DRIVERS
async def test_what_the_replica_fails_halfway_is_read_from_the_primary(
    pair: tuple[Node, Node], driver: str
) -> None:
    """The replica replays a TRUNCATE, which ends the statement of whoever has read the table."""
    servers: list[str] = []
    begun = asyncio.Event()

    async def slow_read(session: AsyncSession) -> int:
        server, notes = await server_and_notes(session)
        servers.append(server)
        begun.set()
        if server == "replica":
            await session.exec(text("SELECT pg_sleep(60)"))
        return notes

    async with engines(pair, driver) as (primary, replica):
        await write(session_factory(primary), "old")
        await asyncio.to_thread(wait_until_replayed, *pair)
        reading = asyncio.create_task(ReadRouter(primary, replica, patience=30).read(slow_read))
        await begun.wait()
        await asyncio.to_thread(pair[0].query, "TRUNCATE note")
        notes = await reading

    assert servers == ["replica", "primary"]
    assert notes == 0


async def test_a_replica_that_dies_halfway_costs_no_read(pair: tuple[Node, Node]) -> None:
    begun = asyncio.Event()

    async def slow_read(session: AsyncSession) -> str:
        server, _ = await server_and_notes(session)
        begun.set()
        if server == "replica":
            await session.exec(text("SELECT pg_sleep(60)"))
        return server

    async with engines(pair) as (primary, replica):
        reading = asyncio.create_task(ReadRouter(primary, replica, patience=30).read(slow_read))
        await begun.wait()
        await asyncio.to_thread(pair[1].kill)
        server = await reading

    assert server == "primary"


async def test_an_error_of_the_reader_is_raised_and_not_tried_again(
    pair: tuple[Node, Node],
) -> None:
    tried: list[AsyncSession] = []

    async def wrong(session: AsyncSession) -> None:
        tried.append(session)
        await session.exec(text("SELECT 1 / 0"))

    async with engines(pair) as (primary, replica):
        with pytest.raises(DBAPIError, match="division by zero"):
            await ReadRouter(primary, replica, patience=30).read(wrong)

    assert len(tried) == 1


@DRIVERS
async def test_a_conflict_with_recovery_says_so(pair: tuple[Node, Node], driver: str) -> None:
    primary, replica = pair
    async with engines(pair, driver) as (_, engine), engine.connect() as connection:
        await connection.execute(text("SELECT * FROM note"))
        sleep = asyncio.create_task(connection.execute(text("SELECT pg_sleep(60)")))
        running = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        await until(lambda: replica.query(running) == 1)
        await asyncio.to_thread(primary.query, "TRUNCATE note")
        with pytest.raises(DBAPIError) as caught:
            await sleep

    assert "canceling statement due to conflict with recovery" in str(caught.value)
    assert classify(caught.value).code == "40001"


def several_hosts(pair: tuple[Node, Node], driver: str, attributes: str) -> str:
    hosts = "&".join(f"host=127.0.0.1:{node.port}" for node in pair[::-1])
    return f"postgresql+{driver}://postgres@/postgres?{hosts}{attributes}"


@DRIVERS
@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ("", "replica"),  # the first that answers
        ("&target_session_attrs=read-write", "primary"),
        ("&target_session_attrs=primary", "primary"),
        ("&target_session_attrs=standby", "replica"),
        ("&target_session_attrs=prefer-standby", "replica"),
    ],
)
async def test_a_url_of_several_hosts_finds_the_server_of_that_kind(
    pair: tuple[Node, Node], driver: str, attributes: str, expected: str
) -> None:
    engine = engine_for(several_hosts(pair, driver, attributes))
    try:
        async with session_factory(engine)() as session:
            server, _ = await server_and_notes(session)
    finally:
        await engine.dispose()

    assert server == expected


@DRIVERS
async def test_a_url_whose_hosts_have_no_primary_is_worth_another_try(
    pair: tuple[Node, Node], driver: str
) -> None:
    _, replica = pair
    engine = engine_for(several_hosts((replica, replica), driver, "&target_session_attrs=primary"))
    survive_lost_connections(engine)

    with pytest.raises(DBAPIError) as caught:
        await engine.connect()
    await engine.dispose()

    assert is_retryable(caught.value)


async def keep_writing(
    factory: Factory, name: str, kept: list[str], go_on: Callable[[], bool]
) -> None:
    """Write notes, each again until it is acknowledged: a note has a key, so none is doubled."""
    number = 0
    while go_on():
        body = f"{name}-{number}"
        try:
            await write(factory, body)
        except IntegrityError:  # the commit whose answer was lost has happened
            pass
        except DBAPIError:
            await asyncio.sleep(0.02)
            continue
        kept.append(body)
        number += 1


@DRIVERS
async def test_writers_follow_the_primary_to_the_promoted_replica_and_lose_nothing(
    own_pair: tuple[Node, Node], driver: str, tally: Callable[..., None]
) -> None:
    primary, replica = own_pair
    # Without it a commit may be acknowledged that the replica never got.
    primary.query("ALTER SYSTEM SET synchronous_standby_names = '*'")
    primary.query("SELECT pg_reload_conf()")
    primary.query("CHECKPOINT")  # by the process that makes commits wait, once it has read it
    engine = engine_for(several_hosts(own_pair, driver, "&target_session_attrs=read-write"))
    survive_lost_connections(engine)
    factory = session_factory(engine)
    kept: list[str] = []
    enough = 100_000

    try:
        async with asyncio.timeout(120), asyncio.TaskGroup() as group:
            for number in range(8):
                group.create_task(
                    keep_writing(factory, str(number), kept, lambda: len(kept) < enough)
                )
            await until(lambda: len(kept) >= 50)
            await asyncio.to_thread(primary.kill)
            await asyncio.to_thread(replica.promote)
            before = len(kept)
            enough = before + 50
        async with session_factory(engine)() as session:
            server, _ = await server_and_notes(session)
            stored = list((await session.exec(text("SELECT body FROM note"))).scalars())
    finally:
        await engine.dispose()

    assert server == "primary"
    tally("primary killed, its replica promoted", 1, served=kept, stored=stored)
    assert sorted(stored) == sorted(kept)
    assert len(kept) >= before + 50
