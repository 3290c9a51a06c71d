import datetime as dt
from decimal import Decimal
from typing import Any, ClassVar

import pytest
from servicebase import songs
from servicebase.songs import Mood, Song, SongCreate, SongUpdate
from sqlalchemy import column
from sqlalchemy.exc import DBAPIError
from sqlmodel import Field, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.models.columns import Duration, ExactDecimal
from snippets.models.timestamps import UTCTimestamp
from snippets.servicebase.errors import (
    InvalidFilterError,
    InvalidInputError,
    InvalidPageError,
    InvalidSortError,
)
from snippets.servicebase.query_parameters import ListQuery, parse_query
from snippets.servicebase.service import ServiceBase
from snippets.servicebase.sorting import Sort


class Tour(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(default="", max_length=20)
    rate: Decimal = Field(default=Decimal(0), sa_type=ExactDecimal(12, 2))
    price: Decimal = Decimal(0)
    at: dt.datetime | None = Field(default=None, sa_type=UTCTimestamp(with_zone=False))
    takes: dt.timedelta | None = Field(default=None, sa_type=Duration)


class OpenTours(ServiceBase[Tour, Tour, Tour]):
    filterable: ClassVar = {
        "name": {"icontains"}, "rate": {"gt"}, "price": {"gt"}, "at": {"gt"}, "takes": {"gt"},
    }  # fmt: skip


TABLES = [*songs.TABLES, Tour]


class OpenSongs(ServiceBase[Song, SongCreate, SongUpdate]):
    filterable: ClassVar = {
        "title": {"eq", "icontains", "in"},
        "plays": {"eq", "gt", "between", "is_null", "not_in"},
        "price": {"lte"},
        "live": {"eq"},
        "recorded_at": {"gte"},
        "mood": {"eq"},
        "code": {"eq"},
        "artist__name": {"eq"},
        "guests__mentor__id": {"eq"},
    }
    sortable: ClassVar = ("title", "plays")
    max_limit: ClassVar = 30


async def listed(session: AsyncSession, *pairs: tuple[str, str]) -> set[int]:
    query = parse_query(OpenSongs, pairs)
    page = await OpenSongs(session).list(*query.where, order_by=query.order_by)
    return {song.id for song in page if song.id is not None}


async def test_a_query_string_filters_as_the_service_does(session: AsyncSession) -> None:
    rows = await songs.store_nasty_rows(session)

    def ids(meets: Any) -> set[int]:
        return {row["id"] for row in rows if meets(row)}

    assert await listed(session, ("title", "100%")) == ids(lambda r: r["title"] == "100%")
    assert await listed(session, ("title__eq", "null")) == ids(lambda r: r["title"] == "null")
    assert await listed(session, ("title", "")) == ids(lambda r: r["title"] == "")
    assert await listed(session, ("title__in", "a"), ("title__in", "%")) == ids(
        lambda r: r["title"] in {"a", "%"}
    )
    assert await listed(session, ("plays__gt", "1"), ("live", "true")) == ids(
        lambda r: (r["plays"] or 0) > 1 and r["live"]
    )
    assert await listed(session, ("plays__between", "0"), ("plays__between", "7")) == ids(
        lambda r: r["plays"] is not None and 0 <= r["plays"] <= 7
    )
    assert await listed(session, ("plays__is_null", "true")) == ids(lambda r: r["plays"] is None)
    assert await listed(session, ("plays", "99999999999999999999")) == set()
    assert await listed(session, ("price__lte", "0.5")) == ids(
        lambda r: r["price"] is not None and r["price"] < 1
    )
    assert await listed(session, ("mood", "c")) == ids(lambda r: r["mood"] is Mood.calm)
    assert await listed(session, ("recorded_at__gte", "2026-01-03T12:00:00Z")) == ids(
        lambda r: r["recorded_at"] and r["recorded_at"] >= dt.datetime(2026, 1, 3, tzinfo=dt.UTC)
    )
    assert await listed(session, ("code", "00000000-0000-0000-0000-000000000001")) == ids(
        lambda r: r["code"] and r["code"].int == 1
    )
    assert await listed(session, ("artist__name", "Ana")) == ids(lambda r: r["artist_id"] == 1)
    assert await listed(session) == ids(lambda _row: True)


def test_the_rest_of_the_query_is_read_and_bounded() -> None:
    pairs = [("sort", "-title,plays"), ("limit", "30"), ("offset", "5")]

    assert parse_query(OpenSongs, pairs) == ListQuery(
        (), (Sort("title", True), Sort("plays")), 30, 5, None
    )
    assert parse_query(OpenSongs, [("cursor", "x")]) == ListQuery((), (), 20, 0, "x")
    assert parse_query(OpenSongs, [], default_limit=500).limit == 30


HIDDEN = [
    "id", "copies", "copies__gt", "title__gt", "title__or", "price", "artist__id", "artist",
    "artist__songs__title", "artist__name__eq__eq", "__class__", "metadata", "filterable", "",
    "title__", "__eq", "title__eq; DROP TABLE song", "plays__is", "limit__gt", "everything",
]  # fmt: skip


@pytest.mark.parametrize("name", HIDDEN)
def test_what_is_not_listed_can_not_be_asked_for(name: str) -> None:
    with pytest.raises(InvalidFilterError) as raised:
        parse_query(OpenSongs, [(name, "1")])

    assert f"{name!r} is no parameter; there are artist__name, code, guests__mentor__id," in str(
        raised.value
    )
    assert "copies" not in str(raised.value).partition(";")[2]


VALUES = [
    ("plays", "x"), ("plays", ""), ("plays__is_null", "x"), ("live", "2"), ("mood", "calm"),
    ("recorded_at__gte", "2026-01-03T12:00:00"), ("recorded_at__gte", "x"), ("code", "1"),
    ("recorded_at__gte", "0001-01-01T00:00:00+14:00"), ("title", "a\x00"), ("price__lte", "NaN"),
    ("plays__between", "1"), ("price__lte", "Infinity"), ("guests__mentor__id", "a"),
    ("title__icontains", "\ud800"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), VALUES)
def test_a_value_that_no_driver_would_take_is_refused_before(name: str, value: str) -> None:
    with pytest.raises(InvalidFilterError, match=name.partition("__")[0]):
        parse_query(OpenSongs, [(name, value)])


SORTS = ["id", "-copies", "title desc", "artist__name", "title,id", "--title", "1;DROP TABLE song"]


@pytest.mark.parametrize("text", SORTS)
def test_what_is_not_listed_can_not_be_sorted_by(text: str) -> None:
    with pytest.raises(InvalidSortError, match=r"it takes plays, title$"):
        parse_query(OpenSongs, [("sort", text)])


NUMBERS = [
    ("limit", "0"), ("limit", "-1"), ("limit", "31"), ("limit", "x"), ("limit", "1_0"),
    ("limit", ""), ("limit", "٣"), ("limit", "9" * 5000), ("offset", "-1"), ("offset", "1e3"),
    ("offset", "9999999999999999999"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), NUMBERS)
def test_a_page_keeps_to_its_bounds(name: str, value: str) -> None:
    with pytest.raises(InvalidPageError, match=name):
        parse_query(OpenSongs, [(name, value)])


def test_a_parameter_that_is_given_twice_or_contradicts_is_refused() -> None:
    for name, value in (("title", "a"), ("limit", "5"), ("sort", "title"), ("cursor", "x")):
        with pytest.raises(InvalidFilterError, match="is given 2 times"):
            parse_query(OpenSongs, [(name, value)] * 2)
    with pytest.raises(InvalidPageError, match="not at both"):
        parse_query(OpenSongs, [("cursor", "x"), ("offset", "5")])
    with pytest.raises(InvalidFilterError, match="more than 100 parameters"):
        parse_query(OpenSongs, [("title__in", "a")] * 101)


def test_a_service_that_lists_nothing_is_closed() -> None:
    with pytest.raises(InvalidFilterError, match="there are cursor, limit, offset, sort"):
        parse_query(songs.SongService, [("title", "a")])
    with pytest.raises(InvalidSortError, match="it takes nothing"):
        parse_query(songs.SongService, [("sort", "title")])


def test_all_refusals_share_one_class() -> None:
    assert issubclass(InvalidFilterError, InvalidInputError)
    assert issubclass(InvalidInputError, ValueError)


REFUSED_LATE = [
    ("rate__gt", "0.123"),  # ExactDecimal(12, 2)
    ("at__gt", "2026-01-01T00:00:00"),  # UTCTimestamp, and no zone
    ("takes__gt", "P999999999D"),  # Duration: more microseconds than 64 bits have
    ("takes__gt", "P106751992D"),
    ("price__gt", "1e-20000"),
    ("name__icontains", "x" * 60_000),
]


@pytest.mark.parametrize(("name", "value"), REFUSED_LATE)
async def test_what_a_type_or_a_driver_refuses_is_invalid_input_or_no_row(
    session: AsyncSession, name: str, value: str
) -> None:
    """Types with a rule of their own, and drivers, see a value when it is sent."""
    service, refusals = OpenTours(session), ""
    for read in (service.list, service.count, service.exists, service.cursor_page):
        try:
            query = parse_query(OpenTours, [(name, value)])
            found = await read(*query.where)
        except InvalidFilterError as error:
            refusals += str(error)
            continue
        assert name == "takes__gt"  # MariaDB and SQLite compare what they can't store
        assert found in ([], 0, False) or found.items == []
    assert "query argument" not in refusals  # asyncpg's words


async def test_a_broken_read_is_no_invalid_input(session: AsyncSession) -> None:
    with pytest.raises(DBAPIError):  # the table is missing
        await OpenSongs(session).list(column("missing") == 1)
