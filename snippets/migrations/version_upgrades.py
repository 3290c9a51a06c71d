"""What newer versions of the libraries expect of columns that older ones made."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from snippets.migrations.autogenerate import without_parameters
from snippets.migrations.data_migrations import Op, online
from snippets.migrations.schema_changes import MYSQL, change_column, table_of

# --- timestamps: SQLModel before 0.0.45 made columns without a zone ---


def timestamps_to_utc(op: Op, table: str, *columns: str) -> None:
    """Give columns that hold UTC the type of `UTCTimestamp`; no moment shifts.

    PostgreSQL would read them in the session's TimeZone. MariaDB gets microseconds, SQLite has
    what it needs.
    """
    if op.get_context().dialect.name == "postgresql":
        _change_zone(op, table, columns, has_zone=True)
    elif op.get_context().dialect.name in MYSQL:
        _modify(op, table, columns, mysql.DATETIME(fsp=6))


def timestamps_to_naive(op: Op, table: str, *columns: str) -> None:
    """Undo it; MariaDB rounds to whole seconds."""
    if op.get_context().dialect.name == "postgresql":
        _change_zone(op, table, columns, has_zone=False)
    elif op.get_context().dialect.name in MYSQL:
        _modify(op, table, columns, mysql.DATETIME())


def _change_zone(op: Op, table: str, columns: Sequence[str], *, has_zone: bool) -> None:
    for column in columns:
        op.alter_column(
            table,
            column,
            type_=sa.DateTime(timezone=has_zone),
            postgresql_using=f"\"{column}\" AT TIME ZONE 'UTC'",
        )


def _modify(op: Op, table: str, columns: Sequence[str], kind: Any) -> None:
    for column in columns:
        change_column(op, table, column, type_=kind)


# --- UUID: SQLAlchemy before 2.1 made CHAR(32) on MariaDB ---


class _NativeUUID(sa.types.UserDefinedType[Any]):
    cache_ok = True

    def get_col_spec(self, **_options: Any) -> str:
        return "UUID"


def char_to_uuid(op: Op, *columns: tuple[str, str]) -> None:
    """Give MariaDB's columns, as (table, column), its UUID type; elsewhere nothing is to be done.

    Name a key together with all columns that refer to it: their foreign keys are made anew.
    """
    if getattr(op.get_context().dialect, "is_mariadb", False):
        keys = _drop_foreign_keys(op, columns)
        for table, column in columns:
            _modify(op, table, [column], _NativeUUID())
        _create_foreign_keys(op, keys)


def uuid_to_char(op: Op, *columns: tuple[str, str]) -> None:
    if not getattr(op.get_context().dialect, "is_mariadb", False):
        return
    keys = _drop_foreign_keys(op, columns)
    for table, column in columns:
        # As text it has dashes, for which CHAR(32) is too short.
        _modify(op, table, [column], sa.CHAR(36))
        text = sa.column(column, sa.String)
        op.execute(
            sa.update(sa.table(table, text)).values({column: sa.func.replace(text, "-", "")})
        )
        _modify(op, table, [column], sa.CHAR(32))
    _create_foreign_keys(op, keys)


def _drop_foreign_keys(
    op: Op, columns: Sequence[tuple[str, str]]
) -> list[tuple[str, dict[str, Any]]]:
    """Drop the foreign keys that have one of the columns; return each with its table."""
    inspector = sa.inspect(online(op))
    found = [
        (table, key)
        for table in dict.fromkeys(table for table, _ in columns)
        for key in inspector.get_foreign_keys(table)
        if any((table, column) in columns for column in key["constrained_columns"])
    ]
    for table, key in found:
        op.drop_constraint(key["name"] or "", table, type_="foreignkey")
    return [(table, dict(key)) for table, key in found]


def _create_foreign_keys(op: Op, keys: Sequence[tuple[str, dict[str, Any]]]) -> None:
    for table, key in keys:
        op.create_foreign_key(
            op.f(key["name"]),
            table,
            key["referred_table"],
            key["constrained_columns"],
            key["referred_columns"],
            **key["options"],
        )


# --- names: databases that were made without a naming convention ---


def name_constraints(op: Op, table: str, convention: Mapping[str, Any]) -> None:
    """Name keys and unique constraints by the convention, so that migrations can find them.

    Running it again changes nothing, and no code needs the old names: its downgrade is `pass`.
    """
    if op.get_context().dialect.name == "sqlite":
        # There a constraint without a name can't be dropped; a copy of the table names them.
        # Alembic 1.14 would name a CHECK that has a name once more.
        naming = {kind: name for kind, name in convention.items() if kind != "ck"}
        with op.batch_alter_table(table, recreate="always", naming_convention=naming):
            return
    source = table_of(op, table)
    is_mysql = op.get_context().dialect.name in MYSQL
    for constraint in [*source.constraints, *(_unique_indexes(source) if is_mysql else [])]:
        old, new = str(constraint.name), _conventional_name(op, source, constraint, convention)
        if old != new:
            _rename(op, table, constraint, new)


def _unique_indexes(table: sa.Table) -> list[sa.UniqueConstraint]:
    """Return what MariaDB shows as unique indexes only: those that no `index=True` has named."""
    return [
        sa.UniqueConstraint(*index.columns, name=index.name)
        for index in table.indexes
        if index.unique and not str(index.name).startswith("ix_")
    ]


def _rename(op: Op, table: str, constraint: sa.Constraint, new: str) -> None:
    quote = op.get_context().dialect.identifier_preparer.quote
    old = str(constraint.name)
    if op.get_context().dialect.name == "postgresql":
        rename = f"RENAME CONSTRAINT {quote(old)} TO {quote(new)}"
        op.execute(f"ALTER TABLE {quote(table)} {rename}")
    elif isinstance(constraint, sa.UniqueConstraint):
        op.execute(f"ALTER TABLE {quote(table)} RENAME INDEX {quote(old)} TO {quote(new)}")
    elif isinstance(constraint, sa.ForeignKeyConstraint):
        _create_foreign_keys(op, [(table, _drop_named(op, table, old) | {"name": new})])


def _drop_named(op: Op, table: str, name: str) -> dict[str, Any]:
    keys = sa.inspect(online(op)).get_foreign_keys(table)
    (key,) = (dict(key) for key in keys if key["name"] == name)
    op.drop_constraint(name, table, type_="foreignkey")
    return key


def _conventional_name(
    op: Op, table: sa.Table, constraint: sa.Constraint, convention: Mapping[str, Any]
) -> str:
    columns = [sa.Column(column.name, column.type) for column in table.columns]
    named = sa.Table(table.name, sa.MetaData(naming_convention=dict(convention)), *columns)
    copy: sa.Constraint
    match constraint:
        case sa.PrimaryKeyConstraint():
            copy = sa.PrimaryKeyConstraint(*constraint.columns.keys())
        case sa.UniqueConstraint():
            copy = sa.UniqueConstraint(*constraint.columns.keys())
        case sa.ForeignKeyConstraint():
            targets = [element.target_fullname for element in constraint.elements]
            copy = sa.ForeignKeyConstraint(constraint.column_keys, targets)
        case _:
            return str(constraint.name)
    named.append_constraint(copy)
    # One that is too long for the database has another end there.
    prepare: Any = op.get_context().dialect.identifier_preparer
    return str(prepare.format_constraint(copy, _alembic_quote=False))


# --- enums: SQLModel's default stores the members' names, on PostgreSQL in a type of its own ---


def enum_to_text(op: Op, table: str, column: str, enum: sa.Enum, values: Mapping[str, str]) -> None:
    """Turn the names of `enum` into text that holds `values`, as `enum_by_value` does."""
    _change_type(op, table, column, sa.String(_room(values)), using="text", values=values)
    _replace(op, table, column, values)
    if _room(values) > 30:
        _change_type(op, table, column, sa.String(30))
    if _is_postgresql(op):
        _drop_unused(op, enum)


def text_to_enum(op: Op, table: str, column: str, enum: sa.Enum, values: Mapping[str, str]) -> None:
    names = {value: name for name, value in values.items()}
    if _room(values) > 30:
        _change_type(op, table, column, sa.String(_room(values)))
    _replace(op, table, column, names)
    if _is_postgresql(op):
        enum.create(online(op), checkfirst=True)
    using = _type_name(op, enum) if _is_postgresql(op) else None
    _change_type(op, table, column, enum, using=using, values=names)


def _room(names: Iterable[str]) -> int:
    """Return a length that has room for the names too; 30 is that of `enum_by_value`."""
    return max(30, *map(len, names))


def add_enum_member(op: Op, table: str, column: str, enum: sa.Enum, member: str) -> None:
    """Add a member to the column's `enum`, which is how it is before.

    On PostgreSQL what ran before is committed: a new member can't be used in the transaction that
    adds it.
    """
    if _is_postgresql(op):
        with op.get_context().autocommit_block():
            name, literal = _type_name(op, enum), _literal(member)
            add = f"ALTER TYPE {name} ADD VALUE IF NOT EXISTS {literal}"
            op.execute(without_parameters(add))
    else:
        _change_type(op, table, column, sa.Enum(*enum.enums, member, name=enum.name))


def remove_enum_member(
    op: Op, table: str, column: str, enum: sa.Enum, member: str, *, replacement: str
) -> None:
    """Undo it: rows that have the member get the replacement.

    On PostgreSQL so do all columns that have the type, whichever tables they are in.
    """
    replaced = {member: replacement}
    if not _is_postgresql(op):
        _replace(op, table, column, replaced)
        _change_type(op, table, column, enum, values=replaced)
        return
    # No member can be taken out of a type.
    name, old = _type_name(op, enum), sa.Enum(name=f"{enum.name}_old", schema=enum.schema)
    columns = dict.fromkeys([(table, column), *_columns_of(op, name)])
    for where in columns:
        _replace(op, *where, replaced)
    op.execute(f"ALTER TYPE {name} RENAME TO {_type_name(op, old, use_schema=False)}")
    enum.create(online(op))
    for where in columns:
        _change_type(op, *where, enum, using=f"text::{name}", values=replaced)
    op.execute(f"DROP TYPE {_type_name(op, old)}")


def _is_postgresql(op: Op) -> bool:
    return bool(op.get_context().dialect.name == "postgresql")


def _type_name(op: Op, enum: sa.Enum, *, use_schema: bool = True) -> str:
    """Return the name of PostgreSQL's type as a statement has it."""
    prepare: Any = op.get_context().dialect.identifier_preparer
    return str(prepare.format_type(enum, use_schema))


