"""Tables, and beside each the shapes in which it enters and leaves the API."""

from datetime import datetime
from typing import Annotated

from pydantic import Field as Limit
from sqlalchemy import UniqueConstraint
from sqlmodel import Field, SQLModel

from app.api._fields import Body, Public, Text, may_be_left_out
from app.column_types.timestamps import UTCTimestamp, utc_now

# Set before the first table: migrations can only change a constraint whose name is known.
metadata = SQLModel.metadata
metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


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
