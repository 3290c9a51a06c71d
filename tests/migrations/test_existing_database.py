from pathlib import Path

import pytest
import sqlalchemy as sa
from migrations.project import Project
from sqlalchemy import URL
from sqlalchemy.pool import NullPool

from snippets.database_setup.engine import engine_for
from snippets.migrations.existing_database import PartialDatabaseError, stamp
from snippets.models.constraints import NAMING_CONVENTION

METADATA = sa.MetaData(naming_convention=NAMING_CONVENTION)
sa.Table("broker", METADATA, sa.Column("id", sa.Integer, primary_key=True))
sa.Table(
    "mandate",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("broker_id", sa.ForeignKey("broker.id"), nullable=False, index=True),
)
BASELINE = """
if not is_empty_database(op, ["broker", "mandate"]):
    return
op.create_table(
    "broker",
    sa.Column("id", sa.Integer, nullable=False),
    sa.PrimaryKeyConstraint("id", name=op.f("pk_broker")),
)
op.create_table(
    "mandate",
    sa.Column("id", sa.Integer, nullable=False),
    sa.Column("broker_id", sa.Integer, nullable=False),
    sa.ForeignKeyConstraint(
        ["broker_id"], ["broker.id"], name=op.f("fk_mandate_broker_id_broker")
    ),
    sa.PrimaryKeyConstraint("id", name=op.f("pk_mandate")),
)
op.create_index(op.f("ix_mandate_broker_id"), "mandate", ["broker_id"])
"""
NOTE = """
with op.batch_alter_table("mandate") as batch:
    batch.add_column(sa.Column("note", sa.String(20), server_default="none"))
"""


@pytest.fixture
def project(tmp_path: Path, database_url: URL) -> Project:
    project = Project(tmp_path, database_url, METADATA)
    project.revision(
        "baseline",
        BASELINE,
        imports="from snippets.migrations.existing_database import is_empty_database",
    )
    return project


async def create_all(project: Project) -> None:
    """What the application did before it had migrations."""
    engine = engine_for(project.url, poolclass=NullPool)
    async with engine.begin() as connection:
        await connection.run_sync(METADATA.create_all)
    await engine.dispose()
    await project.execute("INSERT INTO broker VALUES (1)", "INSERT INTO mandate VALUES (1, 1)")


async def test_one_command_serves_an_empty_database(project: Project) -> None:
    await project.upgrade()

    await project.run("check")
    assert await project.current() == {"baseline"}


async def test_one_command_serves_a_full_database(project: Project) -> None:
    await create_all(project)
    project.revision("note", NOTE)

    await project.upgrade()

    assert await project.current() == {"note"}
    assert await project.table("mandate") == [(1, 1, "none")]


async def test_both_have_the_same_names_afterwards(project: Project) -> None:
    await create_all(project)
    await project.upgrade()
    full = await project.snapshot("broker", "mandate")
    for name in ("mandate", "broker", "alembic_version"):
        await project.execute(f"DROP TABLE {name}")

    await project.upgrade()
    await project.execute("INSERT INTO broker VALUES (1)", "INSERT INTO mandate VALUES (1, 1)")

    assert await project.snapshot("broker", "mandate") == full


async def test_a_database_with_some_of_the_tables_is_refused(project: Project) -> None:
    await project.execute("CREATE TABLE broker (id INTEGER PRIMARY KEY)")

    with pytest.raises(PartialDatabaseError, match=r"^the database lacks mandate$"):
        await project.upgrade()

    assert await project.tables() - {"alembic_version"} == {"broker"}


async def test_offline_the_tables_are_written(project: Project) -> None:
    await project.run("upgrade", "head", sql=True)

    assert "CREATE TABLE mandate" in project.output.getvalue()


async def test_a_stamp_runs_nothing(project: Project) -> None:
    await create_all(project)
    project.revision("note", NOTE)
    engine = engine_for(project.url, poolclass=NullPool)

    await stamp(engine, project.config, "note")
    await engine.dispose()

    assert await project.current() == {"note"}
    assert await project.table("mandate") == [(1, 1)]
