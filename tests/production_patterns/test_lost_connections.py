import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from production_patterns.every_driver import running_engine, until, urls
from production_patterns.lossy_proxy import LossyProxy
from production_patterns.own_postgresql import OwnPostgreSQL
from sqlalchemy import URL, event, func, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlmodel import SQLModel, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.async_operations.errors import ErrorKind, classify, is_retryable
from snippets.async_operations.queries import Machine
from snippets.database_setup.pooling import pool_figures
from snippets.database_setup.session import session_factory, session_scope
from snippets.production_patterns.exactly_once import Receipt, run_once
from snippets.production_patterns.lost_connections import survive_lost_connections
from snippets.production_patterns.retries import CommitUnclearError

TABLES = [Machine, Receipt]
Factory = async_sessionmaker[AsyncSession]
SLEEP = {"postgresql": "SELECT pg_sleep(60)", "mysql": "SELECT sleep(60)"}
OWN_NUMBER = {"postgresql": "SELECT pg_backend_pid()", "mysql": "SELECT CONNECTION_ID()"}
no_network = pytest.mark.not_on("sqlite", reason="there is no network")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the network is Linux's own filter")


def backends(engine: AsyncEngine) -> list[int]:
    """The numbers of the engine's connections, filled as they are opened."""
    numbers: list[int] = []

    def note(dbapi_connection: Any, _record: Any) -> None:
        cursor = dbapi_connection.cursor()
        cursor.execute(OWN_NUMBER[engine.dialect.name])
        numbers.append(cursor.fetchone()[0])
        cursor.close()

    event.listen(engine.sync_engine, "connect", note)
    return numbers


async def terminate(engine: AsyncEngine, numbers: list[int]) -> None:
    """End the connections, as an administrator does."""
    end = "SELECT pg_terminate_backend({})" if engine.dialect.name == "postgresql" else "KILL {}"
    async with engine.connect() as connection:
        for number in numbers:
            await connection.execute(text(end.format(number)))


async def ask(factory: Factory) -> None:
    async with session_scope(factory) as session:
        await session.exec(select(Machine))


async def machines(factory: Factory) -> int:
    async with factory() as session:
        return (await session.exec(select(func.count()).select_from(Machine))).one()


def in_use(engine: AsyncEngine) -> int:
    figures = pool_figures(engine)
    assert figures is not None
    return figures.in_use


async def fill_pool(engine: AsyncEngine, count: int) -> None:
    connections = [await engine.connect() for _ in range(count)]
    for connection in connections:
        await connection.close()


@no_network
async def test_connections_that_ended_while_idle_cost_no_request(
    engine: AsyncEngine, database_url: URL
) -> None:
    for url in urls(database_url):
        async with running_engine(url) as idle:
            survive_lost_connections(idle)
            numbers = backends(idle)
            await fill_pool(idle, 4)
            await terminate(engine, numbers)

            await asyncio.gather(*(ask(session_factory(idle)) for _ in range(8)))

            assert len(numbers) >= 8
            assert in_use(idle) == 0


@pytest.mark.only_on("postgresql", reason="about asyncpg")
@pytest.mark.parametrize("turns", range(5))
async def test_a_connection_whose_end_the_driver_has_half_read_is_lost(
    engine: AsyncEngine, database_url: URL, turns: int
) -> None:
    """After some turns of the loop asyncpg has the last message, and not yet the end behind it."""
    async with running_engine(database_url) as idle:
        survive_lost_connections(idle)
        numbers = backends(idle)
        await fill_pool(idle, 1)
        end_backends(database_url, numbers)
        for _ in range(turns):
            await asyncio.sleep(0)
        await ask(session_factory(idle))  # the ping has found it
        assert len(numbers) == 2

        with pytest.raises(DBAPIError) as caught:
            async with idle.begin() as connection:
                end_backends(database_url, numbers)
                for _ in range(turns):
                    await asyncio.sleep(0)
                await connection.execute(text("SELECT 1"))
        await ask(session_factory(idle))

        assert classify(caught.value).kind is ErrorKind.CONNECTION_LOST
        assert is_retryable(caught.value)
        assert in_use(idle) == 0


