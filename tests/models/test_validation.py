import math
from datetime import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.models.validation import (
    DeliverySlot,
    DeliverySlotBase,
    DeliverySlotCreate,
    DeliverySlotUpdate,
    PlainJSON,
    PlainText,
    checked_update,
    storable,
)

TABLES = [DeliverySlot]
Factory = async_sessionmaker[AsyncSession]

plain_text = TypeAdapter(PlainText)
plain_json = TypeAdapter(PlainJSON)


@pytest.mark.parametrize("value", ["a\0b", "\ud800", "x\udfff"])
def test_text_that_some_database_refuses_is_refused_by_the_schema(value: str) -> None:
    with pytest.raises(ValidationError):
        plain_text.validate_python(value)
    with pytest.raises(ValueError, match="NUL characters or lone surrogates"):
        storable([{"deep": [{value: 1}]}])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_without_a_number_for_it_is_refused(value: float) -> None:
    with pytest.raises(ValidationError, match="numbers must be finite"):
        plain_json.validate_python({"deep": [1, {"x": value}]})


@pytest.mark.parametrize("value", [{}, {"a": [1, 2.5, None, True, "é🚚"]}])
def test_json_that_all_databases_take_passes_as_it_is(value: dict[str, Any]) -> None:
    assert plain_json.validate_python(value) == value


@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(label=st.text(st.characters(), max_size=40))
async def test_what_the_schema_lets_through_is_stored(factory: Factory, label: str) -> None:
    try:
        data = DeliverySlotCreate(label=label, opens=time(8), closes=time(9))
    except ValidationError:
        assert "\0" in label or any("\ud800" <= char <= "\udfff" for char in label)
        return
    async with factory() as session:
        slot = DeliverySlot.model_validate(data)
        session.add(slot)
        await session.flush()
        stored = select(DeliverySlot.label).where(DeliverySlot.id == slot.id)
        assert (await session.exec(stored)).one() == label


async def test_a_nul_character_is_refused_by_postgresql_alone(
    session: AsyncSession, engine: AsyncEngine
) -> None:
    session.add(DeliverySlot(label="a\0b", opens=time(8), closes=time(9)))

    if engine.dialect.name == "postgresql":
        with pytest.raises(DBAPIError, match="invalid byte sequence for encoding"):
            await session.flush()
    else:
        await session.flush()


@pytest.mark.parametrize("schema", [DeliverySlotCreate, DeliverySlot])
def test_the_rule_over_two_fields_holds_for_schema_and_table(
    schema: type[DeliverySlotBase],
) -> None:
    with pytest.raises(ValidationError, match="closes must be later than opens"):
        schema.model_validate({"label": "am", "opens": "09:00", "closes": "09:00"})


async def test_a_partial_update_is_checked_against_the_whole_row(session: AsyncSession) -> None:
    slot = DeliverySlot(label="am", opens=time(8), closes=time(10))
    session.add(slot)
    await session.commit()

    with pytest.raises(ValidationError, match="closes must be later than opens"):
        checked_update(slot, DeliverySlotUpdate(opens=time(11)), DeliverySlotBase)

    assert slot.opens == time(8)
    checked_update(slot, DeliverySlotUpdate(opens=time(9)), DeliverySlotBase)
    await session.commit()
    await session.refresh(slot)
    assert (slot.label, slot.opens, slot.closes) == ("am", time(9), time(10))
