import importlib.util
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from migrations.project import Project
from sqlalchemy.ext.asyncio import AsyncEngine
from statements import StatementLog

from snippets.migrations.data_migrations import (
    OfflineError,
    UnchangedRowError,
    rewrite_in_batches,
    update_in_batches,
)

FIRST = """
op.create_table(
    "premium",
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("cents", sa.Integer, nullable=False),
    sa.Column("euros", sa.Integer),
    sa.Column("port", sa.String(40)),
    sa.Column("country", sa.String(2)),
)
"""
IMPORTS = """
from snippets.migrations.data_migrations import *

premium = sa.table(
    "premium", *map(sa.column, ("id", "cents", "euros", "port", "country"))
)
rows = premium.c
"""
EUROS = 'update_in_batches(op, rows.id, rows.euros.is_(None), {"euros": rows.cents / 100}, size=2)'
NO_EUROS = 'update_in_batches(op, rows.id, rows.euros.is_not(None), {"euros": None}, size=2)'
SPLIT = """
def split(row):
    country, _, port = row.port.partition("-")
    return {"country": country, "port": port}

rewrite_in_batches(op, rows.id, rows.country.is_(None), [rows.port], split, size=2)
"""
JOINED = """
def join(row):
    return {"port": f"{row.country}-{row.port}", "country": None}

rewrite_in_batches(
    op, rows.id, rows.country.is_not(None), [rows.country, rows.port], join, size=2
)
"""
# Keys with gaps, as real ones have.
KEYS = [1, 2, 5, 9, 10, 400, 401]


@pytest.fixture
async def project(project: Project) -> Project:
    project.revision("first", FIRST, 'op.drop_table("premium")')
    await project.upgrade()
    ports = ["NL-Rotterdam", "DE-Hamburg", "BE-Antwerp"]
    rows = [{"id": k, "cents": k * 100, "port": ports[k % 3]} for k in KEYS]
    await project.insert("premium", *rows)
    return project


async def test_every_row_is_changed_in_batches_and_back(project: Project) -> None:
    project.revision("euros", EUROS, NO_EUROS, imports=IMPORTS)

    await project.up_and_down("premium")

    assert [row[:3] for row in await project.table("premium")] == [(k, k * 100, k) for k in KEYS]


async def test_a_column_is_split_in_python_and_joined_again(project: Project) -> None:
    project.revision("split", SPLIT, JOINED, imports=IMPORTS)

    await project.up_and_down("premium")

    found = await project.rows("SELECT id, country, port FROM premium ORDER BY id")
    assert found[:3] == [(1, "DE", "Hamburg"), (2, "BE", "Antwerp"), (5, "BE", "Antwerp")]


async def test_what_failed_half_way_goes_on_where_it_stopped(project: Project) -> None:
    broken = SPLIT.replace("    return", "    assert row.id < 9, row.id\n    return")
    project.revision("split", broken, JOINED, imports=IMPORTS)

    with pytest.raises(AssertionError, match=r"^9"):
        await project.upgrade()

    # The batches before the failure are committed, and the revision is not.
    query = "SELECT id FROM premium WHERE country IS NOT NULL ORDER BY id"
    done = await project.rows(query)
    assert done[:2] == [(1,), (2,)]
    assert (9,) not in done
    assert await project.current() == {"first"}
    project.last = "first"
    project.revision("split", SPLIT, JOINED, imports=IMPORTS)
    await project.upgrade()
    assert await project.rows(query) == [(key,) for key in KEYS]
    countries = await project.rows("SELECT port FROM premium WHERE port LIKE '%-%'")
    assert countries == []


async def test_each_batch_is_found_by_key_and_committed(
    project: Project, engine: AsyncEngine, statements: StatementLog
) -> None:
    premium = sa.table("premium", sa.column("id"), sa.column("cents"), sa.column("euros"))
    open_transactions: list[bool] = []

    def run(connection: sa.Connection) -> int:
        op = Operations(MigrationContext.configure(connection))
        pending = premium.c.euros.is_(None)
        values = {"euros": premium.c.cents}
        return update_in_batches(op, premium.c.id, pending, values, size=3)

    async with engine.connect() as connection:
        changed = await connection.run_sync(run)
        open_transactions.append(connection.in_transaction())

    assert changed == len(KEYS)
    assert open_transactions == [False]
    updates = [text for text in statements.texts if text.startswith("UPDATE")]
    assert len(updates) == 3  # of 3, 3 and 1


async def test_a_row_that_changed_meanwhile_is_left_alone(
    project: Project, engine: AsyncEngine
) -> None:
    premium = sa.table("premium", *map(sa.column, ("id", "port", "country")))
    rows = premium.c

    def run(connection: sa.Connection) -> int:
        op = Operations(MigrationContext.configure(connection))

        def rewrite(row: sa.Row[tuple[int, str]]) -> dict[str, str]:
            if row.id == 1:  # another writer comes between the read and the write
                other = sa.update(premium).where(rows.id == 1).values(port="FR-Brest")
                op.get_bind().execute(other)
            return {"country": row.port[:2]}

        return rewrite_in_batches(op, rows.id, rows.country.is_(None), [rows.port], rewrite)

    async with engine.connect() as connection:
        changed = await connection.run_sync(run)

    assert changed == len(KEYS) - 1
    found = await project.rows("SELECT port, country FROM premium WHERE id = 1")
    assert found == [("FR-Brest", None)]