def _columns_of(op: Op, type_name: str) -> list[tuple[str, str]]:
    """Return table and column of what has the type, without what a table inherits."""
    query = (
        "SELECT relname, attname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid"
        " WHERE atttypid = to_regtype(:name) AND NOT attisdropped AND attinhcount = 0"
        " AND relkind IN ('r', 'p') AND pg_table_is_visible(attrelid) ORDER BY relname, attnum"
    )
    found = online(op).execute(sa.text(query), {"name": type_name})
    return [(table, column) for table, column in found]


def _drop_unused(op: Op, enum: sa.Enum) -> None:
    """Drop the type, unless another column has it."""
    query = "SELECT 1 FROM pg_attribute WHERE atttypid = to_regtype(:name) AND NOT attisdropped"
    name = _type_name(op, enum)
    if online(op).execute(sa.text(query), {"name": name}).first() is None:
        op.execute(f"DROP TYPE {name}")


def _change_type(
    op: Op,
    table: str,
    column: str,
    kind: Any,
    *,
    using: str | None = None,
    values: Mapping[str, str] | None = None,
) -> None:
    """Change the type; a default becomes another one of `values`, as the rows do."""
    changes: dict[str, Any] = {"type_": kind}
    if using:
        changes["postgresql_using"] = f'"{column}"::{using}'
    default = _constant(table_of(op, table).c[column].server_default)
    if default is not None:
        changes["server_default"] = (values or {}).get(default, default)
        if _is_postgresql(op):  # which does not cast a default from or to an enum
            change_column(op, table, column, server_default=None)
    change_column(op, table, column, **changes)


def _constant(default: Any) -> str | None:
    """Return the text that a default is, without its quotes and PostgreSQL's cast."""
    found = re.fullmatch(r"'((?:[^']|'')*)'(::.+)?", str(getattr(default, "arg", "")))
    return found[1].replace("''", "'") if found else None


def _replace(op: Op, table: str, column: str, values: Mapping[str, str]) -> None:
    """Replace all at once: one that becomes another which is replaced too is replaced once."""
    # Without a type of its own: the same statement serves text and PostgreSQL's enum.
    rows = sa.table(table, sa.column(column))
    text = sa.cast(rows.c[column], sa.Text)
    cases: dict[Any, Any] = {old: sa.literal_column(_literal(new)) for old, new in values.items()}
    value: sa.ColumnElement[Any] = sa.case(cases, value=text)
    kind = table_of(op, table).c[column].type
    if _is_postgresql(op) and isinstance(kind, sa.Enum):  # to it a CASE of literals is text
        value = sa.cast(value, kind)
    op.execute(sa.update(rows).where(text.in_(list(values))).values({column: value}))


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
