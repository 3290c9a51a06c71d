import io
import os
import re
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from migrations.project import ALEMBIC, SCRIPT_DIRECTORY, Project
from sqlalchemy import URL
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import NullPool
from sqlmodel import Field, SQLModel

from snippets.database_setup.engine import engine_for
from snippets.database_setup.urls import with_password
from snippets.migrations import environment
from snippets.migrations.autogenerate import DestructiveRevisionError
from snippets.migrations.environment import DanglingReferenceError
from snippets.models.columns import LONG_BYTES, Duration
from snippets.models.constraints import NAMING_CONVENTION
from snippets.models.enums_and_json import DispatchStatus, enum_by_value, json_type
from snippets.models.timestamps import UTCTimestamp, server_utc_now

ROOT = Path(__file__).parents[2]
CREATE = 'op.create_table("tug", sa.Column("id", sa.Integer, primary_key=True))'


# --- the files, as a project has them, from the command line ---


RUN = "import sys; from alembic.config import main; [main(argv=c.split()) for c in sys.argv[1:]]"


def alembic(folder: Path, *commands: str, url: URL) -> "subprocess.CompletedProcess[str]":
    """Run several command lines in one process."""
    variables = os.environ | {
        "DATABASE_URL": with_password(url),
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    line = [sys.executable, "-c", RUN, *commands]
    return subprocess.run(
        line, cwd=folder, env=variables, capture_output=True, text=True, check=False
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project's folder, whose path has a percent sign."""
    folder = tmp_path / "100%"
    migrations = folder / "migrations"
    (migrations / "versions").mkdir(parents=True)
    for name in ("env.py", "script.py.mako"):
        shutil.copy(SCRIPT_DIRECTORY / name, migrations)
    return folder


async def test_the_files_migrate_the_models_of_an_application(
    folder: Path, database_url: URL
) -> None:
    shutil.copy(SCRIPT_DIRECTORY / "alembic.ini", folder)

    result = alembic(
        folder,
        "revision --autogenerate -m first",
        "upgrade head",
        "check",
        "downgrade base",
        url=database_url,
    )

    assert result.returncode == 0, result.stderr
    assert "No new upgrade operations detected.\n" in result.stdout
    assert "INFO [alembic.runtime.migration] Running downgrade" in result.stderr


@pytest.mark.only_on("sqlite", reason="about the files alone")
async def test_pyproject_replaces_alembic_ini_from_1_16_on(folder: Path, database_url: URL) -> None:
    shutil.copy(SCRIPT_DIRECTORY / "pyproject.toml", folder)
    if ALEMBIC < (1, 16):
        (folder / "alembic.ini").write_text("[alembic]\n")

    shown = alembic(folder, "upgrade head", url=database_url)

    if ALEMBIC < (1, 16):
        assert "No 'script_location' key found in configuration" in shown.stdout + shown.stderr
    else:
        assert shown.returncode == 0, shown.stdout + shown.stderr


# --- the URL ---


@pytest.mark.only_on("sqlite", reason="a file's name can have any character")
async def test_a_url_with_percent_signs_is_used_as_it_is(project: Project, tmp_path: Path) -> None:
    project.url = URL.create("sqlite+aiosqlite", database=str(tmp_path / "50%40 off.db"))
    project.config = project.new_config()
    project.config.attributes |= {"metadata": project.metadata, "options": {}}
    project.revision("first", CREATE)

    await project.upgrade()

    assert (tmp_path / "50%40 off.db").exists()
    assert "tug" in await project.tables()


async def test_without_a_url_the_settings_are_read(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", with_password(project.url))
    del project.config.attributes["database_url"]
    project.revision("first", CREATE)

    await project.upgrade()

    assert "tug" in await project.tables()


# --- online, offline, on a given connection ---


async def test_sql_is_written_without_a_connection(project: Project) -> None:
    host = project.url.set(host="nowhere.invalid") if project.url.host else project.url
    project.config.attributes["database_url"] = host
    project.revision(
        "first",
        f'{CREATE}\nop.bulk_insert(sa.table("tug", sa.column("id", sa.Integer)), [{{"id": 7}}])',
    )

    await project.run("upgrade", "head", sql=True)

    sql = project.output.getvalue()
    assert re.search(r"CREATE TABLE tug \(", sql)
    assert "INSERT INTO tug (id) VALUES (7)" in sql
    assert "INSERT INTO alembic_version (version_num) VALUES ('first')" in sql


async def test_a_program_hands_over_its_connection(project: Project) -> None:
    project.revision("first", CREATE)
    engine = engine_for(project.url, poolclass=NullPool)

    def upgrade(connection: sa.Connection) -> None:
        project.config.attributes["connection"] = connection
        command.upgrade(project.config, "head")

    async with engine.connect() as connection:
        await connection.run_sync(upgrade)
        await connection.commit()
    await engine.dispose()

    assert await project.current() == {"first"}


GIVEN = pytest.mark.only_on("sqlite", reason="elsewhere no table is copied")


async def run_on_given(project: Project, connection: AsyncConnection, name: str) -> None:
    def run(given: sa.Connection) -> None:
        project.config.attributes["connection"] = given
        try:
            getattr(command, name)(project.config, "head")
        finally:
            del project.config.attributes["connection"]

    await connection.run_sync(run)


async def keys_are_on(connection: AsyncConnection) -> bool:
    found = (await connection.exec_driver_sql("PRAGMA foreign_keys")).scalar_one()
    await connection.rollback()
    return bool(found)


@GIVEN
async def test_a_given_connection_keeps_the_rows_that_refer_to_a_copied_table(
    fleet: Project, engine: AsyncEngine
) -> None:
    fleet.revision("second", WIDEN.format(', recreate="always"'))
    fleet.revision("third", "raise RuntimeError('no')")

    async with engine.connect() as connection:
        with pytest.raises(RuntimeError, match=r"^no$"):
            await run_on_given(fleet, connection, "upgrade")
        assert await keys_are_on(connection)

    assert await fleet.current() == {"second"}
    assert await fleet.table("tug") == [(1, 900, 1)]


@GIVEN
async def test_a_given_connection_gets_its_foreign_keys_back_when_nothing_was_to_be_done(
    project: Project, engine: AsyncEngine
) -> None:
    async with engine.connect() as connection:
        await run_on_given(project, connection, "upgrade")
        assert await keys_are_on(connection)


@GIVEN
async def test_a_given_connection_with_a_transaction_needs_its_foreign_keys_off(
    fleet: Project, engine: AsyncEngine
) -> None:
    fleet.revision("second", WIDEN.format(', recreate="always"'))

    async with engine.begin() as connection:
        with pytest.raises(RuntimeError, match=r"^end the transaction before you hand over the"):
            await run_on_given(fleet, connection, "upgrade")
    assert await fleet.current() == {"first"}
    assert await fleet.table("tug") == [(1, 900, 1)]

    def switch_off(dbapi_connection: Any, _record: Any) -> None:
        dbapi_connection.cursor().execute("PRAGMA foreign_keys = OFF")

    sa.event.listen(engine.sync_engine, "connect", switch_off)
    await engine.dispose()
    async with engine.begin() as connection:
        await run_on_given(fleet, connection, "upgrade")

    assert await fleet.current() == {"second"}
    assert await fleet.table("tug") == [(1, 900, 1)]


async def test_each_migration_is_a_transaction_of_its_own(project: Project) -> None:
    project.revision("first", CREATE)
    project.revision("second", "op.drop_table('tug')\nop.execute('SELECT nothing')")

    with pytest.raises(sa.exc.DBAPIError):
        await project.upgrade()

    assert await project.current() == {"first"}
    kept = "tug" in await project.tables()
    assert kept is (project.url.get_backend_name() != "mysql")  # MariaDB has dropped it


@pytest.mark.only_on("sqlite", reason="about the logging alone")
async def test_the_logging_is_set_up_on_the_command_line_alone(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    monkeypatch.setattr(environment, "fileConfig", lambda file, **_options: read.append(file))
    project.config.config_file_name = str(SCRIPT_DIRECTORY / "alembic.ini")

    await project.upgrade()
    assert read == []

    project.config.cmd_opts = Namespace(x=None)
    await project.upgrade()
    assert read == [SCRIPT_DIRECTORY / "alembic.ini"]


# --- batch mode ---

FLEET = """
op.create_table("fleet", sa.Column("id", sa.Integer, primary_key=True))
op.create_table(
    "tug",
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("power", sa.Integer),
    sa.Column(
        "fleet_id",
        sa.Integer,
        sa.ForeignKey("fleet.id", name=op.f("fk_tug_fleet_id_fleet"), ondelete="CASCADE"),
    ),
)
"""


@pytest.fixture
async def fleet(project: Project) -> Project:
    """A fleet with a tug, at the first revision."""
    project.revision("first", FLEET)
    await project.upgrade()
    await project.execute("INSERT INTO fleet VALUES (1)", "INSERT INTO tug VALUES (1, 900, 1)")
    return project


WIDEN = """
with op.batch_alter_table("fleet"{}) as batch:
    batch.add_column(sa.Column("name", sa.String(20)))
"""


async def test_a_copied_table_keeps_the_rows_that_refer_to_it(fleet: Project) -> None:
    is_sqlite = fleet.url.get_backend_name() == "sqlite"
    fleet.revision("second", WIDEN.format(', recreate="always"' if is_sqlite else ""))

    await fleet.upgrade()

    assert await fleet.table("tug") == [(1, 900, 1)]
    assert await fleet.table("fleet") == [(1, None)]


@pytest.mark.only_on("sqlite", reason="its foreign keys are off while a migration runs")
async def test_rows_that_refer_to_nothing_are_reported(fleet: Project) -> None:
    fleet.revision("second", "op.execute('DELETE FROM fleet')")

    with pytest.raises(DanglingReferenceError, match=r"^rows of tug refer to rows that are not"):
        await fleet.upgrade()

    assert await fleet.table("fleet") == [(1,)]
    assert await fleet.current() == {"first"}


@pytest.mark.only_on("sqlite", reason="elsewhere no table is copied")
async def test_a_copied_table_keeps_its_defaults_checks_and_indexes_to_the_letter(
    project: Project,
) -> None:
    made = """
    CREATE TABLE tug (
        id INTEGER PRIMARY KEY,
        crew VARCHAR(40) DEFAULT '{"a":1, "b":":x"}',
        flag VARCHAR(9),
        CONSTRAINT ck_tug_flag CHECK (flag IN ('50%', 'it''s', ' :x'))
    )
    """
    await project.execute(
        sa.text(made.replace(":", r"\:")),
        sa.text(r"CREATE UNIQUE INDEX ix_tug_flag ON tug (flag) WHERE crew <> '{\:x}'"),
    )
    widen = """
    with op.batch_alter_table("tug") as batch:
        batch.alter_column("flag", type_=sa.String(20))
        batch.add_column(sa.Column("port", sa.JSON, server_default={}))
        batch.create_check_constraint(
            op.f("ck_tug_id"), sa.text("id < :most").bindparams(most=9)
        )
    """
    project.revision("first", widen.format(repr('{"a":2}')))

    await project.upgrade()

    await project.execute("INSERT INTO tug (id, flag) VALUES (1, '50%')")
    assert await project.table("tug") == [(1, '{"a":1, "b":":x"}', "50%", '{"a":2}')]
    await project.insert("tug", {"id": 2, "flag": " :x"}, {"id": 3, "flag": "it's"})
    for flag, number in (("other", 4), ("50%", 5), (None, 9)):  # CHECK, unique index, new CHECK
        with pytest.raises(sa.exc.IntegrityError):
            await project.insert("tug", {"id": number, "flag": flag})
    await project.insert("tug", {"id": 6, "flag": "50%", "crew": "{:x}"})


# --- what autogenerate writes, and what it leaves out ---


class Apart(SQLModel):
    metadata = sa.MetaData(naming_convention=NAMING_CONVENTION)


class Lighter(Apart, table=True):
    __table_args__ = (
        sa.CheckConstraint("length > 0", name="long"),
        sa.Index("ix_lighter_name_lower", sa.text("lower(name)")).ddl_if(dialect="postgresql"),
    )

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=40, index=True)
    remark: str = ""
    length: int = 1
    built_at: Any = Field(
        default=None,
        sa_type=UTCTimestamp,
        nullable=True,
        sa_column_kwargs={"server_default": server_utc_now()},
    )
    bought_at: Any = Field(default=None, sa_type=UTCTimestamp(with_zone=False), nullable=True)
    status: DispatchStatus = Field(sa_type=enum_by_value(DispatchStatus))
    papers: dict[str, Any] = Field(default_factory=dict, sa_type=json_type())
    names: list[str] = Field(
        sa_type=sa.JSON().with_variant(sa.dialects.postgresql.ARRAY(sa.Text()), "postgresql")
    )
    moments: list[Any] = Field(
        sa_type=sa.JSON().with_variant(sa.dialects.postgresql.ARRAY(UTCTimestamp()), "postgresql")
    )
    laytime: Any = Field(default=None, sa_type=Duration, nullable=True)
    plan: bytes = Field(default=b"", sa_type=LONG_BYTES)


# SQLite can't say what it has; Alembic says so before it asks whether the index is ours.
UNSEEN_INDEX = pytest.mark.filterwarnings("ignore:autogenerate skipping metadata-specified exp")


class LighterSummary(Apart, table=True):
    """A view."""

    __table_args__ = {"info": {"unmanaged": True}}

    id: int = Field(primary_key=True)


@pytest.fixture
def lighters(tmp_path: Path, database_url: URL) -> Project:
    return Project(tmp_path, database_url, Apart.metadata)


@UNSEEN_INDEX
async def test_a_generated_migration_runs_and_the_check_is_quiet(lighters: Project) -> None:
    await lighters.run("revision", "first", autogenerate=True, rev_id="first")

    await lighters.upgrade()

    await lighters.run("check")
    assert "No new upgrade operations detected." in lighters.output.getvalue()
    assert await lighters.tables() == {"alembic_version", "lighter"}
    (file,) = lighters.versions.glob("first*.py")
    text = file.read_text()
    assert 'sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "m' in text
    assert 'sa.DateTime(timezone=False).with_variant(mysql.DATETIME(fsp=6), "mysql", "m' in text
    assert "sa.String(length=40)" in text
    assert 'sa.String().with_variant(sa.String(length=255), "mysql", "mariadb")' in text
    assert "postgresql.JSONB(none_as_null=True)" in text
    assert "postgresql.ARRAY(sa.Text())" in text
    assert "postgresql.ARRAY(sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6)" in text
    assert "sa.LargeBinary().with_variant(mysql.LONGBLOB(), " in text
    assert "import snippets.models.columns\n" in text  # a type that nobody has described
    clock = {"sqlite": "strftime", "postgresql": "CURRENT_TIMESTAMP", "mysql": "UTC_TIMESTAMP(6)"}
    assert clock[lighters.url.get_backend_name()] in text
    has_index = lighters.url.get_backend_name() == "postgresql"
    assert ("ix_lighter_name_lower" in text) is has_index
    await lighters.downgrade("base")
    assert await lighters.tables() == {"alembic_version"}


@UNSEEN_INDEX
async def test_without_our_hooks_alembic_writes_what_does_not_run(lighters: Project) -> None:
    options = {"render_item": lambda *_item: False, "include_object": lambda *_item: True}
    lighters.config.attributes["options"] = options

    await lighters.run("revision", "first", autogenerate=True, rev_id="first")

    (file,) = lighters.versions.glob("first*.py")
    text = file.read_text()
    assert "sqlmodel.sql.sqltypes.AutoString(length=40)" in text
    if lighters.url.get_backend_name() != "postgresql":  # there it knows better
        assert "astext_type=Text()" in text
        assert "postgresql.ARRAY(Text())" in text
    if lighters.url.get_backend_name() == "mysql":
        assert "ix_lighter_name_lower" in text  # in spite of ddl_if


@UNSEEN_INDEX
async def test_tables_that_migrations_parked_are_left_alone(lighters: Project) -> None:
    await lighters.execute("CREATE TABLE parked_lighter (id INTEGER)")
    await lighters.run("revision", "first", autogenerate=True, rev_id="first")
    await lighters.upgrade()

    await lighters.run("check")

    assert "parked_lighter" in await lighters.tables()
    await lighters.execute("CREATE TABLE stray (id INTEGER)")
    with pytest.raises(DestructiveRevisionError, match="this drops stray"):
        await lighters.run("check")


async def test_without_a_script_directory_the_path_is_named(tmp_path: Path) -> None:
    config = Config(stdout=io.StringIO())
    config.set_main_option("script_location", str(tmp_path / "nowhere"))
    config.set_main_option("path_separator", "os")

    with pytest.raises(CommandError, match="nowhere"):
        command.upgrade(config, "head")


def test_the_variant_is_what_the_model_has_on_mariadb() -> None:
    kind = UTCTimestamp().load_dialect_impl(mysql.dialect())
    assert isinstance(kind, mysql.DATETIME)
    assert kind.fsp == 6
