"""Each mistake, with the symptom that the page quotes."""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from migrations.project import ALEMBIC, Project
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from snippets.migrations import mistakes

CREATE = 'op.create_table("tug", sa.Column("id", sa.Integer, primary_key=True))'
BUOY = "CREATE TABLE buoy (id INTEGER PRIMARY KEY, name VARCHAR(20) NOT NULL)"


@pytest.fixture
async def buoys(engine: AsyncEngine, project: Project) -> Project:
    """A table with two rows."""
    await project.execute(BUOY, "INSERT INTO buoy VALUES (1, 'North'), (2, 'South')")
    return project


async def run(engine: AsyncEngine, mistake: Callable[[Operations], object]) -> None:
    """What a revision file does, in a transaction."""

    def upgrade(connection: sa.Connection) -> None:
        mistake(Operations(MigrationContext.configure(connection)))

    async with engine.begin() as connection:
        await connection.run_sync(upgrade)


# --- env.py and its callers ---


def test_url_in_the_ini() -> None:
    with pytest.raises(ValueError, match="invalid interpolation syntax"):
        mistakes.url_in_the_ini(Config(), "postgresql+asyncpg://ann:p%40ss@db/app")


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
async def test_upgrade_in_a_running_loop(project: Project) -> None:
    project.revision("first", CREATE)

    with pytest.raises(
        RuntimeError, match=r"^asyncio\.run\(\) cannot be called from a running event loop$"
    ):
        await mistakes.upgrade_in_a_running_loop(project.config)


def refused_on_sqlite(project: Project) -> AbstractContextManager[object]:
    """Our environment needs foreign keys off there, which no transaction allows."""
    if project.url.get_backend_name() == "sqlite":
        return pytest.raises(RuntimeError, match="end the transaction before you hand over")
    return nullcontext()


async def test_query_before_configure(engine: AsyncEngine, project: Project) -> None:
    project.revision("first", CREATE)

    async with engine.connect() as connection:
        with refused_on_sqlite(project):
            await connection.run_sync(mistakes.query_before_configure, project.config)

    # Every step was logged. MariaDB keeps the table, whose next CREATE will fail.
    is_mysql = project.url.get_backend_name() == "mysql"
    assert ("tug" in await project.tables()) is is_mysql
    if is_mysql:
        assert await project.current() == set()
    else:
        assert "alembic_version" not in await project.tables()


async def test_connection_that_has_begun(engine: AsyncEngine, project: Project) -> None:
    project.revision("first", f"with op.get_context().autocommit_block():\n    {CREATE}")

    with refused_on_sqlite(project), pytest.raises(AssertionError) as raised:
        await mistakes.connection_that_has_begun(engine, project.config)

    if project.url.get_backend_name() != "sqlite":
        assert str(raised.value) == ""


# --- what a revision file says ---


async def test_type_without_import(project: Project) -> None:
    text = mistakes.type_without_import(Operations(MigrationContext.configure(url="sqlite://")))
    project.revision("first", text)

    with pytest.raises(NameError, match="name 'sqlmodel' is not defined"):
        await project.upgrade()


async def test_models_of_today(engine: AsyncEngine, buoys: Project) -> None:
    today = sa.Table(
        "buoy",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("colour", sa.String(20)),
    )
    expected = {
        "sqlite": "no such column: buoy.colour",
        "postgresql": "column buoy.colour does not exist",
        "mysql": "Unknown column 'buoy.colour'",
    }

    with pytest.raises(DBAPIError, match=expected[buoys.url.get_backend_name()]):
        await run(engine, lambda op: mistakes.models_of_today(op, today))

    await buoys.execute("ALTER TABLE buoy ADD COLUMN colour VARCHAR(20)")
    await buoys.execute("CREATE TABLE archive (id INTEGER)")
    await run(engine, lambda op: mistakes.models_of_today(op, today))
    assert await buoys.table("archive") == [(1,), (2,)]


@pytest.mark.only_on("sqlite", reason="others alter a column in place")
async def test_alter_on_sqlite(engine: AsyncEngine, buoys: Project) -> None:
    with pytest.raises(DBAPIError, match='near "ALTER": syntax error'):
        await run(engine, mistakes.alter_on_sqlite)


