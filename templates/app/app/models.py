"""Tables, and beside each the shapes in which it enters and leaves."""

from datetime import datetime
from typing import Annotated

from pydantic import Field as Limit
from sqlalchemy import UniqueConstraint
from sqlmodel import Field, SQLModel

from app.model_parts.bodies import Body, Public, Text, may_be_left_out
from app.model_parts.timestamps import UTCTimestamp, utc_now

metadata = SQLModel.metadata


class Hero(SQLModel, table=True):
    """The table; never the body of a request, because a table class does not validate."""

    __table_args__ = (UniqueConstraint("name"),)

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=80)
    power: str | None = Field(default=None, max_length=200)
    created_at: datetime = Field(default_factory=utc_now, sa_type=UTCTimestamp)


Name = Annotated[Text, Limit(max_length=80)]
Power = Annotated[Text, Limit(max_length=200)]


class HeroCreate(Body):
    name: Name
    power: Power | None = None


class HeroUpdate(Body):
    """Both may be left out, and stay as they are then; only `power` may be null."""

    name: Name = may_be_left_out()
    power: Power | None = None


class HeroPublic(Public):
    id: int
    name: str
    power: str | None
    created_at: datetime
