from typing import Any

import pytest
from servicebase import songs
from servicebase.songs import Artist, ArtistService, Song, SongGuest, SongService
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import joinedload, selectinload
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

from snippets.servicebase import eager_options
from snippets.servicebase.eager_options import loader_options
from snippets.servicebase.errors import InvalidLoadError

TABLES = songs.TABLES


@pytest.fixture
async def stored(session: AsyncSession) -> AsyncSession:
    await songs.store_nasty_rows(session)
    session.expunge_all()
    return session


async def test_a_list_with_its_children_is_two_statements(
    stored: AsyncSession, statements: StatementLog
) -> None:
    artists = await ArtistService(stored).list(load=[Artist.songs], limit=3)

    assert statements.count == 2
    assert [len(artist.songs) for artist in artists] == [11, 10, 10]


async def test_a_to_one_relationship_comes_by_join(
    stored: AsyncSession, statements: StatementLog
) -> None:
    listed = await SongService(stored).list(load="artist", limit=4, order_by="id")

    assert statements.count == 1
    assert [song.artist and song.artist.name for song in listed] == [None, "Ana", "Bo", "Cy%"]


async def test_dotted_names_go_deeper(stored: AsyncSession, statements: StatementLog) -> None:
    (artist,) = await ArtistService(stored).list(
        load=["songs.guests", "songs__artist.mentor", "pupils"], name="Bo"
    )

    assert statements.count == 4
    assert {guest.name for song in artist.songs for guest in song.guests} <= {
        "Ana",
        "Bo",
        "Cy%",
        "Di",
    }
    assert artist.songs[0].artist.mentor.name == "Ana"  # type: ignore[union-attr]
    assert [pupil.name for pupil in artist.pupils] == ["Cy%"]


async def test_loader_options_pass_through_and_a_joined_collection_works(
    stored: AsyncSession,
) -> None:
    """Joined eager loading of a collection raised."""
    service = ArtistService(stored)

    artists = await service.list(load=[joinedload(Artist.songs)], limit=2)  # type: ignore[arg-type]
    page = await service.cursor_page(load=[joinedload(Artist.songs)], limit=2)  # type: ignore[arg-type]

    assert [len(artist.songs) for artist in artists] == [11, 10]
    assert page.items == artists


async def test_strict_makes_all_else_raise(stored: AsyncSession) -> None:
    song = await SongService(stored).get(2, load=["artist"], strict=True)

    assert song.artist is not None
    with pytest.raises(InvalidRequestError, match=r"'Song\.guests' is not available due to lazy="):
        _ = song.guests
    with pytest.raises(
        InvalidRequestError, match=r"'Artist\.pupils' is not available due to lazy="
    ):
        _ = song.artist.pupils


async def test_get_loads_a_relationship_of_an_object_that_was_loaded_without(
    stored: AsyncSession,
) -> None:
    service = ArtistService(stored)
    before = await service.get(1)

    after = await service.get(1, load=["songs"])

    assert after is before
    assert len(after.songs) == 11


async def test_a_stream_loads_by_batch(stored: AsyncSession, statements: StatementLog) -> None:
    service = ArtistService(stored)

    counts = [len(artist.songs) async for artist in service.stream(load=["songs"], batch=2)]

    assert counts == [11, 10, 10, 0]
    assert statements.count == 4


async def test_a_collection_that_its_model_loads_by_join_works(
    stored: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eager_options, "_joins_collections", lambda _model: True)

    assert len(await ArtistService(stored).list()) == 4


WRONG: list[Any] = [
    "sogns",
    "name",
    "songs.titel",
    "songs.title",
    "__class__",
    "metadata",
    "",
    "songs..artist",
    "registry",
]


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_relationship_raises_and_lists_what_is(name: str) -> None:
    with pytest.raises(InvalidLoadError, match=r"has no relationship .*; it has .*songs|guests"):
        loader_options(Artist, [name])


def test_other_wrong_options_raise() -> None:
    with pytest.raises(InvalidLoadError, match=r"Song\.guests is no relationship of Artist"):
        loader_options(Artist, [Song.guests])
    with pytest.raises(InvalidLoadError, match="5 is no relationship, name or loader option"):
        loader_options(Artist, [5])
    with pytest.raises(InvalidLoadError, match="it has none"):
        loader_options(SongGuest, ["songs"])
    assert len(loader_options(Artist, [selectinload(Artist.songs)], strict=True)) == 2  # type: ignore[arg-type]
