"""Refuse what no database stores, and rules over several fields, also in a partial update."""

import math
from datetime import time
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, model_validator
from sqlmodel import Field, SQLModel

from snippets.models.columns import EXACT_TIME

T = TypeVar("T")


def storable(value: T) -> T:
    """Return the value, text or JSON of any depth.

    Raises:
        ValueError: it has a NUL (PostgreSQL), half a surrogate pair (every driver) or a number
            that JSON has not.
    """
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
            raise ValueError("text must not have NUL characters or lone surrogates")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("numbers must be finite")
    elif isinstance(value, list):
        for item in value:
            storable(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            storable(key)
            storable(item)
    return value


PlainText = Annotated[str, AfterValidator(storable)]
PlainJSON = Annotated[dict[str, Any], AfterValidator(storable)]


def checked_update(row: SQLModel, data: SQLModel, rules: type[SQLModel]) -> None:
    """Change what `data` has set, if the whole row then still passes `rules`.

    Raises:
        pydantic.ValidationError: it does not; the row is unchanged.
    """
    values = data.model_dump(exclude_unset=True)
    rules.model_validate(row.model_dump() | values)
    row.sqlmodel_update(values)


# Example: scaffold.py leaves out what follows.


class DeliverySlotBase(SQLModel):
    label: PlainText = Field(max_length=40)
    opens: time = Field(sa_type=EXACT_TIME)
    closes: time = Field(sa_type=EXACT_TIME)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.closes <= self.opens:
            raise ValueError("closes must be later than opens")
        return self


class DeliverySlot(DeliverySlotBase, table=True):
    id: int | None = Field(default=None, primary_key=True)


class DeliverySlotCreate(DeliverySlotBase):
    pass


class DeliverySlotUpdate(SQLModel):
    label: PlainText | None = Field(default=None, max_length=40)
    opens: time | None = None
    closes: time | None = None
