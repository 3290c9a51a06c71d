"""Each change is run by revision files, up, down and up again, on tables with rows."""

from decimal import Decimal

import pytest
import sqlalchemy as sa
from migrations.project import Project
from sqlalchemy.exc import DBAPIError

from snippets.migrations.data_migrations import OfflineError
from snippets.migrations.schema_changes import UnexpectedValueError

IMPORTS = "from snippets.migrations.schema_changes import *"
POLICY = """
op.create_table(
    "policy",
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("number", sa.String(20), nullable=False, index=True),
    sa.Column("holder", sa.String(40), nullable=False),
    sa.Column("premium", sa.Double, nullable=False),
    sa.Column("state", sa.String(20)),
    sa.CheckConstraint("premium > 0", name=op.f("ck_policy_premium")),
)
op.create_table(
    "claim",
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("policy_id", sa.Integer, nullable=False),
    sa.Column("loss", sa.String(40), nullable=False),
    sa.ForeignKeyConstraint(
        ["policy_id"], ["policy.id"], name=op.f("fk_claim_policy_id_policy"), ondelete="CASCADE"
    ),
)
"""
POLICIES = [
    {"id": 1, "number": "M-1", "holder": "Ann", "premium": 0.1, "state": " Open"},
    {"id": 2, "number": "M-2", "holder": "Bo", "premium": 1234567.89, "state": "CLOSED"},
    {"id": 3, "number": "M-1", "holder": "Ann", "premium": 12.3, "state": "open"},
    {"id": 4, "number": "M-1", "holder": "Ann", "premium": 9.99, "state": None},
]
CLAIMS = [
    {"id": 1, "policy_id": 1, "loss": "hull"},
    {"id": 2, "policy_id": 3, "loss": "mast"},
    {"id": 3, "policy_id": 4, "loss": "keel"},
    {"id": 4, "policy_id": 2, "loss": "rudder"},
]


@pytest.fixture
async def project(project: Project) -> Project:
    """A database with rows, at its first revision."""
    project.revision("first", POLICY, 'op.drop_table("claim")\nop.drop_table("policy")')
    await project.upgrade()
    await project.insert("policy", *POLICIES)
    await project.insert("claim", *CLAIMS)
    return project


async def test_a_renamed_column_keeps_its_values_and_indexes(project: Project) -> None:
    project.revision(
        "rename",
        'rename_column(op, "policy", "number", "order")',  # a word that must be quoted
        'rename_column(op, "policy", "order", "number")',
        imports=IMPORTS,
    )

    await project.up_and_down("policy", "claim")

    assert [row[1] for row in await project.table("policy")] == ["M-1", "M-2", "M-1", "M-1"]
    assert (await project.columns("policy"))["order"]["nullable"] is False
    (index,) = await project.inspect("get_indexes", "policy")
    assert index["column_names"] == ["order"]


async def test_a_required_column_is_added_to_rows_and_loses_its_default_later(
    project: Project,
) -> None:
    column = 'sa.Column("currency", sa.String(3))'
    project.revision(
        "expand",
        f'add_required_column(op, "policy", {column}, "EUR")',
        'with op.batch_alter_table("policy") as batch:\n    batch.drop_column("currency")',
        imports=IMPORTS,
    )
    await project.up_and_down("policy", "claim")
    assert {row[5] for row in await project.table("policy")} == {"EUR"}
    # Old code still inserts without it.
    await project.execute(
        "INSERT INTO policy (id, number, holder, premium) VALUES (5, 'M-5', 'Cy', 1)"
    )

    project.revision("contract", f'drop_default(op, "policy", {column})', imports=IMPORTS)
    await project.upgrade()

    assert [row[5] for row in await project.table("policy")] == ["EUR"] * 5
    with pytest.raises(DBAPIError):
        await project.execute(
            "INSERT INTO policy (id, number, holder, premium) VALUES (6, 'M-6', 'Di', 1)"
        )


async def test_a_column_with_nulls_does_not_become_required(project: Project) -> None:
    project.revision(
        "require",
        'set_nullable(op, "policy", sa.Column("state", sa.String(20)), nullable=False)',
        'set_nullable(op, "policy", sa.Column("state", sa.String(20)), nullable=True)',
        imports=IMPORTS,
    )

    with pytest.raises(UnexpectedValueError, match=r"^policy\.state has 1 NULLs$"):
        await project.upgrade()

    await project.execute("UPDATE policy SET state = 'open' WHERE state IS NULL")
    await project.up_and_down("policy", "claim")
    assert (await project.columns("policy"))["state"]["nullable"] is False


async def test_amounts_become_exact_and_none_is_changed(project: Project) -> None:
    project.revision(
        "exact",
        'float_to_decimal(op, "policy", "premium")',
        'decimal_to_float(op, "policy", "premium")',
        imports=IMPORTS,
    )

    await project.up_and_down("policy", "claim")

    exact = sa.select(sa.column("premium", sa.Numeric(18, 2))).select_from(sa.text("policy"))
    assert [row[0] for row in await project.rows(exact.order_by(sa.column("id")))] == [
        Decimal("0.10"), Decimal("1234567.89"), Decimal("12.30"), Decimal("9.99"),
    ]  # fmt: skip
    premium = (await project.columns("policy"))["premium"]
    assert isinstance(premium["type"], sa.Numeric)
    assert (premium["type"].precision, premium["type"].scale) == (18, 2)
    assert premium["nullable"] is False


