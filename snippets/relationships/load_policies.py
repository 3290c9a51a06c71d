"""Decide what an access to something unloaded does: load on await, raise, or leave rows out."""

from collections.abc import Sequence
from typing import TypeVar

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncAttrs
from sqlalchemy.orm import ORMExecuteState, raiseload, with_loader_criteria
from sqlmodel import Field, Relationship, SQLModel, col
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

T = TypeVar("T")


class Workshop(AsyncAttrs, SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=50)
    tools: list["Tool"] = Relationship(
        back_populates="workshop", sa_relationship_kwargs={"order_by": "Tool.id"}
    )


class Tool(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=50)
    retired: bool = False
    workshop_id: int = Field(default=None, foreign_key="workshop.id", index=True)
    # Raises only when it would send SQL; "raise" refuses also what the session already has.
    workshop: Workshop = Relationship(
        back_populates="tools", sa_relationship_kwargs={"lazy": "raise_on_sql"}
    )


def strictly(statement: SelectOfScalar[T]) -> SelectOfScalar[T]:
    """Let everything that the statement does not load raise when it is read."""
    return statement.options(raiseload("*"))


async def tools_of(workshop: Workshop) -> Sequence[Tool]:
    """Load on demand, one statement; right for one object, N+1 in a loop."""
    tools: list[Tool] = await workshop.awaitable_attrs.tools
    return tools


async def load_workshop(session: AsyncSession, tool: Tool) -> Workshop:
    """Load one relationship of one object, also one that raises on access."""
    await session.refresh(tool, attribute_names=["workshop"])
    return tool.workshop


def hide_retired(session: AsyncSession) -> None:
    """Leave retired tools out of every select and every load of the session.

    A single query asks for all with `execution_options(with_retired=True)`.
    """
    event.listen(session.sync_session, "do_orm_execute", _add_criteria)


def _add_criteria(state: ORMExecuteState) -> None:
    # Loads of relationships inherit the criteria of the query that they belong to, or its wish to
    # have none.
    if not state.is_select or state.is_relationship_load:
        return
    if not state.execution_options.get("with_retired"):
        current = with_loader_criteria(Tool, col(Tool.retired).is_(False), include_aliases=True)
        state.statement = state.statement.options(current)
