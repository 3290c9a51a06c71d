"""Tables as older versions of the libraries made them, with rows, up, down and up again."""

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from migrations.project import Project
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateTable

from snippets.database_setup.engine import engine_for
from snippets.models.constraints import NAMING_CONVENTION
from snippets.models.timestamps import UTCTimestamp

IMPORTS = "from snippets.migrations.version_upgrades import *"


@pytest.fixture
def backend(project: Project) -> str:
    return project.url.get_backend_name()


# --- timestamps ---

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
OLD_VOYAGES = """
op.create_table(
    "voyage",
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("sailed_at", sa.DateTime, nullable=False),
    sa.Column("landed_at", sa.DateTime),
)
"""
VOYAGE = sa.table(
    "voyage",
    sa.column("id"),
    sa.column("sailed_at", UTCTimestamp()),
    sa.column("landed_at", UTCTimestamp()),
)


@pytest.fixture
async def voyages(project: Project) -> Project:
    """Moments in UTC, as text or in columns that know no zone."""
    project.revision("first", OLD_VOYAGES, 'op.drop_table("voyage")')
    await project.upgrade()
    await project.execute(
        "INSERT INTO voyage VALUES (1, '2026-01-01 12:00:00', '2026-06-30 23:30:00')",
        "INSERT INTO voyage VALUES (2, '2026-03-29 01:30:00', NULL)",
    )
    return project


async def test_timestamps_keep_their_moment_in_any_session_time_zone(
    voyages: Project, backend: str
) -> None:
    voyages.revision(
        "utc",
        # A session whose zone is not UTC, as a server's default may be.
        """
        if op.get_context().dialect.name == "postgresql":
            op.execute("SET LOCAL TimeZone = 'America/New_York'")
        timestamps_to_utc(op, "voyage", "sailed_at", "landed_at")
        """,
        """
        if op.get_context().dialect.name == "postgresql":
            op.execute("SET LOCAL TimeZone = 'Asia/Tokyo'")
        timestamps_to_naive(op, "voyage", "sailed_at", "landed_at")
        """,
        imports=IMPORTS,
    )

    await voyages.up_and_down("voyage")

    query = sa.select(VOYAGE).order_by(VOYAGE.c.id)
    assert await voyages.rows(query) == [
        (1, NOON, datetime(2026, 6, 30, 23, 30, tzinfo=UTC)),
        (2, datetime(2026, 3, 29, 1, 30, tzinfo=UTC), None),
    ]
    columns = await voyages.columns("voyage")
    assert [columns[name]["nullable"] for name in ("sailed_at", "landed_at")] == [False, True]
    if backend == "postgresql":
        assert columns["sailed_at"]["type"].timezone is True
    precise = NOON.replace(microsecond=123456)
    await voyages.execute(sa.insert(VOYAGE).values(id=3, sailed_at=precise))
    assert (await voyages.rows(query))[2][1] == precise


# --- UUID ---

KEYS = [uuid.UUID("8c5d2fb4-1f5b-4d5e-9a86-0123456789ab"), uuid.uuid4()]
OLD_SHIPS = """
key = sa.Uuid(native_uuid=op.get_context().dialect.name == "postgresql")
op.create_table("ship", sa.Column("id", key, primary_key=True))
op.create_table(
    "berth",
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("ship_id", key),
    sa.ForeignKeyConstraint(
        ["ship_id"], ["ship.id"], name=op.f("fk_berth_ship_id_ship"), ondelete="CASCADE"
    ),
)
"""


def ship_tables(backend: str, *, native: bool) -> tuple[sa.TableClause, sa.TableClause]:
    kind: Any = sa.Uuid(native_uuid=native or backend == "postgresql")
    if native and backend == "mysql" and sa.__version__.startswith("2.0."):
        kind = sa.Uuid(native_uuid=False)  # no native type there; the server takes both forms
    return (
        sa.table("ship", sa.column("id", kind)),
        sa.table("berth", sa.column("id"), sa.column("ship_id", kind)),
    )


