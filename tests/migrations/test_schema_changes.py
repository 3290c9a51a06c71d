"""Each change is run by revision files, up, down and up again, on tables with rows."""

import uuid
from decimal import Decimal

import pytest
import sqlalchemy as sa
from migrations.project import Project
from sqlalchemy.exc import DBAPIError

from snippets.migrations.data_migrations import OfflineError
from snippets.migrations.schema_changes import UnexpectedValueError, parked_name
from snippets.models.timestamps import UTCTimestamp, utc_now

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


async def test_a_column_gets_the_moment_of_the_migration_and_no_default(project: Project) -> None:
    project.revision(
        "fill",
        'add_filled_column(op, "policy", sa.Column("order", UTCTimestamp()), utc_now())',
        'with op.batch_alter_table("policy") as batch:\n    batch.drop_column("order")',
        imports=f"{IMPORTS}\nfrom snippets.models.timestamps import UTCTimestamp, utc_now",
    )
    at_first = await project.snapshot("policy", "claim")
    await project.upgrade()
    await project.downgrade()
    assert await project.snapshot("policy", "claim") == at_first

    before = utc_now()
    await project.upgrade()

    order = sa.select(sa.column("order", UTCTimestamp())).select_from(sa.text("policy"))
    moments = [row[0] for row in await project.rows(order)]
    assert len(moments) == 4
    assert len({*moments}) == 1
    assert before <= moments[0] <= utc_now()
    column = (await project.columns("policy"))["order"]
    assert (column["nullable"], column["default"]) == (False, None)


async def test_a_column_that_becomes_required_keeps_its_default_and_its_comment(
    project: Project,
) -> None:
    column = 'sa.Column("days", sa.Integer, server_default="7", comment="of notice")'
    project.revision("add", f'op.add_column("policy", {column})')
    project.revision(
        "require",
        'op.execute("UPDATE policy SET days = 7")\n'
        'set_nullable(op, "policy", sa.Column("days", sa.Integer), nullable=False)',
        imports=IMPORTS,
    )

    await project.upgrade()

    days = (await project.columns("policy"))["days"]
    assert (days["nullable"], str(days["default"]).strip("'")) == (False, "7")
    if project.url.get_backend_name() != "sqlite":  # which has no comments
        assert days["comment"] == "of notice"


@pytest.mark.only_on("mysql", reason="it alone writes a column anew")
async def test_a_column_that_becomes_required_keeps_its_collation_and_its_check(
    project: Project,
) -> None:
    await project.execute(
        "CREATE TABLE port (id INTEGER PRIMARY KEY, facts JSON,"
        " code VARCHAR(9) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin UNIQUE)",
        "INSERT INTO port VALUES (1, '{}', 'a'), (2, '{}', 'A')",
    )
    project.revision(
        "require",
        'set_nullable(op, "port", sa.Column("code", sa.String(9)), nullable=False)\n'
        'set_nullable(op, "port", sa.Column("facts", sa.JSON), nullable=False)',
        imports=IMPORTS,
    )

    await project.upgrade()  # case-insensitive, the two codes would be one

    columns = await project.columns("port")
    assert [columns[name]["nullable"] for name in ("code", "facts")] == [False, False]
    assert columns["code"]["type"].collation == "utf8mb4_bin"
    with pytest.raises(DBAPIError, match="CONSTRAINT"):
        await project.execute("INSERT INTO port VALUES (3, 'no JSON', 'c')")


async def test_a_default_of_json_stays_as_it_was_written(project: Project) -> None:
    facts = """{"a":1, "b":":x", "c":"50%"}"""
    column = f'sa.Column("facts", sa.String(40), server_default={facts!r})'
    project.revision("add", f'op.add_column("policy", {column})')
    project.revision(
        "require",
        'set_nullable(op, "policy", sa.Column("facts", sa.String(40)), nullable=False)',
        imports=IMPORTS,
    )

    await project.upgrade()

    await project.insert("policy", {"id": 5, "number": "M-5", "holder": "Cy", "premium": 1})
    assert await project.rows("SELECT DISTINCT facts FROM policy") == [(facts,)]
    assert (await project.columns("policy"))["facts"]["nullable"] is False