async def test_drop_an_unnamed_constraint(engine: AsyncEngine, buoys: Project) -> None:
    with pytest.raises((ValueError, sa.exc.CompileError, AssertionError, TypeError)) as raised:
        await run(engine, mistakes.drop_an_unnamed_constraint)

    if buoys.url.get_backend_name() == "mysql":
        assert raised.type is (TypeError if ALEMBIC < (1, 15) else AssertionError)
    elif buoys.url.get_backend_name() == "sqlite":
        assert str(raised.value) == "Constraint must have a name"
    else:
        assert str(raised.value).startswith("Can't emit DROP CONSTRAINT for constraint")
        assert str(raised.value).endswith("it has no name")


@pytest.mark.only_on("sqlite", reason="others do not copy the table")
async def test_batch_with_foreign_keys_on(engine: AsyncEngine, buoys: Project) -> None:
    key = "buoy_id INTEGER REFERENCES buoy (id) ON DELETE CASCADE"
    await buoys.execute(
        f"CREATE TABLE inspection (id INTEGER PRIMARY KEY, {key})",
        "INSERT INTO inspection VALUES (1, 1), (2, 2)",
    )

    await run(engine, mistakes.batch_with_foreign_keys_on)

    assert await buoys.table("inspection") == []
    assert len(await buoys.table("buoy")) == 2


@pytest.mark.only_on("sqlite", reason="others do not copy the table")
async def test_batch_over_a_generated_column(engine: AsyncEngine, buoys: Project) -> None:
    await buoys.execute("ALTER TABLE buoy ADD COLUMN short TEXT GENERATED ALWAYS AS (lower(name))")

    with pytest.raises(DBAPIError, match='cannot INSERT into generated column "short"'):
        await run(engine, mistakes.batch_over_a_generated_column)


@pytest.mark.only_on("sqlite", reason="others do not copy the table")
async def test_batch_loses_what_is_not_reflected(engine: AsyncEngine, buoys: Project) -> None:
    await buoys.execute(
        "DROP TABLE buoy",
        "CREATE TABLE buoy (\n\tid INTEGER PRIMARY KEY,\n\tname VARCHAR(20),\n\tdraft INTEGER,\n"
        "\tCONSTRAINT ck_buoy_draft CHECK (draft > 0),\n\tCHECK (id > 0)\n)",
        "CREATE INDEX ix_buoy_lower ON buoy (lower(name))",
        "CREATE TRIGGER noted AFTER INSERT ON buoy BEGIN SELECT 1; END",
    )

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        await run(engine, mistakes.batch_with_foreign_keys_on)

    left = await buoys.rows("SELECT type, sql FROM sqlite_master ORDER BY type")
    assert [kind for kind, _ in left] == ["table"]
    assert "ck_buoy_draft" in left[0][1]
    assert "CHECK (id > 0)" not in left[0][1]
    texts = " ".join(str(warning.message) for warning in caught)
    assert "Skipped unsupported reflection of expression-based index ix_buoy_lower" in texts
    assert ("Unnamed CHECK constraint on reflected table 'buoy'" in texts) is (ALEMBIC >= (1, 18))


async def test_required_without_default(engine: AsyncEngine, buoys: Project) -> None:
    expected = {
        "sqlite": "Cannot add a NOT NULL column with default value NULL",
        "postgresql": 'column "colour" of relation "buoy" contains null values',
    }
    if backend := expected.get(buoys.url.get_backend_name()):
        with pytest.raises(DBAPIError, match=backend):
            await run(engine, mistakes.required_without_default)
    else:
        await run(engine, mistakes.required_without_default)
        assert await buoys.table("buoy") == [(1, "North", ""), (2, "South", "")]


@pytest.mark.not_on("sqlite", reason="it can't alter a column in place")
async def test_type_that_forgets_not_null(engine: AsyncEngine, buoys: Project) -> None:
    await run(engine, mistakes.type_that_forgets_not_null)

    is_mysql = buoys.url.get_backend_name() == "mysql"
    assert (await buoys.columns("buoy"))["name"]["nullable"] is is_mysql


