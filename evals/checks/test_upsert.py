import asyncio
import datetime as dt

import prices
import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

Sessions = async_sessionmaker[AsyncSession]


def row(number: int, cents: int = 1, note: str | None = None) -> dict[str, object]:
    return {"sku": f"s{number:05}", "cents": cents, "note": note}


async def stored(sessions: Sessions) -> dict[str, "prices.Price"]:
    async with sessions() as session:
        return {p.sku: p for p in (await session.exec(select(prices.Price))).all()}


async def sync(sessions: Sessions, rows: list[dict[str, object]]) -> None:
    async with sessions() as session:
        await prices.sync_prices(session, rows)
        await session.commit()


async def test_inserts_and_updates(sessions: Sessions) -> None:
    await sync(sessions, [row(1, 10, "a"), row(2, 20)])
    await sync(sessions, [row(2, 21, "b"), row(3, 30), row(1, 11, None)])
    found = await stored(sessions)
    assert {k: (p.cents, p.note) for k, p in found.items()} == {
        "s00001": (11, None), "s00002": (21, "b"), "s00003": (30, None),
    }  # fmt: skip


async def test_the_last_of_equal_rows_counts(sessions: Sessions) -> None:
    await sync(sessions, [row(1, 1, "old"), row(2), row(1, 2)])
    found = await stored(sessions)
    assert (found["s00001"].cents, found["s00001"].note) == (2, None)


async def test_the_moment_moves_with_updates(sessions: Sessions) -> None:
    await sync(sessions, [row(1), row(2)])
    before = await stored(sessions)
    assert before["s00001"].changed_at.utcoffset() == dt.timedelta(0)
    await asyncio.sleep(1.1)
    await sync(sessions, [row(1, 5)])
    after = await stored(sessions)
    assert after["s00001"].changed_at > before["s00001"].changed_at
    assert after["s00002"].changed_at == before["s00002"].changed_at
    age = dt.datetime.now(dt.UTC) - after["s00001"].changed_at
    assert abs(age) < dt.timedelta(minutes=5)


async def test_few_statements_for_many_rows(sessions: Sessions, statements: StatementLog) -> None:
    rows = [row(n, n, None if n % 2 else "x") for n in range(3000)]
    await sync(sessions, rows)
    assert statements.count <= 10
    statements.clear()
    await sync(sessions, [{**r, "cents": 7} for r in rows])
    assert statements.count <= 10
    found = await stored(sessions)
    assert len(found) == 3000
    assert {p.cents for p in found.values()} == {7}


async def test_nothing_to_do_and_no_commit(sessions: Sessions) -> None:
    async with sessions() as session:
        await prices.sync_prices(session, [])
        await prices.sync_prices(session, [row(1)])
    assert await stored(sessions) == {}


async def test_skus_are_told_apart_by_case(sessions: Sessions) -> None:
    await sync(sessions, [{"sku": "a", "cents": 1, "note": None}])
    await sync(sessions, [{"sku": "A", "cents": 2, "note": None}])
    assert {sku: price.cents for sku, price in (await stored(sessions)).items()} == {"a": 1, "A": 2}


async def test_loaded_objects_are_not_stale(sessions: Sessions) -> None:
    await sync(sessions, [row(1, 1)])
    async with sessions() as session:
        price = (await session.exec(select(prices.Price))).one()
        old = price.changed_at
        await asyncio.sleep(1.1)
        await prices.sync_prices(session, [row(1, 2)])
        assert price.cents == 2
        assert price.changed_at > old


async def test_syncs_at_once_do_not_conflict(sessions: Sessions, url: str) -> None:
    if url.startswith("sqlite"):
        pytest.skip("one writer at a time")
    # In the same order of skus, so that a deadlock is no fault of the solution.
    await asyncio.gather(
        *[sync(sessions, [row(n, worker) for n in range(5)]) for worker in range(4)]
    )
    assert len(await stored(sessions)) == 5
