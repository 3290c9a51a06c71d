import asyncio

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

from snippets.database_setup.session import run_to_end, session_scope


class Note(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    body: str = Field(max_length=50)


TABLES = [Note]
Factory = async_sessionmaker[AsyncSession]


async def bodies(factory: Factory) -> set[str]:
    async with factory() as session:
        return {note.body for note in await session.exec(select(Note))}


async def test_sessions_have_exec_and_objects_stay_readable_after_a_commit(
    factory: Factory,
) -> None:
    async with factory() as session:
        note = Note(body="kept")
        session.add(note)
        await session.commit()

    assert note.body == "kept"
    assert note.id is not None
    assert await bodies(factory) == {"kept"}


async def test_a_scope_commits_when_its_block_ends(factory: Factory) -> None:
    async with session_scope(factory) as session:
        session.add(Note(body="saved"))

    assert await bodies(factory) == {"saved"}


async def test_a_scope_rolls_back_when_its_block_raises(factory: Factory) -> None:
    with pytest.raises(ZeroDivisionError):
        async with session_scope(factory) as session:
            session.add(Note(body="lost"))
            await session.flush()
            raise ZeroDivisionError

    assert await bodies(factory) == set()


async def test_a_cancelled_scope_rolls_back_and_gives_its_connection_back(
    factory: Factory, engine: AsyncEngine
) -> None:
    flushed = asyncio.Event()

    async def write_and_wait() -> None:
        async with session_scope(factory) as session:
            session.add(Note(body="lost"))
            await session.flush()
            flushed.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(write_and_wait())
    await flushed.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert await bodies(factory) == set()


async def test_a_cancel_during_commit_waits_for_the_commit_and_then_cancels(
    factory: Factory, statements: StatementLog
) -> None:
    committing = asyncio.Event()

    async def write() -> None:
        async with factory() as session:
            session.add(Note(body="saved"))
            await session.flush()

            async def commit() -> None:
                committing.set()
                await asyncio.sleep(0.05)  # the cancellations arrive here
                await session.commit()

            await run_to_end(commit())

    task = asyncio.create_task(write())
    await committing.wait()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await bodies(factory) == {"saved"}


async def test_a_scope_that_is_cancelled_while_it_commits_keeps_its_rows_and_its_connection(
    factory: Factory, engine: AsyncEngine
) -> None:
    async def write() -> None:
        async with session_scope(factory) as session:
            session.add(Note(body="saved"))

    lost: list[object] = []
    event.listen(engine.sync_engine, "invalidate", lambda *connection: lost.append(connection))
    task = asyncio.create_task(write())
    event.listen(engine.sync_engine, "commit", lambda _connection: task.cancel(), once=True)
    with pytest.raises(asyncio.CancelledError):
        await task

    assert lost == []
    assert await bodies(factory) == {"saved"}


async def test_an_error_of_the_work_is_raised() -> None:
    async def fail() -> None:
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        await run_to_end(fail())


async def test_a_cancellation_is_not_lost_behind_an_error_of_the_work() -> None:
    begun = asyncio.Event()

    async def fail() -> None:
        begun.set()
        await asyncio.sleep(0.05)  # the cancellation arrives here
        raise LookupError("gone")

    task = asyncio.create_task(run_to_end(fail()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task

    assert isinstance(caught.value.__cause__, LookupError)


async def test_a_timeout_around_a_scope_arrives_as_timeout(factory: Factory) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), session_scope(factory) as session:
            await session.exec(text("SELECT 1"))
            await asyncio.sleep(60)
