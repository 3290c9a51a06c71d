import base64
import datetime as dt
import enum
import json
import uuid
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from servicebase import songs
from servicebase.songs import ArtistService, Song, SongService
from servicebase.test_filters import PROPERTY
from servicebase.test_sorting import python_order, sort
from sqlalchemy.orm import subqueryload
from sqlmodel import Field, SQLModel, col
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

from snippets.models.enums_and_json import enum_by_value
from snippets.servicebase._values import outside
from snippets.servicebase.cursor_pagination import CursorPage, seek
from snippets.servicebase.errors import InvalidCursorError, InvalidSortError
from snippets.servicebase.service import ServiceBase
from snippets.servicebase.sorting import Sort, resolve_order


class Setlist(SQLModel, table=True):
    """A key that is text in the database's own collation, and one that Python makes."""

    venue: str = Field(primary_key=True, max_length=40)
    night: int = Field(primary_key=True)
    code: uuid.UUID = Field(default_factory=uuid.uuid4)


class SetlistService(ServiceBase[Setlist, Setlist, Setlist]): ...


class Grade(enum.Enum):
    low = "l"
    high = "h"


class Label(str, enum.Enum):  # noqa: UP042 - older code has these
    low = "l"
    high = "h"


class Rating(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    grade: Grade = Field(sa_type=enum_by_value(Grade))
    label: Label = Field(sa_type=enum_by_value(Label))
    mood: songs.Mood


class RatingService(ServiceBase[Rating, Rating, Rating]): ...


RATINGS = [
    (Grade.low, Label.high, songs.Mood.calm),
    (Grade.high, Label.low, songs.Mood.wild),
    (Grade.low, Label.low, songs.Mood.blue),
]

TABLES = [*songs.TABLES, Setlist, Rating]
ROWS = songs.nasty_rows()
LIMITS = st.integers(1, 50)
# alias and swing have an order of the database's own; the walk must agree with it all the same.
any_sort = st.builds(
    Sort,
    st.sampled_from(
        ["alias", "swing", "code", "noted_at", "title", "price", "live", "recorded_at"]
    ),
    st.booleans(),
    st.sampled_from(["first", "last"]),
)
ORDERS = st.lists(st.one_of(sort, any_sort), max_size=3, unique_by=lambda s: s.field)


@pytest.fixture
async def stored(session: AsyncSession) -> AsyncSession:
    await songs.store_nasty_rows(session)
    return session


@pytest.fixture
async def free(stored: AsyncSession) -> AsyncSession:
    """The rows, with no other table that keeps them from being deleted."""
    await stored.exec(sa.delete(songs.SongGuest))
    return stored


async def walk(service: Any, limit: int, **options: Any) -> tuple[list[Any], list[CursorPage[Any]]]:
    """Return all ids from page to page, and the pages; fails rather than going round for ever."""
    pages = [await service.cursor_page(limit=limit, **options)]
    while (cursor := pages[-1].next) is not None:
        pages.append(await service.cursor_page(limit=limit, cursor=cursor, **options))
        assert len(pages) < 100, "goes round for ever"
    return [item.id for page in pages for item in page.items], pages


@PROPERTY
@given(order=st.lists(sort, max_size=3, unique_by=lambda s: s.field), limit=LIMITS)
async def test_walking_forward_gives_the_order_of_python(
    stored: AsyncSession, order: list[Sort], limit: int
) -> None:
    """Cursors lost rows on ties and with NULL, and looped for ever on falsy values."""
    ids, _pages = await walk(SongService(stored), limit, order_by=order)

    assert ids == python_order(resolve_order(Song, order))


@PROPERTY
@given(order=ORDERS, limit=LIMITS)
async def test_walking_forth_and_back_gives_the_list(
    stored: AsyncSession, order: list[Sort], limit: int
) -> None:
    service = SongService(stored)
    listed = [song.id for song in await service.list(order_by=order)]

    ids, pages = await walk(service, limit, order_by=order)
    page, back = pages[-1], [pages[-1].items]
    while page.previous is not None:
        page = await service.cursor_page(limit=limit, order_by=order, cursor=page.previous)
        back.insert(0, page.items)

    assert ids == listed
    assert [song.id for items in back for song in items] == listed
    assert pages[0].previous is None
    assert all(p.previous for p in pages[1:])


@PROPERTY
@given(limit=LIMITS, least=st.integers(-1, 3))
async def test_walking_with_a_filter_gives_the_matches(
    stored: AsyncSession, limit: int, least: int
) -> None:
    service = SongService(stored)
    listed = [s.id for s in await service.list(plays__gt=least, order_by="-price")]

    assert (await walk(service, limit, plays__gt=least, order_by="-price"))[0] == listed


async def test_text_keys_that_the_collation_takes_for_equal_do_not_break_pages(
    session: AsyncSession,
) -> None:
    venues = ["a", "B", "b ", "é", "E", "ß", "ss", "😀", "𝄞", "Z", "z!", "%", "0"]
    session.add_all([Setlist(venue=v, night=n) for n, v in enumerate(venues * 3)])
    await session.flush()
    service = SetlistService(session)

    for order in ((), "-venue", ("venue", "-night"), "code"):
        listed = [(s.venue, s.night) for s in await service.list(order_by=order)]
        page = await service.cursor_page(order_by=order, limit=4)
        seen = [*page.items]
        while page.next:
            page = await service.cursor_page(order_by=order, limit=4, cursor=page.next)
            seen += page.items
        assert [(s.venue, s.night) for s in seen] == listed
        assert len(seen) == len(venues) * 3


async def test_timestamps_that_the_database_made_do_not_break_pages(session: AsyncSession) -> None:
    """On SQLite they have no fraction, and ties were lost to the one that Python compares with."""
    for _ in range(7):
        await session.exec(sa.insert(Song).values(copies=1))

    for order in ("noted_at", "-noted_at"):
        assert len((await walk(SongService(session), 2, order_by=order))[0]) == 7


async def test_a_float_of_four_bytes_does_not_repeat_rows(session: AsyncSession) -> None:
    """MariaDB shows 0.1 where it compares 0.10000000149."""
    session.add_all([Song(swing=value) for value in (0.1, 0.1, 0.2, 1 / 3, 1 / 3, 16777217.0)])
    await session.flush()

    for order in ("swing", "-swing"):
        assert len((await walk(SongService(session), 1, order_by=order))[0]) == 6


@pytest.mark.only_on("sqlite", reason="other databases round to the column's scale")
async def test_a_decimal_with_more_digits_than_its_column_does_not_break_pages(
    session: AsyncSession,
) -> None:
    for price in ("1.001", "1.004", "1.006", "1.0049"):
        await session.exec(sa.text(f"INSERT INTO song (copies, price) VALUES (0, {price})"))

    assert (await walk(SongService(session), 1, order_by="price"))[0] == [1, 2, 4, 3]


@pytest.mark.only_on("postgresql", reason="other databases have no NaN and no infinity")
async def test_nan_and_infinity_do_not_break_pages(session: AsyncSession) -> None:
    values = [float("nan"), float("inf"), float("-inf"), 0.0, float("nan")]
    session.add_all([Song(tempo=value) for value in values])
    await session.flush()

    assert (await walk(SongService(session), 1, order_by="tempo"))[0] == [3, 4, 2, 1, 5]


async def test_an_object_changed_in_the_session_does_not_move_the_page(
    stored: AsyncSession,
) -> None:
    service = SongService(stored)
    page = await service.cursor_page(order_by="copies", limit=3)
    with stored.no_autoflush:
        page.items[-1].copies = 0
        again = await service.cursor_page(order_by="copies", limit=3)

    assert again.next == page.next


async def test_rows_that_vanish_leave_the_way_back(free: AsyncSession) -> None:
    service = SongService(free)
    first = await service.cursor_page(limit=40)
    await service.delete_where(id__gt=40)

    empty = await service.cursor_page(limit=40, cursor=first.next)
    back = await service.cursor_page(limit=40, cursor=empty.previous)

    assert (empty.items, empty.next) == ([], None)
    assert [song.id for song in back.items] == list(range(1, 41))


async def test_rows_that_vanish_before_the_first_page_leave_the_way_forward(
    free: AsyncSession,
) -> None:
    service = SongService(free)
    first = await service.cursor_page(limit=2)
    second = await service.cursor_page(limit=2, cursor=first.next)
    await service.delete_where(id__lte=2)

    empty = await service.cursor_page(limit=2, cursor=second.previous)
    forth = await service.cursor_page(limit=2, cursor=empty.next)

    assert (empty.items, empty.previous) == ([], None)
    assert [song.id for song in forth.items] == [3, 4]


async def test_an_empty_table_has_one_empty_page(session: AsyncSession) -> None:
    assert await SongService(session).cursor_page() == CursorPage([], None, None)


async def test_a_page_is_one_statement_and_one_for_its_children(
    stored: AsyncSession, statements: StatementLog
) -> None:
    first = await ArtistService(stored).cursor_page(limit=2, load=["songs"])
    statements.clear()
    page = await ArtistService(stored).cursor_page(limit=2, load=["songs"], cursor=first.next)

    assert statements.count == 2
    assert [len(artist.songs) > 0 for artist in page.items] == [True, False]


async def test_rows_are_compared_as_rows_where_an_index_serves_that(
    stored: AsyncSession, statements: StatementLog
) -> None:
    """MariaDB would read its index from the start; NULL and two directions need OR anyhow."""
    service = SongService(stored)
    as_rows = {}
    for order in ("copies", "-copies", ("copies", "-id"), "plays"):
        first = await service.cursor_page(order_by=order, limit=2)
        await service.cursor_page(order_by=order, limit=2, cursor=first.next)
        as_rows[order] = " OR " not in statements.texts[-1]

    able = stored.get_bind().dialect.name not in {"mysql", "mariadb"}
    assert as_rows == {"copies": able, "-copies": able, ("copies", "-id"): False, "plays": False}


async def test_a_loader_that_repeats_the_statement_gets_its_parameters(
    stored: AsyncSession,
) -> None:
    service = ArtistService(stored)
    load = [subqueryload(songs.Artist.songs)]  # type: ignore[arg-type]
    for first_limit in (1, 2):
        first = await service.cursor_page(limit=first_limit)
        page = await service.cursor_page(limit=1, load=load, cursor=first.next)
        ids = [song.artist_id for song in page.items[0].songs]
        assert set(ids) <= {page.items[0].id}
        assert len(ids) == await SongService(stored).count(artist_id=page.items[0].id)


def test_a_page_maps_its_items() -> None:
    assert CursorPage([1], "n", "p").map(str) == CursorPage(["1"], "n", "p")


def content(token: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))


