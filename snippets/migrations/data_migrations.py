"""Change the rows of a large table in bounded batches, each of which is committed by itself."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations

BATCH = 1000


class OfflineError(RuntimeError):
    """A migration that reads rows can't be written as SQL (`--sql`)."""


def online(op: Operations) -> sa.Connection:
    """Return the connection.

    Raises:
        OfflineError: the command runs with `--sql`.
    """
    if op.get_context().as_sql:
        raise OfflineError("this migration reads rows: run it online, not with --sql")
    return op.get_bind()


def update_in_batches(
    op: Operations,
    key: sa.Column[Any],
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
    table = key.table
    changed = 0
    online(op)
    with op.get_context().autocommit_block():
        connection = op.get_bind()
        for first, last in _ranges(connection, key, pending, size):
            statement = sa.update(table).where(key.between(first, last), pending)
            changed += connection.execute(statement.values(values)).rowcount
    return changed


def rewrite_in_batches(
    op: Operations,
    key: sa.Column[Any],
    pending: sa.ColumnElement[bool],
    columns: Iterable[sa.Column[Any]],
    rewrite: Callable[[sa.Row[Any]], Mapping[str, Any]],
    *,
    size: int = BATCH,
) -> int:
    """As `update_in_batches`, with values that Python makes from the old ones of each row.

    A row that changes meanwhile is left as it is: run it again, or stop the writers first.
    """
    table, read = key.table, tuple(columns)
    changed = 0
    online(op)
    with op.get_context().autocommit_block():
        connection = op.get_bind()
        for first, last in _ranges(connection, key, pending, size):
            query = sa.select(key, *read).where(key.between(first, last), pending)
            for row in connection.execute(query).all():
                unchanged = [column.is_not_distinct_from(row._mapping[column]) for column in read]
                statement = sa.update(table).where(key == row._mapping[key], *unchanged)
                changed += connection.execute(statement.values(rewrite(row))).rowcount
    return changed


def _ranges(
    connection: sa.Connection, key: sa.Column[Any], pending: sa.ColumnElement[bool], size: int
) -> Iterable[tuple[Any, Any]]:
    """Yield the first and last key of each batch, found by the key's index, never by OFFSET."""
    after: list[sa.ColumnElement[bool]] = []
    while True:
        batch = sa.select(key).where(pending, *after).order_by(key).limit(size).subquery()
        first, last = connection.execute(
            sa.select(sa.func.min(batch.c[key.name]), sa.func.max(batch.c[key.name]))
        ).one()
        if first is None:
            return
        yield first, last
        after = [key > last]
