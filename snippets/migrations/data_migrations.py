"""Change the rows of a large table in bounded batches, each of which is committed by itself."""

from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations

BATCH = 1000

# What a revision imports as `op` is a module, and to a type checker no `Operations`.
Op = Operations | ModuleType


class UnchangedRowError(RuntimeError):
    """A row that is as it was read was not changed: a value of it does not equal itself."""


class OfflineError(RuntimeError):
    """A migration that reads rows can't be written as SQL (`--sql`)."""


def online(op: Op) -> sa.Connection:
    """Return the connection.

    Raises:
        OfflineError: the command runs with `--sql`.
    """
    if op.get_context().as_sql:
        raise OfflineError("this migration reads rows: run it online, not with --sql")
    connection: sa.Connection = op.get_bind()
    return connection


def update_in_batches(
    op: Op,
    key: sa.ColumnClause[Any],
    pending: sa.ColumnElement[bool],
    values: Mapping[str, Any],
    *,
    size: int = BATCH,
) -> int:
    """Set the columns where `pending` holds, `size` rows at a time; return how many rows changed.

    What ran before is committed, and so is each batch: no lock is held for long, and a second run
    goes on where the first one failed. So `values` must end what `pending` asks for, and the call
    must be all that its migration does.
    """
    table: Any = key.table
    changed = 0
    online(op)
    with op.get_context().autocommit_block():
        connection = op.get_bind()
        for first, last in _ranges(connection, key, pending, size):
            statement = sa.update(table).where(key.between(first, last), pending)
            changed += connection.execute(statement.values(values)).rowcount
    return changed


def rewrite_in_batches(
    op: Op,
    key: sa.ColumnClause[Any],
    pending: sa.ColumnElement[bool],
    columns: Iterable[sa.ColumnClause[Any]],
    rewrite: Callable[[sa.Row[Any]], Mapping[str, Any]],
    *,
    size: int = BATCH,
) -> int:
    """As `update_in_batches`, with values that Python makes from the old ones of each row.

    A row that changes meanwhile is left as it is: run it again, or stop the writers first.

    Raises:
        UnchangedRowError: the database can't compare a column with its own value; give its type.
    """
    read = tuple(columns)
    old = [_comparable(column).label(f"old_{number}") for number, column in enumerate(read)]
    query = sa.select(key, *read, *old).where(pending)
    changed = 0
    online(op)
    with op.get_context().autocommit_block():
        connection = op.get_bind()
        for first, last in _ranges(connection, key, pending, size):
            for row in connection.execute(query.where(key.between(first, last))).all():
                here = key == row._mapping[key]
                same = (each.element.is_not_distinct_from(row._mapping[each]) for each in old)
                table: Any = key.table
                statement = sa.update(table).where(here, *same).values(rewrite(row))
                count = connection.execute(statement).rowcount
                if not count and connection.execute(query.where(here)).first() == row:
                    raise UnchangedRowError(f"{key} = {row[0]} was not changed")
                changed += count
    return changed


def _comparable(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return what equals its own old value: the text of JSON, the float with all its digits."""
    kind = column.type
    if isinstance(kind, sa.types.TypeDecorator):
        kind = kind.impl_instance
    if isinstance(kind, sa.JSON):
        return sa.cast(column, sa.Text)
    if isinstance(kind, sa.Float):
        return sa.cast(column, sa.Double)
    return column


def _ranges(
    connection: sa.Connection, key: sa.ColumnClause[Any], pending: sa.ColumnElement[bool], size: int
) -> Iterable[tuple[Any, Any]]:
    """Yield the first and last key of each batch, found by the key's index, never by OFFSET."""
    after: list[sa.ColumnElement[bool]] = []
    while True:
        query = sa.select(key).where(pending, *after).order_by(key).limit(size)
        keys = connection.execute(query).scalars().all()  # PostgreSQL has no min() of UUIDs
        if not keys:
            return
        yield keys[0], keys[-1]
        after = [key > keys[-1]]