@pytest.mark.only_on("postgresql", reason="asyncpg asks for types as it connects")
@pytest.mark.parametrize("turns", range(5))
async def test_a_connection_that_ends_while_it_is_set_up_is_lost(
    database_url: URL, turns: int
) -> None:
    async def turn() -> None:
        for _ in range(turns):
            await asyncio.sleep(0)

    def end(dbapi_connection: Any, _record: Any) -> None:
        if not ended:
            ended.append(dbapi_connection.driver_connection.get_server_pid())
            end_backends(database_url, ended)
            dbapi_connection.run_async(lambda _connection: turn())

    ended: list[int] = []
    async with running_engine(database_url) as engine:
        survive_lost_connections(engine)
        await fill_pool(engine, 1)
        event.listen(engine.sync_engine, "connect", end, insert=True)  # before SQLAlchemy's own

        with pytest.raises(DBAPIError) as caught:
            async with engine.connect(), engine.connect() as second:
                await second.execute(text("SELECT 1"))  # asyncpg 0.31 asks for no types before
        await fill_pool(engine, 2)

        assert classify(caught.value).kind is ErrorKind.CONNECTION_LOST
        assert is_retryable(caught.value)
        assert in_use(engine) == 0


def end_backends(url: URL, numbers: list[int]) -> None:
    """End the connections while the loop stands still, so that it finds all of it at once."""
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        for number in numbers:
            connection.execute("SELECT pg_terminate_backend(%s, 10000)", [number])


@no_network
async def test_a_statement_whose_backend_is_terminated_is_retryable_and_the_next_works(
    engine: AsyncEngine, factory: Factory, database_url: URL
) -> None:
    async def work(factory: Factory, asleep: asyncio.Event) -> None:
        async with session_scope(factory) as session:
            session.add(Machine(name="lost", hall="A"))
            await session.flush()
            asleep.set()
            await session.exec(text(SLEEP[engine.dialect.name]))

    for url in urls(database_url):
        async with running_engine(url) as victim:
            survive_lost_connections(victim)
            numbers = backends(victim)
            asleep = asyncio.Event()
            task = asyncio.create_task(work(session_factory(victim), asleep))
            await asleep.wait()
            await asyncio.sleep(0.1)
            await terminate(engine, numbers)
            with pytest.raises(DBAPIError) as caught:
                await task
            await ask(session_factory(victim))

            assert classify(caught.value).kind is ErrorKind.CONNECTION_LOST
            assert in_use(victim) == 0
    assert await machines(factory) == 0


Deed = Callable[[AsyncSession, LossyProxy], Awaitable[None]]


async def vanish_before_the_statement(session: AsyncSession, proxy: LossyProxy) -> None:
    proxy.vanish()
    await session.exec(text("SELECT 1"))


async def vanish_while_it_waits_for_the_answer(session: AsyncSession, proxy: LossyProxy) -> None:
    asyncio.get_running_loop().call_later(0.3, proxy.vanish)
    await session.exec(text(SLEEP[session.get_bind().dialect.name]))


async def vanish_before_the_commit(_session: AsyncSession, proxy: LossyProxy) -> None:
    proxy.vanish()


@no_network
@on_linux
@pytest.mark.parametrize(
    "deed",
    [
        vanish_before_the_statement,
        vanish_while_it_waits_for_the_answer,
        vanish_before_the_commit,
    ],
)
async def test_a_network_that_swallows_packets_is_noticed(
    factory: Factory, database_url: URL, deed: Deed
) -> None:
    for url in urls(database_url):
        # The server does not notice. It ends the statement, and frees its locks, at its own limit.
        options = {"statement_timeout": 6}
        async with LossyProxy(url) as proxy, running_engine(proxy.url, **options) as engine:
            survive_lost_connections(engine, silence=2)
            through = session_factory(engine)

            async with asyncio.timeout(50):  # Linux alone would take 15 minutes and more
                with pytest.raises(DBAPIError) as caught:
                    async with session_scope(through) as session:
                        session.add(Machine(name="lost", hall="A"))
                        await session.flush()
                        await deed(session, proxy)
                await ask(through)

            assert classify(caught.value).kind is ErrorKind.CONNECTION_LOST
            assert is_retryable(caught.value) == (deed is not vanish_before_the_commit)
            assert in_use(engine) == 0
            proxy.cut()
    assert await machines(factory) == 0


@no_network
@on_linux
async def test_idle_connections_whose_network_has_vanished_are_replaced(
    engine: AsyncEngine, database_url: URL
) -> None:
    for url in urls(database_url):
        async with LossyProxy(url) as proxy, running_engine(proxy.url) as idle:
            survive_lost_connections(idle, silence=2)
            await fill_pool(idle, 3)
            proxy.vanish()

            async with asyncio.timeout(50):
                await asyncio.gather(*(ask(session_factory(idle)) for _ in range(6)))

            assert in_use(idle) == 0


@no_network
async def test_nobody_at_the_port_is_a_retryable_database_error(database_url: URL) -> None:
    for url in urls(database_url):
        async with LossyProxy(url) as proxy, running_engine(proxy.url) as engine:
            survive_lost_connections(engine)
            await proxy.refuse()

            with pytest.raises(DBAPIError) as caught:
                await ask(session_factory(engine))

            assert classify(caught.value).kind is ErrorKind.CONNECTION_LOST
            assert is_retryable(caught.value)


