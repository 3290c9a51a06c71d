from datetime import datetime
from decimal import Decimal
from importlib.metadata import version

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    InvalidRequestError,
    ProgrammingError,
    StatementError,
)
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.models import mistakes
from snippets.models.soft_delete import Supplier
from snippets.models.table_and_schemas import Product, ProductUpdate


async def create(session: AsyncSession, model: type[SQLModel]) -> None:
    """Create the one table that a test needs: all of them take longer than the test."""
    connection = await session.connection()
    await connection.run_sync(model.__table__.create)
    await session.commit()


def release(package: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version(package).split(".")[:3])


async def test_table_as_request_body(session: AsyncSession) -> None:
    await create(session, mistakes.Scale)
    scale = mistakes.table_as_request_body({"id": 7, "grams": -1, "gramms": 5})
    session.add(scale)
    await session.commit()

    assert (scale.id, scale.grams) == (7, -1)


async def test_update_with_unset_fields(session: AsyncSession, engine: AsyncEngine) -> None:
    await create(session, Product)
    product = Product(name="lamp", price=Decimal(1), created_by="ann")
    session.add(product)
    await session.commit()

    mistakes.update_with_unset_fields(product, ProductUpdate(price=Decimal(2)))
    with pytest.raises(IntegrityError) as caught:
        await session.flush()

    assert {
        "sqlite": "NOT NULL constraint failed: product.name",
        "postgresql": 'null value in column "name" of relation "product"',
        "mysql": "Column 'name' cannot be null",
    }[engine.dialect.name] in str(caught.value)


async def test_refused_assignment_is_kept(session: AsyncSession) -> None:
    await create(session, mistakes.Thermostat)
    thermostat = mistakes.Thermostat(celsius=20)
    session.add(thermostat)
    await session.commit()

    mistakes.refused_assignment_is_kept(thermostat)
    await session.commit()

    assert (await session.exec(select(mistakes.Thermostat.celsius))).one() == -300


async def test_validates_that_changes(session: AsyncSession) -> None:
    await create(session, mistakes.Subscriber)
    session.add(mistakes.validates_that_changes())
    await session.commit()

    assert (await session.exec(select(mistakes.Subscriber.email))).one() == "Ada@Example.org"


async def test_naive_timestamp(session: AsyncSession) -> None:
    await create(session, mistakes.Alarm)
    alarm = mistakes.naive_timestamp()
    session.add(alarm)

    if release("sqlmodel") < (0, 0, 45):
        await session.commit()
        await session.refresh(alarm)
        assert isinstance(alarm.raised_at, datetime)
        assert alarm.raised_at.tzinfo is None
        return
    with pytest.raises(StatementError) as caught:
        await session.flush()
    assert (
        "(builtins.ValueError) Datetime values must have timezone information. "
        "Use datetime.now(timezone.utc), or annotate the field with NaiveDatetime"
    ) in str(caught.value)


async def test_default_evaluated_once(session: AsyncSession) -> None:
    await create(session, mistakes.Gong)
    session.add_all(mistakes.default_evaluated_once())
    await session.flush()

    moments = (await session.exec(select(mistakes.Gong.struck_at))).all()

    assert len(moments) == 2
    assert len(set(moments)) == 1


async def test_column_without_zone(session: AsyncSession, engine: AsyncEngine) -> None:
    await create(session, mistakes.Siren)
    siren = mistakes.column_without_zone()
    session.add(siren)

    if engine.dialect.name == "postgresql":
        with pytest.raises(DBAPIError) as caught:
            await session.flush()
        assert "can't subtract offset-naive and offset-aware datetimes" in str(caught.value)
    else:
        await session.flush()
        await session.refresh(siren)
        assert siren.heard_at.tzinfo is None


async def test_text_for_a_date(session: AsyncSession, engine: AsyncEngine) -> None:
    await create(session, mistakes.Permit)
    session.add(mistakes.text_for_a_date({"valid_until": "2026-07-01"}))

    if engine.dialect.name == "mysql":
        await session.flush()
        return
    with pytest.raises(StatementError) as caught:
        await session.flush()
    assert {
        "sqlite": "SQLite Date type only accepts Python date objects as input.",
        "postgresql": "'str' object has no attribute 'toordinal'",
    }[engine.dialect.name] in str(caught.value)


