"""Change tables that have rows: each function undoes what its partner did, row by row."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations

from snippets.migrations.data_migrations import online
from snippets.migrations.environment import PARKED


class UnexpectedValueError(ValueError):
    """Rows have values that the migration does not know; nothing was changed."""


def table_of(op: Operations, name: str) -> sa.Table:
    """Return the table as the database has it now: never the application's model of today."""
    return sa.Table(name, sa.MetaData(), autoload_with=online(op), resolve_fks=False)


# --- rename ---


def rename_column(op: Operations, table: str, old: str, new: str) -> None:
    """In place, on all three: its type, NOT NULL, indexes and constraints stay."""
    quote = op.get_context().dialect.identifier_preparer.quote
    op.execute(f"ALTER TABLE {quote(table)} RENAME COLUMN {quote(old)} TO {quote(new)}")


# --- required columns ---


def add_required_column(op: Operations, table: str, column: sa.Column[Any], value: str) -> None:
    """Add a NOT NULL column to a table with rows, all of which get `value`.

    The default stays until `drop_default`, for the old code that still inserts without the column.
    """
    column.nullable = False
    column.server_default = sa.DefaultClause(value)
    op.add_column(table, column)


def drop_default(op: Operations, table: str, column: sa.Column[Any]) -> None:
    with op.batch_alter_table(table) as batch:
        batch.alter_column(
            column.name, server_default=None, existing_type=column.type, existing_nullable=False
        )


def set_nullable(op: Operations, table: str, column: sa.Column[Any], nullable: bool) -> None:
    """Fill the NULLs before you call it with False.

    Raises:
        UnexpectedValueError: there are NULLs left. MariaDB would turn them into '' or 0.
    """
    if not nullable:
        source = table_of(op, table)
        nulls = sa.select(sa.func.count()).where(source.c[column.name].is_(None))
        if count := online(op).execute(nulls).scalar_one():
            raise UnexpectedValueError(f"{table}.{column.name} has {count} NULLs")
    with op.batch_alter_table(table) as batch:
        batch.alter_column(column.name, nullable=nullable, existing_type=column.type)


# --- types ---


def float_to_decimal(op: Operations, table: str, column: str, scale: int = 2) -> None:
    """Give an amount its exact type.

    Raises:
        UnexpectedValueError: rounding would change a value by more than the float's own error.
    """
    source = table_of(op, table)
    inexact = _inexact(source.c[column], scale)
    if count := online(op).execute(sa.select(sa.func.count()).where(inexact)).scalar_one():
        raise UnexpectedValueError(f"{count} values of {table}.{column} need over {scale} digits")
    rounded = f'round(CAST("{column}" AS numeric), {scale})'
    kind = sa.Numeric(18, scale)
    with op.batch_alter_table(table) as batch:
        nullable = bool(source.c[column].nullable)  # else MariaDB makes it nullable
        batch.alter_column(column, type_=kind, existing_nullable=nullable, postgresql_using=rounded)


def _inexact(column: sa.ColumnElement[Any], scale: int) -> sa.ColumnElement[bool]:
    shifted = column * 10.0**scale
    return sa.func.abs(shifted - sa.func.round(shifted)) > 1e-4


def decimal_to_float(op: Operations, table: str, column: str) -> None:
    nullable = bool(table_of(op, table).c[column].nullable)
    with op.batch_alter_table(table) as batch:
        batch.alter_column(column, type_=sa.Double(), existing_nullable=nullable)


# --- allowed values ---


def add_column_of_values(
    op: Operations, table: str, source: str, target: str, spellings: Mapping[str, str]
) -> None:
    """Add `target`, made from the free text in `source`, which stays until a later migration.

    Raises:
        UnexpectedValueError: a text that is none of the spellings, apart from case and blanks.
    """
    rows = sa.table(table, sa.column(source), sa.column(target))
    text = sa.func.lower(sa.func.trim(rows.c[source]))
    connection = online(op)
    query = sa.select(text).where(rows.c[source].is_not(None)).distinct()
    if unknown := sorted(set(connection.execute(query).scalars()) - spellings.keys()):
        raise UnexpectedValueError(f"{table}.{source} has {', '.join(map(repr, unknown))}")
    op.add_column(table, sa.Column(target, sa.String(30)))
    for spelling, value in spellings.items():
        connection.execute(sa.update(rows).where(text == spelling).values({target: value}))
    allow_values(op, table, target, sorted(set(spellings.values())))


def allow_values(op: Operations, table: str, column: str, values: Sequence[str]) -> None:
    condition = sa.column(column).in_(values).compile(compile_kwargs={"literal_binds": True})
    with op.batch_alter_table(table) as batch:
        batch.create_check_constraint(op.f(f"ck_{table}_{column}_known"), str(condition))


