"""Wrong code, each function wrong in the way people are wrong. Nothing here is to be copied."""

import time
from asyncio import AbstractEventLoop, new_event_loop
from collections.abc import Iterator

import pytest
from fastapi import BackgroundTasks
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlmodel import SQLModel, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.best_practices.query_plans import Letter


async def missing_await(session: AsyncSession) -> list[Letter]:
    return session.exec(select(Letter)).all()


def engine_at_import() -> str:
    """A module, since this is about its top level."""
    return """\
import os

from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine(os.environ["DATABASE_URL"])
"""


async def engine_per_request(url: URL) -> list[Letter]:
    engine = create_async_engine(url)
    async with AsyncSession(engine) as session:
        return list((await session.exec(select(Letter))).all())


async def blocking_call(session: AsyncSession) -> list[Letter]:
    time.sleep(0.2)
    return list((await session.exec(select(Letter))).all())


async def sql_from_strings(session: AsyncSession, town: str) -> list[tuple[int, str]]:
    return list(await session.exec(text("SELECT id, code FROM letter WHERE town = '%s'" % town)))


async def pattern_from_user_text(session: AsyncSession, typed: str) -> list[Letter]:
    return list((await session.exec(select(Letter).where(Letter.town.ilike(f"%{typed}%")))).all())


async def page_without_order(session: AsyncSession, offset: int, limit: int) -> list[int]:
    return list((await session.exec(select(Letter.id).offset(offset).limit(limit))).all())


async def delete_without_where(session: AsyncSession, town: str | None) -> int:
    statement = delete(Letter)
    if town:
        statement = statement.where(Letter.town == town)
    return (await session.exec(statement)).rowcount


async def rows_loaded_to_be_counted(session: AsyncSession) -> int:
    return len((await session.exec(select(Letter))).all())


async def session_for_background_work(session: AsyncSession, background: BackgroundTasks) -> None:
    async def mark_delivered() -> None:
        for letter in (await session.exec(select(Letter))).all():
            letter.town = "delivered"
        await session.commit()

    background.add_task(mark_delivered)


async def tables_made_beside_alembic(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(SQLModel.metadata.create_all, [Letter.__table__])


@pytest.fixture(name="event_loop")
def override_of_event_loop() -> Iterator[AbstractEventLoop]:
    loop = new_event_loop()
    yield loop
    loop.close()
