from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servicebase import songs
from servicebase.songs import ArtistService, SongService
from servicebase.test_filters import PROPERTY
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

from snippets.servicebase.errors import InvalidPageError
from snippets.servicebase.offset_pagination import MAX_OFFSET, Page, check_limit, check_offset

TABLES = songs.TABLES
COUNT = 42


@pytest.fixture
async def stored(session: AsyncSession) -> AsyncSession:
    await songs.store_nasty_rows(session)
    return session


@PROPERTY
@given(limit=st.integers(1, 100), offset=st.integers(0, 60))
async def test_a_page_is_the_slice_and_total_counts_all(
    stored: AsyncSession, limit: int, offset: int
) -> None:
    page = await SongService(stored).page(limit=limit, offset=offset, order_by="-id")

    assert [song.id for song in page.items] == list(range(COUNT, 0, -1))[offset : offset + limit]
    assert (page.total, page.offset, page.limit) == (COUNT, offset, limit)


async def test_a_page_behind_the_last_one_still_knows_the_total(stored: AsyncSession) -> None:
    """total was 0 past the last page."""
    page = await SongService(stored).page(offset=1000, id__gt=2)

    assert page == Page([], COUNT - 2, 1000, 20)


async def test_a_limit_counts_parents(stored: AsyncSession) -> None:
    """limit counted joined rows instead of parents."""
    page = await ArtistService(stored).page(limit=2, songs__id__gt=0, load=["songs"])

    assert [artist.id for artist in page.items] == [1, 2]
    assert page.total == 3
    assert all(len(artist.songs) > 2 for artist in page.items)


async def test_a_count_is_sent_only_when_the_page_does_not_tell(
    stored: AsyncSession, statements: StatementLog
) -> None:
    service = SongService(stored)
    counts = []
    for offset, limit in [(0, 20), (0, 100), (40, 20), (42, 20), (22, 20)]:
        statements.clear()
        await service.page(offset=offset, limit=limit)
        counts.append(statements.count)

    assert counts == [2, 1, 1, 2, 2]


@pytest.mark.parametrize("limit", [0, -1, -(2**63), 101, 2**70, True, "5", 1.0, None])
async def test_a_page_refuses_a_limit_that_is_none(limit: Any) -> None:
    """limit=0 and negative limits returned everything."""
    service = SongService(AsyncSession())

    with pytest.raises(InvalidPageError, match="limit="):
        await service.page(limit=limit)
    with pytest.raises(InvalidPageError, match="limit="):
        await service.cursor_page(limit=limit)


@pytest.mark.parametrize("limit", [0, -1, 2**63])
async def test_a_list_refuses_a_limit_that_is_none(limit: int) -> None:
    with pytest.raises(InvalidPageError, match="limit="):
        await SongService(AsyncSession()).list(limit=limit)


@pytest.mark.parametrize("offset", [-1, MAX_OFFSET + 1, 10**30, True, "5", None])
async def test_a_page_refuses_an_offset_that_is_none(offset: Any) -> None:
    with pytest.raises(InvalidPageError, match="offset="):
        await SongService(AsyncSession()).page(offset=offset)


async def test_the_largest_offset_is_no_error_of_a_driver(stored: AsyncSession) -> None:
    assert (await SongService(stored).page(offset=MAX_OFFSET)).total == COUNT
    assert await SongService(stored).list(limit=1, offset=MAX_OFFSET) == []


def test_the_checks_take_what_is_right() -> None:
    check_limit(None)
    check_limit(MAX_OFFSET)
    check_offset(0)


def test_a_page_maps_its_items() -> None:
    assert Page([1, 2], 5, 0, 2).map(str) == Page(["1", "2"], 5, 0, 2)