@pytest.mark.not_on("sqlite", reason="there INTEGER alone counts up, and has 64 bits")
async def test_a_key_of_another_type_is_still_counted_up(project: Project) -> None:
    project.revision(
        "logs",
        'op.create_table("log", sa.Column("id", sa.Integer, primary_key=True),'
        ' sa.Column("line", sa.Text))',
    )
    project.revision(
        "wider", 'change_column(op, "log", "id", type_=sa.BigInteger())', imports=IMPORTS
    )

    await project.upgrade()

    await project.execute(*(f"INSERT INTO log (line) VALUES ('{line}')" for line in "ab"))
    assert await project.table("log") == [(1, "a"), (2, "b")]


async def test_a_new_type_keeps_the_default_and_the_comment(project: Project) -> None:
    column = 'sa.Column("fee", sa.Double, nullable=False, server_default="7.5", comment="a year")'
    project.revision("add", f'op.add_column("policy", {column})')
    project.revision(
        "exact",
        'float_to_decimal(op, "policy", "fee")',
        'decimal_to_float(op, "policy", "fee")',
        imports=IMPORTS,
    )

    await project.upgrade()
    exact = (await project.columns("policy"))["fee"]
    await project.downgrade()
    inexact = (await project.columns("policy"))["fee"]

    for fee in (exact, inexact):
        assert (fee["nullable"], float(fee["default"].split(":")[0].strip("'"))) == (False, 7.5)
        if project.url.get_backend_name() != "sqlite":  # which has no comments
            assert fee["comment"] == "a year"


async def test_a_required_column_needs_no_server(project: Project) -> None:
    project.revision(
        "expand",
        'add_required_column(op, "policy", sa.Column("currency", sa.String(3)), "EUR")',
        imports=IMPORTS,
    )

    await project.run("upgrade", "first:head", sql=True)

    assert "DEFAULT 'EUR'" in project.output.getvalue()


async def test_a_filled_column_can_refer_to_another_table(project: Project) -> None:
    owner = 'sa.ForeignKey("policy.id", name=op.f("fk_claim_owner_id_policy"))'
    project.revision(
        "fill",
        f'add_filled_column(op, "claim", sa.Column("owner_id", sa.Integer, {owner}), 2)',
        imports=IMPORTS,
    )

    await project.upgrade()

    assert [row[3] for row in await project.table("claim")] == [2] * 4
    keys = await project.inspect("get_foreign_keys", "claim")
    assert "fk_claim_owner_id_policy" in {key["name"] for key in keys}


async def test_new_columns_make_the_type_of_their_enum(project: Project) -> None:
    risk = 'sa.Enum("LOW", "HIGH", name="risk")'
    project.revision(
        "fill",
        f'add_filled_column(op, "policy", sa.Column("risk", {risk}), "LOW")\n'
        f'add_required_column(op, "claim", sa.Column("risk", {risk}), "HIGH")',
        imports=IMPORTS,
    )

    await project.upgrade()

    assert {row[5] for row in await project.table("policy")} == {"LOW"}
    assert {row[3] for row in await project.table("claim")} == {"HIGH"}


async def test_a_column_is_filled_by_an_expression(project: Project) -> None:
    twice = 'sa.column("id") * 2'
    project.revision(
        "fill",
        f'add_filled_column(op, "policy", sa.Column("twice", sa.Integer), {twice})',
        imports=IMPORTS,
    )

    await project.upgrade()

    assert [row[5] for row in await project.table("policy")] == [2, 4, 6, 8]


async def test_a_filled_column_has_no_default_and_needs_a_server(project: Project) -> None:
    column = 'sa.Column("days", sa.Integer, server_default="7")'
    project.revision("fill", f'add_filled_column(op, "policy", {column}, 9)', imports=IMPORTS)

    with pytest.raises(OfflineError):
        await project.run("upgrade", "first:head", sql=True)
    await project.upgrade()

    assert [row[5] for row in await project.table("policy")] == [9] * 4
    assert (await project.columns("policy"))["days"]["default"] is None


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


