import asyncio
import inspect
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent

import pytest
from fastapi import BackgroundTasks
from migrations.project import Project
from sqlalchemy import URL, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlmodel import col, select, update
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

from snippets.best_practices import mistakes
from snippets.best_practices.query_plans import Letter
from snippets.best_practices.testing import new_letter

TABLES = [Letter]
Factory = async_sessionmaker[AsyncSession]


@pytest.mark.filterwarnings("ignore:coroutine 'AsyncSession.exec' was never awaited:RuntimeWarning")
async def test_missing_await(session: AsyncSession) -> None:
    with pytest.raises(AttributeError, match="'coroutine' object has no attribute 'all'"):
        await mistakes.missing_await(session)


def test_engine_at_import(tmp_path: Path) -> None:
    (tmp_path / "database.py").write_text(mistakes.engine_at_import())
    command = [sys.executable, "-c", "import database"]

    run = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True, check=False)

    assert "KeyError: 'DATABASE_URL'" in run.stderr


async def test_engine_per_request(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    engines: list[AsyncEngine] = []
    connections: list[object] = []

    def recorded_engine(url: URL) -> AsyncEngine:
        engines.append(create_async_engine(url))
        event.listen(engines[-1].sync_engine, "connect", lambda *c: connections.append(c))
        return engines[-1]

    monkeypatch.setattr(mistakes, "create_async_engine", recorded_engine)
    try:
        for _ in range(3):
            await mistakes.engine_per_request(engine.url)
        assert len(connections) == 3
        assert [each.pool.checkedin() for each in engines] == [1, 1, 1]  # all still open
    finally:
        for each in engines:
            await each.dispose()


async def test_blocking_call(session: AsyncSession, monkeypatch: pytest.MonkeyPatch) -> None:
    others: list[str] = []
    others_during_the_call: list[list[str]] = []
    sleep = time.sleep

    def recorded_sleep(seconds: float) -> None:
        sleep(seconds)
        others_during_the_call.append(list(others))

    async def other_request() -> None:
        others.append("had its turn")

    monkeypatch.setattr(time, "sleep", recorded_sleep)
    await asyncio.gather(mistakes.blocking_call(session), other_request())

    assert others_during_the_call == [[]]
    assert others == ["had its turn"]


async def test_sql_from_strings(session: AsyncSession) -> None:
    await new_letter(session, code="hers", town="Oslo")
    await new_letter(session, code="secret", town="Bergen")

    found = await mistakes.sql_from_strings(session, "Oslo' OR '1'='1")

    assert {code for _, code in found} == {"hers", "secret"}
    with pytest.raises(DBAPIError):
        await mistakes.sql_from_strings(session, "L'Aquila")


async def test_pattern_from_user_text(session: AsyncSession) -> None:
    for town in ("Oslo", "100% Town"):
        await new_letter(session, town=town)

    assert len(await mistakes.pattern_from_user_text(session, "%")) == 2
    right = select(Letter).where(col(Letter.town).icontains("%", autoescape=True))
    assert len((await session.exec(right)).all()) == 1


@pytest.mark.only_on("postgresql", reason="the others read a small table in the order of its key")
async def test_page_without_order(session: AsyncSession) -> None:
    ids = {(await new_letter(session)).id for _ in range(4)}
    await session.commit()
    first = await mistakes.page_without_order(session, 0, 2)
    await session.exec(update(Letter).where(col(Letter.id).in_(first)).values(town="Bergen"))
    await session.commit()

    second = await mistakes.page_without_order(session, 2, 2)

    assert second == first
    assert ids - {*first, *second}


async def test_delete_without_where(session: AsyncSession) -> None:
    for town in ("Oslo", "Bergen"):
        await new_letter(session, town=town)

    assert await mistakes.delete_without_where(session, "Bergen") == 1
    assert await mistakes.delete_without_where(session, "") == 1
    assert (await session.exec(select(Letter))).all() == []


async def test_rows_loaded_to_be_counted(session: AsyncSession, statements: StatementLog) -> None:
    for _ in range(3):
        await new_letter(session)
    statements.clear()

    assert await mistakes.rows_loaded_to_be_counted(session) == 3

    assert "count(" not in statements.texts[0].lower()
    assert "town" in statements.texts[0]  # every column of every row


async def test_session_for_background_work(factory: Factory, engine: AsyncEngine) -> None:
    async with factory() as session:
        await new_letter(session)
        await session.commit()
    background = BackgroundTasks()
    async with factory() as session:
        await mistakes.session_for_background_work(session, background)
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]

    await background()

    assert session.in_transaction() is False
    # It worked, on a session that was closed before and silently began again.
    async with factory() as other:
        assert (await other.exec(select(Letter.town))).all() == ["delivered"]


async def test_tables_made_beside_alembic(tmp_path: Path, engine: AsyncEngine) -> None:
    project = Project(tmp_path, engine.url)
    project.revision("make_letter", "op.create_table('letter', sa.Column('id', sa.Integer))")
    await mistakes.tables_made_beside_alembic(engine)

    texts = ("table letter already exists", 'relation "letter" already exists',
             "Table 'letter' already exists")  # fmt: skip
    with pytest.raises(DBAPIError) as caught:
        await project.upgrade()

    assert any(text in str(caught.value) for text in texts)


def test_override_of_event_loop(tmp_path: Path) -> None:
    source = inspect.getsource(mistakes.override_of_event_loop)
    head = "import pytest\nfrom asyncio import AbstractEventLoop, new_event_loop\n"
    head += "from collections.abc import Iterator\n"
    (tmp_path / "conftest.py").write_text(head + source)
    (tmp_path / "test_it.py").write_text(
        dedent("""
        import asyncio, pytest

        @pytest.mark.asyncio
        async def test_loop(event_loop):
            assert asyncio.get_running_loop() is event_loop
        """)
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]

    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert run.returncode == 1
    assert "assert asyncio.get_running_loop() is event_loop" in run.stdout
    (tmp_path / "conftest.py").unlink()
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "fixture 'event_loop' not found" in run.stdout


def test_the_override_closes_the_loop_that_nobody_used() -> None:
    fixture = mistakes.override_of_event_loop._get_wrapped_function()()
    loop = next(fixture)
    assert next(fixture, None) is None
    assert loop.is_closed()
