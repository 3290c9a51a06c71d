"""Find the columns of a constraint in the model, when the driver names only the constraint."""

import re
from collections.abc import Iterator
from typing import Any

from sqlalchemy import (
    Column,
    Constraint,
    ForeignKeyConstraint,
    Index,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
)
from sqlalchemy.schema import CheckConstraint
from sqlmodel import SQLModel

from snippets.async_operations.errors import DatabaseFailure, ErrorKind
from snippets.servicebase._shape import table_of


def columns_of(model: type[SQLModel], failure: DatabaseFailure) -> tuple[str, ...]:
    """Return the columns that the failure is about; () when the metadata can't tell."""
    table = table_of(model)
    home = table.metadata.tables.get(failure.table or "", table)
    for rule in _rules(home):
        if failure.constraint in _names(home, rule):
            return _columns(rule)
    if failure.kind is ErrorKind.FOREIGN_KEY and failure.constraint is None:
        # SQLite names nothing: all that it can have been.
        return tuple(c.name for c in table.columns if c.foreign_keys)
    return ()


def _rules(table: Table) -> Iterator[Constraint | Index]:
    yield from table.constraints
    yield from table.indexes


def _columns(rule: Constraint | Index) -> tuple[str, ...]:
    if isinstance(rule, CheckConstraint):
        return check_columns(rule)
    return tuple(column.name for column in rule.columns)  # type: ignore[union-attr]


def check_columns(check: CheckConstraint) -> tuple[str, ...]:
    return tuple(column.name for column in columns_named_in(check.table, check.sqltext))


def columns_named_in(table: Any, *clauses: object) -> list[Column[Any]]:
    """Return the table's columns whose names are in the clauses, which are often mere text."""
    text = " ".join(map(str, clauses))
    return [c for c in table.columns if re.search(rf"(?<!\w){re.escape(c.name)}(?!\w)", text)]


def _names(table: Table, rule: Constraint | Index) -> set[str]:
    """Return the name that the model gives, or those that PostgreSQL and MariaDB make up."""
    if rule.name is not None:
        return {str(rule.name)}
    columns = [column.name for column in rule.columns]  # type: ignore[union-attr]
    match rule:
        case PrimaryKeyConstraint():
            return {f"{table.name}_pkey", "PRIMARY"}
        case UniqueConstraint():
            return {"_".join([table.name, *columns, "key"]), columns[0]}
        case ForeignKeyConstraint():
            return {"_".join([table.name, *columns, "fkey"])}
    return set()  # a CHECK without a name
