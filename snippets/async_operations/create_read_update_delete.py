"""Create, read, change and delete one row; what was set comes from the schema, never the table."""

from sqlmodel import Field, SQLModel, col, delete
from sqlmodel.ext.asyncio.session import AsyncSession


class StockItemBase(SQLModel):
    code: str = Field(max_length=20)
    quantity: int = Field(default=0, ge=0)
    place: str | None = Field(default=None, max_length=20)


class StockItem(StockItemBase, table=True):
    id: int | None = Field(default=None, primary_key=True)
    code: str = Field(max_length=20, unique=True)


class StockItemCreate(StockItemBase):
    pass


class StockItemUpdate(SQLModel):
    quantity: int = Field(default=0, ge=0)  # may be left out, may not be null
    place: str | None = Field(default=None, max_length=20)


class StockItemNotFoundError(LookupError):
    def __init__(self, key: int) -> None:
        super().__init__(f"no stock item has id {key}")
        self.key = key


async def create_stock_item(session: AsyncSession, data: StockItemCreate) -> StockItem:
    """Insert it now, so that its id is known and a conflict is raised here; the caller commits."""
    item = StockItem.model_validate(data)
    session.add(item)
    await session.flush()
    return item


async def get_stock_item(session: AsyncSession, key: int) -> StockItem:
    """Return it, without SQL when the session has it already.

    Raises:
        StockItemNotFoundError: there is none.
    """
    item = await session.get(StockItem, key)
    if item is None:
        raise StockItemNotFoundError(key)
    return item


async def update_stock_item(session: AsyncSession, key: int, changes: StockItemUpdate) -> StockItem:
    """Change what the caller has set, and only that; an explicit None is a value."""
    item = await get_stock_item(session, key)
    item.sqlmodel_update(changes.model_dump(exclude_unset=True))
    await session.flush()
    return item


async def delete_stock_item(session: AsyncSession, key: int) -> None:
    """Delete it in one statement, without loading it; ORM cascades do not run.

    Raises:
        StockItemNotFoundError: there is none.
    """
    result = await session.exec(delete(StockItem).where(col(StockItem.id) == key))
    if result.rowcount == 0:
        raise StockItemNotFoundError(key)
