"""Check a value against the column that it is for, before a driver does, each in its own way."""

import datetime as dt
import math
import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal
from enum import Enum
from functools import cache
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import Column
from sqlalchemy.types import TypeDecorator, TypeEngine
from sqlmodel import SQLModel
from sqlmodel.sql.sqltypes import AutoString

from snippets.servicebase._shape import shape_of

Kind = Literal[
    "text", "integer", "decimal", "float", "boolean", "datetime", "date", "time", "interval",
    "uuid", "enum", "binary", "json", "other",
]  # fmt: skip
KINDS: dict[type[TypeEngine[Any]], Kind] = {
    sa.Enum: "enum",  # before String, which it is too
    sa.String: "text",
    sa.Integer: "integer",
    sa.Float: "float",  # before Numeric
    sa.Numeric: "decimal",
    sa.Boolean: "boolean",
    sa.DateTime: "datetime",
    sa.Date: "date",
    sa.Time: "time",
    sa.Interval: "interval",
    sa.Uuid: "uuid",
    sa.LargeBinary: "binary",
    sa.JSON: "json",
}
INTEGER_BITS = {sa.SmallInteger: 15, sa.BigInteger: 63}
LARGEST_FLOAT = Decimal(repr(math.nextafter(math.inf, 0)))
LARGEST_SCALE = 16383  # PostgreSQL
# What the strictest database takes where the type says nothing.
MARIADB_FLOAT = Decimal("3.4e38")
MARIADB_AUTO_STRING = 255
MARIADB_TEXT = 65535 // 4  # characters of four bytes


def stored_type(column: Column[Any]) -> TypeEngine[Any]:
    """Return the type inside SQLModel's text and inside timestamps; other decorators may hold
    anything, so they stay themselves.
    """
    type_ = column.type
    if isinstance(type_, TypeDecorator):
        inner = type_.impl_instance
        if isinstance(type_, AutoString) or isinstance(inner, sa.DateTime):
            return inner
    return type_


@cache
def kind_of(column: Column[Any]) -> Kind:
    type_ = stored_type(column)
    if isinstance(type_, TypeDecorator):
        return "other"
    return next((kind for base, kind in KINDS.items() if isinstance(type_, base)), "other")


def checked(column: Column[Any], value: Any) -> Any:
    """Return the value as the column's drivers want it.

    Raises:
        ValueError: it is no value for this column; says what is.
    """
    kind = kind_of(column)
    if kind in {"json", "other"}:
        return value
    if isinstance(value, Enum) and kind != "enum":
        value = value.value
    return CHECKS[kind](column, value)


def outside(column: Column[Any], value: Any) -> int:
    """Return 1 or -1 for a number above or below all that the column can hold, else 0."""
    if not isinstance(value, int | Decimal) or isinstance(value, bool):
        return 0
    kind, type_ = kind_of(column), stored_type(column)
    if kind == "integer":
        bits = next((bits for base, bits in INTEGER_BITS.items() if isinstance(type_, base)), 31)
        return int(value >= 2**bits) - int(value < -(2**bits))
    if kind in {"decimal", "float"}:
        digits = None if kind == "float" else type_.precision  # type: ignore[attr-defined]
        scale = getattr(type_, "scale", None) or 0
        bound = LARGEST_FLOAT if digits is None else Decimal(10) ** (digits - scale)
        return int(value > bound) - int(value < -bound)
    return 0


def fits(column: Column[Any], value: Any) -> bool:
    """Return whether no database can find fault with the value itself."""
    if value is None:
        return bool(column.nullable)
    try:
        value = checked(column, value)
    except ValueError:
        return False
    kind = kind_of(column)
    if kind in {"enum", "json", "binary", "interval", "other"} or outside(column, value):
        return False
    if kind == "text":
        return len(value) <= _shortest(column)
    return abs(value) <= _smallest_bound(column) if kind in {"decimal", "float"} else True


def _shortest(column: Column[Any]) -> int:
    """Return the characters that every database takes."""
    type_ = stored_type(column)
    if isinstance(type_, sa.Text):
        return MARIADB_TEXT
    return getattr(type_, "length", None) or MARIADB_AUTO_STRING