def disallow_values(op: Operations, table: str, column: str) -> None:
    with op.batch_alter_table(table) as batch:
        batch.drop_constraint(op.f(f"ck_{table}_{column}_known"), type_="check")


def change_allowed_values(
    op: Operations, table: str, column: str, values: Sequence[str], replace: Mapping[str, str]
) -> None:
    """Allow other values; `replace` says what becomes of those that are not allowed any more."""
    disallow_values(op, table, column)
    target = sa.table(table, sa.column(column))
    for old, new in replace.items():
        op.execute(sa.update(target).where(target.c[column] == old).values({column: new}))
    allow_values(op, table, column, values)


# --- unique ---


def park_duplicates(op: Operations, table: str, columns: Sequence[str], child: str, by: str) -> int:
    """Keep the oldest row of each group of equal ones, so that a unique constraint can follow.

    Rows of `child` that refer to another one by the column `by` now refer to the one that is kept.
    What was removed and what was changed is kept in two tables, for `restore_duplicates`.
    """
    connection = online(op)
    rows, children = table_of(op, table), table_of(op, child)
    same = [rows.c[name] for name in columns]
    groups = sa.select(sa.func.min(rows.c.id).label("kept"), *same).group_by(*same).subquery()
    is_copy = sa.and_(
        rows.c.id > groups.c.kept, *(column == groups.c[column.name] for column in same)
    )
    copies = sa.select(rows.c.id).join_from(rows, groups, is_copy)
    removed = _copy(op, PARKED + table, rows, rows.c.id.in_(copies))
    _copy(op, PARKED + child, children, children.c[by].in_(sa.select(removed.c.id)))
    equal = sa.and_(*(column == removed.c[column.name] for column in same))
    kept = sa.select(sa.func.min(rows.c.id)).join_from(rows, removed, equal)
    new = kept.where(removed.c.id == children.c[by]).correlate(children).scalar_subquery()
    moved = sa.update(children).where(children.c[by].in_(sa.select(removed.c.id)))
    connection.execute(moved.values({by: new}))
    gone = sa.delete(rows).where(rows.c.id.in_(sa.select(removed.c.id)))
    return connection.execute(gone).rowcount


def restore_duplicates(op: Operations, table: str, child: str, by: str) -> None:
    connection = online(op)
    rows, removed = table_of(op, table), table_of(op, PARKED + table)
    connection.execute(sa.insert(rows).from_select(removed.c.keys(), sa.select(removed)))
    children, before = table_of(op, child), table_of(op, PARKED + child)
    old = sa.select(before.c[by]).where(before.c.id == children.c.id).scalar_subquery()
    back = sa.update(children).where(children.c.id.in_(sa.select(before.c.id)))
    connection.execute(back.values({by: old}))
    op.drop_table(PARKED + table)
    op.drop_table(PARKED + child)


def _copy(
    op: Operations, name: str, source: sa.Table, condition: sa.ColumnElement[bool]
) -> sa.Table:
    """Copy rows into a table without constraints; no CREATE TABLE AS, which loses the types."""
    columns = [sa.Column(column.name, column.type) for column in source.c]
    copy = op.create_table(name, *columns)
    rows = sa.select(source).where(condition)
    online(op).execute(sa.insert(copy).from_select(copy.c.keys(), rows))
    return copy


# --- drop in two steps ---


def park_column(op: Operations, table: str, column: str) -> None:
    """Drop a column, its values kept beside the keys in a table; drop that one much later.

    First release code that does not name the column, after a migration that made it nullable.
    """
    source = table_of(op, table)
    name = f"{PARKED}{table}_{column}"
    key, value = source.c.id, source.c[column]
    op.create_table(name, sa.Column("id", key.type), sa.Column(column, value.type))
    parked = sa.table(name, sa.column("id"), sa.column(column))
    rows = sa.select(key, value).where(value.is_not(None))
    online(op).execute(sa.insert(parked).from_select(["id", column], rows))
    with op.batch_alter_table(table) as batch:
        batch.drop_column(column)


def restore_column(op: Operations, table: str, column: sa.Column[Any]) -> None:
    """Add the column again, nullable, with the values of rows that are still there."""
    name = f"{PARKED}{table}_{column.name}"
    parked = table_of(op, name)
    op.add_column(table, column)
    rows = sa.table(table, sa.column("id"), sa.column(column.name))
    value = sa.select(parked.c[column.name]).where(parked.c.id == rows.c.id).scalar_subquery()
    op.execute(sa.update(rows).values({column.name: value}))
    op.drop_table(name)