async def test_large_amounts_become_exact_and_are_still_looked_at(project: Project) -> None:
    amounts = ["17944808610.40", "12345678901.23", "123456789012.34", "12345678901234.56", "-0.01"]
    project.revision(
        "accounts",
        'op.create_table("account", sa.Column("id", sa.Integer), sa.Column("sum", sa.Double))',
    )
    project.revision("exact", 'float_to_decimal(op, "account", "sum")', imports=IMPORTS)
    await project.upgrade("accounts")
    rows = [{"id": number, "sum": float(amount)} for number, amount in enumerate(amounts)]
    await project.insert("account", *rows, {"id": 9, "sum": 10000000000000.125})
    with pytest.raises(UnexpectedValueError, match=r"^1 values of account\.sum need over 2 digits"):
        await project.upgrade()
    await project.execute("DELETE FROM account WHERE id = 9")

    await project.upgrade()

    exact = sa.select(sa.column("sum", sa.Numeric(18, 2))).select_from(sa.text("account"))
    found = [row[0] for row in await project.rows(exact.order_by(sa.column("id")))]
    assert found == [Decimal(amount) for amount in amounts]


async def test_a_float_of_four_bytes_becomes_exact_too(project: Project) -> None:
    column = 'sa.Column("fee", sa.Float(24), nullable=False, server_default="12345.67")'
    project.revision("add", f'op.add_column("policy", {column})')
    project.revision("exact", 'float_to_decimal(op, "policy", "fee")', imports=IMPORTS)
    await project.upgrade("add")
    await project.execute("UPDATE policy SET fee = 12.345 WHERE id = 3")
    with pytest.raises(UnexpectedValueError, match=r"^1 values of policy\.fee need over 2 digits"):
        await project.upgrade()

    await project.execute("UPDATE policy SET fee = 1234.56 WHERE id = 3")
    await project.upgrade()

    fees = [row[0] for row in await project.rows("SELECT fee FROM policy ORDER BY id")]
    assert list(map(str, fees)) == ["12345.67", "12345.67", "1234.56", "12345.67"]


async def test_allowed_values_may_have_any_sign(project: Project) -> None:
    project.revision(
        "values",
        'op.add_column("policy", sa.Column("order", sa.String(9)))\n'  # must be quoted
        'allow_values(op, "policy", "order", ["50%", "it\'s", " :x"])',
        imports=IMPORTS,
    )
    await project.upgrade()

    order = sa.table("policy", sa.column("id"), sa.column("order"))
    for number, value in enumerate(["50%", "it's", " :x"], 1):
        await project.execute(sa.update(order).where(order.c.id == number).values(order=value))
    with pytest.raises(DBAPIError, match="ck_policy_order_known"):
        await project.execute(sa.update(order).values(order="x"))


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


async def test_values_may_follow_each_other(project: Project) -> None:
    values = ["low", "medium", "high"]
    project.revision(
        "add",
        'op.add_column("claim", sa.Column("risk", sa.String(9)))\n'
        "op.execute(\"UPDATE claim SET risk = CASE id WHEN 1 THEN 'low' WHEN 2 THEN 'medium'"
        " WHEN 3 THEN 'high' END\")\n"
        f'allow_values(op, "claim", "risk", {values})',
        imports=IMPORTS,
    )
    steps = {"low": "medium", "medium": "high"}
    project.revision(
        "shift",
        f'change_allowed_values(op, "claim", "risk", {values[1:]}, {steps})',
        imports=IMPORTS,
    )

    await project.upgrade()

    risks = await project.rows("SELECT risk FROM claim ORDER BY id")
    assert [row[0] for row in risks] == ["medium", "high", "high", None]


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