async def test_an_amount_that_rounding_would_change_stops_the_migration(project: Project) -> None:
    await project.execute("UPDATE policy SET premium = 12.345 WHERE id = 3")
    project.revision("exact", 'float_to_decimal(op, "policy", "premium")', imports=IMPORTS)

    with pytest.raises(UnexpectedValueError, match=r"^1 values of .* need over 2 digits"):
        await project.upgrade()

    assert await project.current() == {"first"}


STATES = {"open": "open", "closed": "closed"}
FREE_TEXT = f'add_column_of_values(op, "policy", "state", "status", {STATES})'
DROP_STATUS = """
disallow_values(op, "policy", "status")
with op.batch_alter_table("policy") as batch:
    batch.drop_column("status")
"""


async def test_free_text_becomes_allowed_values_and_one_more_comes_later(project: Project) -> None:
    project.revision("values", FREE_TEXT, DROP_STATUS, imports=IMPORTS)
    await project.up_and_down("policy", "claim")
    assert [row[5] for row in await project.table("policy")] == ["open", "closed", "open", None]
    with pytest.raises(DBAPIError, match="ck_policy_status_known"):
        await project.execute("UPDATE policy SET status = 'lapsed' WHERE id = 1")

    project.revision(
        "lapsed",
        'change_allowed_values(op, "policy", "status", ["closed", "lapsed", "open"], {})',
        'change_allowed_values(op, "policy", "status", ["closed", "open"], {"lapsed": "closed"})',
        imports=IMPORTS,
    )
    await project.up_and_down("policy", "claim")
    await project.execute("UPDATE policy SET status = 'lapsed' WHERE id = 1")
    await project.downgrade()
    assert [row[5] for row in await project.table("policy")] == ["closed", "closed", "open", None]


async def test_a_text_that_nobody_foresaw_stops_the_migration(project: Project) -> None:
    await project.execute("UPDATE policy SET state = 'Opn ' WHERE id = 2")
    project.revision("values", FREE_TEXT, DROP_STATUS, imports=IMPORTS)
    before = await project.snapshot("policy", "claim")

    with pytest.raises(UnexpectedValueError, match=r"^policy\.state has 'opn'$"):
        await project.upgrade()

    assert await project.snapshot("policy", "claim") == before


UNIQUE = """
park_duplicates(op, "policy", ["number", "holder"], "claim", "policy_id")
with op.batch_alter_table("policy") as batch:
    batch.create_unique_constraint(op.f("uq_policy_number_holder"), ["number", "holder"])
"""
NOT_UNIQUE = """
with op.batch_alter_table("policy") as batch:
    batch.drop_constraint(op.f("uq_policy_number_holder"), type_="unique")
restore_duplicates(op, "policy", "claim", "policy_id")
"""


async def test_duplicates_give_way_to_a_unique_constraint_and_come_back(project: Project) -> None:
    project.revision("unique", UNIQUE, NOT_UNIQUE, imports=IMPORTS)

    await project.up_and_down("policy", "claim")

    assert [row[0] for row in await project.table("policy")] == [1, 2]
    assert await project.table("claim") == [
        (1, 1, "hull"), (2, 1, "mast"), (3, 1, "keel"), (4, 2, "rudder"),
    ]  # fmt: skip
    with pytest.raises(DBAPIError):
        await project.execute(
            "INSERT INTO policy (id, number, holder, premium) VALUES (9, 'M-1', 'Ann', 1)"
        )


async def test_a_column_goes_in_two_steps_and_its_values_come_back(project: Project) -> None:
    holder = 'sa.Column("holder", sa.String(40))'
    project.revision(
        "optional",
        f'set_nullable(op, "policy", {holder}, nullable=True)',
        f'set_nullable(op, "policy", {holder}, nullable=False)',
        imports=IMPORTS,
    )
    project.revision(
        "dropped",
        'park_column(op, "policy", "holder")',
        f'restore_column(op, "policy", {holder})',
        imports=IMPORTS,
    )
    before = await project.rows("SELECT id, holder, premium, state FROM policy ORDER BY id")
    await project.upgrade("optional")
    await project.execute("INSERT INTO policy (id, number, premium) VALUES (5, 'M-5', 1)")

    await project.upgrade()
    assert "holder" not in await project.columns("policy")
    assert "parked_policy_holder" in await project.tables()
    await project.execute("DELETE FROM policy WHERE id = 5")
    await project.downgrade("first")

    assert await project.rows("SELECT id, holder, premium, state FROM policy ORDER BY id") == before
    assert (await project.columns("policy"))["holder"]["nullable"] is False
    assert await project.tables() == {"alembic_version", "claim", "policy"}


async def test_a_migration_that_reads_rows_says_so_offline(project: Project) -> None:
    project.revision("dropped", 'park_column(op, "policy", "holder")', imports=IMPORTS)

    with pytest.raises(OfflineError, match="run it online, not with --sql"):
        await project.run("upgrade", "first:head", sql=True)
