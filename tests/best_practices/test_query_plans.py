import pytest
from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.best_practices.query_plans import Letter, query_plan

TABLES = [Letter]


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


@pytest.mark.only_on("postgresql", reason="the only one with the setting")
async def test_scans_are_off_for_the_plan_alone(session: AsyncSession) -> None:
    statement = select(Letter).where(Letter.town == "Oslo")
    await query_plan(session, statement, scans=False)

    assert "Seq Scan" in await query_plan(session, select(Letter))
    connection = await session.connection()
    assert (await connection.exec_driver_sql("SHOW enable_seqscan")).scalar() == "on"
