"""The sort values of a row exactly as its database compares them.

Values that went through Python may differ from the stored ones: on SQLite a timestamp made by
CURRENT_TIMESTAMP is text without fraction, and a Decimal is a float; on MariaDB a FLOAT is shown
rounded. A page that began after such a value would lose or repeat rows.
"""

import datetime as dt
import math
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any

from sqlalchemy import Column, ColumnElement, DateTime, Double, String, bindparam, cast, type_coerce
from sqlalchemy.types import NullType
from sqlmodel import SQLModel

from snippets.servicebase._shape import shape_of
from snippets.servicebase._values import Kind, checked, kind_of, outside, stored_type
from snippets.servicebase.errors import InvalidSortError
from snippets.servicebase.sorting import Sort, sort_expression

# How a kind travels in a cursor: the JSON type, and the way back from it.
WIRE: dict[Kind, tuple[type, Callable[[Any], Any]]] = {
    "integer": (int, int),
    "boolean": (bool, bool),
    "float": (float, float),
    "text": (str, str),
    "enum": (str, str),
    "decimal": (str, Decimal),
    "datetime": (str, dt.datetime.fromisoformat),
    "date": (str, dt.date.fromisoformat),
    "time": (str, dt.time.fromisoformat),
    "uuid": (str, uuid.UUID),
}


@dataclass(frozen=True)
class KeyColumn:
    """`expression` is what the database returns and compares."""

    expression: ColumnElement[Any]
    column: Column[Any]
    dialect: str

    def parameter(self, name: str) -> ColumnElement[Any]:
        return bindparam(name, type_=self.expression.type)

    def to_wire(self, value: Any) -> Any:
        """Return the value as JSON has it."""
        if value is None or self.dialect == "sqlite":
            return value
        kind = kind_of(self.column)
        if WIRE[kind][0] is str:
            return value.isoformat() if kind in {"datetime", "date", "time"} else str(value)
        return value

    def from_wire(self, wire: Any) -> Any:
        """Return the value of a cursor.

        Raises:
            ValueError: the column has no such values.
        """
        if wire is None:
            if not self.column.nullable:
                raise ValueError("NULL in a column that has none")
            return None
        if self.dialect == "sqlite":
            return _as_stored(wire)
        kind = kind_of(self.column)
        json_type, convert = WIRE[kind]
        if type(wire) is not json_type:
            raise ValueError(f"{json_type.__name__} expected")
        try:
            value = convert(wire)
            self._check(kind, value)
        except ArithmeticError:  # no number, or a moment beyond the years of UTC
            raise ValueError("no value of this column") from None
        return value

    def _check(self, kind: Kind, value: Any) -> None:
        if kind == "datetime":
            if self._is_aware() not in {None, value.tzinfo is not None}:
                raise ValueError("the time zone is missing, or too much")
            if value.tzinfo:
                value.astimezone(dt.UTC)  # as the drivers do
        elif kind == "float":
            # PostgreSQL sorts NaN and the infinities; MariaDB has none.
            if self.dialect != "postgresql" and not math.isfinite(value):
                raise ValueError("no finite number")
        elif kind == "enum":
            if value not in stored_type(self.column).enums:  # type: ignore[attr-defined]
                raise ValueError("no name of the Enum")
        elif outside(self.column, checked(self.column, value)):
            raise ValueError("out of range")

    def _is_aware(self) -> bool | None:
        zone: bool = stored_type(self.column).timezone  # type: ignore[attr-defined]
        if isinstance(self.column.type, DateTime):  # only PostgreSQL keeps the zone
            return zone and self.dialect == "postgresql"
        return True if zone else None  # UTCDateTime and the like; others have a rule of their own


@lru_cache(maxsize=1024)
def key_columns(
    model: type[SQLModel], sorts: tuple[Sort, ...], dialect: str
) -> tuple[KeyColumn, ...]:
    return tuple(_key_column(model, sort.field, dialect) for sort in sorts)


def _key_column(model: type[SQLModel], field: str, dialect: str) -> KeyColumn:
    column = shape_of(model).columns[field]
    if kind_of(column) not in WIRE:
        raise InvalidSortError(f"{model.__name__}.{field}: no cursor can hold values of its type")
    expression = sort_expression(model, field)
    if dialect == "sqlite":
        expression = type_coerce(expression, NullType())  # no conversion: what is stored
    elif kind_of(column) == "enum":
        expression = type_coerce(expression, String())  # its text, not a member of it
    elif kind_of(column) == "float":
        expression = cast(expression, Double())  # all digits of a MariaDB FLOAT
    return KeyColumn(expression, column, dialect)


def _as_stored(wire: Any) -> Any:
    """Return an integer, a float or a text that SQLite can bind."""
    if isinstance(wire, str):
        wire.encode()  # lone surrogates
        return wire
    if type(wire) is int and -(2**63) <= wire < 2**63:
        return wire
    if type(wire) is float and not math.isnan(wire):
        return wire
    raise ValueError("a text or a number expected")
