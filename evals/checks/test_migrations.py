import asyncio
import datetime as dt
import os
import subprocess
import sys
from pathlib import Path

import models
import pytest
from sqlalchemy import inspect, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import select, text
from sqlmodel.ext.asyncio.session import AsyncSession


def alembic(
    folder: Path, url: str, *arguments: str, fails: bool = False
) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning", "-m", "alembic", *arguments],
        cwd=folder,
        env=os.environ | {"DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert fails or done.returncode == 0, done.stdout + done.stderr
    return done


async def run(url: str, *statements: str) -> list[tuple[object, ...]]:
    engine = create_async_engine(url)
    rows: list[tuple[object, ...]] = []
    try:
        async with engine.begin() as connection:
            for statement in statements:
                result = await connection.execute(text(statement))
                rows = [tuple(row) for row in result] if result.returns_rows else []
    finally:
        await engine.dispose()
    return rows


async def as_models(url: str) -> list[models.Person]:
    engine = create_async_engine(url)
    async with AsyncSession(engine) as session:
        found = await session.exec(select(models.Person).order_by(models.Person.name))
        people = list(found.all())
    await engine.dispose()
    return people


async def tables(url: str) -> set[str]:
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        names = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    await engine.dispose()
    return set(names)


async def test_upgrade_and_quiet_check(url: str, solution: Path) -> None:
    alembic(solution, url, "upgrade", "head")
    assert {"person", "address", "alembic_version"} <= await tables(url)
    alembic(solution, url, "check")


async def test_rows_survive_the_second_revision(url: str, solution: Path) -> None:
    alembic(solution, url, "upgrade", "0001")
    await run(
        url,
        "INSERT INTO person (name, email) VALUES ('Ann', 'a@x'), ('Bob', 'b@x')",
        "INSERT INTO address (person_id, street) SELECT id, 'Main' FROM person",
    )
    alembic(solution, url, "upgrade", "head")
    people = await as_models(url)
    assert [(person.name, person.role) for person in people] == [
        ("Ann", "member"), ("Bob", "member"),
    ]  # fmt: skip
    for person in people:
        assert abs(dt.datetime.now(dt.UTC) - person.created_at) < dt.timedelta(minutes=5)
    assert len(await run(url, "SELECT id FROM address")) == 2
    now = "2026-01-31 20:15:00"
    for columns, values, missing in (
        ("name, email, role", "'C', 'c@x', 'member'", "created_at"),
        ("name, email, created_at", f"'C', 'c@x', '{now}'", "role"),
    ):
        with pytest.raises(DBAPIError, match=missing):
            await run(url, f"INSERT INTO person ({columns}) VALUES ({values})")


async def test_down_and_up_again(url: str, solution: Path) -> None:
    alembic(solution, url, "upgrade", "0001")
    await run(url, "INSERT INTO person (name, email) VALUES ('Ann', 'a@x')")
    await run(url, "INSERT INTO address (person_id, street) SELECT id, 'Main' FROM person")
    alembic(solution, url, "upgrade", "head")
    alembic(solution, url, "downgrade", "0001")
    assert len(await run(url, "SELECT id FROM address")) == 1
    alembic(solution, url, "downgrade", "base")
    assert not {"person", "address"} & await tables(url)
    alembic(solution, url, "upgrade", "head")


async def test_from_a_thread_of_a_running_loop(url: str, solution: Path) -> None:
    code = (
        "import asyncio; from alembic import command; from alembic.config import Config\n"
        "async def main():\n"
        "    await asyncio.to_thread(command.upgrade, Config('alembic.ini'), 'head')\n"
        "asyncio.run(main())\n"
    )
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", code],
        cwd=solution,
        env=os.environ | {"DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "person" in await tables(url)


async def test_a_password_with_percent_signs_is_passed_on(url: str, solution: Path) -> None:
    """A server that trusts every client takes the wrong password, another says that it is wrong."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        pytest.skip("SQLite has no passwords")
    wrong = parsed.set(password="50%@:/x").render_as_string(hide_password=False)
    done = alembic(solution, wrong, "current", fails=True)
    refused = "Access denied" in done.stderr or "password authentication failed" in done.stderr
    assert done.returncode == 0 or refused, done.stderr


async def test_constraints_have_names(url: str, solution: Path) -> None:
    alembic(solution, url, "upgrade", "head")
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        keys = await connection.run_sync(lambda sync: inspect(sync).get_foreign_keys("address"))
        unique = await connection.run_sync(
            lambda sync: inspect(sync).get_unique_constraints("person")
        )
    await engine.dispose()
    assert [bool(key["name"]) for key in [*keys, *unique]] == [True, True]
