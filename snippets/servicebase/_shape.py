"""What a model has: its columns, relationships and key, looked up once per class."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Column, Index, Integer, Table, UniqueConstraint, inspect
from sqlalchemy.orm import Mapper, RelationshipProperty
from sqlmodel import SQLModel


@dataclass(frozen=True)
class Shape:
    """`columns` and `relationships` by attribute name, `key` the attributes of the primary key."""

    mapper: Mapper[Any]
    columns: Mapping[str, Column[Any]]
    relationships: Mapping[str, RelationshipProperty[Any]]
    key: tuple[str, ...]


@cache
def shape_of(model: type[SQLModel]) -> Shape:
    mapper: Mapper[Any] = inspect(model)
    columns = {
        attribute.key: attribute.columns[0]
        for attribute in mapper.column_attrs
        if isinstance(attribute.columns[0], Column)
    }
    key = tuple(mapper.get_property_by_column(column).key for column in mapper.primary_key)
    return Shape(mapper, columns, dict(mapper.relationships), key)


def table_of(model: type[SQLModel]) -> Table:
    table = shape_of(model).mapper.local_table
    assert isinstance(table, Table)  # noqa: S101 -- a service works on tables, not on joins
    return table


def next_version(model: type[SQLModel]) -> dict[str, Any]:
    """Return what a statement past the ORM must set, so that a version counts its change too."""
    mapper = shape_of(model).mapper
    column, generator = mapper.version_id_col, mapper.version_id_generator
    if column is None or not callable(generator):  # the server has its own
        return {}
    name = mapper.get_property_by_column(column).key
    return {name: column + 1 if isinstance(column.type, Integer) else generator(None)}


def names(known: Mapping[str, object]) -> str:
    """Return the names for a message."""
    return ", ".join(sorted(known)) or "none"


@cache
def unique_keys(model: type[SQLModel]) -> tuple[frozenset[str], ...]:
    """Return the sets of fields that no two rows share; the primary key first."""
    table, mapper = table_of(model), shape_of(model).mapper
    groups: list[Any] = [table.primary_key]
    groups += [item for item in table.constraints if isinstance(item, UniqueConstraint)]
    groups += [index for index in table.indexes if index.unique and _is_plain(index)]
    return tuple(
        frozenset(mapper.get_property_by_column(column).key for column in group.columns)
        for group in groups
    )


def _is_plain(index: Index) -> bool:
    """Return whether the index is over whole columns, and over all rows."""
    partial = any(options.get("where") is not None for options in index.dialect_options.values())
    return not partial and all(isinstance(item, Column) for item in index.expressions)
