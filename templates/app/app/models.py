"""Tables, and beside each the shapes in which it enters and leaves the API."""

from datetime import datetime

from pydantic import AwareDatetime, field_validator
from sqlalchemy import UniqueConstraint
from sqlmodel import Field, SQLModel

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


class HeroBase(SQLModel):
    name: str = Field(min_length=1, max_length=80)
    power: str | None = Field(default=None, max_length=200)


class Hero(HeroBase, table=True):
    """The table; never the body of a request, because a table class does not validate."""

    __table_args__ = (UniqueConstraint("name"),)

    id: int | None = Field(default=None, primary_key=True)
    created_at: datetime = Field(default_factory=utc_now, sa_type=UTCTimestamp)


class HeroCreate(HeroBase):
    @field_validator("name", "power")
    @classmethod
    def _storable(cls, text: str | None) -> str | None:
        """Refuse what some database or driver would refuse later, with an error of its own."""
        if text is not None and any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text):
            raise ValueError("has a character that can't be stored")
        return text


class HeroPublic(HeroBase):
    id: int
    created_at: AwareDatetime
