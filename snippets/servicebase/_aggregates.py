"""Build aggregate queries from names, and make their numbers the same on every database."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import Column, ColumnElement, func
from sqlmodel import SQLModel

from snippets.servicebase._shape import names, shape_of
from snippets.servicebase._values import kind_of
from snippets.servicebase.errors import InvalidFilterError

FUNCTIONS: dict[str, Any] = {
    "count": func.count,
    "sum": func.sum,
    "avg": func.avg,
    "min": func.min,
    "max": func.max,
}
NUMBERS = {"integer", "decimal", "float"}
UNORDERED = {"enum", "boolean", "uuid", "json"}


def column_of(model: type[SQLModel], field: str) -> Column[Any]:
    columns = shape_of(model).columns
    if field not in columns:
        raise InvalidFilterError(
            f"{model.__name__} has no field {field!r}; it has {names(columns)}"
        )
    return columns[field]


def expression(model: type[SQLModel], wanted: str) -> ColumnElement[Any]:
    """Return the expression for `count`, `count:field`, `count_distinct:field`, `sum:field` …"""
    function, _, field = wanted.partition(":")
    if wanted == "count":
        return func.count()
    known = {*FUNCTIONS, "count_distinct"}
    if function not in known or not field:
        choices = ", ".join(f"{name}:field" for name in sorted(known))
        raise InvalidFilterError(f"{wanted!r} is no aggregate; use count, {choices}")
    kind = kind_of(column_of(model, field))
    if function in {"sum", "avg"} and kind not in NUMBERS:
        raise InvalidFilterError(f"{wanted}: {field} is no number")
    if function in {"min", "max"} and kind in UNORDERED:
        raise InvalidFilterError(f"{wanted}: databases do not agree on an order of {kind}")
    column: ColumnElement[Any] = getattr(model, field)
    if function == "count_distinct":
        return func.count(column.distinct())
    result: ColumnElement[Any] = FUNCTIONS[function](column)
    return result


def same_everywhere(model: type[SQLModel], wanted: str, value: Any) -> Any:
    """Return sums in the field's type and averages as float, or as Decimal of a Decimal."""
    function, _, field = wanted.partition(":")
    if value is None or function not in {"sum", "avg"}:
        return value
    kind = kind_of(column_of(model, field))
    if kind == "decimal":
        return value if isinstance(value, Decimal) else Decimal(repr(value))
    return int(value) if kind == "integer" and function == "sum" else float(value)


def as_dicts(
    model: type[SQLModel], by: Sequence[str], compute: Mapping[str, str], rows: Sequence[Any]
) -> list[dict[str, Any]]:
    result = []
    for row in rows:
        groups = dict(zip(by, row, strict=False))
        numbers = zip(compute.items(), row[len(by) :], strict=True)
        result.append(groups | {k: same_everywhere(model, w, v) for (k, w), v in numbers})
    return result