@pytest.mark.parametrize("of", ["audit", "claim"])
async def test_duplicates_that_others_refer_to_stop_the_migration(
    project: Project, of: str
) -> None:
    refer = 'sa.ForeignKey("policy.id", name=op.f("fk_other_policy"), ondelete="CASCADE")'
    column = f'sa.Column("other_id", sa.Integer, {refer})'
    if of == "audit":
        made = f'op.create_table("audit", sa.Column("id", sa.Integer, primary_key=True), {column})'
    else:
        made = f'with op.batch_alter_table("claim") as batch:\n    batch.add_column({column})'
    project.revision("other", made)
    await project.upgrade()
    if of == "audit":
        await project.execute("INSERT INTO audit (id, other_id) VALUES (1, 1), (2, 3), (3, NULL)")
    else:
        await project.execute("UPDATE claim SET other_id = 3 WHERE id = 4")
    project.revision("unique", UNIQUE, NOT_UNIQUE, imports=IMPORTS)
    before = await project.snapshot("policy", "claim", of)

    message = rf"^1 rows of {of} refer to duplicates of policy by other_id: let them refer to what"
    with pytest.raises(UnexpectedValueError, match=message):
        await project.upgrade()

    assert await project.snapshot("policy", "claim", of) == before
    await project.execute(f"UPDATE {of} SET other_id = 1 WHERE other_id = 3")
    await project.up_and_down("policy", "claim", of)


async def test_what_refers_to_something_else_by_now_is_left_so(project: Project) -> None:
    await project.insert("policy", {"id": 9, "number": "M-9", "holder": "Cy", "premium": 1})
    project.revision("unique", UNIQUE, NOT_UNIQUE, imports=IMPORTS)
    await project.upgrade()
    await project.execute("UPDATE claim SET policy_id = 9 WHERE id = 2")

    await project.downgrade()

    claims = await project.rows("SELECT id, policy_id FROM claim ORDER BY id")
    assert claims == [(1, 1), (2, 9), (3, 4), (4, 2)]


async def test_duplicates_that_an_older_version_parked_come_back(project: Project) -> None:
    project.revision("unique", UNIQUE, NOT_UNIQUE, imports=IMPORTS)
    before = await project.snapshot("policy", "claim")
    await project.upgrade()
    await project.execute("ALTER TABLE parked_claim DROP COLUMN new_policy_id")

    await project.downgrade()

    assert await project.snapshot("policy", "claim") == before


async def test_duplicates_come_back_with_enums_and_generated_columns(project: Project) -> None:
    project.revision(
        "tables",
        """
        op.create_table(
            "pier",
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("name", sa.String(9)),
            sa.Column("kind", sa.Enum("WOOD", "STONE", name="pierkind")),
            sa.Column("twice", sa.Integer, sa.Computed("length(name) * 2", persisted=True)),
        )
        op.create_table("boat", sa.Column("id", sa.Integer), sa.Column("pier_id", sa.Integer))
        """,
    )
    project.revision(
        "unique",
        'park_duplicates(op, "pier", ["name"], "boat", "pier_id")',
        'restore_duplicates(op, "pier", "boat", "pier_id")',
        imports=IMPORTS,
    )
    await project.upgrade("tables")
    piers = "(1, 'North', 'WOOD'), (2, 'North', 'STONE')"
    await project.execute(f"INSERT INTO pier (id, name, kind) VALUES {piers}")
    await project.insert("boat", {"id": 1, "pier_id": 2})

    await project.up_and_down("pier", "boat")

    assert await project.table("pier") == [(1, "North", "WOOD", 10)]


@pytest.mark.parametrize(
    ("table", "child", "by"), [("policy", "note", "policy_id"), ("buoy", "buoy", "next_id")]
)
async def test_duplicates_that_could_not_come_back_stop_the_migration(
    project: Project, table: str, child: str, by: str
) -> None:
    project.revision(
        "tables",
        """
        op.create_table("note", sa.Column("policy_id", sa.Integer), sa.Column("text", sa.Text))
        op.create_table(
            "buoy", sa.Column("id", sa.Integer), sa.Column("number", sa.Integer),
            sa.Column("next_id", sa.Integer),
        )
        """,
    )
    project.revision(
        "unique", f"park_duplicates(op, {table!r}, ['number'], {child!r}, {by!r})", imports=IMPORTS
    )

    with pytest.raises(ValueError, match=rf"^{child} must have a column id, and be another table$"):
        await project.upgrade()

    assert not {name for name in await project.tables() if name.startswith("parked_")}
    assert len(await project.table("policy")) == 4


