"""The cinema of the examples: its tables, the shapes of its bodies, its services."""

import datetime as dt
from typing import Annotated, ClassVar

from pydantic import BeforeValidator
from pydantic import Field as Limit
from sqlalchemy import CheckConstraint, UniqueConstraint
from sqlmodel import Field, Relationship, SQLModel

from snippets.fastapi_integration.bodies import Body, Moment, Public, Text, may_be_left_out, number
from snippets.models.columns import exact_text
from snippets.models.timestamps import UTCTimestamp
from snippets.servicebase.service import ServiceBase


class Film(SQLModel, table=True):
    __table_args__ = (UniqueConstraint("title", "year"),)

    id: int | None = Field(default=None, primary_key=True)
    title: str = Field(max_length=120, index=True)
    year: int
    synopsis: str | None = Field(default=None, max_length=2000)
    screenings: list["Screening"] = Relationship(back_populates="film", passive_deletes="all")


class Screening(SQLModel, table=True):
    __table_args__ = (
        UniqueConstraint("auditorium", "starts_at"),
        CheckConstraint("seats_left >= 0", name="seats_left"),
    )

    id: int | None = Field(default=None, primary_key=True)
    film_id: int = Field(default=None, foreign_key="film.id", index=True)
    auditorium: str = Field(max_length=40)
    starts_at: dt.datetime = Field(sa_type=UTCTimestamp)
    seats_left: int
    film: Film = Relationship(back_populates="screenings")


class Booking(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    screening_id: int = Field(foreign_key="screening.id", index=True)
    seats: int
    # Not `max_length`: MariaDB would take "a" and "A" for one request.
    request_key: str = Field(unique=True, sa_type=exact_text(80))


Title = Annotated[Text, Limit(max_length=120)]
Synopsis = Annotated[Text, Limit(max_length=2000)]
# Limits stand before the validators, or they are missing in OpenAPI.
Year = Annotated[int, Limit(ge=1888, le=2100), BeforeValidator(number)]
Key = Annotated[int, Limit(ge=1, le=2**31 - 1), BeforeValidator(number)]
Seats = Annotated[int, Limit(ge=1, le=1000), BeforeValidator(number)]


class FilmCreate(Body):
    title: Title
    year: Year
    synopsis: Synopsis | None = None


class FilmUpdate(Body):
    """All may be left out; only `synopsis` may be null."""

    title: Title = may_be_left_out()
    year: Year = may_be_left_out()
    synopsis: Synopsis | None = None


class FilmPublic(Public):
    id: int
    title: str
    year: int
    synopsis: str | None


class ScreeningCreate(Body):
    film_id: Key
    auditorium: Annotated[Text, Limit(max_length=40)]
    starts_at: Moment
    seats_left: Seats


class ScreeningUpdate(Body):
    starts_at: Moment = may_be_left_out()


class BookingCreate(Body):
    screening_id: Key
    seats: Seats
    request_key: Annotated[Text, Limit(max_length=80)]


class FilmService(ServiceBase[Film, FilmCreate, FilmUpdate]):
    filterable: ClassVar = {
        "title": {"eq", "icontains"},
        "year": {"eq", "gte", "lte", "in"},
        "synopsis": {"is_null"},
        "screenings__auditorium": {"eq"},
    }
    sortable = ("title", "year")


class ScreeningService(ServiceBase[Screening, ScreeningCreate, ScreeningUpdate]):
    filterable: ClassVar = {"starts_at": {"gte", "lt"}, "film__title": {"eq"}}
    sortable = ("starts_at",)


class BookingService(ServiceBase[Booking, BookingCreate, BookingCreate]): ...
