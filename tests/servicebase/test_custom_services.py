import asyncio
import datetime as dt

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

from snippets.database_setup.session import session_scope
from snippets.servicebase.custom_services import (
    Album,
    AlbumCreate,
    AlbumService,
    AlbumUpdate,
    Label,
    Member,
    MemberCreate,
    MemberService,
    MemberUpdate,
    Task,
    TaskCreate,
    TaskService,
    TaskUpdate,
)
from snippets.servicebase.errors import ConflictError, NotFoundError
from snippets.servicebase.query_parameters import parse_query

TABLES = [Label, Album, Member, Task]


async def test_a_derived_column_follows_every_kind_of_write(session: AsyncSession) -> None:
    service = AlbumService(session)

    blue = await service.create(AlbumCreate(title="Blue Lines"))
    (pink,) = await service.create_many([AlbumCreate(title="Pink  Moon!")])
    assert (blue.slug, pink.slug) == ("blue-lines", "pink-moon")

    await service.update(blue.id, AlbumUpdate(title="Protection"))
    await service.update_where(id=pink.id, values=AlbumUpdate(title="Bryter Layter"))
    assert (blue.slug, pink.slug) == ("protection", "bryter-layter")

    (again,) = await service.upsert_many(
        [AlbumCreate(title="Protection", released_on=dt.date(1994, 9, 26))], on="slug"
    )
    await service.update(blue.id, AlbumUpdate(released_on=None))
    assert again is blue
    assert (blue.released_on, blue.slug) == (None, "protection")


async def test_an_album_is_filtered_by_its_query_string(session: AsyncSession) -> None:
    session.add(Label(name="4AD", albums=[Album(title="Treasure", slug="treasure")]))
    await session.flush()
    query = parse_query(AlbumService, [("label__name", "4AD"), ("sort", "-released_on")])

    page = await AlbumService(session).page(
        *query.where,
        order_by=query.order_by,
        limit=query.limit,
        offset=query.offset,
        load=["label"],
    )

    assert [album.label and album.label.name for album in page.items] == ["4AD"]


@pytest.fixture
async def members(session: AsyncSession) -> MemberService:
    service = MemberService(session)
    await service.create_many(
        [MemberCreate(email=f"{name}@example.org", name=name) for name in ("Ann", "Bea", "Cleo")]
    )
    await service.delete(2)
    return service


async def test_a_deleted_member_exists_for_no_method(members: MemberService) -> None:
    assert [member.name for member in await members.list()] == ["Ann", "Cleo"]
    assert (await members.count(), await members.exists(id=2)) == (2, False)
    assert (await members.page(id=2)).total == 0
    assert (await members.cursor_page(limit=5)).items == await members.list()
    assert [member.name async for member in members.stream()] == ["Ann", "Cleo"]
    assert await members.aggregate(compute={"n": "count"}) == [{"n": 2}]
    assert await members.find(name="Bea") is None
    for attempt in (members.get(2), members.update(2, MemberUpdate(name="X")), members.delete(2)):
        with pytest.raises(NotFoundError):
            await attempt
    assert await members.update_where(values=MemberUpdate(name="X"), everything=True) == 2
    assert await members.delete_where(id__in=[1, 2]) == 1


async def test_a_deleted_row_is_still_there(members: MemberService) -> None:
    row = (await members.session.exec(select(Member).where(col(Member.id) == 2))).one()

    assert (row.name, row.deleted_at is not None) == ("Bea", True)


async def test_a_deleted_members_email_stays_taken(members: MemberService) -> None:
    data = MemberCreate(email="Bea@example.org", name="Other")

    with pytest.raises(ConflictError):
        await members.create(data)
    with pytest.raises(ConflictError):
        await members.upsert_many([data, MemberCreate(email="new@x.org", name="New")], on="email")

    row = (await members.session.exec(select(Member).where(col(Member.id) == 2))).one()
    assert (row.name, await members.count()) == ("Bea", 2)


@pytest.fixture
async def clubs(session: AsyncSession) -> tuple[TaskService, TaskService]:
    one, two = TaskService(session, club_id=1), TaskService(session, club_id=2)
    await one.create_many([TaskCreate(number=n, text=f"one {n}") for n in (1, 2)])
    await two.create(TaskCreate(number=1, text="two 1"))
    return one, two


async def test_a_tenant_sees_and_changes_its_own_rows_only(
    clubs: tuple[TaskService, TaskService],
) -> None:
    one, two = clubs
    theirs = await two.find()
    assert theirs is not None

    assert [task.text for task in await one.list()] == ["one 1", "one 2"]
    for attempt in (
        one.get(theirs.id),
        one.update(theirs.id, TaskUpdate(done=True)),
        one.delete(theirs.id),
    ):
        with pytest.raises(NotFoundError):
            await attempt
    assert await one.update_where(values=TaskUpdate(done=True), everything=True) == 2
    assert await one.delete_where(everything=True) == 2
    assert (theirs.done, await two.count()) == (False, 1)


async def test_an_upsert_stays_within_the_tenant(
    clubs: tuple[TaskService, TaskService], statements: StatementLog
) -> None:
    one, two = clubs
    statements.clear()

    items = await one.upsert_many(
        [TaskCreate(number=3, text="new"), TaskCreate(number=1, text="changed")],
        on=("club_id", "number"),
    )

    assert statements.count == 1
    assert [(task.club_id, task.text) for task in items] == [(1, "new"), (1, "changed")]
    assert [task.text for task in await two.list()] == ["two 1"]


async def test_a_row_of_another_tenant_is_a_conflict_and_stays(
    clubs: tuple[TaskService, TaskService],
) -> None:
    class Careless(TaskService):
        """Lets the key come from outside, as an import might."""

        def values_for_create(self, data: TaskCreate) -> dict[str, object]:
            return super().values_for_create(data) | {"id": 3}

    one, two = clubs
    with pytest.raises(ConflictError):
        await Careless(one.session, 1).upsert_many([TaskCreate(number=9, text="stolen")], on="id")

    assert [task.text for task in await two.list()] == ["two 1"]
    assert await one.count() == 2


@pytest.mark.not_on("sqlite", reason="it has one writer at a time, and no row locks")
async def test_of_two_that_mark_a_row_one_does(factory: async_sessionmaker[AsyncSession]) -> None:
    async with session_scope(factory) as session:
        member = await MemberService(session).create(MemberCreate(email="a@b.c", name="Ann"))
    seen = asyncio.Barrier(2)

    async def delete() -> None:
        async with session_scope(factory) as session:
            await MemberService(session).get(member.id)
            await seen.wait()
            await MemberService(session).delete(member.id)
            await asyncio.sleep(0.1)

    async with asyncio.timeout(60):
        results = await asyncio.gather(delete(), delete(), return_exceptions=True)

    assert sorted(type(result).__name__ for result in results) == ["NoneType", "NotFoundError"]