@pytest.mark.only_on("sqlite", reason="others do not copy the table")
async def test_a_batch_keeps_not_null(engine: AsyncEngine, buoys: Project) -> None:
    def widen(op: Operations) -> None:
        with op.batch_alter_table("buoy") as batch:
            batch.alter_column("name", type_=sa.String(80))

    await run(engine, widen)

    assert (await buoys.columns("buoy"))["name"]["nullable"] is False


async def test_rename_as_autogenerated(engine: AsyncEngine, buoys: Project) -> None:
    await run(engine, mistakes.rename_as_autogenerated)

    assert await buoys.table("buoy") == [(1, None), (2, None)]


@pytest.mark.only_on("postgresql", reason="others have no zones")
async def test_zone_without_using(engine: AsyncEngine, buoys: Project) -> None:
    await buoys.execute(
        "ALTER TABLE buoy ADD COLUMN laid_at TIMESTAMP",
        "UPDATE buoy SET laid_at = '2026-01-01 12:00:00'",
    )

    def in_new_york(op: Operations) -> None:
        op.execute("SET LOCAL TimeZone = 'America/New_York'")
        mistakes.zone_without_using(op)

    await run(engine, in_new_york)

    rows = await buoys.rows("SELECT laid_at FROM buoy")
    assert [str(row[0]) for row in rows] == ["2026-01-01 17:00:00+00:00"] * 2


@pytest.mark.only_on("postgresql", reason="only there an enum is a type")
async def test_enum_member_used_at_once(engine: AsyncEngine, buoys: Project) -> None:
    await buoys.execute("CREATE TYPE buoykind AS ENUM ('DARK')")
    await buoys.execute("ALTER TABLE buoy ADD COLUMN kind buoykind")

    with pytest.raises(DBAPIError, match='unsafe use of new value "LIT" of enum type buoykind'):
        await run(engine, mistakes.enum_member_used_at_once)


@pytest.mark.only_on("postgresql", reason="only there an enum is a type")
async def test_enum_left_behind(engine: AsyncEngine, buoys: Project) -> None:
    kind = sa.Enum("DARK", name="buoykind")

    def again(op: Operations) -> None:
        mistakes.enum_left_behind(op)
        op.create_table("buoy", sa.Column("kind", kind))

    await run(engine, again)

    with pytest.raises(DBAPIError, match='type "buoykind" already exists'):
        await run(engine, again)


@pytest.mark.only_on("postgresql", reason="others ignore the option")
async def test_concurrent_index_in_a_transaction(engine: AsyncEngine, buoys: Project) -> None:
    message = "CREATE INDEX CONCURRENTLY cannot run inside a transaction block"
    with pytest.raises(DBAPIError, match=message):
        await run(engine, mistakes.concurrent_index_in_a_transaction)


async def test_index_that_a_key_needs(engine: AsyncEngine, buoys: Project) -> None:
    key = " REFERENCES lane (id)" if buoys.url.get_backend_name() == "sqlite" else ""
    await buoys.execute("CREATE TABLE lane (id INTEGER PRIMARY KEY)")
    await buoys.execute("ALTER TABLE buoy ADD COLUMN lane_id INTEGER" + key)
    await buoys.execute("CREATE INDEX ix_buoy_lane_id ON buoy (lane_id)")
    if buoys.url.get_backend_name() != "sqlite":  # which can't add one
        await buoys.execute("ALTER TABLE buoy ADD FOREIGN KEY (lane_id) REFERENCES lane (id)")
    if buoys.url.get_backend_name() != "mysql":
        await run(engine, mistakes.index_that_a_key_needs)
        return

    message = "Cannot drop index 'ix_buoy_lane_id': needed in a foreign key constraint"
    with pytest.raises(DBAPIError, match=message):
        await run(engine, mistakes.index_that_a_key_needs)


async def test_empty_directives(tmp_path: Path, database_url: URL) -> None:
    project = Project(tmp_path, database_url, process_revision_directives=mistakes.empty_directives)
    await project.upgrade()

    with pytest.raises(IndexError, match="list index out of range"):
        await project.run("check")

    # A model that no migration has made is still seen.
    sa.Table("tug", project.metadata, sa.Column("id", sa.Integer, primary_key=True))
    with pytest.raises(Exception, match="New upgrade operations detected"):
        await project.run("check")
