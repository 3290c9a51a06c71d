"""Wrong code, each function wrong in the way people are wrong. Nothing here is to be copied."""

from collections.abc import Mapping, Sequence

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.servicebase.custom_services import (
    Album,
    AlbumService,
    AlbumUpdate,
    Member,
    MemberService,
    Task,
    TaskService,
    TaskUpdate,
)
from snippets.servicebase.service import ServiceBase


async def compare_with_is(session: AsyncSession) -> Sequence[Member]:
    return await MemberService(session).list(Member.deleted_at is None)


async def query_string_as_filters(
    session: AsyncSession, query: Mapping[str, str]
) -> Sequence[Album]:
    return await AlbumService(session).list(**query)


async def dump_everything_for_an_update(session: AsyncSession, change: AlbumUpdate) -> int:
    return await AlbumService(session).update_where(values=change.model_dump(), id=1)


async def own_statement_without_scope(session: AsyncSession, club_id: int) -> Sequence[Task]:
    class OpenTasks(TaskService):
        async def open_tasks(self) -> Sequence[Task]:
            return (await self.session.exec(select(Task).where(col(Task.done).is_(False)))).all()

    return await OpenTasks(session, club_id).open_tasks()


async def offset_while_rows_change(service: TaskService) -> None:
    offset = 0
    while tasks := (await service.page(done=False, offset=offset, limit=2)).items:
        for task in tasks:
            await service.update(task.id, TaskUpdate(done=True))
        offset += 2


async def table_class_as_schema(session: AsyncSession, email: str) -> Member:
    class Members(ServiceBase[Member, Member, Member]): ...

    return await Members(session).create(Member(email=email))
