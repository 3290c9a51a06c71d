"""Change tables that have rows: each function undoes what its partner did, row by row."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql

from snippets.migrations.data_migrations import Op, online
from snippets.migrations.environment import PARKED, keep_as_written

MYSQL = {"mysql", "mariadb"}
LONGEST_NAME = 63  # bytes: PostgreSQL cuts a longer one in silence, MariaDB refuses it


class UnexpectedValueError(ValueError):
    """Rows have values that the migration does not know; nothing was changed."""


def table_of(op: Op, name: str) -> sa.Table:
    """Return the table as the database has it now: never the application's model of today."""
    table = sa.Table(name, sa.MetaData(), autoload_with=online(op), resolve_fks=False)
    keep_as_written(table)
    return table


def change_column(op: Op, table: str, column: str, **changes: Any) -> None:
    """Alter it, and keep what is not in `changes`: MariaDB writes the whole column anew."""
    found = table_of(op, table).c[column]
    kept: dict[str, Any] = {
        "existing_type": found.type,
        "existing_nullable": bool(found.nullable),
        "existing_server_default": found.server_default or False,
        "existing_comment": found.comment,
    }
    if online(op).dialect.name in MYSQL:  # elsewhere Alembic warns of it
        kept["existing_autoincrement"] = found.autoincrement is True
    with op.batch_alter_table(table) as batch:
        batch.alter_column(column, **kept | changes)


# --- rename ---


def rename_column(op: Op, table: str, old: str, new: str) -> None:
    """In place, on all three: its type, NOT NULL, indexes and constraints stay."""
    quote = op.get_context().dialect.identifier_preparer.quote
    op.execute(f"ALTER TABLE {quote(table)} RENAME COLUMN {quote(old)} TO {quote(new)}")


# --- required columns ---


def add_required_column(op: Op, table: str, column: sa.Column[Any], value: str) -> None:
    """Add a NOT NULL column to a table with rows, all of which get `value`.

    The default stays until `drop_default`, for the old code that still inserts without the column.
    """
    column.nullable = False
    column.server_default = sa.DefaultClause(value)
    _add_column(op, table, column)


def add_filled_column(op: Op, table: str, column: sa.Column[Any], value: Any) -> None:
    """Add a NOT NULL column that has `value` in all rows; no default stays.

    It is a value, such as `utc_now()`, or an SQL expression, such as `sa.column("net") * 2`.
    Old code can't insert any more: where it still runs, use `add_required_column`.
    """
    online(op)  # or refuse before anything is written
    column.nullable, column.server_default = True, None
    _add_column(op, table, column)
    rows = sa.table(table, sa.column(column.name, column.type))
    op.execute(sa.update(rows).values({column.name: value}))  # bound: no literal per database
    set_nullable(op, table, column, nullable=False)


def _add_column(op: Op, table: str, column: sa.Column[Any]) -> None:
    # PostgreSQL makes an enum's type with a table alone, and `--sql` can't ask whether it is there.
    if isinstance(column.type, sa.Enum) and not op.get_context().as_sql:
        column.type.create(online(op), checkfirst=True)
    with op.batch_alter_table(table) as batch:  # SQLite: a foreign key needs a copy of the table
        batch.add_column(column)


def drop_default(op: Op, table: str, column: sa.Column[Any]) -> None:
    with op.batch_alter_table(table) as batch:
        batch.alter_column(
            column.name, server_default=None, existing_type=column.type, existing_nullable=False
        )


def set_nullable(op: Op, table: str, column: sa.Column[Any], nullable: bool) -> None:
    """Fill the NULLs before you call it with False.

    Raises:
        UnexpectedValueError: there are NULLs left. MariaDB would turn them into '' or 0.
    """
    source = table_of(op, table)
    if not nullable:
        nulls = sa.select(sa.func.count()).where(source.c[column.name].is_(None))
        if count := online(op).execute(nulls).scalar_one():
            raise UnexpectedValueError(f"{table}.{column.name} has {count} NULLs")
    kind = _type_to_keep(source.c[column.name].type, column.type, online(op).dialect)
    change_column(op, table, column.name, nullable=nullable, existing_type=kind)


def _type_to_keep(found: Any, told: Any, dialect: sa.Dialect) -> Any:
    """Return the type that the column has, with its collation, unless reflection does not see it.

    MariaDB shows JSON as LONGTEXT and loses its CHECK; SQLAlchemy 2.0 does not know its UUID.
    """
    is_json = told.compile(dialect=dialect) == "JSON"
    return told if is_json or isinstance(found, sa.types.NullType) else found


# --- types ---


def float_to_decimal(op: Op, table: str, column: str, scale: int = 2) -> None:
    """Give an amount its exact type.

    Raises:
        UnexpectedValueError: rounding would change a value by more than the float's own error.
    """
    source = table_of(op, table)
    inexact = _inexact(source.c[column], scale, online(op).dialect)
    if count := online(op).execute(sa.select(sa.func.count()).where(inexact)).scalar_one():
        raise UnexpectedValueError(f"{count} values of {table}.{column} need over {scale} digits")
    # Straight to numeric, PostgreSQL keeps six digits of a four-byte float, 15 of eight bytes.
    rounded = f'round("{column}"::double precision::text::numeric, {scale})'
    change_column(op, table, column, type_=sa.Numeric(18, scale), postgresql_using=rounded)