async def test_keys_may_be_uuids(project: Project) -> None:
    kind = sa.Uuid(native_uuid=project.url.get_backend_name() == "postgresql")
    name = f"sa.Uuid(native_uuid={kind.native_uuid})"
    project.revision(
        "tables",
        f'op.create_table("cover", sa.Column("id", {name}, primary_key=True),'
        ' sa.Column("done", sa.Integer))',
    )
    rows = f'rows = sa.table("cover", sa.column("id", {name}), sa.column("done")).c'
    project.revision(
        "done",
        'update_in_batches(op, rows.id, rows.done.is_(None), {"done": 1}, size=2)',
        imports=f"{IMPORTS}\n{rows}",
    )
    await project.upgrade("tables")
    cover = sa.table("cover", sa.column("id", kind))
    await project.execute(*(sa.insert(cover).values(id=uuid.uuid4()) for _ in range(5)))

    await project.upgrade()

    assert await project.rows("SELECT done FROM cover") == [(1,)] * 5


class Facts(sa.types.TypeDecorator[Any]):
    """A type of an application, over JSON."""

    impl = sa.JSON
    cache_ok = True


@pytest.mark.parametrize("json", [sa.JSON(), Facts()], ids=["json", "decorated"])
async def test_floats_and_json_are_compared_with_what_was_read(
    project: Project, engine: AsyncEngine, json: sa.types.TypeEngine[Any]
) -> None:
    project.revision(
        "table",
        'op.create_table("fare", sa.Column("id", sa.Integer), sa.Column("price", sa.Float(24)),'
        ' sa.Column("facts", sa.JSON), sa.Column("cents", sa.Integer))',
    )
    await project.upgrade()
    insert = "INSERT INTO fare (id, price, facts) VALUES "
    await project.execute(
        insert + """(1, 19.99, '{"city" \\:  "Oslo"}'), (2, 0.1, '{"city"\\:"Oslo"}')""",
        insert + "(3, 3, NULL), (4, NULL, '[]')",
    )
    fare = sa.table(
        "fare",
        sa.column("id"),
        sa.column("price", sa.Float()),
        sa.column("facts", json),
        sa.column("cents"),
    )

    def run(connection: sa.Connection) -> int:
        op = Operations(MigrationContext.configure(connection))
        read = [fare.c.price, fare.c.facts]
        pending = fare.c.cents.is_(None)
        return rewrite_in_batches(op, fare.c.id, pending, read, cents)

    async with engine.connect() as connection:
        changed = await connection.run_sync(run)

    assert changed == 4
    assert await project.rows("SELECT id, cents FROM fare ORDER BY id") == [
        (1, 1999), (2, 10), (3, 300), (4, 0),
    ]  # fmt: skip


def cents(row: sa.Row[Any]) -> dict[str, int]:
    return {"cents": round((row.price or 0) * 100)}


@pytest.mark.only_on("sqlite", "mysql", reason="PostgreSQL compares only what has one type")
async def test_a_row_that_can_not_be_compared_is_not_passed_over(
    project: Project, engine: AsyncEngine
) -> None:
    is_sqlite = project.url.get_backend_name() == "sqlite"
    # A time without fractions, as other programs write it; a float whose type is not told.
    kind, value = ("DATETIME", "'2026-01-01 12:00:00'") if is_sqlite else ("FLOAT", "19.99")
    await project.execute(
        f"CREATE TABLE fare (id INTEGER, old {kind}, cents INTEGER)",
        sa.text(f"INSERT INTO fare VALUES (7, {value}, NULL)".replace(":", r"\:")),
    )
    told = sa.DateTime() if is_sqlite else None
    fare = sa.table("fare", sa.column("id"), sa.column("old", told), sa.column("cents"))

    def run(connection: sa.Connection) -> int:
        op = Operations(MigrationContext.configure(connection))
        pending = fare.c.cents.is_(None)
        return rewrite_in_batches(op, fare.c.id, pending, [fare.c.old], lambda _: {"cents": 1})

    async with engine.connect() as connection:
        with pytest.raises(UnchangedRowError, match=r"^fare\.id = 7 was not changed$"):
            await connection.run_sync(run)


TYPED_REVISION = Path(__file__).with_name("typed_revision.py")


def test_strict_types_accept_the_op_of_a_revision() -> None:
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed here; the newest set has it")
    options = ["--strict", "--explicit-package-bases"]
    command = [sys.executable, "-m", "mypy", *options, str(TYPED_REVISION)]

    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )

    assert done.returncode == 0, done.stdout


async def test_rows_can_not_be_changed_offline(project: Project) -> None:
    project.revision("euros", EUROS, NO_EUROS, imports=IMPORTS)

    with pytest.raises(OfflineError):
        await project.run("upgrade", "first:head", sql=True)
