import pytest
from sqlalchemy import func
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import selectinload
from sqlmodel import Field, Relationship, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.models.soft_delete import (
    SoftDeleteMixin,
    Supplier,
    hide_deleted,
    only_live,
    restore,
    soft_delete,
)


class Quarry(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    pits: list["Pit"] = Relationship()


class NumberedMixin(SoftDeleteMixin):
    """A mixin between: no table itself."""

    number: int = 0


class Pit(NumberedMixin, table=True):
    id: int | None = Field(default=None, primary_key=True)
    quarry_id: int = Field(foreign_key="quarry.id")


TABLES = [Supplier, Quarry, Pit]
Factory = async_sessionmaker[AsyncSession]


async def two_suppliers(factory: Factory) -> tuple[int, int]:
    """Return the ids of a live and of a deleted one."""
    async with factory() as session:
        live, gone = Supplier(vat_number="1"), Supplier(vat_number="2")
        soft_delete(gone)
        session.add_all([live, gone])
        await session.commit()
        assert live.id is not None
        assert gone.id is not None
        return live.id, gone.id


async def test_a_statement_can_leave_out_deleted_rows(factory: Factory) -> None:
    await two_suppliers(factory)
    async with factory() as session:
        numbers = (await session.exec(only_live(select(Supplier.vat_number)))).all()
        count = (await session.exec(only_live(select(func.count(col(Supplier.id)))))).one()
        everything = (await session.exec(select(Supplier))).all()

    assert (numbers, count, len(everything)) == (["1"], 1, 2)


async def test_a_session_can_hide_deleted_rows(factory: Factory) -> None:
    live, gone = await two_suppliers(factory)
    async with factory() as session:
        hide_deleted(session)

        assert [s.id for s in await session.exec(select(Supplier))] == [live]
        assert await session.get(Supplier, live) is not None
        assert await session.get(Supplier, gone) is None
        shown = await session.exec(select(Supplier), execution_options={"with_deleted": True})
        assert {s.id for s in shown} == {live, gone}
        assert await session.get(Supplier, gone, execution_options={"with_deleted": True})


async def test_other_sessions_still_see_deleted_rows(factory: Factory) -> None:
    await two_suppliers(factory)
    async with factory() as hiding:
        hide_deleted(hiding)
    async with factory() as session:
        assert len((await session.exec(select(Supplier))).all()) == 2


async def test_a_row_that_the_session_holds_can_be_refreshed_and_restored(
    factory: Factory,
) -> None:
    live, _ = await two_suppliers(factory)
    async with factory() as session:
        hide_deleted(session)
        supplier = await session.get(Supplier, live)
        assert supplier is not None
        soft_delete(supplier)
        await session.commit()

        assert (await session.exec(select(Supplier))).all() == []
        assert await session.get(Supplier, live) is supplier
        await session.refresh(supplier)
        assert supplier.deleted_at is not None
        restore(supplier)
        await session.commit()
        assert (await session.exec(select(Supplier))).all() == [supplier]


async def test_loaded_relationships_leave_out_deleted_rows_too(factory: Factory) -> None:
    async with factory() as session:
        quarry = Quarry()
        session.add(quarry)
        await session.flush()
        assert quarry.id is not None
        pits = [Pit(quarry_id=quarry.id), Pit(quarry_id=quarry.id)]
        soft_delete(pits[0])
        session.add_all(pits)
        await session.commit()
    async with factory() as session:
        hide_deleted(session)
        statement = select(Quarry).options(selectinload(Quarry.pits))  # type: ignore[arg-type]
        (found,) = (await session.exec(statement)).all()
        assert [pit.id for pit in found.pits] == [pits[1].id]
        session.expunge_all()
        shown = await session.exec(statement, execution_options={"with_deleted": True})
        assert len(shown.one().pits) == 2
        session.expunge_all()
        everything = await session.exec(select(Quarry), execution_options={"with_deleted": True})
        quarry = everything.one()
        assert len(await session.run_sync(lambda _session: list(quarry.pits))) == 2
        joined = select(Quarry.id, Pit.id).join(Pit)
        assert (await session.exec(joined)).all() == [(quarry.id, pits[1].id)]


async def test_a_deleted_number_may_be_taken_again_but_a_live_one_not(factory: Factory) -> None:
    await two_suppliers(factory)
    async with factory() as session:
        session.add(Supplier(vat_number="2"))
        await session.commit()
        session.add(Supplier(vat_number="1"))
        with pytest.raises(DBAPIError, match=r"UNIQUE|duplicate key|Duplicate entry"):
            await session.flush()


async def test_a_row_is_not_restored_over_its_successor(factory: Factory) -> None:
    _, gone = await two_suppliers(factory)
    async with factory() as session:
        session.add(Supplier(vat_number="2"))
        await session.commit()
        supplier = await session.get(Supplier, gone)
        assert supplier is not None
        restore(supplier)
        with pytest.raises(DBAPIError, match=r"UNIQUE|duplicate key|Duplicate entry"):
            await session.flush()
