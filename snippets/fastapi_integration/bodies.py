"""What the fields of bodies are made of, and the two kinds of bodies."""

import datetime as dt
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict
from pydantic import Field as Limit

from snippets.models.timestamps import as_utc

# NUL is an error in PostgreSQL. A pattern, any pattern, makes pydantic refuse half of a surrogate
# pair as well, which no driver can send.
WITHOUT_NUL = r"^[^\x00]*$"


def may_be_left_out() -> Any:
    """Return a default that no client can send: None is for those who leave the field out."""
    return Limit(default=None, json_schema_extra=_without_default)


def _without_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


def _iso_text(value: object) -> object:
    # pydantic takes a number, also as text, for seconds since 1970.
    if not isinstance(value, str) or value[4:5] != "-":
        raise ValueError("a text expected, such as 2026-01-31T20:15:00Z")
    return value


def number(value: object) -> object:
    # pydantic takes "5" and true for numbers; strict, it would refuse 5.0, which JSON does not.
    if isinstance(value, str | bool):
        raise ValueError("a number expected")
    return value


Text = Annotated[str, Limit(min_length=1, pattern=WITHOUT_NUL)]
Moment = Annotated[dt.datetime, BeforeValidator(_iso_text), AfterValidator(as_utc)]


class Body(BaseModel):
    """What a client sends: an unknown field is refused, or a misspelt one would vanish."""

    model_config = ConfigDict(extra="forbid")


class Public(BaseModel):
    """What a client gets; read from the object of the table."""

    model_config = ConfigDict(from_attributes=True)
