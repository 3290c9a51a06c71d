import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import inspect
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import text

# The suites of an application that uses the fixtures. Each notes what is sent to the database.
HEAD = """
import warnings

import pytest
from app_models import Player, Team
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError
from sqlmodel import func, select


@event.listens_for(Engine, "before_cursor_execute")
def note(_connection, _cursor, statement, *_rest):
    with open("statements.log", "a") as file:
        file.write(" ".join(statement.split()) + "\\n")


async def names(session):
    return [team.name for team in (await session.exec(select(Team).order_by(Team.name))).all()]

"""
COMMITS = """
async def test_one(session):
    assert await names(session) == []
    session.add(Team(name="a"))
    await session.commit()
    assert await names(session) == ["a"]

async def test_two(session):
    assert await names(session) == []
    session.add(Team(name="a"))
    await session.commit()
    session.add(Team(name="b"))
    await session.commit()
    assert await names(session) == ["a", "b"]
"""
ROLLBACKS = """
async def test_one(session):
    session.add(Team(name="kept"))
    await session.commit()
    session.add(Team(name="undone"))
    await session.flush()
    await session.rollback()
    assert await names(session) == ["kept"]
    await session.rollback()
    assert await names(session) == ["kept"]

async def test_two(session):
    assert await names(session) == []
"""
CONFLICTS = """
async def test_one(session):
    session.add(Team(name="a"))
    await session.commit()
    session.add(Team(name="a"))
    with pytest.raises(IntegrityError):
        await session.commit()
    await session.rollback()
    assert await names(session) == ["a"]
"""
SAVEPOINTS = """
async def test_one(session):
    async with session.begin_nested():
        session.add(Team(name="a"))
    await session.commit()
    async with session.begin_nested() as savepoint:
        session.add(Team(name="b"))
        await session.flush()
        await savepoint.rollback()
    await session.commit()
    assert await names(session) == ["a"]

async def test_two(session):
    assert await names(session) == []
"""
OBJECTS_AFTER_COMMIT = """
async def test_one(session):
    team = Team(name="a")
    session.add(team)
    await session.commit()
    assert team.name == "a"
    session.add(Player(name="p", team_id=team.id))
    await session.commit()

async def test_two(session):
    assert (await session.exec(select(Player))).all() == []
"""
FOREIGN_KEYS = """
async def test_one(session):
    session.add(Player(name="p", team_id=99))
    with pytest.raises(IntegrityError):
        await session.flush()
"""
ENGINE = """
async def test_one(engine, session):
    async with engine.connect() as connection:
        assert await connection.scalar(select(func.count()).select_from(Team)) == 0

async def test_two(engine):
    async with engine.connect() as connection:
        assert await connection.scalar(select(func.count()).select_from(Team)) == 0
"""
FAILING = """
async def test_one(session):
    session.add(Team(name="a"))
    await session.commit()
    assert await names(session) == ["a"]
    session.add(Team(name="b"))
    await session.flush()
    raise ZeroDivisionError

async def test_two(session):
    assert await names(session) == []
"""
WARNS = """
async def test_one(session):
    warnings.warn("old", stacklevel=1)
"""


@pytest.fixture
def project(solution: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    shutil.copytree(solution, folder, ignore=shutil.ignore_patterns("test_*", "__pycache__"))
    return folder


def run_suite(project: Path, url: str, tests: str) -> "subprocess.CompletedProcess[str]":
    (project / "test_it.py").write_text(HEAD + tests)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"],
        cwd=project,
        env=os.environ | {"DATABASE_URL": url, "PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


async def passes(project: Path, url: str, tests: str) -> None:
    done = run_suite(project, url, tests)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert await rows(url) == 0


async def rows(url: str) -> int:
    engine = create_async_engine(url)
    try:
        async with engine.connect() as connection:
            names = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
            count = 0
            for table in {"team", "player"} & set(names):
                count += await connection.scalar(text(f"SELECT count(*) FROM {table}"))
            return count
    finally:
        await engine.dispose()


async def test_what_was_committed_is_gone(project: Path, url: str) -> None:
    await passes(project, url, COMMITS)


async def test_a_rollback_undoes_what_was_not_committed(project: Path, url: str) -> None:
    await passes(project, url, ROLLBACKS)


async def test_a_conflict_leaves_a_session_that_works(project: Path, url: str) -> None:
    await passes(project, url, CONFLICTS)


async def test_savepoints_work(project: Path, url: str) -> None:
    await passes(project, url, SAVEPOINTS)


async def test_objects_are_readable_after_a_commit(project: Path, url: str) -> None:
    await passes(project, url, OBJECTS_AFTER_COMMIT)


async def test_foreign_keys_are_enforced(project: Path, url: str) -> None:
    await passes(project, url, FOREIGN_KEYS)


async def test_the_engine_can_be_used(project: Path, url: str) -> None:
    await passes(project, url, ENGINE)


async def test_a_test_that_fails_leaves_nothing(project: Path, url: str) -> None:
    done = run_suite(project, url, FAILING)
    assert "1 failed, 1 passed" in done.stdout, done.stdout[-3000:]
    assert await rows(url) == 0


def test_tables_are_made_once_and_never_emptied(project: Path, url: str) -> None:
    done = run_suite(project, url, COMMITS + COMMITS.replace("test_", "test_other_"))
    assert "4 passed" in done.stdout, done.stdout[-3000:]
    sent = (project / "statements.log").read_text().upper()
    assert len(re.findall("^CREATE TABLE", sent, re.MULTILINE)) == 2
    assert len(re.findall("^DROP TABLE", sent, re.MULTILINE)) <= 4  # before and after the run
    assert not re.findall("^(TRUNCATE|DELETE)", sent, re.MULTILINE)


def test_warnings_are_errors(project: Path, url: str) -> None:
    done = run_suite(project, url, WARNS)
    assert "1 failed" in done.stdout, done.stdout[-3000:]
