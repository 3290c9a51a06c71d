import asyncio
import os
import sqlite3
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.config import Config
from migrations.project import Project
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from snippets.database_setup.urls import with_password
from snippets.migrations import programmatic
from snippets.migrations.programmatic import (
    MigrationLockError,
    PendingMigrationsError,
    config_for,
    migration_lock,
    require_current,
    upgrade_database,
)

ROOT = Path(__file__).parents[2]
FIRST = 'op.create_table("dock", sa.Column("id", sa.Integer, primary_key=True))'
# Slow enough for the others to come meanwhile, and wrong when it runs twice.
SLOW = """
op.execute("INSERT INTO dock VALUES (1)")
import time
time.sleep(0.5)
op.add_column("dock", sa.Column("depth", sa.Integer))
"""


@pytest.fixture
def config(project: Project) -> Config:
    project.revision("first", FIRST, 'op.drop_table("dock")')
    config = config_for(str(project.folder / "migrations"), project.url)
    config.attributes |= {"metadata": sa.MetaData(), "options": {}}
    return config


async def test_an_upgrade_runs_in_a_running_loop(project: Project, config: Config) -> None:
    await upgrade_database(config)

    assert await project.current() == {"first"}


async def test_of_several_processes_one_works_and_the_others_wait(
    project: Project, config: Config
) -> None:
    project.revision("second", SLOW)
    if project.url.get_backend_name() == "postgresql":
        # It deadlocks with whoever waits for the lock inside of a statement.
        index = 'op.create_index("ix_dock", "dock", ["depth"], postgresql_concurrently=True)'
        project.revision("third", f"with op.get_context().autocommit_block():\n    {index}")
    arguments = [str(project.folder / "migrations"), with_password(project.url)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).with_name("migrator.py")),
            *arguments,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        for _ in range(3)
    ]

    outputs = [(await process.communicate()) for process in processes]

    errors = [error.decode() for _, error in outputs]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    lines = [out.decode().split("\n") for out, _ in outputs]
    assert all("done" in line for line in lines)
    workers = [[line for line in each if line.startswith("ran")] for each in lines]
    assert sorted(map(len, workers)) == [0, 0, len(list(project.versions.glob("*.py")))]
    assert await project.table("dock") == [(1, None)]


async def test_who_waits_too_long_is_told(
    project: Project, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programmatic, "POLL", 0.01)
    async with migration_lock(project.url):
        with pytest.raises(MigrationLockError, match=r"was not free in 0\.05 seconds"):
            await asyncio.create_task(_wait_for(config))

    await upgrade_database(config)  # the lock is free again


async def _wait_for(config: Config) -> None:
    async with migration_lock(config.attributes["database_url"], wait=0.05):
        pass


@pytest.mark.only_on("sqlite", reason="its lock is a file")
async def test_a_cancelled_wait_for_the_lock_ends_at_once(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = asyncio.Event()
    monkeypatch.setattr(programmatic.asyncio, "sleep", lambda _seconds: _forever(waits))
    async with migration_lock(project.url):
        waiting = asyncio.create_task(_wait(project.url))
        await waits.wait()  # in the loop, in no thread that must end first

        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def _forever(waits: asyncio.Event) -> None:
    waits.set()
    await asyncio.Future()


async def _wait(url: URL) -> None:
    async with migration_lock(url):
        pytest.fail("it was not free")


@pytest.mark.only_on("sqlite", reason="its lock is a file")
async def test_a_lock_that_can_not_be_taken_is_not_waited_for(
    project: Project, tmp_path: Path
) -> None:
    (tmp_path / "app.db.migrating-journal").mkdir()

    with pytest.raises(sqlite3.OperationalError, match=r"disk I/O error|unable to open"):
        async with migration_lock(project.url.set(database=str(tmp_path / "app.db"))):
            pass


@pytest.mark.only_on("sqlite", reason="its lock is a file")
@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("sqlite+aiosqlite://", None),
        ("sqlite+aiosqlite:///:memory:", None),
        ("sqlite+aiosqlite:///file::memory:?uri=true", None),
        ("sqlite+aiosqlite:///file:shared?mode=memory&cache=shared&uri=true", None),
        ("sqlite+aiosqlite:///app.db", "app.db.migrating"),
        ("sqlite+aiosqlite:///file:app.db?mode=rw&uri=true", "app.db.migrating"),
    ],
)
async def test_the_lock_is_beside_the_file_that_there_is(
    url: str, file: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    async with migration_lock(sa.make_url(url)):
        found = {name.removesuffix("-journal") for name in files_in(tmp_path)}
        assert found == ({file} if file else set())


def files_in(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


async def test_a_failed_migration_frees_the_lock(project: Project, config: Config) -> None:
    project.revision("second", "raise RuntimeError('no')")
    with pytest.raises(RuntimeError, match="no"):
        await upgrade_database(config)

    async with migration_lock(project.url, wait=30):
        pass


async def test_the_lock_is_held_until_a_cancelled_migration_ends(
    project: Project, config: Config
) -> None:
    begun = project.folder / "begun"
    project.revision("second", f'open({str(begun)!r}, "w").close()\n{SLOW}')
    upgrade = asyncio.create_task(upgrade_database(config))
    while not begun.exists():  # noqa: ASYNC110 - a thread makes it
        await asyncio.sleep(0.01)

    upgrade.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upgrade

    assert await project.current() == {"second"}
    async with migration_lock(project.url, wait=30):
        pass


async def test_another_timeout_inside_is_not_taken_for_the_lock(project: Project) -> None:
    with pytest.raises(TimeoutError, match=r"^mine$") as raised:
        async with migration_lock(project.url):
            raise TimeoutError("mine")

    assert raised.type is TimeoutError


async def test_an_application_refuses_to_start_on_an_old_database(
    engine: AsyncEngine, project: Project, config: Config
) -> None:
    message = r"^the database is at no revision, this code needs first; run: alembic upgrade head$"
    with pytest.raises(PendingMigrationsError, match=message):
        await require_current(engine, config)

    await upgrade_database(config)
    await require_current(engine, config)


@pytest.mark.only_on("postgresql", reason="only it builds indexes that way")
async def test_waiting_for_the_lock_in_a_statement_is_a_deadlock(engine: AsyncEngine) -> None:
    lock = sa.text("SELECT pg_advisory_lock(1)")
    index = sa.text("CREATE INDEX CONCURRENTLY ix_dock ON dock (id)")
    waits = sa.text(
        "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database"
        " WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()"
    )
    free = engine.execution_options(isolation_level="AUTOCOMMIT")
    async with free.connect() as worker, free.connect() as waiter:
        await worker.execute(sa.text("CREATE TABLE dock (id INTEGER)"))
        await worker.execute(lock)
        waiting = asyncio.create_task(waiter.execute(lock))
        while not (await worker.execute(waits)).scalar():  # noqa: ASYNC110 - the server tells
            await asyncio.sleep(0.02)
        working = asyncio.create_task(worker.execute(index))
        done, _ = await asyncio.wait({waiting, working}, return_when=asyncio.FIRST_EXCEPTION)
        error = next(task.exception() for task in done if task.exception())
        assert "deadlock detected" in str(error)
        await worker.execute(sa.text("SELECT pg_advisory_unlock_all()"))
        await asyncio.wait({waiting, working})


async def test_a_percent_sign_in_the_path_is_kept(tmp_path: Path, project: Project) -> None:
    config = config_for(str(tmp_path / "50%" / "migrations"), project.url)

    assert config.get_main_option("script_location") == str(tmp_path / "50%" / "migrations")
