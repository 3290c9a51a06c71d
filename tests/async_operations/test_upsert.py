import asyncio
import datetime as dt
from typing import Any

import pytest
from sqlalchemy import Index, UniqueConstraint, func, text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

from snippets.async_operations.bulk_writes import RowsError
from snippets.async_operations.upsert import upsert, upsert_and_load
from snippets.database_setup.session import session_scope


def later() -> int:
    return 99


class Sensor(SQLModel, table=True):
    __table_args__ = (
        UniqueConstraint("plant", "position"),
        Index(
            "ix_sensor_partial",
            "unit",
            unique=True,
            postgresql_where=text("id = 0"),
            sqlite_where=text("id = 0"),
        ).ddl_if(dialect=("postgresql", "sqlite")),
        Index("ix_sensor_lower", func.lower(text("code")), unique=True).ddl_if(
            dialect=("postgresql", "sqlite")
        ),
    )

    id: int | None = Field(default=None, primary_key=True)
    code: str = Field(max_length=20, unique=True)
    plant: str = Field(default="x", max_length=20)
    position: int | None = None
    unit: str | None = Field(default=None, max_length=20)
    changes: int = Field(default=0, sa_column_kwargs={"onupdate": later})
    source: str = Field(default="new", max_length=10, sa_column_kwargs={"onupdate": "upsert"})
    touched: int = Field(default=0, sa_column_kwargs={"onupdate": func.length("12345")})


