"""Go from page to page by cursor: each costs the same, and no row is lost or seen twice.

A cursor holds the sort values of one row, as the database compares them. It is opaque but neither
secret nor signed: whoever changes it gets another place in the same order, or InvalidCursorError.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, and_, false, or_, true
from sqlmodel import SQLModel

from snippets.servicebase._cursor_token import Position, decode, encode
from snippets.servicebase._keys import KeyColumn, key_columns
from snippets.servicebase.sorting import Sort

T = TypeVar("T")
U = TypeVar("U")


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

    @property
    def keys(self) -> tuple[KeyColumn, ...]:
        return key_columns(self.model, self.sorts, self.dialect)

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return which rows lie beyond the position; all of them for the first page."""
        if self.position is None:
            return []
        steps = list(zip(self.keys, self.direction, self.position.values, strict=True))
        (key, sort, value), *ties = reversed(steps)
        beyond = _beyond(key, sort, value, inclusive=self.position.inclusive)
        for key, sort, value in ties:
            beyond = or_(_beyond(key, sort, value), and_(_same(key, value), beyond))
        # The first says nothing new, but tells an index where to begin: OR alone reads it all.
        return [_beyond(*steps[0], inclusive=True), beyond] if ties else [beyond]

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


def _same(key: KeyColumn, value: Any) -> ColumnElement[bool]:
    if value is None:
        return key.expression.is_(None)
    same: ColumnElement[bool] = key.expression == key.parameter(value)
    return same


def _beyond(
    key: KeyColumn, sort: Sort, value: Any, *, inclusive: bool = False
) -> ColumnElement[bool]:
    """Return which rows come after the value, or with it, in the direction of the sort."""
    if value is None and sort.nulls == "first":
        return true() if inclusive else key.expression.is_not(None)
    if value is None:
        return key.expression.is_(None) if inclusive else false()
    method = ("__lt__", "__le__") if sort.descending else ("__gt__", "__ge__")
    beyond: ColumnElement[bool] = getattr(key.expression, method[inclusive])(key.parameter(value))
    if key.column.nullable and sort.nulls == "last":
        return or_(beyond, key.expression.is_(None))
    return beyond