def _inexact(column: sa.Column[Any], scale: int, dialect: sa.Dialect) -> sa.ColumnElement[bool]:
    shifted = column * 10.0**scale
    error: Any = 1e-4 + sa.func.abs(shifted) * 2.0**-52  # rounded twice: to 53 bits, and shifted
    if dialect.name != "sqlite" and isinstance(column.type, sa.REAL | mysql.FLOAT):
        error += sa.func.abs(shifted) * 2.0**-24  # of four bytes, 24 bits are digits
    inexact: sa.ColumnElement[bool] = sa.func.abs(shifted - sa.func.round(shifted)) > error
    return inexact


def decimal_to_float(op: Op, table: str, column: str) -> None:
    change_column(op, table, column, type_=sa.Double())


# --- allowed values ---


def add_column_of_values(
    op: Op, table: str, source: str, target: str, spellings: Mapping[str, str]
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


def allow_values(op: Op, table: str, column: str, values: Sequence[str]) -> None:
    condition = sa.column(column).in_(values)  # no text, where `:x` in a value is a parameter
    with op.batch_alter_table(table) as batch:
        batch.create_check_constraint(op.f(f"ck_{table}_{column}_known"), condition)


def disallow_values(op: Op, table: str, column: str) -> None:
    with op.batch_alter_table(table) as batch:
        batch.drop_constraint(op.f(f"ck_{table}_{column}_known"), type_="check")


def change_allowed_values(
    op: Op, table: str, column: str, values: Sequence[str], replace: Mapping[str, str]
) -> None:
    """Allow other values; `replace` says what becomes of those that are not allowed any more."""
    disallow_values(op, table, column)
    if replace:  # all at once: one that becomes another which is replaced too is replaced once
        target = sa.table(table, sa.column(column))
        found = target.c[column]
        rows = sa.update(target).where(found.in_(list(replace)))
        op.execute(rows.values({column: sa.case(replace, value=found)}))
    allow_values(op, table, column, values)


# --- unique ---


def parked_name(*names: str) -> str:
    """Return the name of the table that keeps what goes; a digest ends one that is too long."""
    name = PARKED + "_".join(names)
    if len(name.encode()) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return name.encode()[: LONGEST_NAME - 9].decode(errors="ignore") + f"_{digest}"


def park_duplicates(op: Op, table: str, columns: Sequence[str], child: str, by: str) -> int:
    """Keep the row with the lowest id of those that are equal: a unique constraint can follow.

    Rows of `child` that refer to another one by the column `by` now refer to the one that is kept.
    What was removed and what was changed is kept in two tables, for `restore_duplicates`.

    Raises:
        UnexpectedValueError: another table, or column, refers to a row that would be removed.
        ValueError: `child` has no column `id`, or is the table itself; nothing was changed.
    """
    connection = online(op)
    rows, children = table_of(op, table), table_of(op, child)
    if table == child or "id" not in children.c:
        raise ValueError(f"{child} must have a column id, and be another table")
    same = [rows.c[name] for name in columns]
    place = sa.func.row_number().over(partition_by=same, order_by=rows.c.id)
    # A unique constraint takes no NULL for equal to another.
    comparable = [column.is_not(None) for column in same]
    places = sa.select(rows.c.id, place.label("place")).where(*comparable).subquery()
    copies = sa.select(places.c.id).where(places.c.place > 1)
    for name in sa.inspect(connection).get_table_names():
        _refuse_other_references(connection, name, rows, rows.c.id.in_(copies), (child, by))
    removed = _copy(op, parked_name(table), rows, rows.c.id.in_(copies))
    refer = children.c[by].in_(sa.select(removed.c.id))
    before = _copy(
        op, parked_name(child), children, refer, sa.Column(f"new_{by}", children.c[by].type)
    )
    equal = sa.and_(*(column == removed.c[column.name] for column in same))
    # No min(): PostgreSQL has none for UUIDs.
    kept = sa.select(rows.c.id).join_from(rows, removed, equal).order_by(rows.c.id).limit(1)
    new = kept.where(removed.c.id == children.c[by]).correlate(children).scalar_subquery()
    connection.execute(sa.update(children).where(refer).values({by: new}))
    now = sa.select(children.c[by]).where(children.c.id == before.c.id).scalar_subquery()
    connection.execute(sa.update(before).values({f"new_{by}": now}))
    gone = sa.delete(rows).where(rows.c.id.in_(sa.select(removed.c.id)))
    return connection.execute(gone).rowcount


def _refuse_other_references(
    connection: sa.Connection,
    name: str,
    rows: sa.Table,
    removed: sa.ColumnElement[bool],
    known: tuple[str, str],
) -> None:
    """Its rows would go with what they refer to (ON DELETE CASCADE), or refer to nothing."""
    for key in sa.inspect(connection).get_foreign_keys(name):
        columns = key["constrained_columns"]
        if key["referred_table"] != rows.name or (name == known[0] and known[1] in columns):
            continue
        others = sa.table(name, *map(sa.column, columns)).alias("others")
        pairs = zip(columns, key["referred_columns"], strict=True)
        equal = sa.and_(*(others.c[own] == rows.c[referred] for own, referred in pairs))
        query = sa.select(sa.func.count()).select_from(others.join(rows, equal)).where(removed)
        if count := connection.execute(query).scalar_one():
            what = f"{count} rows of {name} refer to duplicates of {rows.name}"
            names = ", ".join(columns)
            raise UnexpectedValueError(f"{what} by {names}: let them refer to what is kept")


def restore_duplicates(op: Op, table: str, child: str, by: str) -> None:
    """Undo it, but leave rows of `child` alone that have come to refer to something else."""
    connection = online(op)
    rows, removed = table_of(op, table), table_of(op, parked_name(table))
    values = [column for column in removed.c if rows.c[column.name].computed is None]
    names = [column.name for column in values]
    connection.execute(sa.insert(rows).from_select(names, sa.select(*values)))
    children, before = table_of(op, child), table_of(op, parked_name(child))
    here = before.c.id == children.c.id
    since = before.c.get(f"new_{by}", children.c[by])  # which older versions did not keep
    same = sa.exists().where(here, since == children.c[by])
    old = sa.select(before.c[by]).where(here).scalar_subquery()
    connection.execute(sa.update(children).where(same).values({by: old}))
    op.drop_table(parked_name(table))
    op.drop_table(parked_name(child))


def _copy(
    op: Op,
    name: str,
    source: sa.Table,
    condition: sa.ColumnElement[bool],
    *more: sa.Column[Any],
) -> sa.Table:
    """Copy rows into a table without constraints; no CREATE TABLE AS, which loses the types."""
    columns = [sa.Column(column.name, _existing(column.type)) for column in source.c]
    copy = op.create_table(name, *columns, *more)
    rows = sa.select(source).where(condition)
    online(op).execute(sa.insert(copy).from_select(source.c.keys(), rows))
    return copy


def _existing(kind: Any) -> Any:
    """Return the type for another table: PostgreSQL has made that of an enum already."""
    if isinstance(kind, postgresql.ENUM):
        kind.create_type = False
    return kind


# --- drop in two steps ---


def park_column(op: Op, table: str, column: str) -> None:
    """Drop a column, its values kept beside the keys in a table; drop that one much later.

    First release code that does not name the column, after a migration that made it nullable.
    Its indexes and its foreign key go with it.

    Raises:
        ValueError: a CHECK, or a constraint of several columns, has it; nothing was changed.
    """
    source = table_of(op, table)
    if shared := ", ".join(sorted({*map(str, _constraints_with(source, column))})):
        raise ValueError(f"drop {shared} first: {table}.{column} is in it")
    name = parked_name(table, column)
    key, value = source.c.id, source.c[column]
    op.create_table(name, sa.Column("id", key.type), sa.Column(column, _existing(value.type)))
    parked = sa.table(name, sa.column("id"), sa.column(column))
    rows = sa.select(key, value).where(value.is_not(None))
    online(op).execute(sa.insert(parked).from_select(["id", column], rows))
    with op.batch_alter_table(table) as batch:
        if online(op).dialect.name == "sqlite":  # which would make them anew on the copy
            for index in source.indexes:
                if column in index.columns:
                    batch.drop_index(str(index.name))
        if online(op).dialect.name in MYSQL:  # which drops no column that a foreign key has
            for foreign in source.foreign_key_constraints:
                if column in foreign.columns:
                    batch.drop_constraint(str(foreign.name), type_="foreignkey")
        batch.drop_column(column)


def _constraints_with(table: sa.Table, column: str) -> Iterator[Any]:
    """Yield the names of what would be lost with the column, and is more than the column's own."""
    items: list[Any] = [*table.constraints, *(index for index in table.indexes if index.unique)]
    for item in items:
        if isinstance(item, sa.CheckConstraint):
            word = rf"(?<![\w']){re.escape(column)}(?![\w'])"  # in quotes it is a value
            if re.search(word, str(item.sqltext), re.IGNORECASE):
                yield item.name or "the CHECK"
        elif len(item.columns) > 1 and column in item.columns:
            yield item.name


def restore_column(op: Op, table: str, column: sa.Column[Any]) -> None:
    """Add the column again, nullable, with the values of rows that are still there."""
    name = parked_name(table, column.name)
    parked = table_of(op, name)
    _add_column(op, table, column)
    rows = sa.table(table, sa.column("id"), sa.column(column.name))
    value = sa.select(parked.c[column.name]).where(parked.c.id == rows.c.id).scalar_subquery()
    op.execute(sa.update(rows).values({column.name: value}))
    op.drop_table(name)
