import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from production_patterns.own_redis import OwnRedis, own_redis
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

from snippets.database_setup.session import session_scope
from snippets.production_patterns.caching import (
    TARIFF,
    Cache,
    Tariff,
    TariffPublic,
    caching_scope,
    change_tariff,
    read_tariff,
)
from snippets.production_patterns.redis_cache import RedisCache, redis_client

TABLES = [Tariff]
Factory = async_sessionmaker[AsyncSession]
Clients = Callable[..., Redis]
LIMIT = 30  # seconds that nothing here should take


@pytest.fixture
def redis() -> Iterator[OwnRedis]:
    with own_redis() as redis:
        yield redis


@pytest.fixture
async def clients(redis: OwnRedis) -> AsyncIterator[Clients]:
    made: list[Redis] = []
    # The cache's own patience has to end a step, not the client's.
    url = f"{redis.url}?socket_timeout=3600&socket_connect_timeout=3600"

    def make(**options: int) -> Redis:
        made.append(redis_client(url, **options))
        return made[-1]

    yield make
    for client in made:
        await client.aclose()


@pytest.fixture
async def tariff(factory: Factory) -> None:
    async with session_scope(factory) as session:
        session.add(Tariff(id=1, name="zone 1", cents=100))


@pytest.fixture
def cache(clients: Clients, factory: Factory, tariff: None) -> Cache:
    """It asks again at once. A Redis that is gone refuses; that takes no patience."""
    return Cache(RedisCache(clients(), patience=LIMIT, retry_after=0), factory)


async def cents(cache: Cache) -> int:
    tariff = await asyncio.wait_for(read_tariff(cache, 1), LIMIT)
    assert tariff is not None
    return tariff.cents


async def change(cache: Cache, factory: Factory, value: int) -> None:
    async with caching_scope(factory, cache) as session:
        await change_tariff(session, 1, value)


async def is_cached(cache: Cache, statements: StatementLog) -> bool:
    await cents(cache)
    statements.clear()
    await cents(cache)
    return statements.count == 0


@pytest.mark.usefixtures("tariff")
async def test_what_one_process_commits_the_others_read(
    clients: Clients, factory: Factory, statements: StatementLog
) -> None:
    ours, theirs = (Cache(RedisCache(clients(), patience=LIMIT), factory) for _ in range(2))
    assert await cents(ours) == 100
    statements.clear()
    assert await cents(theirs) == 100
    assert statements.count == 0

    await change(theirs, factory, 200)

    assert [await cents(ours), await cents(theirs)] == [200, 200]


@pytest.mark.usefixtures("tariff")
async def test_a_load_overtaken_by_the_commit_of_another_process_stores_nothing(
    clients: Clients, factory: Factory
) -> None:
    ours, theirs = (Cache(RedisCache(clients(), patience=LIMIT), factory) for _ in range(2))
    has_read, go_on = asyncio.Event(), asyncio.Event()

    async def load(session: AsyncSession) -> TariffPublic | None:
        row = TariffPublic.model_validate(await session.get(Tariff, 1))
        has_read.set()
        await asyncio.wait_for(go_on.wait(), LIMIT)
        return row

    reader = asyncio.create_task(ours.get("tariff:1", TARIFF, load))
    await has_read.wait()
    await change(theirs, factory, 200)
    go_on.set()

    old = await reader
    assert old is not None
    assert old.cents == 100  # it asked before the commit
    assert [await cents(ours), await cents(theirs)] == [200, 200]