def _smallest_bound(column: Column[Any]) -> Decimal:
    """Return the largest number that no database refuses, nor one that it would be rounded to."""
    type_: Any = stored_type(column)
    if isinstance(type_, sa.Float):
        return LARGEST_FLOAT if isinstance(type_, sa.Double) else MARIADB_FLOAT
    digits, scale = (type_.precision, type_.scale or 0) if type_.precision else (10, 0)
    return Decimal(10) ** (digits - scale) - Decimal(10) ** -scale


def _text(_column: Column[Any], value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"text expected, not {value!r}")
    if "\x00" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("text must have no NUL and no lone surrogates")
    return value


def _integer(_column: Column[Any], value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"a whole number expected, not {value!r}")
    return value


def _decimal(_column: Column[Any], value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError(f"a number expected, not {value!r}")
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if not number.is_finite():
        raise ValueError("a finite number expected")
    if number.as_tuple().exponent < -LARGEST_SCALE:  # type: ignore[operator]  # it is finite
        raise ValueError(f"at most {LARGEST_SCALE} decimal places expected")
    return number


def _float(column: Column[Any], value: Any) -> float | Decimal:
    number = _decimal(column, value)
    return number if outside(column, number) else float(number)


def _datetime(column: Column[Any], value: Any) -> dt.datetime:
    if not isinstance(value, dt.datetime):
        raise ValueError(f"a datetime expected, not {value!r}")
    if not getattr(stored_type(column), "timezone", False):
        # A decorator has a rule of its own.
        if value.tzinfo is not None and not isinstance(column.type, TypeDecorator):
            raise ValueError("a datetime without time zone expected")
        return value
    if value.utcoffset() is None:
        raise ValueError("a datetime with time zone expected")
    try:
        return value.astimezone(dt.UTC)
    except OverflowError:
        raise ValueError("the datetime is out of range in UTC") from None


def _date(_column: Column[Any], value: Any) -> dt.date:
    if not isinstance(value, dt.date) or isinstance(value, dt.datetime):
        raise ValueError(f"a date expected, not {value!r}")
    return value


def _enum(column: Column[Any], value: Any) -> Any:
    type_ = stored_type(column)
    assert isinstance(type_, sa.Enum)  # noqa: S101 -- this is the check of that kind
    if type_.enum_class is not None and not isinstance(value, type_.enum_class):
        raise ValueError(f"a member of {type_.enum_class.__name__} expected, not {value!r}")
    if type_.enum_class is None and value not in type_.enums:
        raise ValueError(f"one of {', '.join(type_.enums)} expected, not {value!r}")
    return value


def _instance(type_: type) -> Callable[[Column[Any], Any], Any]:
    def check(_column: Column[Any], value: Any) -> Any:
        if not isinstance(value, type_):
            raise ValueError(f"{type_.__name__} expected, not {value!r}")
        return value

    return check


CHECKS: dict[Kind, Callable[[Column[Any], Any], Any]] = {
    "text": _text,
    "integer": _integer,
    "decimal": _decimal,
    "float": _float,
    "boolean": _instance(bool),
    "datetime": _datetime,
    "date": _date,
    "time": _instance(dt.time),
    "interval": _instance(dt.timedelta),
    "uuid": _instance(uuid.UUID),
    "enum": _enum,
    "binary": _instance(bytes),
}


def identity(model: type[SQLModel], key: Any) -> tuple[Any, ...] | None:
    """Return the values of a primary key: one value, a tuple or a dict; None if no row can have it.

    Raises:
        ValueError: it has the wrong size, or values of wrong types.
    """
    shape = shape_of(model)
    if isinstance(key, Mapping):
        given = tuple(key.get(name) for name in shape.key)
    else:
        given = tuple(key) if len(shape.key) > 1 and isinstance(key, tuple) else (key,)
    if len(given) != len(shape.key):
        raise ValueError(f"{len(shape.key)} values expected: {', '.join(shape.key)}")
    columns = [shape.columns[name] for name in shape.key]
    values = tuple(checked(column, value) for column, value in zip(columns, given, strict=True))
    far = any(outside(column, value) for column, value in zip(columns, values, strict=True))
    return None if far else values
