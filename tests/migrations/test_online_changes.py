import asyncio
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from migrations.project import Project
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from snippets.database_setup.engine import engine_for
from snippets.migrations import online_changes
from snippets.migrations.online_changes import is_invalid_index, with_short_lock

IMPORTS = "from snippets.migrations.online_changes import *"
FIRST = """
op.create_table(
    "vessel",
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("imo", sa.String(10)),
    sa.Column("flag", sa.String(2)),
)
"""
NOT_SQLITE = pytest.mark.not_on("sqlite", reason="a writer locks the whole file, not a table")


# Who waits for a lock of a table here.
WAITING = {
    "postgresql": "SELECT 1 FROM pg_locks JOIN pg_database ON pg_database.oid = database"
    " WHERE NOT granted AND datname = current_database()",
    "mysql": "SELECT 1 FROM information_schema.processlist WHERE db = DATABASE()"
    " AND state = 'Waiting for table metadata lock'",
}


@pytest.fixture
async def project(project: Project) -> Project:
    project.revision("first", FIRST, 'op.drop_table("vessel")')
    await project.upgrade()
    await project.insert(
        "vessel", *[{"id": n, "imo": f"IMO{n}", "flag": "NL"} for n in range(1, 4)]
    )
    return project


async def run_locked(project: Project, change: Any, **options: Any) -> None:
    """Run a change with a short lock, as a migration would."""

    def run(connection: sa.Connection) -> None:
        op = Operations(MigrationContext.configure(connection))
        with_short_lock(op, lambda: change(op), **options)

    engine = engine_for(project.url, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(run)
            await connection.commit()
    finally:
        await engine.dispose()


def add_gross(op: Operations) -> None:
    op.add_column("vessel", sa.Column("gross", sa.Integer))


async def test_a_change_is_made_with_a_short_lock(project: Project) -> None:
    await run_locked(project, add_gross)

    assert [row[3] for row in await project.table("vessel")] == [None] * 3


@pytest.mark.parametrize("options", [{"seconds": 0}, {"attempts": 0}])
async def test_a_change_without_an_end_is_refused(
    project: Project, options: dict[str, int]
) -> None:
    with pytest.raises(ValueError, match=r"^seconds and attempts must be at least 1$"):
        await run_locked(project, add_gross, **options)

    assert "gross" not in await project.columns("vessel")


@NOT_SQLITE
async def test_a_change_waits_for_its_lock_in_short_attempts(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_for(project.url, poolclass=NullPool)
    attempts: list[int] = []

    def change(op: Operations) -> None:
        attempts.append(1)
        add_gross(op)

    def release(_pause: float) -> None:
        if not releases:
            releases.append(asyncio.ensure_future(reader.rollback()))

    async with engine.connect() as reader:
        await reader.execute(sa.text("SELECT * FROM vessel"))  # holds the table's lock
        with pytest.raises(DBAPIError):
            await run_locked(project, change, seconds=1, attempts=1)
        assert "gross" not in await project.columns("vessel")

        # Between the attempts the reader ends.
        releases: list[asyncio.Future[None]] = []
        monkeypatch.setattr(online_changes.time, "sleep", release)
        attempts.clear()
        await run_locked(project, change, seconds=1)
        await asyncio.gather(*releases)
    await engine.dispose()

    assert "gross" in await project.columns("vessel")
    assert len(attempts) >= 2  # more, if the rollback takes longer than an attempt


@NOT_SQLITE
async def test_a_change_that_waits_stops_readers(project: Project) -> None:
    engine = engine_for(project.url, poolclass=NullPool)
    name = "lock_timeout" if project.url.get_backend_name() == "postgresql" else "lock_wait_timeout"

    async with engine.connect() as reader, engine.connect() as another:
        await reader.execute(sa.text("SELECT * FROM vessel"))
        change = asyncio.create_task(project.execute("ALTER TABLE vessel ADD gross INTEGER"))
        waiting = sa.text(WAITING[project.url.get_backend_name()])
        while not (await another.execute(waiting)).all():  # noqa: ASYNC110 - the server tells
            await asyncio.sleep(0.02)
        await another.exec_driver_sql(f"SET {name} = {'300' if name == 'lock_timeout' else '1'}")
        with pytest.raises(DBAPIError):
            await another.execute(sa.text("SELECT * FROM vessel"))
        await reader.rollback()
        await change
    await engine.dispose()


async def test_an_error_that_is_no_lock_is_raised_at_once(project: Project) -> None:
    attempts: list[int] = []

    def change(op: Operations) -> None:
        attempts.append(1)
        op.execute("ALTER TABLE nothing ADD COLUMN gross INTEGER")

    with pytest.raises(DBAPIError, match="nothing"):
        await run_locked(project, change)

    assert attempts == [1]


@pytest.mark.only_on("mysql", reason="its session keeps what is set")
async def test_mariadb_gets_its_long_timeout_back(project: Project) -> None:
    seen: list[int] = []
    query = "SELECT @@lock_wait_timeout"

    def change(op: Operations) -> None:
        seen.append(op.get_bind().exec_driver_sql(query).scalar_one())

    def run(connection: sa.Connection) -> None:
        op = Operations(MigrationContext.configure(connection))
        before = connection.exec_driver_sql(query).scalar_one()
        with_short_lock(op, lambda: change(op), seconds=3)
        seen.extend([before, connection.exec_driver_sql(query).scalar_one()])

    engine = engine_for(project.url, poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(run)
    await engine.dispose()

    assert seen == [3, 86400, 86400]


INDEX = 'create_index_online(op, "ix_vessel_imo", "vessel", ["imo"])'


async def test_an_index_is_made_and_dropped_beside_the_table(project: Project) -> None:
    project.revision(
        "index", INDEX, 'drop_index_online(op, "ix_vessel_imo", "vessel")', imports=IMPORTS
    )

    await project.up_and_down("vessel")

    (index,) = await project.inspect("get_indexes", "vessel")
    assert (index["name"], index["column_names"]) == ("ix_vessel_imo", ["imo"])


async def test_an_index_that_is_there_already_is_left_alone(project: Project) -> None:
    await project.execute("CREATE INDEX ix_vessel_imo ON vessel (imo)")
    project.revision("index", INDEX, imports=IMPORTS)

    await project.upgrade()

    assert len(await project.inspect("get_indexes", "vessel")) == 1


@pytest.mark.only_on("postgresql", reason="others leave no invalid index")
@pytest.mark.parametrize("name", ["ix_vessel_imo", "ix_Vessel_IMO"])
async def test_an_invalid_index_is_replaced(project: Project, name: str) -> None:
    await project.execute("UPDATE vessel SET imo = 'IMO1'")
    unique = f"op.create_index({name!r}, 'vessel', ['imo'], unique=True, {{}})"
    half = f"with op.get_context().autocommit_block():\n    {unique}"
    project.revision("half", half.format("postgresql_concurrently=True"))
    with pytest.raises(DBAPIError, match="could not create unique index"):
        await project.upgrade()
    query = f"""SELECT indisvalid FROM pg_index WHERE indexrelid = '"{name}"'::regclass"""
    assert await project.rows(query) == [(False,)]

    project.last = "first"
    project.revision("half", INDEX.replace("ix_vessel_imo", name), imports=IMPORTS)
    await project.upgrade()

    assert await project.rows(query) == [(True,)]


@pytest.mark.not_on("postgresql", reason="only it has invalid indexes")
async def test_no_index_is_invalid_elsewhere(project: Project) -> None:
    engine = engine_for(project.url, poolclass=NullPool)
    async with engine.connect() as connection:
        assert await connection.run_sync(is_invalid_index, "ix_vessel_imo") is False
    await engine.dispose()


async def test_a_filled_column_becomes_required(project: Project) -> None:
    project.revision(
        "required",
        'require_online(op, "vessel", "flag", sa.String(2))'.replace(
            '"flag", sa.String(2)', 'sa.Column("flag", sa.String(2))'
        ),
        'set_nullable(op, "vessel", sa.Column("flag", sa.String(2)), nullable=True)',
        imports=f"{IMPORTS}\nfrom snippets.migrations.schema_changes import set_nullable",
    )

    await project.up_and_down("vessel")

    assert (await project.columns("vessel"))["flag"]["nullable"] is False
    assert await project.inspect("get_check_constraints", "vessel") == []


async def test_a_column_becomes_required_whatever_its_name_and_its_tables(
    project: Project,
) -> None:
    made = """
    for name in ("user", "Order"):
        id_column = sa.Column("id", sa.Integer, primary_key=True)
        op.create_table(name, id_column, sa.Column("from", sa.String(2)))
        require_online(op, name, sa.Column("from", sa.String(2)))
    """
    project.revision("required", made, imports=IMPORTS)

    await project.upgrade()

    for table in ("user", "Order"):
        assert (await project.columns(table))["from"]["nullable"] is False


async def test_null_stops_a_column_from_being_required_and_is_mended(project: Project) -> None:
    await project.execute("UPDATE vessel SET flag = NULL WHERE id = 2")
    required = 'require_online(op, "vessel", sa.Column("flag", sa.String(2)))'
    project.revision("required", required, imports=IMPORTS)
    with pytest.raises((DBAPIError, ValueError), match="flag"):
        await project.upgrade()

    # The code that runs meanwhile still writes NULL.
    assert await project.inspect("get_check_constraints", "vessel") == []
    await project.insert("vessel", {"id": 4, "imo": "IMO4", "flag": None})
    await project.execute("DELETE FROM vessel WHERE id = 4")
    await project.execute("UPDATE vessel SET flag = 'DE' WHERE id = 2")
    await project.upgrade()

    assert (await project.columns("vessel"))["flag"]["nullable"] is False


HALF = """
if missing(op, "vessel", column="gross"):
    op.add_column("vessel", sa.Column("gross", sa.Integer))
if missing(op, "vessel", index="ix_vessel_gross"):
    op.create_index("ix_vessel_gross", "vessel", ["gross"])
if missing(op, "cargo_hold"):
    op.create_table("cargo_hold", sa.Column("id", sa.Integer, primary_key=True))
"""


async def test_what_a_failed_migration_leaves_and_how_it_runs_again(project: Project) -> None:
    project.revision("half", HALF + "raise RuntimeError('power cut')", imports=IMPORTS)

    with pytest.raises(RuntimeError, match="power cut"):
        await project.upgrade()

    left = "gross" in await project.columns("vessel")
    assert left is (project.url.get_backend_name() == "mysql")
    assert ("cargo_hold" in await project.tables()) is left
    assert await project.current() == {"first"}
    assert len(await project.table("vessel")) == 3
    project.last = "first"
    project.revision("half", HALF + 'assert not missing(op, "vessel")', imports=IMPORTS)
    await project.upgrade()
    assert await project.current() == {"half"}
    assert "gross" in await project.columns("vessel")
