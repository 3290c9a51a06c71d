from datetime import UTC, datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import col, insert, select, update
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

from snippets.models.mixins import Carrier, Depot
from snippets.models.timestamps import utc_now

TABLES = [Carrier, Depot]
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


async def test_each_table_has_columns_of_its_own(session: AsyncSession) -> None:
    session.add_all([Carrier(name="rail"), Depot(city="Lyon")])
    await session.commit()

    for model in (Carrier, Depot):
        row = (await session.exec(select(model))).one()
        assert isinstance(row.id, UUID)
        assert abs(row.created_at - utc_now()) < timedelta(seconds=10)
    columns = [sa.inspect(model).columns["created_at"] for model in (Carrier, Depot)]
    assert columns[0] is not columns[1]


async def test_a_change_moves_updated_at_and_both_stay_readable(
    session: AsyncSession, statements: StatementLog
) -> None:
    carrier = Carrier(name="rail", created_at=LONG_AGO, updated_at=LONG_AGO)
    session.add(carrier)
    await session.commit()

    carrier.name = "road"
    statements.clear()
    await session.commit()

    assert carrier.created_at == LONG_AGO
    assert carrier.updated_at > LONG_AGO
    assert statements.count == 1
    await session.refresh(carrier)
    assert carrier.updated_at > LONG_AGO


async def test_a_commit_without_a_change_leaves_updated_at(session: AsyncSession) -> None:
    carrier = Carrier(name="rail", updated_at=LONG_AGO)
    session.add(carrier)
    await session.commit()

    carrier.name = "rail"
    await session.commit()

    assert carrier.updated_at == LONG_AGO


async def test_bulk_statements_set_the_columns_too(session: AsyncSession) -> None:
    await session.exec(insert(Carrier), params=[{"name": "rail"}, {"name": "road"}])
    before = (await session.exec(select(Carrier.updated_at))).all()
    await session.exec(update(Carrier).values(name="air"))
    after = (await session.exec(select(Carrier.updated_at))).all()

    assert len(before) == len(after) == 2
    assert max(before) < min(after)


async def test_rows_of_other_programs_get_the_clock_of_the_server(
    session: AsyncSession, engine: AsyncEngine
) -> None:
    key = UUID(int=7)
    raw = f"'{key.hex}'" if engine.dialect.name == "sqlite" else f"'{key}'"
    if sa.__version__ < "2.1" and engine.dialect.name == "mysql":
        raw = f"'{key.hex}'"
    await session.exec(sa.text(f"INSERT INTO depot (id, city) VALUES ({raw}, 'Nice')"))

    depot = (await session.exec(select(Depot).where(col(Depot.id) == key))).one()

    assert abs(depot.created_at - utc_now()) < timedelta(seconds=10)
    assert depot.created_at == depot.updated_at
