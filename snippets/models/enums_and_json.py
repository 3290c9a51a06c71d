"""Enums stored by value, and JSON whose None is NULL and whose changes are saved."""

from collections.abc import Sequence
from copy import deepcopy
from enum import Enum, StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine
from sqlmodel import Field, SQLModel, col


def enum_by_value(members: type[Enum], *, length: int = 30) -> sa.Enum:
    """Return a text column for the members' values: a new member needs no migration.

    The default would store names, in a type of its own on PostgreSQL, unchecked on SQLite.

    Raises:
        LookupError: a value that no member has (inside a `StatementError` when writing).
    """
    return sa.Enum(
        members,
        values_callable=lambda cls: [member.value for member in cls],
        native_enum=False,
        length=length,
        validate_strings=True,  # table models do not validate
    )


def json_type() -> TypeEngine[Any]:
    """Return a new JSON type, on PostgreSQL JSONB, that stores None as NULL."""
    # The variant does not inherit the option.
    return sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


# Example: scaffold.py leaves out what follows.


class DispatchStatus(StrEnum):
    WAITING = "waiting"
    ON_THE_ROAD = "on the road"
    DELIVERED = "delivered"


class Dispatch(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    status: DispatchStatus = Field(
        default=DispatchStatus.WAITING, sa_type=enum_by_value(DispatchStatus), index=True
    )
    # To change JSON, assign a new value: a change inside it is not seen.
    route: list[Any] = Field(default_factory=list, sa_type=json_type())
    options: dict[str, Any] = Field(default_factory=dict, sa_type=json_type())
    customs: dict[str, Any] | None = Field(default=None, sa_type=json_type())


def set_option(dispatch: Dispatch, path: Sequence[str], value: Any) -> None:
    """Change a value at any depth, so that the change is saved."""
    options = deepcopy(dispatch.options)  # a shallow copy would equal what it replaces
    inner = options
    for key in path[:-1]:
        inner = inner.setdefault(key, {})
    inner[path[-1]] = value
    dispatch.options = options


def option_is(key: str, text: str) -> sa.ColumnElement[bool]:
    """Return the condition that an option holds this text; an absent one does not.

    Raises:
        ValueError: a key that JSON escapes, which SQLite and MariaDB don't find.
    """
    if any(character in '"\\' or character < " " for character in key):
        raise ValueError(f"no quotes, backslashes or control characters: {key!r}")
    condition: sa.ColumnElement[bool] = col(Dispatch.options)[key].as_string() == text
    return condition