async def test_decimal_without_digits(session: AsyncSession, engine: AsyncEngine) -> None:
    await create(session, mistakes.Toll)
    toll = mistakes.decimal_without_digits()
    session.add(toll)
    await session.flush()
    await session.refresh(toll)

    assert toll.amount == Decimal("0" if engine.dialect.name == "mysql" else "0.12")


async def test_plain_bytes(session: AsyncSession, engine: AsyncEngine) -> None:
    await create(session, mistakes.Scan)
    session.add(mistakes.plain_bytes())

    if engine.dialect.name == "mysql" and release("pymysql") >= (1, 2, 3):
        with pytest.raises(TypeError, match="'str' object is not callable"):
            await session.flush()
    else:
        await session.flush()


async def test_json_null_for_none(session: AsyncSession) -> None:
    await create(session, mistakes.Declaration)
    session.add(mistakes.Declaration(visa=None))
    await session.flush()

    assert (await session.exec(mistakes.json_null_for_none())).all() == []


async def test_change_inside_json(session: AsyncSession) -> None:
    await create(session, mistakes.Cargo)
    cargo = mistakes.Cargo(marks={}, seals={})
    session.add(cargo)
    await session.commit()

    mistakes.change_inside_json(cargo)
    await session.commit()
    await session.refresh(cargo)

    assert (cargo.marks, cargo.seals) == ({}, {})


async def test_a_mutable_dict_sees_changes_only_after_a_load(session: AsyncSession) -> None:
    await create(session, mistakes.Cargo)
    cargo = mistakes.Cargo(marks={}, seals={})
    session.add(cargo)
    await session.commit()
    await session.refresh(cargo)

    mistakes.change_inside_json(cargo)
    await session.commit()
    await session.refresh(cargo)

    assert (cargo.marks, cargo.seals) == ({}, {"left": 1})


def test_shared_column() -> None:
    message = "Column object 'stamped_on' already assigned to Table 'barrel'"

    with pytest.raises(ArgumentError, match=message):
        mistakes.shared_column()


async def test_big_key(session: AsyncSession, engine: AsyncEngine) -> None:
    await create(session, mistakes.Freight)
    session.add(mistakes.big_key())

    if engine.dialect.name == "sqlite":
        with pytest.raises(IntegrityError, match=r"NOT NULL constraint failed: freight\.id"):
            await session.flush()
    else:
        await session.flush()


@pytest.mark.only_on("mysql", reason="PostgreSQL has had the type, SQLite has none")
async def test_uuid_over_char(session: AsyncSession, engine: AsyncEngine) -> None:
    await create(session, mistakes.Seal)
    async with engine.begin() as connection:
        await connection.execute(sa.text("ALTER TABLE seal MODIFY id CHAR(32) NOT NULL"))
    seal = mistakes.uuid_over_char()
    key = seal.id
    await session.exec(sa.text(f"INSERT INTO seal (id) VALUES ('{key.hex}')"))  # type: ignore[call-overload]
    found = await session.get(mistakes.Seal, key)
    session.add(mistakes.uuid_over_char())

    if sa.__version__ < "2.1":
        assert found is not None
        await session.flush()
    else:
        assert found is None
        with pytest.raises(DataError, match=r"\(1406, \"Data too long for column 'id'"):
            await session.flush()


async def test_check_on_the_column(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        if engine.dialect.name == "mysql":
            with pytest.raises(ProgrammingError) as caught:
                await connection.run_sync(mistakes.check_on_the_column().create)
            assert '(1064, "You have an error in your SQL syntax' in str(caught.value)
        else:
            await connection.run_sync(mistakes.check_on_the_column().create)


async def test_partial_unique_index(session: AsyncSession, engine: AsyncEngine) -> None:
    await create(session, mistakes.Coupon)
    session.add_all(mistakes.partial_unique_index())

    if engine.dialect.name == "mysql":
        message = "Duplicate entry 'ann' for key 'uq_coupon_unused'"
        with pytest.raises(IntegrityError, match=message):
            await session.flush()
    else:
        await session.flush()


def test_criteria_for_a_mixin() -> None:
    with pytest.raises(AttributeError, match="deleted_at"):
        mistakes.criteria_for_a_mixin()
    assert hasattr(Supplier, "deleted_at")


def test_half_imported_models() -> None:
    try:
        with pytest.raises(InvalidRequestError) as caught:
            mistakes.half_imported_models()
    finally:
        mistakes.HalfImported._sa_registry.dispose()

    assert (
        "When initializing mapper Mapper[Trailer(trailer)], "
        "expression 'Truck' failed to locate a name"
    ) in str(caught.value)
