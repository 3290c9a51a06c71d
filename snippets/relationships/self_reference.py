"""A tree of categories, and a graph of stations with one-way connections."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Optional

from sqlalchemy.orm import selectinload
from sqlalchemy.orm.attributes import set_committed_value
from sqlmodel import Field, Relationship, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession


class Category(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=50)
    parent_id: int | None = Field(default=None, foreign_key="category.id", index=True)
    # `remote_side` marks the one side: the column that this row's `parent_id` points to.
    parent: Optional["Category"] = Relationship(
        back_populates="children", sa_relationship_kwargs={"remote_side": "Category.id"}
    )
    children: list["Category"] = Relationship(
        back_populates="parent", sa_relationship_kwargs={"order_by": "Category.id"}
    )


class Connection(SQLModel, table=True):
    from_id: int | None = Field(default=None, foreign_key="station.id", primary_key=True)
    to_id: int | None = Field(default=None, foreign_key="station.id", primary_key=True, index=True)
    minutes: int


class Station(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=50)
    # Two foreign keys lead to the same table: say which one is which end. To write, add a
    # Connection; the shortcut could not fill its `minutes`.
    next_stations: list["Station"] = Relationship(
        link_model=Connection,
        sa_relationship_kwargs={
            "primaryjoin": "Station.id == Connection.from_id",
            "secondaryjoin": "Station.id == Connection.to_id",
            "order_by": "Station.id",
            "viewonly": True,
        },
    )


async def category_with_descendants(session: AsyncSession, category_id: int) -> Category | None:
    """Return a category whose `children` are loaded down to the leaves, a statement per level.

    A cycle in the data (a category below itself) never ends; `category_tree` does.
    """
    descend = selectinload(Category.children, recursion_depth=-1)  # type: ignore[arg-type]
    statement = select(Category).where(Category.id == category_id).options(descend)
    return (await session.exec(statement)).one_or_none()


async def category_tree(session: AsyncSession, category_id: int) -> Category | None:
    """The same in one statement, whatever the depth."""
    branch = select(Category.id).where(Category.id == category_id).cte("branch", recursive=True)
    # UNION drops what was found before, so that a cycle in the data ends.
    branch = branch.union(select(Category.id).where(col(Category.parent_id) == branch.c.id))
    statement = select(Category).where(col(Category.id).in_(select(branch.c.id)))
    found = (await session.exec(statement.order_by(col(Category.id)))).all()
    children: dict[int | None, list[Category]] = defaultdict(list)
    for category in found:
        children[category.parent_id].append(category)
    for category in found:
        # As if loaded: an assignment would mark every category as changed.
        set_committed_value(category, "children", children[category.id])
    return next((category for category in found if category.id == category_id), None)


async def reachable_stations(session: AsyncSession, start_id: int) -> Sequence[Station]:
    """Return the start and every station that some way leads to, in one statement."""
    reached = select(Station.id).where(Station.id == start_id).cte("reached", recursive=True)
    reached = reached.union(select(Connection.to_id).where(col(Connection.from_id) == reached.c.id))
    statement = select(Station).where(col(Station.id).in_(select(reached.c.id)))
    return (await session.exec(statement.order_by(col(Station.id)))).all()
