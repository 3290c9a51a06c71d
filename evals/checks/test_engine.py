import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import db
import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import Field, SQLModel, select


class Counter(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    value: int = 0


class Note(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    counter_id: int = Field(foreign_key="counter.id")


@pytest.fixture
async def made(url: str) -> AsyncIterator[AsyncEngine]:
    engine = db.make_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(SQLModel.metadata.create_all)
    yield engine
    await engine.dispose()


async def values(engine: AsyncEngine) -> list[int]:
    async with db.make_sessions(engine)() as session:
        return list((await session.exec(select(Counter.value))).all())


async def test_commits_at_the_end_and_objects_stay_readable(made: AsyncEngine) -> None:
    async with db.transaction(db.make_sessions(made)) as session:
        counter = Counter(value=3)
        session.add(counter)
    assert (counter.id, counter.value) == (1, 3)
    assert await values(made) == [3]


async def test_keeps_nothing_when_the_block_raises(made: AsyncEngine) -> None:
    with pytest.raises(ZeroDivisionError):
        async with db.transaction(db.make_sessions(made)) as session:
            session.add(Counter())
            await session.flush()
            raise ZeroDivisionError
    assert await values(made) == []


async def test_savepoint_is_undone_with_its_transaction(made: AsyncEngine) -> None:
    with pytest.raises(ZeroDivisionError):
        async with db.transaction(db.make_sessions(made)) as session:
            async with session.begin_nested():
                session.add(Counter())
            raise ZeroDivisionError
    assert await values(made) == []


async def test_savepoint_alone_can_be_undone(made: AsyncEngine) -> None:
    async with db.transaction(db.make_sessions(made)) as session:
        session.add(Counter(value=1))
        with pytest.raises(ZeroDivisionError):
            async with session.begin_nested():
                session.add(Counter(value=2))
                await session.flush()
                raise ZeroDivisionError
    assert await values(made) == [1]


async def test_foreign_keys_are_enforced(made: AsyncEngine) -> None:
    with pytest.raises(IntegrityError):
        async with db.transaction(db.make_sessions(made)) as session:
            session.add(Note(counter_id=99))


async def test_many_read_then_write_at_once(made: AsyncEngine) -> None:
    sessions = db.make_sessions(made)
    async with db.transaction(sessions) as session:
        session.add(Counter(id=1))

    async def add_one() -> None:
        async with db.transaction(sessions) as session:
            statement = select(Counter).where(Counter.id == 1).with_for_update()
            counter = (await session.exec(statement)).one()
            await asyncio.sleep(0.005)
            counter.value += 1

    await asyncio.gather(*[add_one() for _ in range(12)])
    assert await values(made) == [12]


async def test_cancelled_blocks_keep_nothing_and_leak_nothing(
    made: AsyncEngine, count_connections: Callable[[AsyncEngine], Any]
) -> None:
    sessions = db.make_sessions(made)
    connections = count_connections(made)

    async def never_ending(flushed: asyncio.Event) -> None:
        async with db.transaction(sessions) as session:
            session.add(Counter())
            await session.flush()
            flushed.set()
            await asyncio.sleep(600)

    for _ in range(5):
        flushed = asyncio.Event()
        task = asyncio.create_task(never_ending(flushed))
        async with asyncio.timeout(30):
            await flushed.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await values(made) == []
    assert await connections.are_back()