async def test_uuids_keep_their_value_and_their_foreign_keys(
    project: Project, backend: str
) -> None:
    project.revision("first", OLD_SHIPS, 'op.drop_table("berth")\nop.drop_table("ship")')
    await project.upgrade()
    ship, berth = ship_tables(backend, native=False)
    await project.execute(
        *[sa.insert(ship).values(id=key) for key in KEYS],
        *[sa.insert(berth).values(id=n, ship_id=key) for n, key in enumerate([*KEYS, None], 1)],
    )
    columns = '("ship", "id"), ("berth", "ship_id")'
    project.revision(
        "native", f"char_to_uuid(op, {columns})", f"uuid_to_char(op, {columns})", imports=IMPORTS
    )

    await project.up_and_down("ship", "berth")

    text = await project.rows("SELECT ship_id FROM berth ORDER BY id")
    assert [row[0] and uuid.UUID(str(row[0])) for row in text] == [*KEYS, None]
    ship, berth = ship_tables(backend, native=True)
    if backend == "mysql":
        assert str((await project.columns("ship"))["id"]["type"]) == "UUID"
        assert len(text[0][0]) == 36
    found = await project.rows(sa.select(berth.c.id).where(berth.c.ship_id == KEYS[0]))
    assert found == [(1,)]
    (key,) = await project.inspect("get_foreign_keys", "berth")
    assert key["name"] == "fk_berth_ship_id_ship"
    await project.execute(sa.delete(ship).where(ship.c.id == KEYS[0]))
    assert await project.rows("SELECT id FROM berth ORDER BY id") == [(2,), (3,)]


# --- names ---

UNNAMED = sa.MetaData()
sa.Table(
    "insurer",
    UNNAMED,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("code", sa.String(10), unique=True),
)
sa.Table(
    "treaty",
    UNNAMED,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("insurer_id", sa.ForeignKey("insurer.id", ondelete="CASCADE"), nullable=False),
    sa.Column("year", sa.Integer, server_default="2020"),
    sa.UniqueConstraint("insurer_id", "year"),
    sa.CheckConstraint("year > 1990", name="ck_treaty_year_recent"),
)


async def test_constraints_get_their_conventional_names(project: Project, backend: str) -> None:
    engine = engine_for(project.url, poolclass=NullPool)
    async with engine.begin() as connection:
        await connection.run_sync(UNNAMED.create_all)
    await engine.dispose()
    await project.insert("insurer", {"id": 1, "code": "A"}, {"id": 2, "code": "B"})
    await project.insert("treaty", {"id": 1, "insurer_id": 2, "year": 1999})
    names = """
    for table in ("insurer", "treaty"):
        name_constraints(op, table, NAMING_CONVENTION)
    """
    imports = f"{IMPORTS}\nfrom snippets.models.constraints import NAMING_CONVENTION"
    before = [await project.table(name) for name in ("insurer", "treaty")]
    project.revision("names", names, imports=imports)
    await project.upgrade()
    named = await project.snapshot("insurer", "treaty")
    project.revision("again", names, imports=imports)
    await project.upgrade()

    assert await project.snapshot("insurer", "treaty") == named
    assert [named[name]["rows"] for name in ("insurer", "treaty")] == before
    assert named["treaty"]["keys"] == [("fk_treaty_insurer_id_insurer", {"ondelete": "CASCADE"})]
    unique = [
        key["name"]
        for table in ("insurer", "treaty")
        for key in await project.inspect("get_unique_constraints", table)
    ]
    assert unique == ["uq_insurer_code", "uq_treaty_insurer_id_year"]
    assert named["treaty"]["checks"] == {"ck_treaty_year_recent"}
    primary = await project.inspect("get_pk_constraint", "insurer")
    assert primary["name"] == (None if backend == "mysql" else "pk_insurer")
    with pytest.raises(DBAPIError):
        await project.insert("insurer", {"id": 3, "code": "A"})


