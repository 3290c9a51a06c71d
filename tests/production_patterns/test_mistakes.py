import asyncio
import os
import re
import sys
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy
from production_patterns.bouncer import pgbouncer
from production_patterns.cluster import primary_with_replica, wait_until_replayed
from production_patterns.lossy_proxy import LossyProxy
from servers import Server
from sqlalchemy import URL, MetaData, text
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    NoResultFound,
    OperationalError,
    PendingRollbackError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm.exc import DetachedInstanceError
from sqlmodel import SQLModel, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.async_operations.transactions import Account, Transfer, withdraw
from snippets.database_setup.engine import engine_for
from snippets.database_setup.session import session_factory, session_scope
from snippets.database_setup.urls import with_password
from snippets.production_patterns import mistakes
from snippets.production_patterns._restore_checks import advance_sequences
from snippets.production_patterns.backups import back_up
from snippets.production_patterns.caching import (
    Cache,
    InProcessCache,
    Tariff,
    caching_scope,
    change_tariff,
    read_tariff,
)
from snippets.production_patterns.pgbouncer import engine_for_pgbouncer, pgbouncer_connect_args
from snippets.production_patterns.read_replicas import ReadRouter, written_position
from snippets.production_patterns.tenancy import Folder, tenant_factory
from snippets.relationships.one_to_many import Cellar, Jar, Shelf

Factory = async_sessionmaker[AsyncSession]

ASK_ONCE = """
import asyncio, sys
from sqlalchemy import make_url, text
from snippets.production_patterns.mistakes import half_of_the_caches

async def main():
    engine = half_of_the_caches(make_url(sys.argv[1]))
    async with engine.connect() as connection:
        print("answer", await connection.scalar(text("SELECT 42")))
    await engine.dispose()

asyncio.run(main())
"""


