import pytest
from sqlalchemy.exc import DBAPIError
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.async_operations.errors import ErrorKind
from snippets.async_operations.savepoints import add_all_unless_refused, add_unless_refused


class Payment(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    reference: str = Field(max_length=20, unique=True)
    cents: int


TABLES = [Payment]


async def test_refused_payments_are_reported_and_the_others_saved(session: AsyncSession) -> None:
    rows = [
        Payment(reference="a", cents=1),
        Payment(reference="a", cents=2),
        Payment(reference=None, cents=3),  # type: ignore[arg-type]
        Payment(reference="b", cents=4),
    ]

    refused = await add_all_unless_refused(session, rows)
    await session.commit()

    assert [(payment.cents, failure.kind) for payment, failure in refused] == [
        (2, ErrorKind.UNIQUE),
        (3, ErrorKind.NOT_NULL),
    ]
    assert set(await session.exec(select(Payment.reference))) == {"a", "b"}


@pytest.mark.not_on("sqlite", reason="SQLite does not enforce lengths")
async def test_a_value_that_is_too_long_is_the_fault_of_its_row(session: AsyncSession) -> None:
    await add_unless_refused(session, Payment(reference="kept", cents=1))

    failure = await add_unless_refused(session, Payment(reference="x" * 21, cents=1))

    assert failure is not None
    assert failure.kind is ErrorKind.TOO_LONG
    await session.commit()
    assert (await session.exec(select(Payment.reference))).all() == ["kept"]


async def test_what_was_added_before_stays_also_when_the_savepoint_comes_first(
    session: AsyncSession,
) -> None:
    await add_all_unless_refused(session, [Payment(reference="a", cents=1)])
    await session.commit()

    await add_all_unless_refused(session, [Payment(reference="b", cents=2)])
    await session.rollback()

    assert (await session.exec(select(Payment.reference))).all() == ["a"]


async def test_an_error_that_is_not_of_the_row_is_raised(session: AsyncSession) -> None:
    connection = await session.connection()
    await connection.run_sync(Payment.__table__.drop)  # type: ignore[attr-defined]

    with pytest.raises(DBAPIError):
        await add_unless_refused(session, Payment(reference="a", cents=1))


async def test_an_earlier_row_is_not_blamed_on_this_one(session: AsyncSession) -> None:
    await add_unless_refused(session, Payment(reference="a", cents=1))
    await session.commit()
    session.add(Payment(reference="a", cents=2))  # not flushed yet

    with pytest.raises(DBAPIError):
        await add_unless_refused(session, Payment(reference="good", cents=3))
