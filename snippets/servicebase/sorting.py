"""Sort by several fields, with NULL where it was asked for, and never in an undefined order."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from sqlalchemy import ColumnElement, Enum, String, cast
from sqlmodel import SQLModel

from snippets.servicebase._shape import names, shape_of
from snippets.servicebase._values import kind_of, stored_type
from snippets.servicebase.errors import InvalidSortError

UNSORTABLE = {"json", "binary", "interval"}


@dataclass(frozen=True)
class Sort:
    """One sort key; `"-title"` is short for `Sort("title", descending=True)`."""

    field: str
    descending: bool = False
    nulls: Literal["first", "last"] = "last"

    def reversed(self) -> "Sort":
        return Sort(self.field, not self.descending, "last" if self.nulls == "first" else "first")


OrderBy = str | Sort | Sequence[str | Sort]


def resolve_order(model: type[SQLModel], order_by: OrderBy) -> tuple[Sort, ...]:
    """Return the sort keys, with the primary key behind them: rows that tie keep their places.

    Raises:
        InvalidSortError: a field that the table does not have, or one that has no order.
    """
    return _resolved(model, (order_by,) if isinstance(order_by, str | Sort) else tuple(order_by))


@lru_cache(maxsize=1024)
def _resolved(model: type[SQLModel], given: tuple[object, ...]) -> tuple[Sort, ...]:
    sorts = [_resolve(model, sort) for sort in given]
    fields = [sort.field for sort in sorts]
    if len(set(fields)) < len(fields):
        raise InvalidSortError(f"{model.__name__}: a field is named twice: {', '.join(fields)}")
    # The last direction is kept, so that one index can serve the whole order.
    descending = sorts[-1].descending if sorts else False
    sorts += [Sort(name, descending) for name in shape_of(model).key if name not in fields]
    return tuple(sorts)


def _resolve(model: type[SQLModel], given: object) -> Sort:
    sort = given
    if isinstance(given, str):
        sort = Sort(given.removeprefix("-"), descending=given.startswith("-"))
    if not isinstance(sort, Sort):
        raise InvalidSortError(f"{model.__name__}: {given!r} is no name of a field and no Sort")
    columns = shape_of(model).columns
    sortable = {name: c for name, c in columns.items() if kind_of(c) not in UNSORTABLE}
    if sort.field not in sortable:
        raise InvalidSortError(
            f"{model.__name__} can't be sorted by {sort.field!r}; it has {names(sortable)}"
        )
    if sort.nulls not in {"first", "last"}:
        raise InvalidSortError(f"nulls={sort.nulls!r}; use 'first' or 'last'")
    # What has no NULL needs no word about it, and then any index will do.
    return sort if sortable[sort.field].nullable else replace(sort, nulls="last")


def sort_expression(model: type[SQLModel], field: str) -> ColumnElement[Any]:
    """Return what is sorted by. An Enum sorts by name: MariaDB sorts by rank, compares by name."""
    expression: ColumnElement[Any] = getattr(model, field)
    type_ = stored_type(shape_of(model).columns[field])
    if isinstance(type_, Enum) and type_.native_enum:
        return cast(expression, String(type_.length))
    return expression


@lru_cache(maxsize=1024)
def order_clauses(
    model: type[SQLModel], sorts: tuple[Sort, ...], dialect: str
) -> tuple[ColumnElement[Any], ...]:
    clauses: list[ColumnElement[Any]] = []
    for sort in sorts:
        expression = sort_expression(model, sort.field)
        clause = expression.desc() if sort.descending else expression.asc()
        if shape_of(model).columns[sort.field].nullable:
            clauses += _with_nulls(expression, clause, sort, dialect)
        else:
            clauses.append(clause)
    return tuple(clauses)


def _with_nulls(
    expression: ColumnElement[Any], clause: Any, sort: Sort, dialect: str
) -> list[ColumnElement[Any]]:
    if dialect not in {"mysql", "mariadb"}:
        return [clause.nulls_first() if sort.nulls == "first" else clause.nulls_last()]
    if sort.descending == (sort.nulls == "last"):  # where NULL is the smallest value, as there
        return [clause]
    test = expression.is_(None)
    return [test.desc() if sort.nulls == "first" else test.asc(), clause]
