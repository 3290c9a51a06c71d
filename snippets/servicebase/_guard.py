"""Tell which writes may be refused: only those need a savepoint, which costs two round trips."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Column,
    Constraint,
    ForeignKeyConstraint,
    Index,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
)
from sqlmodel import SQLModel

from snippets.servicebase._constraints import columns_named_in
from snippets.servicebase._shape import shape_of, table_of
from snippets.servicebase._values import fits


def update_is_safe(model: type[SQLModel], values: Mapping[str, Any]) -> bool:
    """Return whether no constraint of the metadata and no column can refuse these values."""
    shape = shape_of(model)
    touched = {name for name, column in shape.columns.items() if column.onupdate is not None}
    if shape.mapper.version_id_col is not None or guarded(model) & (touched | values.keys()):
        return False
    return all(fits(shape.columns[name], value) for name, value in values.items())


def insert_is_safe(model: type[SQLModel], values: Mapping[str, Any]) -> bool:
    """Return the same for a new row, whose columns are all written."""
    shape, generated = shape_of(model), table_of(model).autoincrement_column
    if guarded(model) - {n for n, c in shape.columns.items() if c is generated and n not in values}:
        return False
    return all(
        fits(column, values[name]) if name in values else column is generated or column.nullable
        for name, column in shape.columns.items()
    )


@cache
def guarded(model: type[SQLModel]) -> frozenset[str]:
    """Return the fields that a unique key, a foreign key, a CHECK or an EXCLUDE watches over."""
    table, shape = table_of(model), shape_of(model)
    watched = {column for column in table.columns if column.primary_key or column.foreign_keys}
    for column in table.columns:
        if column.computed is not None:  # what it is made from may break a rule about it
            watched |= {*columns_named_in(table, column.computed.sqltext)}
    for index in table.indexes:
        if index.unique:
            watched |= _watched_by_index(table, index)
    for constraint in table.constraints:
        watched |= _watched_by(table, constraint)
    return frozenset(name for name, column in shape.columns.items() if column in watched)


def _watched_by(table: Table, constraint: Constraint) -> set[Column[Any]]:
    match constraint:
        case UniqueConstraint():
            return set(constraint.columns)
        case CheckConstraint():
            return {*columns_named_in(table, constraint.sqltext)}
        case PrimaryKeyConstraint() | ForeignKeyConstraint():
            return set()  # they are known by their columns
    return set(table.columns)  # EXCLUDE, whose expressions are often mere text


def _watched_by_index(table: Table, index: Index) -> set[Column[Any]]:
    """Return its columns, those in its expressions, and those that take a row into it (WHERE)."""
    where = [options.get("where") for options in index.dialect_options.values()]
    found = {*index.columns, *columns_named_in(table, *index.expressions, *where)}
    return found or set(table.columns)


@cache
def referred_to(model: type[SQLModel]) -> bool:
    """Return whether rows of another table may forbid a delete."""
    table = table_of(model)
    others = table.metadata.tables.values()
    return any(key.column.table is table for other in others for key in other.foreign_keys)
