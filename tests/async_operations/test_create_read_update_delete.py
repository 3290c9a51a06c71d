import pytest
from pydantic import ValidationError
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

from snippets.async_operations.create_read_update_delete import (
    StockItem,
    StockItemCreate,
    StockItemNotFoundError,
    StockItemUpdate,
    create_stock_item,
    delete_stock_item,
    get_stock_item,
    update_stock_item,
)

TABLES = [StockItem]
BOLT = StockItemCreate(code="bolt", quantity=5, place="A1")


async def test_a_created_item_has_its_id_but_is_not_committed(
    session: AsyncSession, factory: async_sessionmaker[AsyncSession]
) -> None:
    item = await create_stock_item(session, BOLT)

    assert item.id is not None
    await session.rollback()
    async with factory() as other:
        assert (await other.exec(select(StockItem))).all() == []


async def test_a_conflict_is_raised_where_the_item_is_created(session: AsyncSession) -> None:
    await create_stock_item(session, BOLT)

    with pytest.raises(IntegrityError):
        await create_stock_item(session, BOLT)


async def test_reading_again_costs_no_statement(
    session: AsyncSession, statements: StatementLog
) -> None:
    item = await create_stock_item(session, BOLT)
    statements.clear()

    assert await get_stock_item(session, item.id) is item
    assert statements.count == 0


async def test_a_missing_item_is_an_error_with_its_key(session: AsyncSession) -> None:
    with pytest.raises(StockItemNotFoundError, match="no stock item has id 7") as caught:
        await get_stock_item(session, 7)

    assert caught.value.key == 7


async def test_an_update_leaves_what_was_not_set(session: AsyncSession) -> None:
    item = await create_stock_item(session, BOLT)

    await update_stock_item(session, item.id, StockItemUpdate(place="B2"))

    assert (item.quantity, item.place) == (5, "B2")


async def test_an_explicit_none_is_a_value(session: AsyncSession) -> None:
    item = await create_stock_item(session, BOLT)

    await update_stock_item(session, item.id, StockItemUpdate(place=None))

    await session.refresh(item)
    assert (item.quantity, item.place) == (5, None)


async def test_an_empty_update_sends_nothing(
    session: AsyncSession, statements: StatementLog
) -> None:
    item = await create_stock_item(session, BOLT)
    statements.clear()

    await update_stock_item(session, item.id, StockItemUpdate())

    assert statements.count == 0


def test_null_is_refused_where_the_column_has_none() -> None:
    with pytest.raises(ValidationError):
        StockItemUpdate.model_validate({"quantity": None})


async def test_a_delete_is_one_statement(session: AsyncSession, statements: StatementLog) -> None:
    item = await create_stock_item(session, BOLT)
    await session.commit()
    statements.clear()

    await delete_stock_item(session, item.id)

    assert statements.count == 1
    assert (await session.exec(select(StockItem))).all() == []


async def test_deleting_what_is_not_there_is_an_error(session: AsyncSession) -> None:
    with pytest.raises(StockItemNotFoundError):
        await delete_stock_item(session, 7)
