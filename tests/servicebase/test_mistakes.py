import datetime as dt

import pytest
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.servicebase import mistakes
from snippets.servicebase.custom_services import (
    Album,
    AlbumCreate,
    AlbumService,
    AlbumUpdate,
    Label,
    Member,
    Task,
    TaskCreate,
    TaskService,
)
from snippets.servicebase.errors import InvalidFilterError, RequiredValueError

TABLES = [Label, Album, Member, Task]


async def test_compare_with_is(session: AsyncSession) -> None:
    with pytest.raises(InvalidFilterError) as raised:
        await mistakes.compare_with_is(session)

    assert str(raised.value) == (
        "False is no condition; compare with col(Model.field), and None with .is_(None)"
    )


async def test_query_string_as_filters(session: AsyncSession) -> None:
    await AlbumService(session).create(AlbumCreate(title="Blue", label_id=None))

    with pytest.raises(InvalidFilterError) as raised:
        await mistakes.query_string_as_filters(session, {"id": "1"})
    leaked = await mistakes.query_string_as_filters(session, {"slug__startswith": "b"})

    assert str(raised.value) == "Album.id__eq: a whole number expected, not '1'"
    assert len(leaked) == 1  # a field that nobody opened


async def test_dump_everything_for_an_update(session: AsyncSession) -> None:
    album = await AlbumService(session).create(
        AlbumCreate(title="Blue", released_on=dt.date(1971, 6, 22))
    )

    await mistakes.dump_everything_for_an_update(session, AlbumUpdate(title="Blue 2"))

    assert (album.title, album.slug, album.released_on) == ("Blue 2", "blue", None)


async def test_own_statement_without_scope(session: AsyncSession) -> None:
    await TaskService(session, club_id=2).create(TaskCreate(number=1, text="theirs"))

    tasks = await mistakes.own_statement_without_scope(session, club_id=1)

    assert [task.text for task in tasks] == ["theirs"]


async def test_offset_while_rows_change(session: AsyncSession) -> None:
    service = TaskService(session, club_id=1)
    await service.create_many([TaskCreate(number=n, text=f"{n}") for n in range(1, 9)])

    await mistakes.offset_while_rows_change(service)

    assert [task.number for task in await service.list(done=False)] == [3, 4, 7, 8]


async def test_table_class_as_schema(session: AsyncSession) -> None:
    with pytest.raises(RequiredValueError) as raised:
        await mistakes.table_class_as_schema(session, "ann@example.org")

    assert str(raised.value) == "Member lacks a required value: name"
