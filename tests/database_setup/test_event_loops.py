import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util.concurrency import greenlet_spawn

from snippets.database_setup.engine import engine_for
from snippets.database_setup.event_loops import (
    engine_for_many_loops,
    forget_inherited_connections,
    running_engine,
)

ROOT = Path(__file__).parents[2]


async def answer(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return int(await connection.scalar(text("SELECT 1")) or 0)


async def test_an_engine_is_disposed_of_when_its_block_ends(database_url: URL) -> None:
    async with running_engine(database_url) as engine:
        assert await answer(engine) == 1
        assert engine.pool.checkedin() == 1  # type: ignore[attr-defined]

    assert engine.pool.checkedin() == 0  # type: ignore[attr-defined]


def test_an_engine_without_a_pool_serves_several_loops(database_url: URL) -> None:
    engine = engine_for_many_loops(database_url)

    assert asyncio.run(answer(engine)) == 1
    assert asyncio.run(answer(engine)) == 1


def test_a_second_loop_works_once_the_old_connections_are_forgotten(database_url: URL) -> None:
    engine = engine_for(database_url)
    first_loop = asyncio.new_event_loop()
    assert first_loop.run_until_complete(answer(engine)) == 1
    inherited_pool = engine.pool

    assert asyncio.run(answer_after_forgetting(engine)) == 1

    first_loop.run_until_complete(greenlet_spawn(inherited_pool.dispose))
    first_loop.close()


# A process of its own: forking one that has threads (aiosqlite, coverage) may deadlock.
FORK_PROGRAM = """
import asyncio, gc, os, sys
from sqlalchemy import text
from snippets.database_setup.engine import engine_for
from snippets.database_setup.event_loops import forget_inherited_connections

async def answer():
    async with engine.connect() as connection:
        return await connection.scalar(text("SELECT 1"))

async def work_in_child():
    await forget_inherited_connections(engine)
    gc.collect()
    assert await answer() == 1
    await engine.dispose()

engine = engine_for(sys.argv[1], pool_size=1, max_overflow=0, pool_pre_ping=False)
loop = asyncio.new_event_loop()
assert loop.run_until_complete(answer()) == 1
child = os.fork()
if child == 0:
    asyncio.new_event_loop().run_until_complete(work_in_child())
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert loop.run_until_complete(answer()) == 1, "the parent's connection was closed"
loop.run_until_complete(engine.dispose())
"""


@pytest.mark.not_on("sqlite", reason="a SQLite connection must never cross a fork, open or not")
@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_a_forked_child_leaves_its_parents_connections_alone(database_url: URL) -> None:
    url = database_url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", FORK_PROGRAM, url]

    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    assert run.returncode == 0, run.stderr


async def answer_after_forgetting(engine: AsyncEngine) -> int:
    await forget_inherited_connections(engine)
    result = await answer(engine)
    await engine.dispose()
    return result
