from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.models.constraints import AppModel, Invoice, InvoiceLine, Voucher
from snippets.models.timestamps import utc_now

TABLES = [Invoice, InvoiceLine, Voucher]
UNIQUE = r"UNIQUE constraint failed|duplicate key value|Duplicate entry"


@pytest.fixture
def inspected(engine: AsyncEngine) -> Callable[[str, str], Awaitable[Any]]:
    """`await inspected("get_indexes", "voucher")`."""

    async def call(method: str, table: str) -> Any:
        async with engine.connect() as connection:
            return await connection.run_sync(lambda sync: getattr(sa.inspect(sync), method)(table))

    return call


async def test_constraints_have_the_same_names_on_every_database(
    engine: AsyncEngine, inspected: Callable[[str, str], Awaitable[Any]]
) -> None:
    uniques = await inspected("get_unique_constraints", "invoice")
    checks = await inspected("get_check_constraints", "invoice")
    keys = await inspected("get_foreign_keys", "invoiceline")
    indexes = await inspected("get_indexes", "invoiceline")
    primary = await inspected("get_pk_constraint", "invoice")

    assert [unique["name"] for unique in uniques] == ["uq_invoice_country_order_number"]
    assert [check["name"] for check in checks] == ["ck_invoice_total_not_negative"]
    assert [key["name"] for key in keys] == ["fk_invoiceline_country_number_invoice"]
    assert [index["name"] for index in indexes] == ["ix_invoiceline_country_number"]
    assert primary["name"] == (None if engine.dialect.name == "mysql" else "pk_invoice")


async def test_a_check_refuses_a_row(session: AsyncSession) -> None:
    session.add(Invoice(country="FR", number=1, order_number="a", total=Decimal(-1)))

    with pytest.raises(DBAPIError, match="ck_invoice_total_not_negative"):
        await session.flush()


async def test_a_unique_pair_is_unique_as_a_pair(session: AsyncSession) -> None:
    session.add(Invoice(country="FR", number=1, order_number="a"))
    session.add(Invoice(country="DE", number=1, order_number="a"))
    await session.flush()
    session.add(Invoice(country="FR", number=2, order_number="a"))

    with pytest.raises(DBAPIError, match=UNIQUE):
        await session.flush()


async def test_a_composite_foreign_key_needs_the_whole_key(session: AsyncSession) -> None:
    session.add_all(
        [
            Invoice(country="FR", number=1, order_number="a"),
            Invoice(country="DE", number=2, order_number="a"),
        ]
    )
    await session.flush()
    session.add(InvoiceLine(country="FR", number=1, text="boxes"))
    await session.flush()
    session.add(InvoiceLine(country="FR", number=2, text="boxes"))

    with pytest.raises(DBAPIError, match=r"FOREIGN KEY|foreign key"):
        await session.flush()


async def test_deleting_an_invoice_deletes_its_lines(session: AsyncSession) -> None:
    invoice = Invoice(country="FR", number=1, order_number="a")
    session.add(invoice)
    await session.flush()
    session.add(InvoiceLine(country="FR", number=1, text="boxes"))
    await session.flush()

    await session.delete(invoice)
    await session.flush()

    count = sa.select(sa.func.count()).select_from(InvoiceLine)
    assert (await session.exec(count)).one() == (0,)  # type: ignore[call-overload]


async def test_a_customer_has_one_unused_voucher_and_any_number_of_used_ones(
    session: AsyncSession,
) -> None:
    used = [Voucher(code=code, customer="ann", used_at=utc_now()) for code in "ab"]
    session.add_all([*used, Voucher(code="c", customer="ann"), Voucher(code="d", customer="bob")])
    await session.commit()
    session.add(Voucher(code="e", customer="ann"))

    with pytest.raises(DBAPIError, match=UNIQUE):
        await session.flush()


async def test_using_a_voucher_makes_room_for_the_next(session: AsyncSession) -> None:
    first = Voucher(code="a", customer="ann")
    session.add(first)
    await session.commit()

    first.used_at = utc_now()
    await session.flush()
    session.add(Voucher(code="b", customer="ann"))
    await session.flush()

    assert "unused_customer" in sa.inspect(first).unloaded
    await session.refresh(first)
    assert first.unused_customer is None


async def test_indexes_of_each_database(
    engine: AsyncEngine,
) -> None:
    listing = {
        "sqlite": "SELECT name || ' ' || sql FROM sqlite_master WHERE tbl_name = 'voucher'"
        " AND type = 'index' AND sql IS NOT NULL",
        "postgresql": "SELECT indexname || ' ' || indexdef FROM pg_indexes"
        " WHERE tablename = 'voucher'",
        "mysql": "SELECT DISTINCT concat(index_name, ' ', column_name) FROM"
        " information_schema.statistics"
        " WHERE table_schema = database() AND table_name = 'voucher'",
    }[engine.dialect.name]
    async with engine.connect() as connection:
        indexes = "\n".join((await connection.execute(sa.text(listing))).scalars())

    native = engine.dialect.name != "mysql"
    assert "ix_voucher_unused" in indexes
    assert ("used_at IS NULL" in indexes) == native
    assert ("ix_voucher_code_lower" in indexes) == native
    assert ("lower(" in indexes) == native


def test_the_base_has_tables_of_its_own() -> None:
    assert {"invoice", "invoiceline", "voucher"} <= set(AppModel.metadata.tables)
    assert "invoice" not in SQLModel.metadata.tables
