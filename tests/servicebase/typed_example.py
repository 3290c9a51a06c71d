"""What a type checker accepts and rejects of a service; test_service.py runs mypy and pyright.

A line that must be rejected has an ignore with its code: were it accepted, the unused ignore
would be the error.
"""

from collections.abc import Sequence
from typing import assert_type

from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.servicebase.cursor_pagination import CursorPage
from snippets.servicebase.custom_services import (
    Album,
    AlbumCreate,
    AlbumService,
    AlbumUpdate,
    Member,
    MemberService,
    TaskService,
)
from snippets.servicebase.filters import any_of, not_
from snippets.servicebase.offset_pagination import Page
from snippets.servicebase.service import ServiceBase
from snippets.servicebase.sorting import Sort


async def reads(albums: AlbumService) -> None:
    assert_type(await albums.get(1), Album)
    assert_type(await albums.find(title="a"), Album | None)
    assert_type(await albums.list(Album.title == "a", col(Album.id) > 1), Sequence[Album])
    assert_type(await albums.page(any_of(title="a"), order_by=["-title", Sort("id")]), Page[Album])
    assert_type(await albums.cursor_page(not_(title="a"), load=[Album.label]), CursorPage[Album])
    assert_type(await albums.count(), int)
    assert_type(await albums.exists(label__name="4AD"), bool)
    async for album in albums.stream(order_by="title"):
        assert_type(album, Album)


async def writes(albums: AlbumService) -> None:
    assert_type(await albums.create(AlbumCreate(title="a")), Album)
    assert_type(await albums.create_many([AlbumCreate(title="a")]), Sequence[Album])
    assert_type(await albums.update(1, AlbumUpdate(title="b")), Album)
    assert_type(await albums.update_where(id=1, values=AlbumUpdate()), int)
    assert_type(await albums.update_where(id=1, values={"title": "b"}), int)
    assert_type(await albums.upsert_many([AlbumCreate(title="a")], on="slug"), Sequence[Album])
    assert_type(await albums.delete_where(everything=True), int)


async def maps(albums: AlbumService, members: MemberService) -> None:
    page = await albums.page()
    assert_type(page.map(lambda album: album.title), Page[str])
    assert_type(await members.get(1), Member)


async def rejected(albums: AlbumService, session: AsyncSession) -> None:
    await albums.create(AlbumUpdate(title="a"))  # type: ignore[arg-type]
    await albums.create({"title": "a"})  # type: ignore[arg-type]
    await albums.create_many([AlbumUpdate()])  # type: ignore[list-item]
    await albums.update(1, AlbumCreate(title="a"))  # type: ignore[arg-type]
    await albums.update_where(id=1, values=AlbumCreate(title="a"))  # type: ignore[arg-type]
    await albums.list("title = 'a'")  # type: ignore[arg-type]
    await albums.list(order_by=5)  # type: ignore[arg-type]
    await albums.page(limit="5")  # type: ignore[arg-type]
    await albums.get(1).title  # type: ignore[attr-defined]
    (await albums.get(1)).name  # type: ignore[attr-defined]  # noqa: B018
    await albums.upsert_many([AlbumCreate(title="a")])  # type: ignore[call-arg]
    AlbumService()  # type: ignore[call-arg]
    TaskService(session)  # type: ignore[call-arg]


class Wrong(ServiceBase[int, AlbumCreate, AlbumUpdate]): ...  # type: ignore[type-var]