async def test_while_redis_is_down_reads_and_commits_go_on_and_afterwards_it_is_used_again(
    cache: Cache,
    redis: OwnRedis,
    factory: Factory,
    statements: StatementLog,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert await is_cached(cache, statements)

    redis.kill()

    assert await cents(cache) == 100
    assert not await is_cached(cache, statements)
    await change(cache, factory, 200)
    assert await cents(cache) == 200
    lost = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert [r.getMessage() for r in lost] == ["Redis has not forgotten 1 key(s), first tariff:1"]

    redis.start()

    assert await is_cached(cache, statements)
    assert await cents(cache) == 200


async def test_a_redis_that_hangs_costs_no_read_and_no_commit(
    cache: Cache,
    redis: OwnRedis,
    factory: Factory,
    statements: StatementLog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert await is_cached(cache, statements)

    redis.hang()
    try:
        with monkeypatch.context() as impatient:  # a healthy one may need more on a busy machine
            impatient.setattr(cache._backend, "_patience", 0.2)
            assert await cents(cache) == 100
            await change(cache, factory, 200)
            assert await cents(cache) == 200
    finally:
        redis.go_on()

    assert await cents(cache) == 200
    assert await is_cached(cache, statements)
    redis.command("CONFIG", "RESETSTAT")
    assert await is_cached(cache, statements)
    assert "cmdstat_del" not in redis.command("INFO", "commandstats")  # it owes nothing more


async def test_what_can_not_be_forgotten_again_while_it_is_forgotten_stays_owed(
    clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = clients()
    cache = RedisCache(client, patience=LIMIT, retry_after=0)
    delete = client.delete
    deleted: list[tuple[str, ...]] = []

    async def fail(*_names: str) -> None:
        raise ConnectionError("Redis is gone")

    async def be_overtaken_once(*names: str) -> int:
        deleted.append(names)
        if len(deleted) == 1:
            with monkeypatch.context() as overtaking:
                overtaking.setattr(client, "delete", fail)
                await cache.forget(["a"])
        return await delete(*names)

    with monkeypatch.context() as down:
        down.setattr(client, "delete", fail)
        await cache.forget(["a"])
    with monkeypatch.context() as overtaken:
        overtaken.setattr(client, "delete", be_overtaken_once)
        await cache.get("b")

    assert deleted == [("cache:value:a", "cache:lease:a")] * 2


async def test_many_that_are_owed_are_forgotten_by_one_reader_in_parts(
    clients: Clients, redis: OwnRedis
) -> None:
    cache = RedisCache(clients(), patience=LIMIT, retry_after=0)
    redis.kill()
    await cache.forget([str(n) for n in range(1500)])
    redis.start()

    readers = await asyncio.gather(*(cache.get("1") for _ in range(50)))

    assert set(readers) == {None}
    statistics = redis.command("INFO", "commandstats")
    assert statistics["cmdstat_del"]["calls"] == 6  # 3000 names, 500 at once


async def test_what_redis_has_surely_lost_is_not_owed_any_more(
    clients: Clients, redis: OwnRedis
) -> None:
    cache = RedisCache(clients(), seconds=0.001, patience=LIMIT, retry_after=0)
    redis.kill()
    await cache.forget(["a"])
    await asyncio.sleep(0.01)
    await cache.forget(["b"])
    assert list(cache._unforgotten) == ["b"]

    await asyncio.sleep(0.01)
    redis.start()
    await cache.get("a")

    assert "cmdstat_del" not in redis.command("INFO", "commandstats")


@pytest.mark.usefixtures("tariff")
async def test_reads_leave_a_redis_that_failed_alone_while_commits_try_it(
    clients: Clients, redis: OwnRedis, factory: Factory, statements: StatementLog
) -> None:
    other = Cache(RedisCache(clients(), patience=LIMIT), factory)
    cache = Cache(RedisCache(clients(), patience=LIMIT, retry_after=3600), factory)
    redis.kill()
    assert await cents(cache) == 100

    redis.start()

    assert not await is_cached(cache, statements)
    assert await is_cached(other, statements)
    await change(cache, factory, 200)
    assert await cents(other) == 200


async def test_a_redis_that_is_full_still_forgets(
    cache: Cache, redis: OwnRedis, factory: Factory, statements: StatementLog
) -> None:
    assert await is_cached(cache, statements)
    redis.command("CONFIG", "SET", "maxmemory", "1")  # every write is refused from now on

    await change(cache, factory, 200)

    assert await cents(cache) == 200
    assert not await is_cached(cache, statements)


async def test_a_redis_that_has_lost_the_script_gets_it_again(
    cache: Cache, redis: OwnRedis, statements: StatementLog
) -> None:
    assert await is_cached(cache, statements)
    redis.command("SCRIPT", "FLUSH")
    redis.command("FLUSHALL")

    assert await is_cached(cache, statements)


async def test_values_and_leases_end_with_their_time_to_live(clients: Clients) -> None:
    cache = RedisCache(clients(), seconds=0.01, patience=LIMIT)
    lasting = RedisCache(clients(), patience=LIMIT)
    assert await cache.store("a", b"1", await lasting.lease("a"))
    late = await cache.lease("b")

    await asyncio.sleep(0.02)

    assert await cache.get("a") is None
    assert not await lasting.store("b", b"1", late)


async def test_more_readers_than_connections_wait_for_one(
    clients: Clients, caplog: pytest.LogCaptureFixture
) -> None:
    cache = RedisCache(clients(connections=2), patience=LIMIT)
    for n in range(50):
        assert await cache.store(str(n), b"%d" % n, await cache.lease(str(n)))

    values = await asyncio.gather(*(cache.get(str(n)) for n in range(50)))

    assert values == [b"%d" % n for n in range(50)]
    assert caplog.records == []


async def test_a_reader_that_was_cancelled_leaves_no_answer_for_the_next(
    clients: Clients, redis: OwnRedis
) -> None:
    cache = RedisCache(clients(connections=2), patience=LIMIT)
    for n in range(20):
        assert await cache.store(str(n), b"%d" % n, await cache.lease(str(n)))

    redis.hang()
    readers = [asyncio.create_task(cache.get(str(n))) for n in range(20)]
    await asyncio.sleep(0.05)
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    redis.go_on()

    assert [await cache.get(str(n)) for n in range(20)] == [b"%d" % n for n in range(20)]


async def test_a_client_that_decodes_its_answers_serves_as_well(redis: OwnRedis) -> None:
    async with Redis.from_url(redis.url, decode_responses=True) as client:
        cache = RedisCache(client, patience=LIMIT)

        assert await cache.store("a", "«1»".encode(), await cache.lease("a"))

        assert await cache.get("a") == "«1»".encode()
        assert await cache.get("b") is None


async def test_its_keys_have_its_prefix(clients: Clients, redis: OwnRedis) -> None:
    cache = RedisCache(clients(), prefix="tariffs:", patience=LIMIT)
    assert await cache.store("a", b"1", await cache.lease("a"))
    await cache.lease("b")

    assert sorted(redis.command("KEYS", "*")) == [b"tariffs:lease:b", b"tariffs:value:a"]


async def test_a_time_that_redis_can_not_count_is_refused(clients: Clients) -> None:
    with pytest.raises(ValueError, match=r"seconds must be at least 0\.001, not 0"):
        RedisCache(clients(), seconds=0)
