"""What newer versions of the libraries expect of columns that older ones made."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations
from sqlalchemy.dialects import mysql

from snippets.migrations.data_migrations import online
from snippets.migrations.schema_changes import table_of

MYSQL = {"mysql", "mariadb"}


# --- timestamps: SQLModel before 0.0.45 made columns without a zone ---


def timestamps_to_utc(op: Operations, table: str, *columns: str) -> None:
    """Give columns that hold UTC the type of `UTCTimestamp`; no moment shifts.

    PostgreSQL would read them in the session's TimeZone. MariaDB gets microseconds, SQLite has
    what it needs.
    """
    if op.get_context().dialect.name == "postgresql":
        _change_zone(op, table, columns, has_zone=True)
    elif op.get_context().dialect.name in MYSQL:
        _modify(op, table, columns, mysql.DATETIME(fsp=6))


def timestamps_to_naive(op: Operations, table: str, *columns: str) -> None:
    """Undo it; MariaDB rounds to whole seconds."""
    if op.get_context().dialect.name == "postgresql":
        _change_zone(op, table, columns, has_zone=False)
    elif op.get_context().dialect.name in MYSQL:
        _modify(op, table, columns, mysql.DATETIME())


def _change_zone(op: Operations, table: str, columns: Sequence[str], *, has_zone: bool) -> None:
    for column in columns:
        op.alter_column(
            table,
            column,
            type_=sa.DateTime(timezone=has_zone),
            postgresql_using=f"\"{column}\" AT TIME ZONE 'UTC'",
        )


def _modify(op: Operations, table: str, columns: Sequence[str], kind: Any) -> None:
    """Change types on MariaDB, whose MODIFY forgets the NOT NULL and default it is not told."""
    for column in columns:
        old = table_of(op, table).c[column]
        op.alter_column(
            table,
            column,
            type_=kind,
            existing_nullable=bool(old.nullable),
            existing_server_default=old.server_default,
        )


# --- UUID: SQLAlchemy before 2.1 made CHAR(32) on MariaDB ---


class _NativeUUID(sa.types.UserDefinedType[Any]):
    cache_ok = True

    def get_col_spec(self, **_options: Any) -> str:
        return "UUID"


def char_to_uuid(op: Operations, *columns: tuple[str, str]) -> None:
    """Give MariaDB's columns, as (table, column), its UUID type; elsewhere nothing is to be done.

    Name a key together with all columns that refer to it: their foreign keys are made anew.
    """
    if getattr(op.get_context().dialect, "is_mariadb", False):
        keys = _drop_foreign_keys(op, columns)
        for table, column in columns:
            _modify(op, table, [column], _NativeUUID())
        _create_foreign_keys(op, keys)


def uuid_to_char(op: Operations, *columns: tuple[str, str]) -> None:
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
    op: Operations, columns: Sequence[tuple[str, str]]
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


def _create_foreign_keys(op: Operations, keys: Sequence[tuple[str, dict[str, Any]]]) -> None:
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


def name_constraints(op: Operations, table: str, convention: Mapping[str, Any]) -> None:
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
        old, new = str(constraint.name), _conventional_name(source, constraint, convention)
        if old != new:
            _rename(op, table, constraint, new)


def _unique_indexes(table: sa.Table) -> list[sa.UniqueConstraint]:
    """Return what MariaDB shows as unique indexes only: those that no `index=True` has named."""
    return [
        sa.UniqueConstraint(*index.columns, name=index.name)
        for index in table.indexes
        if index.unique and not str(index.name).startswith("ix_")
    ]


def _rename(op: Operations, table: str, constraint: sa.Constraint, new: str) -> None:
    quote = op.get_context().dialect.identifier_preparer.quote
    old = str(constraint.name)
    if op.get_context().dialect.name == "postgresql":
        rename = f"RENAME CONSTRAINT {quote(old)} TO {quote(new)}"
        op.execute(f"ALTER TABLE {quote(table)} {rename}")
    elif isinstance(constraint, sa.UniqueConstraint):
        op.execute(f"ALTER TABLE {quote(table)} RENAME INDEX {quote(old)} TO {quote(new)}")
    elif isinstance(constraint, sa.ForeignKeyConstraint):
        _create_foreign_keys(op, [(table, _drop_named(op, table, old) | {"name": new})])


def _drop_named(op: Operations, table: str, name: str) -> dict[str, Any]:
    keys = sa.inspect(online(op)).get_foreign_keys(table)
    (key,) = (dict(key) for key in keys if key["name"] == name)
    op.drop_constraint(name, table, type_="foreignkey")
    return key


def _conventional_name(
    table: sa.Table, constraint: sa.Constraint, convention: Mapping[str, Any]
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
    return str(copy.name)


# --- enums: SQLModel's default stores the members' names, on PostgreSQL in a type of its own ---


def enum_to_text(
    op: Operations, table: str, column: str, enum: sa.Enum, values: Mapping[str, str]
) -> None:
    """Turn the names of `enum` into text that holds `values`, as `enum_by_value` does."""
    _change_type(op, table, column, sa.String(30), using=f'"{column}"::text')
    _replace(op, table, column, values)
    if op.get_context().dialect.name == "postgresql":
        op.execute(f"DROP TYPE {enum.name}")


def text_to_enum(
    op: Operations, table: str, column: str, enum: sa.Enum, values: Mapping[str, str]
) -> None:
    _replace(op, table, column, {value: name for name, value in values.items()})
    if op.get_context().dialect.name == "postgresql":
        enum.create(online(op))
    _change_type(op, table, column, enum, using=f'"{column}"::{enum.name}')


def add_enum_member(op: Operations, table: str, column: str, enum: sa.Enum, member: str) -> None:
    """Add a member to the column's `enum`, which is how it is before.

    On PostgreSQL what ran before is committed: a new member can't be used in the transaction that
    adds it.
    """
    if op.get_context().dialect.name == "postgresql":
        with op.get_context().autocommit_block():
            op.execute(f"ALTER TYPE {enum.name} ADD VALUE IF NOT EXISTS '{member}'")
    else:
        _change_type(op, table, column, sa.Enum(*enum.enums, member, name=enum.name))


def remove_enum_member(
    op: Operations, table: str, column: str, enum: sa.Enum, member: str, *, replacement: str
) -> None:
    """Undo it: rows that have the member get the replacement."""
    _replace(op, table, column, {member: replacement})
    if op.get_context().dialect.name == "postgresql":
        # No member can be taken out of a type.
        op.execute(f"ALTER TYPE {enum.name} RENAME TO {enum.name}_old")
        enum.create(online(op))
    _change_type(op, table, column, enum, using=f'"{column}"::text::{enum.name}')
    if op.get_context().dialect.name == "postgresql":
        op.execute(f"DROP TYPE {enum.name}_old")


def _change_type(
    op: Operations, table: str, column: str, kind: Any, *, using: str | None = None
) -> None:
    nullable = bool(table_of(op, table).c[column].nullable)
    with op.batch_alter_table(table) as batch:
        batch.alter_column(column, type_=kind, existing_nullable=nullable, postgresql_using=using)


def _replace(op: Operations, table: str, column: str, values: Mapping[str, str]) -> None:
    # Without a type of its own: the same statement serves text and PostgreSQL's enum.
    rows = sa.table(table, sa.column(column))
    found = rows.c[column]
    for old, new in values.items():
        value: sa.ColumnElement[Any] = sa.literal_column(f"'{new}'")
        here = sa.cast(found, sa.String(30)) == old
        op.execute(sa.update(rows).where(here).values({column: value}))