async def test_names_that_are_too_long_are_those_of_the_models(project: Project) -> None:
    name, column = "a_table_with_quite_a_long_name_indeed", "the_first_column_with_a_long_name"

    def of(metadata: sa.MetaData) -> sa.Table:
        columns = [sa.Column(column, sa.Integer), sa.Column("second", sa.Integer)]
        key = sa.Column("id", sa.Integer, primary_key=True)
        return sa.Table(name, metadata, key, *columns, sa.UniqueConstraint(column, "second"))

    for metadata in (sa.MetaData(), sa.MetaData(naming_convention=NAMING_CONVENTION)):
        await project.execute(f"DROP TABLE IF EXISTS {name}", CreateTable(of(metadata)))
        (wanted,) = await project.inspect("get_unique_constraints", name)
    await project.execute(f"DROP TABLE {name}", CreateTable(of(sa.MetaData())))
    imports = f"{IMPORTS}\nfrom snippets.models.constraints import NAMING_CONVENTION"
    for revision in ("names", "again"):
        project.revision(
            revision, f"name_constraints(op, {name!r}, NAMING_CONVENTION)", imports=imports
        )

        await project.upgrade()

        (found,) = await project.inspect("get_unique_constraints", name)
        assert found["name"] == wanted["name"]


# --- enums ---

OLD_SURVEYS = """
op.create_table(
    "survey",
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("grade", sa.Enum("FAIR", "GOOD", name="grade"), nullable=False),
)
"""
DROP_SURVEYS = """
op.drop_table("survey")
if op.get_context().dialect.name == "postgresql":
    op.execute("DROP TYPE grade")
"""
GRADE = 'sa.Enum("FAIR", "GOOD", name="grade")'


@pytest.fixture
async def surveys(project: Project) -> Project:
    project.revision("first", OLD_SURVEYS, DROP_SURVEYS)
    await project.upgrade()
    await project.execute("INSERT INTO survey VALUES (1, 'GOOD'), (2, 'FAIR'), (3, 'GOOD')")
    return project


async def test_an_enum_of_names_becomes_text_of_values(surveys: Project, backend: str) -> None:
    values = {"FAIR": "fair", "GOOD": "very good"}
    arguments = f'op, "survey", "grade", {GRADE}, {values}'
    surveys.revision(
        "text", f"enum_to_text({arguments})", f"text_to_enum({arguments})", imports=IMPORTS
    )

    await surveys.up_and_down("survey")

    assert await surveys.table("survey") == [(1, "very good"), (2, "fair"), (3, "very good")]
    grade = (await surveys.columns("survey"))["grade"]
    assert (grade["type"].length, grade["nullable"]) == (30, False)
    if backend == "postgresql":
        assert await surveys.rows("SELECT typname FROM pg_type WHERE typname = 'grade'") == []


async def test_names_may_be_longer_than_the_values(project: Project) -> None:
    long = "A" * 40
    enum = f'sa.Enum("{long}", "B", name="deck")'
    project.revision(
        "first",
        'op.create_table("hold", sa.Column("id", sa.Integer, primary_key=True),'
        f' sa.Column("deck", {enum}, server_default="{long}"))',
    )
    arguments = f'op, "hold", "deck", {enum}, {{"{long}": "upper", "B": "lower"}}'
    project.revision(
        "text", f"enum_to_text({arguments})", f"text_to_enum({arguments})", imports=IMPORTS
    )
    project.revision(
        "lost",
        f"text_to_enum({arguments})\n"
        f'remove_enum_member(op, "hold", "deck", sa.Enum("B", name="deck"), "{long}",'
        ' replacement="B")',
        imports=IMPORTS,
    )
    await project.upgrade("first")
    await project.execute("INSERT INTO hold (id) VALUES (1)")

    await project.upgrade("text")
    assert await project.table("hold") == [(1, "upper")]
    assert (await project.columns("hold"))["deck"]["type"].length == 30
    await project.downgrade()
    assert await project.table("hold") == [(1, long)]
    await project.upgrade()

    assert await project.table("hold") == [(1, "B")]


async def add_member(surveys: Project, member: str) -> None:
    """Add it to the enum; a row with it is read as it was written."""
    surveys.revision(
        "more", f'add_enum_member(op, "survey", "grade", {GRADE}, {member!r})', imports=IMPORTS
    )
    await surveys.upgrade()

    await surveys.insert("survey", {"id": 4, "grade": member})

    assert (await surveys.table("survey"))[3] == (4, member)


