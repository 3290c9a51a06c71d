import datetime as dt
from decimal import Decimal

import models
import pytest
from pydantic import ValidationError
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

MOMENT = dt.datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=dt.timezone(dt.timedelta(hours=5)))
VALID = {"number": "A-1", "amount": "1234567890.12", "issued_at": MOMENT.isoformat()}


def created(**values: object) -> "models.Invoice":
    data = models.InvoiceCreate.model_validate(VALID | values)
    return models.Invoice.model_validate(data.model_dump())


async def loaded(session: AsyncSession) -> "models.Invoice":
    await session.commit()
    session.expunge_all()
    return (await session.exec(select(models.Invoice))).one()


async def saved(session: AsyncSession, **values: object) -> "models.Invoice":
    session.add(created(**values))
    return await loaded(session)


async def test_moment_is_exact_and_utc(session: AsyncSession) -> None:
    invoice = await saved(session)
    assert invoice.issued_at == MOMENT
    assert invoice.issued_at.utcoffset() == dt.timedelta(0)


async def test_amount_is_exact(session: AsyncSession) -> None:
    amount = (await saved(session)).amount
    assert isinstance(amount, Decimal)
    assert amount == Decimal("1234567890.12")


async def test_no_tags_are_sql_null(session: AsyncSession) -> None:
    await saved(session, tags=None)
    connection = await session.connection()
    query = text("SELECT count(*) FROM invoice WHERE tags IS NULL")
    assert await connection.scalar(query) == 1


async def test_status_is_stored_by_value(session: AsyncSession) -> None:
    invoice = await saved(session, status="paid")
    assert invoice.status is models.Status.PAID
    stored = await (await session.connection()).scalar(text("SELECT status FROM invoice"))
    assert stored == "paid"


async def test_status_is_open_by_default(session: AsyncSession) -> None:
    assert (await saved(session)).status is models.Status.OPEN


async def test_tags_come_back(session: AsyncSession) -> None:
    assert (await saved(session, tags=["a", "ü"])).tags == ["a", "ü"]


async def test_numbers_are_unique(session: AsyncSession) -> None:
    session.add_all([created(), created()])
    with pytest.raises(IntegrityError):
        await session.flush()


@pytest.mark.parametrize(
    "wrong",
    [
        {"number": "x" * 21},
        {"amount": "0.123"},
        {"amount": "12345678901.00"},
        {"issued_at": "2026-03-01T12:00:00"},
        {"status": "lost"},
        {"amount": None},
        {"tags": "a"},
    ],
)
def test_wrong_requests_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        models.InvoiceCreate.model_validate(VALID | wrong)


async def test_update_changes_what_was_sent(session: AsyncSession) -> None:
    invoice = await saved(session, tags=["a"])
    models.apply(invoice, models.InvoiceUpdate.model_validate({"amount": "5.00"}))
    invoice = await loaded(session)
    assert (invoice.amount, invoice.tags, invoice.number) == (Decimal("5.00"), ["a"], "A-1")
    models.apply(invoice, models.InvoiceUpdate.model_validate({"tags": None}))
    invoice = await loaded(session)
    assert (invoice.amount, invoice.tags) == (Decimal("5.00"), None)


@pytest.mark.parametrize("wrong", [{"amount": None}, {"amount": "0.123"}, {"tags": "a"}])
def test_wrong_updates_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        models.InvoiceUpdate.model_validate(wrong)
