import datetime as dt
import uuid
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm.exc import StaleDataError
from sqlmodel import Field, SQLModel, col, func, insert, select
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

from snippets.async_operations.aggregations import Reading
from snippets.async_operations.bulk_writes import (
    RowsError,
    add_to_rain,
    delete_readings_before,
    insert_and_load,
    insert_rows,
    update_by_key,
)


class Rivet(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    label: str = Field(max_length=20)
    grams: int | None = None
    batch: int = 7


class Pallet(SQLModel, table=True):
    id: uuid.UUID = Field(default_factory=uuid.uuid4, primary_key=True)
    label: str = Field(max_length=20)


class Slot(SQLModel, table=True):
    aisle: str = Field(max_length=5, primary_key=True)
    number: int = Field(primary_key=True)
    label: str = Field(max_length=20)


TABLES = [Rivet, Pallet, Slot, Reading]
# NULL in every other row.
RIVETS = [{"label": f"r{n}", "grams": None if n % 2 else n, "batch": 1} for n in range(1000)]


async def rivets(session: AsyncSession) -> list[tuple[str, int | None]]:
    statement = select(Rivet.label, Rivet.grams).order_by(col(Rivet.id))
    return [tuple(row) for row in await session.exec(statement)]


async def test_alternating_nulls_are_one_statement(
    session: AsyncSession, statements: StatementLog
) -> None:
    await insert_rows(session, Rivet, RIVETS)

    assert statements.count == 1
    assert await rivets(session) == [(row["label"], row["grams"]) for row in RIVETS]


async def test_defaults_of_columns_apply(session: AsyncSession) -> None:
    await insert_rows(session, Rivet, [{"label": "a"}, {"label": "b"}])
    await insert_rows(session, Pallet, [{"label": "a"}, {"label": "b"}])

    assert set(await session.exec(select(Rivet.batch))) == {7}
    assert len(set(await session.exec(select(Pallet.id)))) == 2


async def test_no_rows_send_nothing(session: AsyncSession, statements: StatementLog) -> None:
    await insert_rows(session, Rivet, [])
    await update_by_key(session, Rivet, [])

    assert await insert_and_load(session, Rivet, []) == []
    assert statements.count == 0


async def test_rows_with_different_keys_are_refused(
    session: AsyncSession, statements: StatementLog
) -> None:
    with pytest.raises(RowsError, match="row 1 and row 0 differ in their keys: batch, grams"):
        await insert_rows(session, Rivet, [{"label": "a", "batch": 1}, {"label": "b", "grams": 1}])

    assert statements.count == 0


async def test_a_key_that_is_no_column_is_refused(session: AsyncSession) -> None:
    message = "Rivet has no size; it has id, label, grams, batch"

    with pytest.raises(RowsError, match=message):
        await insert_rows(session, Rivet, [{"label": "a", "size": 1}])
    with pytest.raises(RowsError, match=message):
        await insert_and_load(session, Rivet, [{"label": "a", "size": 1}])
    with pytest.raises(RowsError, match=message):
        await update_by_key(session, Rivet, [{"id": 1, "size": 1}])


async def test_what_sqlalchemy_does_with_such_rows(
    session: AsyncSession, statements: StatementLog
) -> None:
    rows = [{"label": "a", "size": 1}, {"label": "b", "grams": 1}]
    await session.exec(insert(Rivet.__table__), params=rows)
    assert await rivets(session) == [("a", None), ("b", None)]

    statements.clear()
    await session.exec(insert(Rivet), params=rows, execution_options={"render_nulls": True})
    assert statements.count == 2
    assert (await rivets(session))[2:] == [("a", None), ("b", 1)]


async def test_an_empty_list_of_rows_sends_an_insert(
    session: AsyncSession, statements: StatementLog
) -> None:
    with pytest.raises(DBAPIError):
        await session.exec(insert(Rivet), params=[])

    assert statements.count == 1


async def test_objects_come_in_the_order_of_the_rows_in_one_statement(
    session: AsyncSession, statements: StatementLog
) -> None:
    loaded = await insert_and_load(session, Rivet, RIVETS)

    assert statements.count == 1
    assert [(r.label, r.grams, r.batch) for r in loaded] == [
        (row["label"], row["grams"], 1) for row in RIVETS
    ]
    assert await session.get(Rivet, loaded[0].id) is loaded[0]


def given_ids() -> list[dict[str, Any]]:
    return [row | {"id": 5000 - n} for n, row in enumerate(RIVETS)]


async def test_given_integer_keys_keep_the_order(
    session: AsyncSession, statements: StatementLog
) -> None:
    loaded = await insert_and_load(session, Rivet, given_ids())

    assert [r.id for r in loaded] == [row["id"] for row in given_ids()]
    assert statements.count == 1


async def test_keys_made_in_python_keep_the_order(
    session: AsyncSession, statements: StatementLog
) -> None:
    labels = [f"p{n}" for n in range(500)]

    loaded = await insert_and_load(session, Pallet, [{"label": label} for label in labels])

    assert [p.label for p in loaded] == labels
    assert statements.count == 1


async def test_composite_keys_keep_the_order(
    session: AsyncSession, statements: StatementLog
) -> None:
    rows = [{"aisle": "A", "number": 500 - n, "label": str(n)} for n in range(500)]

    loaded = await insert_and_load(session, Slot, rows)

    assert [slot.label for slot in loaded] == [str(n) for n in range(500)]
    assert statements.count == 1


async def test_many_rows_get_values_of_their_own_in_one_statement(
    session: AsyncSession, statements: StatementLog
) -> None:
    await insert_rows(session, Rivet, given_ids())
    statements.clear()

    await update_by_key(session, Rivet, [{"id": 5000, "grams": None}, {"id": 4999, "grams": 3}])

    assert statements.count == 1
    assert dict(await rivets(session)) | {"r0": None, "r1": 3} == dict(await rivets(session))


async def test_a_missing_key_of_an_update_is_an_error(
    session: AsyncSession, engine: AsyncEngine
) -> None:
    if engine.dialect.driver == "asyncpg":  # it does not say how many rows an executemany met
        await update_by_key(session, Rivet, [{"id": 1, "grams": 1}, {"id": 2, "grams": 3}])
        return

    with pytest.raises(StaleDataError, match=r"expected to update 2 row\(s\); 0 were matched"):
        await update_by_key(session, Rivet, [{"id": 1, "grams": 1}, {"id": 2, "grams": 3}])


@pytest.fixture
async def readings(session: AsyncSession) -> AsyncSession:
    days = [dt.date(2026, 1, n) for n in (1, 2, 3)]
    rows = [{"station": "hill", "day": day, "rain_mm": 1} for day in days]
    await insert_rows(session, Reading, rows)
    return session


async def test_an_update_on_the_server_counts_and_loaded_objects_follow(
    readings: AsyncSession, statements: StatementLog
) -> None:
    loaded = (await readings.exec(select(Reading))).all()
    statements.clear()

    assert await add_to_rain(readings, "hill", 4) == 3
    assert await add_to_rain(readings, "sea", 4) == 0

    assert statements.count == 2
    assert [reading.rain_mm for reading in loaded] == [5, 5, 5]


async def test_a_delete_counts_without_loading(
    readings: AsyncSession, statements: StatementLog
) -> None:
    statements.clear()

    assert await delete_readings_before(readings, dt.date(2026, 1, 3)) == 2

    assert statements.count == 1
    assert (await readings.exec(select(func.count()).select_from(Reading))).one() == 1
