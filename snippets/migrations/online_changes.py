"""Change a table that is in use: short locks, indexes beside it, steps that can be repeated."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from snippets.migrations.data_migrations import Op, online
from snippets.migrations.schema_changes import set_nullable

LOCK_TIMEOUTS = {"55P03", 1205}


def with_short_lock(
    op: Op,
    change: Callable[[], object],
    *,
    seconds: int = 2,
    attempts: int = 10,
    pause: float = 1,
) -> None:
    """Make one change; while another transaction holds the table, wait `seconds`, then step back.

    A DDL statement that waits stops all who come after it, readers too. Without this MariaDB waits
    a day for the lock of a table: `innodb_lock_wait_timeout` is about rows.

    Raises:
        ValueError: fewer than one of the seconds (0 waits for ever) or attempts.
        sqlalchemy.exc.DBAPIError: the table was not free in any of the attempts.
    """
    if min(seconds, attempts) < 1:
        raise ValueError("seconds and attempts must be at least 1")
    connection = online(op)
    restore = _set_lock_timeout(connection, seconds)
    try:
        while True:
            try:
                return _run(connection, change)
            except DBAPIError as error:
                attempts -= 1
                if not attempts or not _is_lock_timeout(error):
                    raise
            time.sleep(pause)
    finally:
        restore()


def _run(connection: sa.Connection, change: Callable[[], object]) -> None:
    if connection.dialect.name == "postgresql":  # elsewhere DDL fails alone, or ends a savepoint
        with connection.begin_nested():
            change()
    else:
        change()


def _set_lock_timeout(connection: sa.Connection, seconds: int) -> Callable[[], object]:
    """Set it; return what sets it back. SQLite's own is `engine_for`'s `lock_timeout`."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{seconds}s'")
    elif connection.dialect.name != "sqlite":
        before = connection.exec_driver_sql("SELECT @@lock_wait_timeout").scalar_one()
        connection.exec_driver_sql(f"SET SESSION lock_wait_timeout = {seconds}")
        return lambda: connection.exec_driver_sql(f"SET SESSION lock_wait_timeout = {before}")
    return lambda: None


def _is_lock_timeout(error: DBAPIError) -> bool:
    original: Any = error.orig
    codes = (getattr(original, "sqlstate", None), *original.args[:1])
    return any(code in LOCK_TIMEOUTS for code in codes)


def create_index_online(op: Op, name: str, table: str, columns: Sequence[str]) -> None:
    """Create an index while others write; what ran before in the migration is committed.

    Can be repeated: one that failed leaves an invalid index on PostgreSQL, which is made anew.
    """
    online(op)
    with op.get_context().autocommit_block():
        if is_invalid_index(op.get_bind(), name):
            op.drop_index(name, table, postgresql_concurrently=True)
        if missing(op, table, index=name):
            op.create_index(op.f(name), table, columns, postgresql_concurrently=True)


def drop_index_online(op: Op, name: str, table: str) -> None:
    online(op)
    with op.get_context().autocommit_block():
        op.drop_index(name, table, postgresql_concurrently=True)


def is_invalid_index(connection: sa.Connection, name: str) -> bool:
    """Return whether a failed CREATE INDEX CONCURRENTLY left it: it costs writes alone."""
    if connection.dialect.name != "postgresql":
        return False
    query = sa.text("SELECT NOT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")
    quoted = connection.dialect.identifier_preparer.quote(name)  # else it is taken in lower case
    return bool(connection.execute(query, {"name": quoted}).scalar())


def require_online(op: Op, table: str, column: sa.Column[Any]) -> None:
    """Make a filled column NOT NULL; PostgreSQL looks at the rows without stopping writers."""
    if op.get_context().dialect.name != "postgresql":
        set_nullable(op, table, column, nullable=False)
        return
    quote = op.get_context().dialect.identifier_preparer.quote
    name, check = quote(column.name), quote(f"ck_{table}_{column.name}_filled")
    alter = f"ALTER TABLE {quote(table)}"
    with op.get_context().autocommit_block():
        op.execute(f"{alter} DROP CONSTRAINT IF EXISTS {check}")
        op.execute(f"{alter} ADD CONSTRAINT {check} CHECK ({name} IS NOT NULL) NOT VALID")
        try:
            op.execute(f"{alter} VALIDATE CONSTRAINT {check}")
            op.execute(f"{alter} ALTER COLUMN {name} SET NOT NULL")
        finally:  # not valid it would still refuse the NULLs that the old code writes
            op.execute(f"{alter} DROP CONSTRAINT {check}")


def missing(op: Op, table: str, *, column: str | None = None, index: str | None = None) -> bool:
    """Return whether a step is still to be done: MariaDB commits each statement of a migration.

    `if missing(op, "claim", column="currency"): op.add_column(...)` can run again after a failure.
    """
    inspector = sa.inspect(online(op))
    if not inspector.has_table(table):
        return True
    if column is not None:
        return column not in {found["name"] for found in inspector.get_columns(table)}
    if index is not None:
        return index not in {found["name"] for found in inspector.get_indexes(table)}
    return False