@no_network
async def test_a_proxy_without_a_server_behind_it_is_a_retryable_database_error(
    engine: AsyncEngine, database_url: URL
) -> None:
    for url in urls(database_url):
        async with LossyProxy(url) as proxy, running_engine(proxy.url) as through:
            survive_lost_connections(through)
            proxy.serverless = True

            with pytest.raises(DBAPIError) as caught:
                await ask(session_factory(through))

            assert is_retryable(caught.value)
            proxy.serverless = False
            await ask(session_factory(through))


@no_network  # and not with psycopg, which says no code here
async def test_a_database_that_does_not_exist_is_not_retryable(database_url: URL) -> None:
    async with running_engine(database_url.set(database="nowhere")) as engine:
        survive_lost_connections(engine)

        with pytest.raises(DBAPIError) as caught:
            await ask(session_factory(engine))

        assert not is_retryable(caught.value)


@pytest.mark.only_on("postgresql", reason="about asyncpg")
async def test_an_argument_that_asyncpg_refuses_is_worth_no_other_try(database_url: URL) -> None:
    async with running_engine(database_url, connect_args={"target_session_attrs": "any"}) as engine:
        survive_lost_connections(engine)
        await fill_pool(engine, 1)
    async with running_engine(database_url, connect_args={"target_session_attrs": "x"}) as engine:
        survive_lost_connections(engine)

        # SQLAlchemy 2.1 makes it an InterfaceError, 2.0 lets the driver's ValueError through.
        with pytest.raises((DBAPIError, ValueError), match="target_session_attrs") as caught:
            await engine.connect()

        assert not isinstance(caught.value, DBAPIError) or not is_retryable(caught.value)


@no_network
async def test_an_error_of_the_program_stays_what_it_is(database_url: URL) -> None:
    class RefusalError(Exception):
        pass

    async def refuse(*_args: object, **_options: object) -> None:
        raise RefusalError

    for url in urls(database_url):
        async with running_engine(url, async_creator=refuse) as engine:
            survive_lost_connections(engine)

            with pytest.raises(RefusalError):
                await ask(session_factory(engine))


@pytest.mark.only_on("sqlite", reason="a file has no network")
async def test_sqlite_is_left_alone(database_url: URL, engine: AsyncEngine) -> None:
    async with running_engine(database_url) as other:
        survive_lost_connections(other)

        await ask(session_factory(other))


async def test_a_server_that_crashes_under_load_loses_and_doubles_nothing(
    tally: Callable[..., None],
) -> None:
    calls = 0
    done: list[int] = []
    with OwnPostgreSQL() as server:
        async with running_engine(server.url) as engine:
            survive_lost_connections(engine)
            factory = session_factory(engine)
            tables = [SQLModel.metadata.tables[each] for each in ("machine", "receipt")]
            async with engine.begin() as connection:
                await connection.run_sync(SQLModel.metadata.create_all, tables=tables)

            async def work(session: AsyncSession) -> dict[str, int]:
                machine = Machine(name=uuid4().hex[:20], hall="A")
                session.add(machine)
                await session.flush()
                return {"id": machine.id or 0}

            async def client(enough: asyncio.Event) -> None:
                nonlocal calls
                while not enough.is_set():
                    calls += 1
                    answer = await run_once(
                        factory, uuid4(), work, attempts=1000, seconds=90, also=(OSError,)
                    )
                    done.append(answer["id"])

            enough = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                for _ in range(8):
                    group.create_task(client(enough))
                for _ in range(2):
                    before = len(done)
                    await until(lambda before=before: len(done) > before + 20)
                    await asyncio.to_thread(server.restart)
                before = len(done)
                await until(lambda: len(done) > before + 20)
                enough.set()

            assert calls == len(done) == await machines(factory)
            async with factory() as session:
                kept = (await session.exec(select(Machine.id))).all()
            tally("server crashed", 2, served=done, stored=kept)
            assert in_use(engine) == 0


@no_network
async def test_a_commit_that_is_terminated_is_unclear_and_then_told_by_its_receipt(
    factory: Factory, database_url: URL
) -> None:
    for url in urls(database_url):
        async with session_scope(factory) as session:
            await session.exec(delete(Machine))
        async with LossyProxy(url) as proxy, running_engine(proxy.url) as engine:
            survive_lost_connections(engine)
            key = uuid4()

            async def work(session: AsyncSession) -> dict[str, int]:
                session.add(Machine(name="saw", hall="A"))
                return {}

            proxy.lose_commit.append("after")
            with pytest.raises(CommitUnclearError):
                await run_once(session_factory(engine), key, work, attempts=1)

            assert await run_once(session_factory(engine), key, work) == {}
            assert await machines(factory) == 1
