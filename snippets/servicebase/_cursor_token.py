"""Cursors as text: versioned, bound to the model and its order, checked on the way back."""

import base64
import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlmodel import SQLModel

from snippets.servicebase._keys import key_columns
from snippets.servicebase.errors import InvalidCursorError
from snippets.servicebase.sorting import Sort

VERSION = 1
MAX_LENGTH = 65_536


@dataclass(frozen=True)
class Position:
    """A place between two rows: beyond the row with these values, or before it (inclusive)."""

    values: tuple[Any, ...]
    backward: bool
    inclusive: bool = False

    def turned(self) -> "Position":
        """The same place, looking the other way."""
        return Position(self.values, not self.backward, not self.inclusive)


def encode(position: Position, model: type[SQLModel], sorts: tuple[Sort, ...], dialect: str) -> str:
    keys = key_columns(model, sorts, dialect)
    values = [key.to_wire(value) for key, value in zip(keys, position.values, strict=True)]
    way = 2 * position.inclusive + position.backward
    content = json.dumps([VERSION, _signature(model, sorts, dialect), way, values])
    return base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")


def decode(token: object, model: type[SQLModel], sorts: tuple[Sort, ...], dialect: str) -> Position:
    """Return the position.

    Raises:
        InvalidCursorError: no text that `encode` has made for this model and order.
    """
    try:
        version, signature, way, values = _content(token)
        if version != VERSION or signature != _signature(model, sorts, dialect):
            raise ValueError("made for another model, order or version")
        if type(way) is not int or not 0 <= way <= 3 or not isinstance(values, list):
            raise ValueError("wrong structure")
        keys = key_columns(model, sorts, dialect)
        found = tuple(key.from_wire(value) for key, value in zip(keys, values, strict=True))
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidCursorError(f"this is no cursor for this list: {error}") from None
    return Position(found, backward=bool(way & 1), inclusive=bool(way & 2))


def _content(token: object) -> Any:
    if not isinstance(token, str) or len(token) > MAX_LENGTH:
        raise ValueError("no text, or too long")
    padded = token + "=" * (-len(token) % 4)
    return json.loads(base64.b64decode(padded.encode("ascii"), altchars=b"-_", validate=True))


@lru_cache(maxsize=1024)
def _signature(model: type[SQLModel], sorts: tuple[Sort, ...], dialect: str) -> str:
    order = [[sort.field, sort.descending, sort.nulls] for sort in sorts]
    text = json.dumps([model.__name__, dialect, order])
    return hashlib.sha256(text.encode()).hexdigest()[:12]
