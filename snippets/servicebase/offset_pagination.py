"""Cut a page by offset: for people who want page numbers and a total, on moderate depths.

The database walks over all rows before the page; `cursor_pagination` does not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from snippets.servicebase.errors import InvalidPageError

T = TypeVar("T")
U = TypeVar("U")
MAX_OFFSET = 2**63 - 1  # a larger one is a driver's error


@dataclass(frozen=True)
class Page(Generic[T]):
    """`total` counts all matches, also on a page behind the last one."""

    items: Sequence[T]
    total: int
    offset: int
    limit: int

    def map(self, convert: Callable[[T], U]) -> "Page[U]":
        """Return the page with each item converted, say to its public schema."""
        return Page([convert(item) for item in self.items], self.total, self.offset, self.limit)


def check_limit(limit: object, max_limit: int | None = None) -> None:
    """Refuse what is no limit; None is one only where nothing is the largest.

    Raises:
        InvalidPageError: not positive (LIMIT -1 is no limit at all on SQLite), or too large.
    """
    if limit is None and max_limit is None:
        return
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise InvalidPageError(f"limit={limit!r}; use a positive number")
    largest = MAX_OFFSET if max_limit is None else max_limit
    if limit > largest:
        raise InvalidPageError(f"limit={limit}; at most {largest}")


def check_offset(offset: object) -> None:
    if isinstance(offset, bool) or not isinstance(offset, int) or not 0 <= offset <= MAX_OFFSET:
        raise InvalidPageError(f"offset={offset!r}; use 0 or a positive number below 2**63")


def known_total(found: int, offset: int, limit: int) -> int | None:
    """Return the total if the page itself tells it: it is the last one, and not empty."""
    if found < limit and (found or not offset):
        return offset + found
    return None
