import enum
from typing import Any

import pytest
from sqlmodel import Field, SQLModel, col, delete, insert, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.best_practices.query_plans import Letter, query_plan


class State(enum.Enum):
    OPEN = "open"
    DONE = "done"


class Errand(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    state: State = Field(index=True)
    changes: int = Field(default=0, sa_column_kwargs={"onupdate": lambda: 1})


TABLES = [Letter, Errand]


async def test_the_plan_names_the_index_that_serves_the_filter_and_the_order(
    session: AsyncSession,
) -> None:
    statement = select(Letter).where(Letter.town == "Oslo").order_by(Letter.code).limit(10)

    plan = await query_plan(session, statement, scans=False)

    assert "ix_letter_town_code" in plan


async def test_the_plan_of_another_filter_does_not_name_it(session: AsyncSession) -> None:
    plan = await query_plan(session, select(Letter).where(Letter.id == 1), scans=False)

    assert "ix_letter_town_code" not in plan


async def test_the_statement_is_not_run_and_the_transaction_stays(session: AsyncSession) -> None:
    session.add(Letter(code="L1", town="Oslo"))
    await session.flush()

    await query_plan(session, delete(Letter).where(col(Letter.town) == "Oslo"))

    await session.commit()
    assert (await session.exec(select(Letter.code))).all() == ["L1"]


@pytest.mark.parametrize(
    "statement",
    [
        update(Letter).where(col(Letter.town) == "Oslo").values(code="L2"),
        update(Letter).where(col(Letter.town).in_(["Oslo", "Bergen"])).values(code="L2"),
        delete(Letter).where(col(Letter.town) == "Oslo"),
    ],
)
async def test_the_plan_of_a_write_names_its_index_and_nothing_is_written(
    session: AsyncSession, statement: Any
) -> None:
    session.add(Letter(code="L1", town="Oslo"))
    await session.flush()

    plan = await query_plan(session, statement, scans=False)

    assert "ix_letter_town_code" in plan
    await session.commit()
    assert (await session.exec(select(Letter.code))).all() == ["L1"]


async def test_a_column_that_each_update_fills_in_is_part_of_the_plan_s_statement(
    session: AsyncSession,
) -> None:
    statement = update(Errand).where(col(Errand.state) == State.OPEN).values(state=State.DONE)

    assert "ix_errand_state" in await query_plan(session, statement, scans=False)


async def test_the_plan_has_no_types_of_the_statement_s_columns(session: AsyncSession) -> None:
    state, is_open = col(Errand.state), col(Errand.state) == State.OPEN
    for count in (1, 4, 10):  # as many as a plan has, on PostgreSQL, SQLite and MariaDB
        states = [state.label(f"state_{number}") for number in range(count)]
        plan = await query_plan(session, select(*states).where(is_open), scans=False)

        assert "ix_errand_state" in plan


async def test_an_insert_is_refused(session: AsyncSession) -> None:
    chosen = select(col(Letter.code), col(Letter.town)).where(col(Letter.town) == "Oslo")
    statement = insert(Letter).from_select(["code", "town"], chosen)

    with pytest.raises(TypeError, match="ask for that of its SELECT"):
        await query_plan(session, statement)
    assert "ix_letter_town_code" in await query_plan(session, chosen, scans=False)


@pytest.mark.only_on("postgresql", reason="the only one with the setting")
async def test_scans_are_off_for_the_plan_alone(session: AsyncSession) -> None:
    statement = select(Letter).where(Letter.town == "Oslo")
    await query_plan(session, statement, scans=False)

    assert "Seq Scan" in await query_plan(session, select(Letter))
    connection = await session.connection()
    assert (await connection.exec_driver_sql("SHOW enable_seqscan")).scalar() == "on"