async def test_duplicates_may_have_keys_that_are_no_numbers(project: Project) -> None:
    project.revision(
        "tables",
        """
        key = sa.Uuid(native_uuid=op.get_context().dialect.name == "postgresql")
        op.create_table("berth", sa.Column("id", key, primary_key=True), sa.Column("name", sa.Text))
        op.create_table("boat", sa.Column("id", sa.Integer), sa.Column("berth_id", key))
        """,
    )
    project.revision(
        "unique",
        'park_duplicates(op, "berth", ["name"], "boat", "berth_id")',
        'restore_duplicates(op, "berth", "boat", "berth_id")',
        imports=IMPORTS,
    )
    await project.upgrade("tables")
    keys = [uuid.UUID(int=number) for number in range(1, 6)]
    names = ["North", "South", "North", None, None]
    berths = [{"id": key, "name": name} for key, name in zip(keys, names, strict=True)]
    boats = [{"id": number, "berth_id": key} for number, key in enumerate(keys)]
    if project.url.get_backend_name() != "postgresql":  # reflected, the key is text
        berths, boats = (
            [{n: getattr(v, "hex", v) for n, v in r.items()} for r in rows]
            for rows in (berths, boats)
        )
    await project.insert("berth", *berths)
    await project.insert("boat", *boats)

    await project.up_and_down("berth", "boat")

    found = await project.rows("SELECT berth_id FROM boat ORDER BY id")
    assert [uuid.UUID(str(row[0])) for row in found] == [*keys[:2], keys[0], *keys[3:]]
    assert len(await project.table("berth")) == 4


async def test_an_indexed_column_goes_and_comes_back(project: Project) -> None:
    column = 'sa.Column("number", sa.String(20), index=True)'
    project.revision(
        "dropped",
        'park_column(op, "policy", "number")',
        f'restore_column(op, "policy", {column})',
        imports=IMPORTS,
    )
    await project.upgrade()
    assert await project.inspect("get_indexes", "policy") == []

    await project.downgrade()

    numbers = await project.rows("SELECT number FROM policy ORDER BY id")
    assert [row[0] for row in numbers] == [row["number"] for row in POLICIES]
    (index,) = await project.inspect("get_indexes", "policy")
    assert index["column_names"] == ["number"]


async def test_columns_come_back_with_their_enum_and_their_constraints(project: Project) -> None:
    columns = """
    kind = sa.Column("kind", sa.Enum("HULL", "CREW", name="riskkind"))
    code = sa.Column("code", sa.String(9), unique=True)
    owner_key = sa.ForeignKey("policy.id", name=op.f("fk_claim_owner_id"), ondelete="CASCADE")
    owner = sa.Column("owner_id", sa.Integer, owner_key)
    """
    names = ("kind", "code", "owner_id")
    project.revision(
        "add",
        f"""{columns}
    if op.get_context().dialect.name == "postgresql":
        kind.type.create(op.get_bind())
    with op.batch_alter_table("claim") as batch:
        for column in (kind, code, owner):
            batch.add_column(column)
        """,
    )
    project.revision(
        "park",
        "\n".join(f'park_column(op, "claim", {name!r})' for name in names),
        f"""{columns}
    for column in (kind, code, owner):
        restore_column(op, "claim", column)
        """,
        imports=IMPORTS,
    )
    await project.upgrade("add")
    await project.execute("UPDATE claim SET kind = 'CREW', code = 'C1', owner_id = 2 WHERE id = 1")
    before = await project.snapshot("policy", "claim")
    assert [key[0] for key in before["claim"]["keys"]].count("fk_claim_owner_id") == 1

    await project.upgrade()
    assert not {*names} & {*await project.columns("claim")}
    await project.downgrade()

    after = await project.snapshot("policy", "claim")
    assert sorted(after["claim"].pop("keys")) == sorted(before["claim"].pop("keys"))
    assert after == before
    with pytest.raises(DBAPIError):
        await project.execute("UPDATE claim SET code = 'C1' WHERE id = 2")