async def ask_once(url: URL) -> str:
    """Ask from a process of its own, as a worker that was just started."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", ASK_ONCE, with_password(url)),
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return output.decode()


@pytest.mark.only_on("postgresql", reason="PgBouncer speaks PostgreSQL alone")
async def test_half_of_the_caches(server: Server) -> None:
    with pgbouncer(server.url, pool_size=1) as url:
        first = await ask_once(url)
        second = await ask_once(url)

    assert "answer 42" in first
    assert 'prepared statement "__asyncpg_stmt_' in second
    assert '__" already exists' in second


@pytest.mark.only_on("postgresql", reason="PgBouncer speaks PostgreSQL alone")
async def test_half_of_the_caches_goes_unnoticed_in_one_process(server: Server) -> None:
    with pgbouncer(server.url, pool_size=1) as url:
        engine = mistakes.half_of_the_caches(url)
        answers = []
        for _ in range(3):
            async with engine.connect() as connection:
                answers.append(await connection.scalar(text("SELECT 42")))
        await engine.dispose()

    assert answers == [42] * 3


@pytest.mark.only_on("postgresql", reason="PgBouncer speaks PostgreSQL alone")
async def test_set_for_the_session(server: Server) -> None:
    with pgbouncer(server.url, pool_size=1) as url:
        ours = engine_for_pgbouncer(url)
        theirs = create_async_engine(url, connect_args=pgbouncer_connect_args("asyncpg", "theirs"))
        async with session_scope(session_factory(ours)) as session:
            await mistakes.set_for_the_session(session)
        async with theirs.connect() as connection:
            with pytest.raises(DBAPIError, match="canceling statement due to statement timeout"):
                await connection.execute(text("SELECT pg_sleep(60)"))
        await ours.dispose()
        await theirs.dispose()


async def test_read_own_write_from_a_replica() -> None:
    with primary_with_replica() as (primary, replica):
        writing, reading = engine_for(primary.url), engine_for(replica.url)
        async with writing.begin() as connection:
            await connection.run_sync(SQLModel.metadata.create_all, tables=[Account.__table__])
        wait_until_replayed(primary, replica)
        replica.query("SELECT pg_wal_replay_pause()")
        factory = session_factory(writing)

        with pytest.raises(NoResultFound, match="No row was found when one was required"):
            await mistakes.read_own_write_from_a_replica(factory, session_factory(reading), "Ada")
        router = ReadRouter(writing, reading)
        async with router.session(after=await written_position(factory)) as session:
            found = (await session.exec(select(Account.owner))).one()
        await writing.dispose()
        await reading.dispose()

    assert found == "Ada"


async def make_accounts(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    async with engine.begin() as connection:
        await connection.run_sync(SQLModel.metadata.create_all, tables=[Account.__table__])
    return session_factory(engine)


@pytest.mark.only_on("sqlite", reason="elsewhere nobody copies files of a running server")
async def test_copy_the_database_file(engine: AsyncEngine, tmp_path: Path) -> None:
    await make_accounts(engine)
    mistakes.copy_the_database_file(engine, tmp_path / "copy")
    await back_up(engine, tmp_path / "backup")
    copy = engine_for(f"sqlite:///{tmp_path / 'copy'}")
    backup = engine_for(f"sqlite:///{tmp_path / 'backup'}")
    count = select(func.count()).select_from(Account)

    async with session_factory(copy)() as session:
        with pytest.raises(OperationalError, match="no such table: account"):
            await session.exec(count)
    async with session_factory(backup)() as session:
        assert (await session.exec(count)).one() == 0
    await copy.dispose()
    await backup.dispose()


async def load_two_and_add_a_third(engine: AsyncEngine) -> int | None:
    factory = await make_accounts(engine)
    async with session_scope(factory) as session:
        rows = [{"id": n, "owner": "Ada", "balance_cents": 0} for n in (1, 2)]
        await mistakes.load_rows_with_their_ids(session, rows)
    async with session_scope(factory) as session:
        session.add(third := Account(owner="Grace"))
    return third.id


@pytest.mark.only_on("postgresql", reason="elsewhere the next id follows from the rows")
async def test_load_rows_with_their_ids(engine: AsyncEngine) -> None:
    with pytest.raises(
        IntegrityError, match='duplicate key value violates unique constraint "account_pkey"'
    ):
        await load_two_and_add_a_third(engine)

    accounts = MetaData()
    Account.__table__.to_metadata(accounts)
    await advance_sequences(engine, accounts)
    async with session_scope(session_factory(engine)) as session:
        session.add(account := Account(owner="Grace"))
    assert account.id is not None
    assert account.id > 2


@pytest.mark.not_on("postgresql", reason="its sequence stays behind")
async def test_load_rows_with_their_ids_goes_well_elsewhere(engine: AsyncEngine) -> None:
    assert await load_two_and_add_a_third(engine) == 3


async def make_tables(engine: AsyncEngine, *models: type[SQLModel]) -> Factory:
    tables = [model.__table__ for model in models]
    async with engine.begin() as connection:
        await connection.run_sync(SQLModel.metadata.create_all, tables=tables)
    return session_factory(engine)


class BusyCache(InProcessCache):
    """Somebody reads the key at once when it is forgotten."""

    def __init__(self) -> None:
        super().__init__()
        self.read: Callable[[], Awaitable[object]] | None = None

    async def forget(self, keys: Collection[str]) -> None:
        await super().forget(keys)
        if self.read is not None:
            await self.read()


async def test_invalidate_before_the_commit(engine: AsyncEngine) -> None:
    factory = await make_tables(engine, Tariff)
    async with session_scope(factory) as session:
        session.add(Tariff(id=1, name="day", cents=100))
    backend = BusyCache()
    cache = Cache(backend, factory)
    backend.read = partial(read_tariff, cache, 1)

    await mistakes.invalidate_before_the_commit(factory, cache, 1, 200)

    assert (await read_tariff(cache, 1)).cents == 100  # until its time to live is over
    async with caching_scope(factory, cache) as session:
        await change_tariff(session, 1, 300)
    assert (await read_tariff(cache, 1)).cents == 300


async def test_cache_orm_objects(engine: AsyncEngine) -> None:
    factory = await make_tables(engine, Cellar, Shelf, Jar)
    async with session_scope(factory) as session:
        session.add(Cellar(id=1, name="north", shelves=[Shelf(label="A")]))

    cache: dict[int, Cellar] = {}
    with pytest.raises(DetachedInstanceError):
        await mistakes.cache_orm_objects(factory, cache, 1)
    with pytest.raises(DetachedInstanceError) as caught:
        await mistakes.cache_orm_objects(factory, cache, 1)

    assert "is not bound to a Session; lazy load operation of attribute 'shelves'" in str(
        caught.value
    )


async def test_send_inside_the_transaction(engine: AsyncEngine) -> None:
    factory = await make_tables(engine, Tariff)

    async def receive(tariff_id: int) -> None:
        async with factory() as session:
            await session.get_one(Tariff, tariff_id)

    with pytest.raises(NoResultFound, match="No row was found when one was required"):
        await mistakes.send_inside_the_transaction(factory, receive, "day")


@pytest.mark.only_on("postgresql", reason="the one with row level security")
async def test_set_the_tenant_for_the_connection(database_url: URL) -> None:
    engine = engine_for(database_url, pool_size=1, max_overflow=0)
    setting = text("SELECT current_setting('app.tenant_id', true)")
    async with session_scope(session_factory(engine)) as session:
        await mistakes.set_the_tenant_for_the_connection(session, 1)

    async with session_factory(engine)() as session:  # of whoever comes next
        assert (await session.exec(setting)).one() == ("1",)
    await engine.dispose()


@pytest.mark.only_on("postgresql", reason="the one with row level security")
async def test_cast_a_setting_that_may_be_empty(database_url: URL) -> None:
    engine = engine_for(database_url, pool_size=1, max_overflow=0)
    factory = await make_tables(engine, Folder)
    async with session_scope(tenant_factory(engine, 1)) as session:
        session.add(Folder(name="first"))
    async with factory() as session:
        assert len(await session.run_sync(lambda sync: sync.exec(select(Folder)).all())) == 1
        with pytest.raises(DBAPIError) as caught:
            await mistakes.cast_a_setting_that_may_be_empty(session)

    assert 'invalid input syntax for type integer: ""' in str(caught.value)
    await engine.dispose()


async def test_liveness_asks_the_database() -> None:
    url = "postgresql+asyncpg://nobody@127.0.0.1:1/none"  # as during its restart

    with pytest.raises(ConnectionRefusedError) as caught:
        await mistakes.liveness_asks_the_database(engine_for(url))

    text = f"{type(caught.value).__name__}: {caught.value}"
    assert text.startswith("ConnectionRefusedError: [Errno 111] Connect call failed")
    assert not isinstance(caught.value, SQLAlchemyError)


async def test_probes_pass_while_all_is_quiet(engine: AsyncEngine) -> None:
    assert await mistakes.liveness_asks_the_database(engine) == {"status": "live"}
    assert await mistakes.readiness_through_the_requests_pool(engine) == {"status": "ready"}


async def test_readiness_through_the_requests_pool(database_url: URL) -> None:
    engine = engine_for(database_url, pool_size=1, max_overflow=0, pool_timeout=0.2)
    try:
        async with engine.connect():  # a request
            with pytest.raises(PoolTimeoutError) as caught:
                await mistakes.readiness_through_the_requests_pool(engine)
    finally:
        await engine.dispose()

    message = "QueuePool limit of size 1 overflow 0 reached, connection timed out, timeout 0.20"
    assert str(caught.value).startswith(message)


def test_listen_on_the_async_engine() -> None:
    message = (
        "asynchronous events are not implemented at this time.  "
        "Apply synchronous listeners to the AsyncEngine.sync_engine"
    )
    with pytest.raises(NotImplementedError) as caught:
        mistakes.listen_on_the_async_engine(engine_for("sqlite://"), print)

    assert str(caught.value).startswith(message)


async def test_echo_in_production(
    database_url: URL, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    engines = mistakes.echo_in_production(database_url), engine_for(database_url, echo=True)
    shown: list[str] = []
    try:
        for engine in engines:
            async with engine.connect() as connection:
                await connection.execute(text("SELECT :word"), {"word": "hunter2"})
            shown.append(caplog.text)
            caplog.clear()
    finally:
        for engine in engines:
            await engine.dispose()

    assert re.search(r"\[generated in \d+\.\d+s\] \('hunter2',\)", shown[0])
    assert "hunter2" not in shown[1]
    assert "[SQL parameters hidden due to hide_parameters=True]" in shown[1]


@pytest.mark.skipif(sqlalchemy.__version__ < "2.1", reason="the instrumentor knows this release")
async def test_instrument_sqlalchemy_2_1(caplog: pytest.LogCaptureFixture) -> None:
    mistakes.instrument_sqlalchemy_2_1(engine_for("sqlite://"))

    message = (
        'SQLAlchemyInstrumentor only instruments "sqlalchemy >= 1.0.0, < 2.1.0", '
        "but currently installed version"
    )
    assert message in caplog.text
    assert "so nothing can be instrumented" in caplog.text


async def make_two_accounts(engine: AsyncEngine) -> Factory:
    factory = await make_tables(engine, Account, Transfer)
    async with session_scope(factory) as session:
        session.add_all(Account(owner=name, balance_cents=1000) for name in ("ann", "bob"))
    return factory


async def all_balances(factory: Factory) -> list[int]:
    async with factory() as session:
        return list(await session.exec(select(Account.balance_cents).order_by(Account.id)))


async def deadlocked_transfers(engine: AsyncEngine) -> list[BaseException | None]:
    """What two callers get of whom each has locked what the other wants."""
    factory = session_factory(engine)
    locked = asyncio.Barrier(2)

    async def caller(source: int, target: int) -> None:
        async with session_scope(factory) as session:
            await withdraw(session, source, 0)
            await locked.wait()
            await mistakes.retry_in_the_same_session(session, source, target, 100)

    return await asyncio.gather(caller(1, 2), caller(2, 1), return_exceptions=True)


@pytest.mark.only_on("postgresql", reason="an error ends the transaction there")
async def test_retry_in_the_same_session(engine: AsyncEngine) -> None:
    await make_two_accounts(engine)

    (error,) = [each for each in await deadlocked_transfers(engine) if each]

    assert "current transaction is aborted, commands ignored until end of transaction block" in str(
        error
    )


@pytest.mark.only_on("mysql", reason="a deadlock rolls back, and the next statement begins anew")
async def test_retry_in_the_same_session_saves_a_half_on_mariadb(engine: AsyncEngine) -> None:
    factory = await make_two_accounts(engine)

    assert await deadlocked_transfers(engine) == [None, None]

    assert sum(await all_balances(factory)) == 2100


@pytest.mark.not_on("sqlite", reason="there is no connection that could be lost")
async def test_retry_in_the_same_session_after_a_lost_connection(
    engine: AsyncEngine, database_url: URL
) -> None:
    await make_two_accounts(engine)
    message = "Can't reconnect until invalid transaction is rolled back"
    async with LossyProxy(database_url) as proxy:
        through = engine_for(proxy.url)
        async with session_factory(through)() as session:
            await session.connection()
            proxy.cut()
            with pytest.raises(DBAPIError):
                await withdraw(session, 1, 100)

            with pytest.raises(PendingRollbackError, match=message):
                await mistakes.retry_in_the_same_session(session, 1, 2, 100)
        await through.dispose()


@pytest.mark.not_on("sqlite", reason="there is no connection that could be lost")
async def test_retry_an_unclear_commit(engine: AsyncEngine, database_url: URL) -> None:
    factory = await make_two_accounts(engine)
    async with LossyProxy(database_url) as proxy:
        through = engine_for(proxy.url)
        proxy.lose_commit.append("after")

        await mistakes.retry_an_unclear_commit(session_factory(through), 1, 2, 100)

        await through.dispose()
    assert await all_balances(factory) == [800, 1200]  # of one transfer of 100


async def test_deadline_inside_the_scope(engine: AsyncEngine) -> None:
    factory = await make_two_accounts(engine)
    report = {
        "sqlite": "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r LIMIT 9000000)"
        " SELECT max(i) FROM r",
        "postgresql": "SELECT pg_sleep(60)",
        "mysql": "SELECT sleep(1)",
    }[engine.dialect.name]

    with pytest.raises(
        PendingRollbackError, match="Can't reconnect until invalid transaction is rolled back"
    ):
        await mistakes.deadline_inside_the_scope(factory, report, 0.1)

    assert len(await all_balances(factory)) == 2
