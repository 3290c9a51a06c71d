import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from functools import partial

import pytest
from cachetools import TTLCache
from production_patterns.every_driver import until
from production_patterns.own_redis import OwnRedis, own_redis
from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic.alias_generators import to_camel
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

from snippets.database_setup.session import session_scope
from snippets.production_patterns import caching
from snippets.production_patterns.caching import (
    TARIFF,
    Cache,
    CacheBackend,
    InProcessCache,
    Tariff,
    TariffPublic,
    caching_scope,
    change_tariff,
    forget_on_commit,
    read_tariff,
)
from snippets.production_patterns.redis_cache import RedisCache, redis_client

TABLES = [Tariff]
Factory = async_sessionmaker[AsyncSession]
Load = Callable[[AsyncSession], Awaitable[TariffPublic | None]]
LIMIT = 30  # seconds that nothing here should take


class RecordingCache:
    """A backend that notes what was forgotten, and whether a store was refused."""

    def __init__(self, backend: CacheBackend) -> None:
        self.asked = 0
        self.lease = backend.lease
        self.forgotten: list[str] = []
        self.stored: list[bool] = []
        self._backend = backend

    async def get(self, key: str) -> bytes | None:
        value = await self._backend.get(key)
        self.asked += 1
        return value

    async def store(self, key: str, value: bytes, lease: str) -> bool:
        self.stored.append(await self._backend.store(key, value, lease))
        return self.stored[-1]

    async def forget(self, keys: Collection[str]) -> None:
        self.forgotten += sorted(keys)
        await self._backend.forget(keys)


@pytest.fixture(scope="module")
def redis() -> Iterator[OwnRedis]:
    with own_redis() as server:
        yield server


@pytest.fixture(params=["in process", "redis"])
async def plain_backend(request: pytest.FixtureRequest) -> AsyncIterator[CacheBackend]:
    if request.param == "in process":
        yield InProcessCache()
        return
    server: OwnRedis = request.getfixturevalue("redis")
    server.command("FLUSHALL")
    client = redis_client(server.url)
    yield RedisCache(client, patience=LIMIT)
    await client.aclose()


@pytest.fixture
def backend(plain_backend: CacheBackend) -> RecordingCache:
    return RecordingCache(plain_backend)


@pytest.fixture
async def cache(backend: RecordingCache, factory: Factory) -> Cache:
    async with session_scope(factory) as session:
        session.add_all([Tariff(id=n, name=f"zone {n}", cents=100) for n in (1, 2)])
    return Cache(backend, factory)


async def cents(cache: Cache, tariff_id: int = 1) -> int | None:
    tariff = await asyncio.wait_for(read_tariff(cache, tariff_id), LIMIT)
    return None if tariff is None else tariff.cents


async def test_the_second_read_asks_the_cache_alone(cache: Cache, statements: StatementLog) -> None:
    first = await read_tariff(cache, 1)
    statements.clear()

    second = await read_tariff(cache, 1)

    assert first == second == TariffPublic(id=1, name="zone 1", cents=100)
    assert first is not second
    assert statements.count == 0


async def test_that_a_row_is_missing_is_cached_until_it_is_added(
    cache: Cache, factory: Factory, statements: StatementLog
) -> None:
    assert [await cents(cache, 9), await cents(cache, 9)] == [None, None]
    assert statements.count == 1

    async with caching_scope(factory, cache) as session:
        session.add(Tariff(id=9, name="new", cents=5))
        forget_on_commit(session, "tariff:9")

    assert await cents(cache, 9) == 5


async def test_a_commit_is_seen_by_the_next_read(cache: Cache, factory: Factory) -> None:
    assert [await cents(cache), await cents(cache, 2)] == [100, 100]

    async with caching_scope(factory, cache) as session:
        await change_tariff(session, 1, 200)

    assert [await cents(cache), await cents(cache, 2)] == [200, 100]


async def test_nothing_is_forgotten_before_the_commit(
    cache: Cache, backend: RecordingCache, factory: Factory
) -> None:
    await cents(cache)

    async with caching_scope(factory, cache) as session:
        await change_tariff(session, 1, 200)
        assert backend.forgotten == []
        assert await cents(cache) == 100

    assert backend.forgotten == ["tariff:1"]