@pytest.mark.parametrize("member", [" :x", "(:x)", "a:b", "x::y :z", "50%", "it's"])
async def test_a_member_may_have_any_sign(surveys: Project, member: str) -> None:
    await add_member(surveys, member)


@pytest.mark.only_on("postgresql", reason="on MariaDB SQLAlchemy 2.0 loses the backslash")
async def test_a_member_may_have_a_backslash(surveys: Project) -> None:
    await add_member(surveys, r"\:x")


async def test_a_name_may_be_the_value_of_another(surveys: Project) -> None:
    values = {"FAIR": "GOOD", "GOOD": "FAIR"}
    arguments = f'op, "survey", "grade", {GRADE}, {values}'
    surveys.revision(
        "text", f"enum_to_text({arguments})", f"text_to_enum({arguments})", imports=IMPORTS
    )

    await surveys.up_and_down("survey")

    assert await surveys.table("survey") == [(1, "FAIR"), (2, "GOOD"), (3, "FAIR")]


OLD_CHARTS = """
grade = sa.Enum("FAIR", "GOOD", name="Grade")
op.create_table(
    "chart",
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("grade", grade, nullable=False, server_default="GOOD", comment="of today"),
)
"""
CHART_GRADE = GRADE.replace('"grade"', '"Grade"')  # a name that must be quoted


@pytest.fixture
async def charts(project: Project) -> Project:
    """A column with a default and a comment, and on PostgreSQL a type with a capital letter."""
    project.revision("first", OLD_CHARTS)
    await project.upgrade()
    await project.execute("INSERT INTO chart (id) VALUES (1)")
    return project


async def default_of(project: Project) -> str:
    """Return what a row that names no grade gets; the column has kept the rest."""
    grade = (await project.columns("chart"))["grade"]
    assert grade["nullable"] is False
    if project.url.get_backend_name() != "sqlite":  # which has no comments
        assert grade["comment"] == "of today"
    await project.execute("DELETE FROM chart WHERE id = 2", "INSERT INTO chart (id) VALUES (2)")
    (row,) = await project.rows("SELECT grade FROM chart WHERE id = 2")
    return str(row[0])


async def test_a_default_becomes_a_value_and_a_name_again(charts: Project) -> None:
    arguments = f"""op, "chart", "grade", {CHART_GRADE}, {{"FAIR": "it's fair", "GOOD": "good"}}"""
    charts.revision(
        "text", f"enum_to_text({arguments})", f"text_to_enum({arguments})", imports=IMPORTS
    )

    await charts.upgrade()
    assert await default_of(charts) == "good"
    await charts.downgrade()

    assert await default_of(charts) == "GOOD"


async def test_a_new_member_leaves_the_default_and_a_lost_one_is_replaced_there_too(
    charts: Project,
) -> None:
    charts.revision(
        "poor", f'add_enum_member(op, "chart", "grade", {CHART_GRADE}, "POOR")', imports=IMPORTS
    )
    grade = 'sa.Enum("FAIR", "POOR", name="Grade")'
    charts.revision(
        "good",
        f'remove_enum_member(op, "chart", "grade", {grade}, "GOOD", replacement="FAIR")',
        imports=IMPORTS,
    )

    await charts.upgrade("poor")
    assert await default_of(charts) == "GOOD"
    await charts.upgrade()

    assert await default_of(charts) == "FAIR"
    assert await charts.rows("SELECT grade FROM chart WHERE id = 1") == [("FAIR",)]


async def test_a_default_with_a_colon_becomes_a_value(charts: Project) -> None:
    arguments = f"""op, "chart", "grade", {CHART_GRADE}, {{"FAIR": "fair", "GOOD": "a:1 :x"}}"""
    charts.revision(
        "text", f"enum_to_text({arguments})", f"text_to_enum({arguments})", imports=IMPORTS
    )

    await charts.upgrade()
    assert await default_of(charts) == "a:1 :x"
    await charts.downgrade()

    assert await default_of(charts) == "GOOD"


