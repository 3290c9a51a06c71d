"""Mark rows as deleted, and leave them out of every query of a session."""

from collections.abc import Iterator
from datetime import datetime
from typing import TypeVar

from sqlalchemy import Computed, event, inspect
from sqlalchemy.orm import ORMExecuteState, with_loader_criteria
from sqlalchemy.sql.base import Executable
from sqlmodel import Field, SQLModel, col
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.models.timestamps import UTCTimestamp, utc_now

E = TypeVar("E", bound=Executable)


class SoftDeleteMixin(SQLModel):
    deleted_at: datetime | None = Field(default=None, index=True, sa_type=UTCTimestamp)


def soft_delete(row: SoftDeleteMixin) -> None:
    row.deleted_at = utc_now()


def restore(row: SoftDeleteMixin) -> None:
    row.deleted_at = None


def only_live(statement: E) -> E:
    """Return the statement without deleted rows, in joins and loaded relationships too."""
    # One option a table: given the mixin itself, SQLAlchemy asks it for an attribute it has not.
    return statement.options(
        *(
            with_loader_criteria(model, col(model.deleted_at).is_(None), include_aliases=True)
            for model in _tables_of(SoftDeleteMixin)
        )
    )


def _tables_of(mixin: type[SoftDeleteMixin]) -> Iterator[type[SoftDeleteMixin]]:
    for model in mixin.__subclasses__():
        if inspect(model, raiseerr=False) is not None:
            yield model
        yield from _tables_of(model)


def hide_deleted(session: AsyncSession) -> None:
    """Leave deleted rows out of all later queries, `get` included.

    `execution_options={"with_deleted": True}` shows them. What the session already holds stays
    visible to `get`; UPDATE, DELETE and raw SQL are not filtered.
    """
    event.listen(session.sync_session, "do_orm_execute", _hide_deleted)


def _hide_deleted(state: ORMExecuteState) -> None:
    # Loads of relationships inherit what the query of their parent had, filter or none.
    filtered = state.is_select and not state.is_relationship_load
    if filtered and not state.execution_options.get("with_deleted"):
        state.statement = only_live(state.statement)


# Example: scaffold.py leaves out what follows.


class Supplier(SoftDeleteMixin, table=True):
    id: int | None = Field(default=None, primary_key=True)
    vat_number: str = Field(max_length=20)
    # A plain unique key would keep a deleted supplier's number taken.
    live_vat_number: str | None = Field(
        default=None,
        max_length=20,
        unique=True,
        sa_column_args=(
            Computed("CASE WHEN deleted_at IS NULL THEN vat_number END", persisted=True),
        ),
    )