async def test_a_rollback_forgets_nothing(
    cache: Cache, backend: RecordingCache, factory: Factory
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with caching_scope(factory, cache) as session:
            await change_tariff(session, 1, 200)
            raise ZeroDivisionError

    with pytest.raises(IntegrityError):
        async with caching_scope(factory, cache) as session:
            await change_tariff(session, 1, 300)
            session.add(Tariff(id=2, name="taken", cents=0))

    assert backend.forgotten == []
    assert await cents(cache) == 100


async def test_a_savepoint_that_is_rolled_back_forgets_nothing(
    cache: Cache, backend: RecordingCache, factory: Factory
) -> None:
    async with caching_scope(factory, cache) as session:
        forget_on_commit(session, "before")
        outer = await session.begin_nested()
        async with session.begin_nested():
            forget_on_commit(session, "released, then rolled back with the outer one")
        await outer.rollback()
        async with session.begin_nested():
            async with session.begin_nested():
                forget_on_commit(session, "released twice")
            assert backend.forgotten == []
        inner = await session.begin_nested()
        forget_on_commit(session, "rolled back")
        await inner.rollback()
        async with session.begin_nested():
            pass

    assert backend.forgotten == ["before", "released twice"]


async def test_what_a_commit_in_the_block_has_saved_is_forgotten_though_the_block_fails(
    cache: Cache, backend: RecordingCache, factory: Factory
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with caching_scope(factory, cache) as session:
            await change_tariff(session, 1, 200)
            await session.commit()
            await change_tariff(session, 2, 200)
            raise ZeroDivisionError

    assert backend.forgotten == ["tariff:1"]


@pytest.mark.parametrize("commits_itself", [False, True])
async def test_keys_are_forgotten_when_the_commit_may_have_happened(
    cache: Cache,
    backend: RecordingCache,
    factory: Factory,
    engine: AsyncEngine,
    commits_itself: bool,
) -> None:
    await cents(cache)

    def lose_the_answer(connection: object) -> None:
        connection.connection.dbapi_connection.commit()
        raise ConnectionResetError("the server's answer never came")

    event.listen(engine.sync_engine, "commit", lose_the_answer)
    with pytest.raises(ConnectionResetError):
        async with caching_scope(factory, cache) as session:
            await change_tariff(session, 1, 200)
            if commits_itself:
                await session.commit()
    event.remove(engine.sync_engine, "commit", lose_the_answer)

    assert backend.forgotten == ["tariff:1"]
    assert await cents(cache) == 200


class Forgetless(InProcessCache):
    async def forget(self, keys: Collection[str]) -> None:
        raise ConnectionResetError(f"{keys} stay")


async def test_a_cache_that_can_not_forget_makes_no_commit_fail(
    factory: Factory, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Cache(Forgetless(), factory)
    async with caching_scope(factory, cache) as session:
        session.add(Tariff(id=1, name="new", cents=5))
        forget_on_commit(session, "tariff:1", "tariffs")

    with pytest.raises(ZeroDivisionError):
        async with caching_scope(factory, cache) as session:
            await change_tariff(session, 1, 6)
            await session.commit()
            raise ZeroDivisionError

    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        "the cache has not forgotten 2 key(s), first tariff:1",
        "the cache has not forgotten 1 key(s), first tariff:1",
    ]


async def test_keys_are_forgotten_when_the_caller_is_cancelled_in_the_commit(
    cache: Cache, backend: RecordingCache, factory: Factory, engine: AsyncEngine
) -> None:
    async def change() -> None:
        async with caching_scope(factory, cache) as session:
            await change_tariff(session, 1, 200)

    task = asyncio.create_task(change())
    event.listen(engine.sync_engine, "commit", lambda _connection: task.cancel(), once=True)
    with pytest.raises(asyncio.CancelledError):
        await task

    assert backend.forgotten == ["tariff:1"]
    assert await cents(cache) == 200


async def test_another_session_can_note_no_keys(session: AsyncSession) -> None:
    with pytest.raises(LookupError, match="forget_on_commit needs a session of caching_scope"):
        forget_on_commit(session, "tariff:1")


class SlowLoad:
    """`read_tariff`, stopped between the read of the row and the store."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.has_read = asyncio.Event()
        self.go_on = asyncio.Event()
        self.loads = 0

    async def __call__(self, session: AsyncSession) -> TariffPublic | None:
        self.loads += 1
        tariff = await session.get(Tariff, 1)
        self.has_read.set()
        await asyncio.wait_for(self.go_on.wait(), LIMIT)
        return TariffPublic.model_validate(tariff)

    async def cents(self) -> int:
        tariff = await asyncio.wait_for(self.cache.get("tariff:1", TARIFF, self), LIMIT)
        assert tariff is not None
        return tariff.cents


async def test_a_reader_that_was_overtaken_by_a_commit_stores_nothing(
    cache: Cache, backend: RecordingCache, factory: Factory
) -> None:
    slow = SlowLoad(cache)
    reader = asyncio.create_task(slow.cents())
    await slow.has_read.wait()
    async with caching_scope(factory, cache) as session:
        await change_tariff(session, 1, 200)

    slow.go_on.set()

    assert await reader == 100  # it asked before the commit
    assert backend.stored == [False]
    assert await cents(cache) == 200


async def test_a_reader_after_the_commit_does_not_join_an_older_load(
    cache: Cache, backend: RecordingCache, factory: Factory
) -> None:
    slow = SlowLoad(cache)
    reader = asyncio.create_task(slow.cents())
    await slow.has_read.wait()
    async with caching_scope(factory, cache) as session:
        await change_tariff(session, 1, 200)

    assert await cents(cache) == 200

    slow.go_on.set()
    assert await reader == 100
    assert backend.stored == [True, False]
    assert await cents(cache) == 200


async def test_of_processes_that_load_at_once_the_first_stores(
    cache: Cache, backend: RecordingCache, factory: Factory
) -> None:
    slow, slower = SlowLoad(cache), SlowLoad(Cache(backend, factory))
    readers = []
    for load in (slow, slower):
        readers.append(asyncio.create_task(load.cents()))
        await load.has_read.wait()

    slow.go_on.set()
    assert await readers[0] == 100
    assert backend.stored == [True]  # while the other is still about to load

    slower.go_on.set()
    assert await readers[1] == 100
    assert backend.stored == [True, False]


async def test_a_reader_after_the_commit_of_another_process_is_given_no_older_load(
    cache: Cache, backend: RecordingCache, factory: Factory
) -> None:
    slow = SlowLoad(cache)
    before = asyncio.create_task(slow.cents())
    await slow.has_read.wait()
    async with caching_scope(factory, Cache(backend, factory)) as session:
        await change_tariff(session, 1, 200)

    after = asyncio.create_task(slow.cents())
    await until(lambda: backend.asked == 2)  # and waits for the same load
    slow.go_on.set()

    assert [await before, await after] == [100, 200]


class Renamed(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)

    unit_cents: int


async def test_a_value_of_another_release_is_loaded_anew(
    cache: Cache, statements: StatementLog
) -> None:
    kind = TypeAdapter(Renamed)

    async def load(session: AsyncSession) -> Renamed:
        tariff = await session.get_one(Tariff, 1)
        return Renamed.model_validate({"unitCents": tariff.cents})

    await read_tariff(cache, 1)
    assert (await cache.get("tariff:1", kind, load)).unit_cents == 100
    statements.clear()

    assert (await cache.get("tariff:1", kind, load)).unit_cents == 100
    assert statements.count == 0


async def test_many_readers_cause_one_load(cache: Cache, backend: RecordingCache) -> None:
    slow = SlowLoad(cache)
    readers = [asyncio.create_task(slow.cents()) for _ in range(50)]
    await until(lambda: backend.asked == 50)  # who comes after the load finds it stored

    slow.go_on.set()

    assert set(await asyncio.gather(*readers)) == {100}
    assert slow.loads == 1


async def test_a_cancelled_reader_leaves_the_load_to_the_others(cache: Cache) -> None:
    slow = SlowLoad(cache)
    first, second = (asyncio.create_task(slow.cents()) for _ in range(2))
    await slow.has_read.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first

    slow.go_on.set()

    assert await second == 100


async def test_a_load_that_fails_fails_for_all_who_wait_and_is_tried_again(cache: Cache) -> None:
    async def fail(_session: AsyncSession) -> TariffPublic:
        await asyncio.sleep(0.01)
        raise ZeroDivisionError

    reads = [cache.get("tariff:1", TARIFF, fail) for _ in range(2)]
    results = await asyncio.gather(*reads, return_exceptions=True)

    assert [type(result) for result in results] == [ZeroDivisionError] * 2
    assert await cents(cache) == 100


async def test_a_load_that_is_cancelled_is_forgotten(cache: Cache) -> None:
    slow = SlowLoad(cache)
    reader = asyncio.create_task(slow.cents())
    await slow.has_read.wait()
    (load,) = cache._loads.values()

    load.cancel()

    with pytest.raises(asyncio.CancelledError):
        await reader
    assert await cents(cache) == 100


async def test_values_and_leases_end_with_their_time_to_live(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    timed = partial(TTLCache, timer=lambda: now)  # the clock would go on while a test is held up
    monkeypatch.setattr(caching, "TTLCache", timed)
    cache = InProcessCache(seconds=60)
    lease = await cache.lease("a")
    assert await cache.store("a", b"1", lease)
    late = await cache.lease("b")
    now = 59.0
    assert await cache.get("a") == b"1"
    assert await cache.lease("b") == late

    now = 61.0

    assert await cache.get("a") is None
    assert not await cache.store("b", b"1", late)


async def test_a_lease_is_shared_until_somebody_stores(plain_backend: CacheBackend) -> None:
    lease = await plain_backend.lease("a")
    assert isinstance(lease, str)
    assert await plain_backend.lease("a") == lease
    assert await plain_backend.lease("b") != lease

    assert not await plain_backend.store("a", b"forged", "another")
    assert await plain_backend.store("a", b"first", lease)
    assert not await plain_backend.store("a", b"second", lease)

    assert await plain_backend.get("a") == b"first"
    assert await plain_backend.lease("a") != lease


async def test_what_is_forgotten_is_gone_with_its_lease(plain_backend: CacheBackend) -> None:
    assert await plain_backend.store("a", b"1", await plain_backend.lease("a"))
    lost = await plain_backend.lease("a")
    kept = await plain_backend.lease("b")

    await plain_backend.forget([])
    assert await plain_backend.get("a") == b"1"
    await plain_backend.forget(["a", "never cached"])

    assert await plain_backend.get("a") is None
    assert not await plain_backend.store("a", b"1", lost)
    assert await plain_backend.store("b", b"2", kept)


async def test_a_random_mix_of_readers_and_writers_ends_with_the_last_committed_value(
    cache: Cache, factory: Factory
) -> None:
    async def write(value: int) -> None:
        async with caching_scope(factory, cache) as session:
            await change_tariff(session, 1, value)

    async def read() -> None:
        for _ in range(20):
            await cents(cache)
            await asyncio.sleep(0)

    readers = [asyncio.create_task(read()) for _ in range(4)]
    for value in range(15):
        await write(value)
        assert await cents(cache) == value
    await asyncio.gather(*readers)

    assert await cents(cache) == 14


class Reading(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="constants")

    value: float | None


class CarelessReading(BaseModel):
    value: float | None


async def test_an_infinite_number_needs_a_word_in_its_schema(cache: Cache) -> None:
    async def load(_session: AsyncSession) -> Reading:
        return Reading(value=float("inf"))

    async def load_careless(_session: AsyncSession) -> CarelessReading:
        return CarelessReading(value=float("inf"))

    found = [await cache.get("reading", TypeAdapter(Reading), load) for _ in range(2)]
    lost = await cache.get("careless", TypeAdapter(CarelessReading), load_careless)

    assert [reading.value for reading in found] == [float("inf")] * 2
    assert lost.value is None