@pytest.mark.only_on("postgresql", reason="elsewhere no two columns share an enum")
async def test_a_member_is_lost_by_all_columns_that_have_the_type(surveys: Project) -> None:
    kind = 'postgresql.ENUM(name="grade", create_type=False)'
    surveys.revision(
        "others",
        f"""
        op.add_column("survey", sa.Column("last", {kind}, server_default="GOOD"))
        op.create_table(
            "Pilot", sa.Column("id", sa.Integer), sa.Column("order", {kind}), sa.Column("n", {kind})
        )
        op.execute("CREATE TABLE part (extra INTEGER) INHERITS (survey)")
        op.execute("CREATE VIEW plain AS SELECT id FROM survey")
        """,
        imports="from sqlalchemy.dialects import postgresql",
    )
    surveys.revision(
        "good",
        'remove_enum_member(op, "survey", "grade", sa.Enum("FAIR", name="grade"), "GOOD",'
        ' replacement="FAIR")',
        imports=IMPORTS,
    )
    await surveys.upgrade("others")
    await surveys.execute(
        """INSERT INTO "Pilot" VALUES (1, 'GOOD', 'FAIR')""",
        "INSERT INTO part VALUES (9, 'GOOD', 'GOOD', 1)",
    )

    await surveys.upgrade()

    await surveys.execute("INSERT INTO survey VALUES (4, 'FAIR')")
    found = [row[1:] for row in await surveys.table("survey")]
    assert found == [("FAIR", "FAIR")] * 5
    assert await surveys.table("Pilot") == [(1, "FAIR", "FAIR")]
    types = await surveys.rows("SELECT typname FROM pg_type WHERE typname LIKE 'grade%'")
    assert types == [("grade",)]


async def test_a_type_stays_until_its_last_column_is_text(surveys: Project, backend: str) -> None:
    text = f'{GRADE}, {{"FAIR": "fair", "GOOD": "good"}}'
    kind = 'sa.Enum("FAIR", "GOOD", name="grade", metadata=sa.MetaData())'
    if backend == "postgresql":
        kind = 'postgresql.ENUM(name="grade", create_type=False)'
    surveys.revision(
        "second",
        f'op.add_column("survey", sa.Column("hull", {kind}))',
        imports="from sqlalchemy.dialects import postgresql",
    )
    columns = ("grade", "hull")
    surveys.revision(
        "text",
        "\n".join(f'enum_to_text(op, "survey", "{column}", {text})' for column in columns),
        "\n".join(f'text_to_enum(op, "survey", "{column}", {text})' for column in columns),
        imports=IMPORTS,
    )

    await surveys.upgrade("second")
    await surveys.up_and_down("survey")

    assert (await surveys.table("survey"))[0] == (1, "good", None)


async def test_an_unknown_member_is_stored_on_sqlite_alone(surveys: Project, backend: str) -> None:
    unknown = "INSERT INTO survey VALUES (4, 'UNKNOWN')"
    if backend == "sqlite":
        await surveys.execute(unknown)
        return

    with pytest.raises(DBAPIError):
        await surveys.execute(unknown)


async def test_an_enum_gets_a_member_and_loses_it_again(surveys: Project, backend: str) -> None:
    surveys.revision(
        "poor",
        f'add_enum_member(op, "survey", "grade", {GRADE}, "UNACCEPTABLE")\n'
        "op.execute(\"INSERT INTO survey VALUES (4, 'UNACCEPTABLE')\")",
        'op.execute("DELETE FROM survey WHERE id = 4")\n'
        f'remove_enum_member(op, "survey", "grade", {GRADE}, "UNACCEPTABLE", replacement="FAIR")',
        imports=IMPORTS,
    )

    await surveys.up_and_down("survey")
    await surveys.execute("UPDATE survey SET grade = 'UNACCEPTABLE' WHERE id = 1")
    await surveys.downgrade()

    assert await surveys.table("survey") == [(1, "FAIR"), (2, "FAIR"), (3, "GOOD")]
    grade = (await surveys.columns("survey"))["grade"]
    assert grade["nullable"] is False
    if backend != "sqlite":
        assert grade["type"].enums == ["FAIR", "GOOD"]