@pytest.mark.parametrize(
    ("constraint", "name"),
    [
        ('sa.CheckConstraint("LOW > 0", name=op.f("ck_low"))', "ck_low"),
        ('sa.UniqueConstraint("low", "high", name=op.f("uq_both"))', "uq_both"),
        ('sa.Index("ix_both", "low", "high", unique=True)', "ix_both"),
    ],
)
async def test_a_column_of_a_rule_is_not_dropped(
    project: Project, constraint: str, name: str
) -> None:
    project.revision(
        "add",
        f"""
        op.create_table(
            "tide", sa.Column("id", sa.Integer, primary_key=True), sa.Column("low", sa.Integer),
            sa.Column("high", sa.String(9)), {constraint},
            sa.CheckConstraint("high <> 'low'", name=op.f("ck_high")),
        )
        """,
    )
    project.revision("dropped", 'park_column(op, "tide", "low")', imports=IMPORTS)

    with pytest.raises(ValueError, match=rf"^drop {name} first: tide\.low is in it$"):
        await project.upgrade()

    assert "low" in await project.columns("tide")
    assert "parked_tide_low" not in await project.tables()


@pytest.mark.only_on("sqlite", reason="elsewhere each CHECK has a name")
async def test_a_column_of_a_nameless_rule_is_not_dropped(project: Project) -> None:
    await project.execute(
        "CREATE TABLE tide (id INTEGER PRIMARY KEY, low INTEGER, CHECK (low > 0))"
    )
    project.revision("dropped", 'park_column(op, "tide", "low")', imports=IMPORTS)

    with pytest.raises(ValueError, match=r"^drop the CHECK first: tide\.low is in it$"):
        await project.upgrade()


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


async def test_what_is_parked_comes_back_whatever_the_length_of_its_name(project: Project) -> None:
    """PostgreSQL cut the name of the parked table, found nothing, and a second one was in the way;
    MariaDB: `Incorrect table name`.
    """
    table = "warranties_of_ships_that_sail_under_another_flag"
    columns = [f"date_on_which_the_{what}_was_signed" for what in ("first", "second")]
    plain = ", ".join(f'sa.Column("{column}", sa.String(20))' for column in columns)
    create = f'op.create_table("{table}", sa.Column("id", sa.Integer, primary_key=True), {plain})'
    project.revision("long", create, f'op.drop_table("{table}")')
    await project.upgrade()
    await project.insert(table, {"id": 1} | dict.fromkeys(columns, "May"))
    project.revision(
        "park",
        "\n".join(f'park_column(op, "{table}", "{column}")' for column in columns),
        "\n".join(
            f'restore_column(op, "{table}", sa.Column("{column}", sa.String(20)))'
            for column in columns
        ),
        imports=IMPORTS,
    )

    await project.up_and_down(table)

    assert await project.table(table) == [(1,)]
    await project.downgrade()
    assert await project.table(table) == [(1, "May", "May")]


def test_names_of_parked_tables_fit_and_differ() -> None:
    assert parked_name("policy", "state") == "parked_policy_state"
    long = [parked_name("ä" * 40, column) for column in ("a", "b")]
    assert len({*long}) == 2
    assert all(len(name.encode()) <= 63 and name.startswith("parked_ä") for name in long)


async def test_a_migration_that_reads_rows_says_so_offline(project: Project) -> None:
    project.revision("dropped", 'park_column(op, "policy", "holder")', imports=IMPORTS)

    with pytest.raises(OfflineError, match="run it online, not with --sql"):
        await project.run("upgrade", "first:head", sql=True)
