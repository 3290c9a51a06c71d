from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servicebase import songs
from servicebase.songs import Mood, Song, SongGuest, SongService
from servicebase.test_filters import PROPERTY
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.servicebase.errors import InvalidSortError
from snippets.servicebase.sorting import Sort, resolve_order

TABLES = songs.TABLES
ROWS = songs.nasty_rows()
FIELDS = (
    "id", "title", "plays", "copies", "price", "tempo", "live", "recorded_at", "released_on",
    "starts_at", "mood",
)  # fmt: skip


@pytest.fixture
async def stored(session: AsyncSession) -> AsyncSession:
    await songs.store_nasty_rows(session)
    return session


sort = st.builds(Sort, st.sampled_from(FIELDS), st.booleans(), st.sampled_from(["first", "last"]))
orders = st.lists(sort, min_size=1, max_size=3, unique_by=lambda s: s.field)


def python_order(sorts: tuple[Sort, ...]) -> list[int]:
    """Return the ids in this order, by sorting from the last key to the first."""
    rows = list(ROWS)
    for key in reversed(sorts):
        present = [row for row in rows if row[key.field] is not None]
        absent = [row for row in rows if row[key.field] is None]
        present.sort(key=lambda row: value_of(row[key.field]), reverse=key.descending)
        rows = absent + present if key.nulls == "first" else present + absent
    return [row["id"] for row in rows]


def value_of(value: Any) -> Any:
    return value.name if isinstance(value, Mood) else value


@PROPERTY
@given(order=orders)
async def test_every_order_is_the_one_of_python(stored: AsyncSession, order: list[Sort]) -> None:
    ids = [song.id for song in await SongService(stored).list(order_by=order)]

    assert ids == python_order(resolve_order(Song, order))


async def test_the_key_is_the_default_and_the_tie_break(stored: AsyncSession) -> None:
    """A page without ORDER BY gave rows in any order."""
    service = SongService(stored)

    assert [s.id for s in await service.list(limit=3)] == [1, 2, 3]
    assert [s.id for s in await service.list(order_by="-id", limit=2)] == [42, 41]
    lives = [s.id for s in await service.list(order_by="live", limit=20)]
    assert lives == [r["id"] for r in ROWS if r["live"] is False] + [2, 5, 8, 11, 14, 17]


def test_the_tie_break_keeps_the_last_direction_and_covers_the_whole_key() -> None:
    assert resolve_order(Song, "-plays") == (Sort("plays", True), Sort("id", True))
    assert resolve_order(Song, ()) == (Sort("id"),)
    assert resolve_order(Song, ["id", "-plays"]) == (Sort("id"), Sort("plays", True))
    assert resolve_order(SongGuest, "artist_id") == (Sort("artist_id"), Sort("song_id"))


def test_a_column_without_null_needs_no_word_about_it() -> None:
    assert resolve_order(Song, Sort("copies", nulls="first"))[0] == Sort("copies")
    assert resolve_order(Song, Sort("plays", nulls="first"))[0] == Sort("plays", nulls="first")


UNKNOWN: list[Any] = [
    "titel", "artist", "guests", "artist__name", "extra", "metadata", "__class__", "model_fields",
    "title desc", "title; DROP TABLE song", "--title", "1", "", "-", "(SELECT 1)", "password_hash",
]  # fmt: skip


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_can_not_be_sorted_by_raises_and_lists_what_can(name: str) -> None:
    """A sort by any attribute of the class was a 500, or leaked an order."""
    with pytest.raises(InvalidSortError, match=r"can't be sorted by .*; it has alias, artist_id"):
        resolve_order(Song, name)


def test_other_wrong_sorts_raise() -> None:
    with pytest.raises(InvalidSortError, match="is no name of a field and no Sort"):
        resolve_order(Song, [5])  # type: ignore[list-item]
    with pytest.raises(InvalidSortError, match="a field is named twice: plays, plays"):
        resolve_order(Song, ["plays", "-plays"])
    with pytest.raises(InvalidSortError, match="nulls='middle'; use 'first' or 'last'"):
        resolve_order(Song, Sort("plays", nulls="middle"))  # type: ignore[arg-type]


@pytest.mark.only_on("postgresql", reason="the native enum type is PostgreSQL's")
async def test_an_enum_sorts_by_name_and_not_by_rank(stored: AsyncSession) -> None:
    moods = [
        song.mood for song in await SongService(stored).list(mood__is_null=False, order_by="mood")
    ]

    assert list(dict.fromkeys(moods)) == [Mood.blue, Mood.calm, Mood.wild]