class Dial(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    code: str = Field(max_length=20, index=True, unique=True)
    label: str | None = Field(default=None, max_length=20)
    day: dt.date | None = None


class Needle(SQLModel, table=True):
    aisle: str = Field(max_length=5, primary_key=True)
    number: int = Field(primary_key=True)
    label: str | None = Field(default=None, max_length=20)


TABLES = [Sensor, Dial, Needle]


async def dials(session: AsyncSession) -> dict[str, str | None]:
    return dict((await session.exec(select(Dial.code, Dial.label))).all())


async def test_new_rows_are_inserted_and_known_ones_updated_in_one_statement(
    session: AsyncSession, statements: StatementLog
) -> None:
    session.add(Dial(code="a", label="old"))
    await session.flush()
    statements.clear()

    rows = [{"code": "a", "label": "new"}, {"code": "b", "label": None}]
    await upsert(session, Dial, rows, on=["code"])

    assert statements.count == 1
    assert await dials(session) == {"a": "new", "b": None}


async def test_only_the_chosen_columns_are_updated(session: AsyncSession) -> None:
    day = dt.date(2026, 1, 1)
    session.add(Dial(code="a", label="old"))

    rows = [{"code": "a", "label": "new", "day": day}]
    (dial,) = await upsert_and_load(session, Dial, rows, on=["code"], update=["day"])

    assert (dial.label, dial.day) == ("old", day)


@pytest.mark.parametrize(
    ("rows", "update"),
    [([{"code": "a", "label": "new"}], []), ([{"code": "a"}], None)],
    ids=["told so", "nothing left"],
)
async def test_with_nothing_to_update_an_existing_row_stays(
    session: AsyncSession, rows: list[dict[str, Any]], update: list[str] | None
) -> None:
    session.add(Dial(code="a", label="old"))

    (dial,) = await upsert_and_load(session, Dial, rows, on=["code"], update=update)

    assert dial.label == "old"


async def test_columns_with_onupdate_follow_unless_they_are_given(session: AsyncSession) -> None:
    session.add(Sensor(code="a"))

    (sensor,) = await upsert_and_load(session, Sensor, [{"code": "a", "plant": "y"}], on=["code"])
    assert (sensor.plant, sensor.changes, sensor.source, sensor.touched) == ("y", 99, "upsert", 5)

    (sensor,) = await upsert_and_load(
        session, Sensor, [{"code": "a", "changes": 1, "source": "me"}], on=["code"]
    )
    assert (sensor.changes, sensor.source) == (1, "me")


async def test_a_constraint_over_two_columns_is_a_target(session: AsyncSession) -> None:
    session.add(Sensor(code="a", plant="x", position=1))

    rows = [{"code": "b", "plant": "x", "position": 1}]
    (sensor,) = await upsert_and_load(session, Sensor, rows, on=["plant", "position"])

    assert sensor.code == "b"
    assert (await session.exec(select(Sensor.code))).all() == ["b"]


async def test_a_composite_primary_key_is_a_target(session: AsyncSession) -> None:
    rows = [{"aisle": "A", "number": n, "label": "old"} for n in (3, 1, 2)]
    await upsert(session, Needle, rows, on=["aisle", "number"])

    again = [row | {"label": f"new {row['number']}"} for row in rows]
    loaded = await upsert_and_load(session, Needle, again, on=["number", "aisle"])

    assert [needle.label for needle in loaded] == ["new 3", "new 1", "new 2"]


async def test_rows_come_back_in_the_order_of_the_input(
    session: AsyncSession, statements: StatementLog
) -> None:
    session.add_all([Dial(code=f"c{n}") for n in range(0, 1000, 2)])
    await session.flush()
    statements.clear()
    rows = [{"code": f"c{n}", "label": None if n % 3 else str(n)} for n in reversed(range(1000))]

    loaded = await upsert_and_load(session, Dial, rows, on=["code"])

    assert [{"code": d.code, "label": d.label} for d in loaded] == rows
    assert statements.count == 2


async def test_more_rows_than_one_select_takes(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch, statements: StatementLog
) -> None:
    monkeypatch.setattr("snippets.async_operations.upsert.KEYS_PER_SELECT", 2)

    loaded = await upsert_and_load(session, Dial, [{"code": c} for c in "abcde"], on=["code"])

    assert [dial.code for dial in loaded] == list("abcde")
    assert statements.count == 4


async def test_objects_in_the_session_get_the_new_values(session: AsyncSession) -> None:
    dial = Dial(code="a", label="old")
    session.add(dial)
    await session.flush()

    (loaded,) = await upsert_and_load(session, Dial, [{"code": "a", "label": "new"}], on=["code"])

    assert loaded is dial
    assert dial.label == "new"


async def test_no_rows_send_nothing(session: AsyncSession, statements: StatementLog) -> None:
    assert await upsert_and_load(session, Dial, [], on=["code"]) == []
    assert statements.count == 0


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"code": "a"}, {"label": "b"}], {}, "row 1 and row 0 differ in their keys: code, label"),
        ([{"code": "a", "x": 1}], {}, "Dial has no x; it has id, code, label, day"),
        ([{"label": "a"}], {}, "the rows have no code"),
        ([{"code": None}], {}, r"row 0 has None in \('code',\): NULL never conflicts"),
        ([{"code": "a"}, {"code": "a"}], {}, r"row 1 repeats \('a',\): which of them should win"),
        ([{"code": "a"}], {"update": ["label"]}, "to update label, the rows must have it"),
        (
            [{"code": "a", "label": "b"}],
            {"on": ["label"]},
            r"on=\('label',\) is no unique key of Dial; use \('id',\) or \('code',\)",
        ),
    ],
)
async def test_rows_that_cannot_go_are_refused_before_anything_is_sent(
    session: AsyncSession,
    statements: StatementLog,
    rows: list[dict[str, Any]],
    options: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(RowsError, match=message):
        await upsert(session, Dial, rows, **({"on": ["code"]} | options))

    assert statements.count == 0


@pytest.mark.parametrize("on", [["unit"], []], ids=["part of the rows", "an expression"])
async def test_an_index_over_a_part_of_the_rows_or_an_expression_is_no_target(
    session: AsyncSession, on: list[str]
) -> None:
    with pytest.raises(RowsError, match=r"use \('id',\) or") as caught:
        await upsert(session, Sensor, [{"code": "a", "unit": "b"}], on=on)

    assert "('plant', 'position')" in str(caught.value)
    assert "unit" not in str(caught.value).partition("use")[2]


async def test_two_at_the_same_time_do_not_conflict(
    factory: async_sessionmaker[AsyncSession],
) -> None:
    async def write(number: int) -> None:
        async with session_scope(factory) as session:
            await upsert(session, Dial, [{"code": "a", "label": str(number)}], on=["code"])

    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(write(number))

    async with factory() as session:
        assert len(await dials(session)) == 1


@pytest.mark.only_on("mysql", reason="its default collation takes upper and lower case for equal")
async def test_a_row_that_is_spelled_otherwise_is_found(session: AsyncSession) -> None:
    session.add_all([Dial(code="ABC"), Dial(code="x")])

    rows = [{"code": "abc", "label": "new"}, {"code": "x", "label": "new"}]
    loaded = await upsert_and_load(session, Dial, rows, on=["code"])

    assert [(dial.code, dial.label) for dial in loaded] == [("ABC", "new"), ("x", "new")]


async def test_a_conflict_on_another_key_is_an_error_but_on_mariadb_an_update(
    session: AsyncSession, engine: AsyncEngine
) -> None:
    from sqlalchemy.exc import IntegrityError

    session.add(Sensor(code="a", plant="x", position=1))
    await session.flush()
    rows = [{"code": "b", "plant": "x", "position": 1, "unit": "bar"}]

    if engine.dialect.name != "mysql":
        with pytest.raises(IntegrityError):
            await upsert(session, Sensor, rows, on=["code"])
        return
    with pytest.raises(RowsError, match="no Sensor with code='b' after the upsert"):
        await upsert_and_load(session, Sensor, rows, on=["code"])
    changed = (await session.exec(select(Sensor.code, Sensor.unit))).one()
    assert tuple(changed) == ("a", "bar")


async def test_the_caller_owns_the_transaction(session: AsyncSession) -> None:
    await upsert(session, Dial, [{"code": "a"}], on=["code"])
    await session.rollback()

    assert await dials(session) == {}
