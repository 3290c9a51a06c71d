"""Go from page to page by cursor: each costs the same, and no row is lost or seen twice.

A cursor holds the sort values of one row, as the database compares them. It is opaque but neither
secret nor signed: whoever changes it gets another place in the same order, or InvalidCursorError.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Select, and_, false, or_, true, tuple_
from sqlalchemy import select as core_select
from sqlmodel import SQLModel

from snippets.servicebase._cursor_token import Position, decode, encode
from snippets.servicebase._keys import KeyColumn, key_columns
from snippets.servicebase.sorting import Sort, order_clauses

T = TypeVar("T")
U = TypeVar("U")
Values = Sequence[ColumnElement[Any] | None]
"""A parameter for each key, or None where the position has NULL."""
MYSQL = {"mysql", "mariadb"}


@dataclass(frozen=True)
class CursorPage(Generic[T]):
    """`next` and `previous` are cursors, None where nothing is."""

    items: Sequence[T]
    next: str | None
    previous: str | None

    def map(self, convert: Callable[[T], U]) -> "CursorPage[U]":
        """Return the page with each item converted, say to its public schema."""
        return CursorPage([convert(item) for item in self.items], self.next, self.previous)


@dataclass(frozen=True)
class Seek:
    """Where a page begins, and which way it goes."""

    model: type[SQLModel]
    sorts: tuple[Sort, ...]  # as asked for; the last ones are the primary key
    dialect: str
    position: Position | None

    @property
    def backward(self) -> bool:
        return self.position is not None and self.position.backward

    @property
    def direction(self) -> tuple[Sort, ...]:
        """The order in which the statement reads."""
        return tuple(s.reversed() for s in self.sorts) if self.backward else self.sorts

    def statement(self) -> Select[Any]:
        """Return the objects beyond the position with their sort values, as many as there are."""
        if self.position is None:
            return _first_page(self.model, self.direction, self.dialect)
        nulls = tuple(value is None for value in self.position.values)
        return _beyond_position(
            self.model, self.direction, self.dialect, nulls, inclusive=self.position.inclusive
        )

    def parameters(self) -> dict[str, Any]:
        """Return the values of the statement."""
        values = self.position.values if self.position else ()
        return {_name(number): value for number, value in enumerate(values) if value is not None}

    def page(self, rows: Sequence[Sequence[Any]], limit: int) -> CursorPage[Any]:
        """Make the page from up to `limit` + 1 rows of the object and its keys."""
        more = len(rows) > limit
        kept = list(rows[:limit])
        if self.backward:
            kept.reverse()
        before, after = (more, True) if self.backward else (self.position is not None, more)
        if not kept:  # the rows were deleted meanwhile: only the way back is left
            turned = self.position and self.position.turned()
            token = self._token(turned) if turned else None
            return CursorPage(
                [], token if self.backward else None, None if self.backward else token
            )
        first, last = kept[0][1:], kept[-1][1:]
        return CursorPage(
            [row[0] for row in kept],
            next=self._token(Position(tuple(last), backward=False)) if after else None,
            previous=self._token(Position(tuple(first), backward=True)) if before else None,
        )

    def after(self, row: Sequence[Any]) -> "Seek":
        """Return the place behind a row of the object and its keys."""
        return replace(self, position=Position(tuple(row[1:]), backward=False))

    def _token(self, position: Position) -> str:
        return encode(position, self.model, self.sorts, self.dialect)


def seek(model: type[SQLModel], sorts: tuple[Sort, ...], dialect: str, cursor: str | None) -> Seek:
    """Return where to go on.

    Raises:
        InvalidCursorError: it was not made for this model and order, or was tampered with.
    """
    position = None if cursor is None else decode(cursor, model, sorts, dialect)
    return Seek(model, sorts, dialect, position)


@lru_cache(maxsize=1024)
def _first_page(model: type[SQLModel], direction: tuple[Sort, ...], dialect: str) -> Select[Any]:
    keys = key_columns(model, direction, dialect)
    labels = [key.expression.label(f"key_{number}") for number, key in enumerate(keys)]
    return core_select(model, *labels).order_by(*order_clauses(model, direction, dialect))


@lru_cache(maxsize=1024)
def _beyond_position(
    model: type[SQLModel],
    direction: tuple[Sort, ...],
    dialect: str,
    nulls: tuple[bool, ...],
    *,
    inclusive: bool,
) -> Select[Any]:
    """Built once, not for each page: the values are parameters."""
    keys = key_columns(model, direction, dialect)
    values = [
        None if null else key.parameter(_name(number))
        for number, (key, null) in enumerate(zip(keys, nulls, strict=True))
    ]
    one_way = len({sort.descending for sort in direction}) == 1
    # Compared by rows, MariaDB would read its index from the start.
    if one_way and not any(key.column.nullable for key in keys) and dialect not in MYSQL:
        conditions = [_row_comparison(keys, direction[0], values, inclusive=inclusive)]
    else:
        conditions = _step_by_step(keys, direction, values, inclusive=inclusive)
    return _first_page(model, direction, dialect).where(*conditions)


def _name(number: int) -> str:
    return f"cursor_{number}"


def _row_comparison(
    keys: Sequence[KeyColumn], sort: Sort, values: Values, *, inclusive: bool
) -> ColumnElement[bool]:
    row = tuple_(*(key.expression for key in keys))
    return _compared(row, sort, tuple_(*values), inclusive=inclusive)


def _step_by_step(
    keys: Sequence[KeyColumn], direction: Sequence[Sort], values: Values, *, inclusive: bool
) -> list[ColumnElement[bool]]:
    steps = list(zip(keys, direction, values, strict=True))
    (key, sort, value), *ties = reversed(steps)
    beyond = _beyond(key, sort, value, inclusive=inclusive)
    for key, sort, value in ties:
        beyond = or_(_beyond(key, sort, value), and_(_same(key, value), beyond))
    # The first says nothing new, but tells an index where to begin: OR alone reads it all.
    return [_beyond(*steps[0], inclusive=True), beyond] if ties else [beyond]


def _same(key: KeyColumn, value: ColumnElement[Any] | None) -> ColumnElement[bool]:
    same: ColumnElement[bool] = key.expression == value  # IS NULL, if it is None
    return same


def _beyond(
    key: KeyColumn, sort: Sort, value: ColumnElement[Any] | None, *, inclusive: bool = False
) -> ColumnElement[bool]:
    """Return which rows come after the value, or with it, in the direction of the sort."""
    if value is None and sort.nulls == "first":
        return true() if inclusive else key.expression.is_not(None)
    if value is None:
        return key.expression.is_(None) if inclusive else false()
    beyond = _compared(key.expression, sort, value, inclusive=inclusive)
    if key.column.nullable and sort.nulls == "last":
        return or_(beyond, key.expression.is_(None))
    return beyond


def _compared(left: Any, sort: Sort, right: Any, *, inclusive: bool) -> ColumnElement[bool]:
    method = ("__lt__", "__le__") if sort.descending else ("__gt__", "__ge__")
    compared: ColumnElement[bool] = getattr(left, method[inclusive])(right)
    return compared