def token(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


NO_CURSORS: list[Any] = [
    "", "a", "!!!", "é", "A" * 70_000, "[]", 5, b"abc", token([]), token(5), token(None),
    token({"a": 1}), token([1, 2, 3]), token("x"), token([[[]]]),
    base64.urlsafe_b64encode(b"[" * 40_000).decode(),
    base64.urlsafe_b64encode(b"9" * 5000).decode(), "' OR 1=1 --",
]  # fmt: skip


@pytest.mark.parametrize("cursor", NO_CURSORS)
def test_what_is_no_cursor_raises(cursor: Any) -> None:
    for dialect in ("sqlite", "postgresql", "mysql"):
        with pytest.raises(InvalidCursorError, match="this is no cursor for this list"):
            seek(Song, resolve_order(Song, "title"), dialect, cursor)


async def test_a_cursor_belongs_to_its_model_order_and_version(stored: AsyncSession) -> None:
    service = SongService(stored)
    cursor = (await service.cursor_page(order_by="plays", limit=2)).next
    assert cursor is not None

    for order in ("-plays", (), ["plays", "-id"], Sort("plays", nulls="first"), "copies"):
        with pytest.raises(InvalidCursorError, match="made for another model, order or version"):
            await service.cursor_page(order_by=order, limit=2, cursor=cursor)
    with pytest.raises(InvalidCursorError):
        await ArtistService(stored).cursor_page(limit=2, cursor=cursor)
    with pytest.raises(InvalidCursorError):
        await service.cursor_page(
            order_by="plays", limit=2, cursor=token([2, *content(cursor)[1:]])
        )


TAMPERED: list[Any] = [
    {"a": 1}, [1], "' OR 1=1", "\ud800", 2**64, 10**400, float("nan"), True, "9999-99-99", "",
    "2026-01-01T00:00:00+00:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00",
    "NaN", "1e999", -(2**70), "\x00", 1.5, None,
]  # fmt: skip
KEYED = ("id", "title", "plays", "price", "tempo", "live", "recorded_at", "released_on", "mood")


async def test_a_tampered_cursor_raises_or_seeks_but_is_never_an_error_of_the_driver(
    stored: AsyncSession,
) -> None:
    service = SongService(stored)
    for field in (*KEYED, "starts_at", "code", "noted_at", "swing"):
        cursor = (await service.cursor_page(order_by=field, limit=2)).next
        assert cursor is not None
        version, signature, _way, values = content(cursor)
        refused = 0
        for value in TAMPERED:
            bad = token([version, signature, 0, [value, *values[1:]]])
            try:
                page = await service.cursor_page(order_by=field, limit=2, cursor=bad)
            except InvalidCursorError:
                refused += 1
            else:
                assert len(page.items) <= 2
        assert refused >= 3
        ways = (4, -1, "x", None, 1.0, True)
        wrong = [[0, []], [0, [*values, 1]], [0, "ab"], [0, None]]
        for structure in [*wrong, *([way, values] for way in ways)]:
            with pytest.raises(InvalidCursorError):
                bad = token([version, signature, *structure])
                await service.cursor_page(order_by=field, limit=2, cursor=bad)
    assert await service.count() == len(ROWS)


async def test_a_type_that_no_cursor_can_hold_is_no_order_for_one(session: AsyncSession) -> None:
    with pytest.raises(InvalidSortError, match="no cursor can hold values of its type"):
        await ServiceBaseOfTapes(session).cursor_page(order_by="mark")


class Upper(sa.types.TypeDecorator[str]):
    """Values of some type of its own."""

    impl = sa.String(10)
    cache_ok = True


class Cassette(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    mark: str = Field(sa_type=Upper)
    cut_at: dt.datetime | None = None


class ServiceBaseOfTapes(ServiceBase[Cassette, Cassette, Cassette]): ...


TABLES.append(Cassette)


async def test_sqlmodels_own_datetime_does_not_break_pages(session: AsyncSession) -> None:
    aware = type(Cassette.__table__.c.cut_at.type).__name__ == "UTCDateTime"  # SQLModel >= 0.0.45
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC if aware else None)
    times = [start + dt.timedelta(seconds=n // 2) for n in range(8)]
    session.add_all([Cassette(mark="x", cut_at=time) for time in [*times, None]])
    await session.flush()
    service = ServiceBaseOfTapes(session)

    ids, _pages = await walk(service, 2, order_by="-cut_at")

    assert ids == [8, 7, 6, 5, 4, 3, 2, 1, 9]
    assert await service.count(col(Cassette.cut_at) == times[2]) == 2
    assert await service.count(cut_at=times[2]) == 2
    assert await service.count(mark="x", mark__contains="x", mark__ne="y") == 9
    assert not outside(Cassette.__table__.c.mark, 2**70)  # a type of its own


@pytest.mark.parametrize("field", ["grade", "label", "mood"])
async def test_a_cursor_holds_the_text_of_any_enum(session: AsyncSession, field: str) -> None:
    """`str()` of a member of a plain Enum is "Grade.low", which no row has."""
    service = RatingService(session)
    await service.create_many(
        [Rating(grade=grade, label=label, mood=mood) for grade, label, mood in RATINGS]
    )

    seen = []
    page = await service.cursor_page(order_by=f"-{field}", limit=1)
    while page.next:
        seen += page.items
        page = await service.cursor_page(order_by=f"-{field}", limit=1, cursor=page.next)
    seen += page.items

    assert seen == await service.list(order_by=f"-{field}")
    assert len(seen) == len(RATINGS)
