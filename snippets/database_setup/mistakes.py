"""Wrong on purpose: each function is a mistake that the page names, and a test shows its symptom."""

import asyncio
from typing import Any

from pydantic import PostgresDsn
from pydantic_settings import BaseSettings
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession


async def session_class_left_out(engine: AsyncEngine) -> Any:
    factory = async_sessionmaker(engine, expire_on_commit=False)
    async with factory() as session:
        return await session.exec(text("SELECT 1"))


async def expire_on_commit_left_on(engine: AsyncEngine, row: SQLModel, name: str) -> Any:
    factory = async_sessionmaker(engine, class_=AsyncSession)
    async with factory() as session:
        session.add(row)
        await session.commit()
        return getattr(row, name)


def sync_driver(url: URL) -> AsyncEngine:
    return create_async_engine(f"sqlite:///{url.database}")


async def greenlet_left_to_luck() -> None:
    engine = create_async_engine("sqlite+aiosqlite://")  # installed: sqlalchemy, not [asyncio]
    async with engine.connect():
        pass
    await engine.dispose()


async def libpq_options_for_asyncpg(url: URL) -> None:
    engine = create_async_engine(url.update_query_dict({"sslmode": "require"}))
    await engine.connect()


def url_as_text(url: URL) -> str:
    return str(url)


def settings_that_print_the_url(url: str) -> BaseSettings:
    class Settings(BaseSettings):
        url: PostgresDsn

    return Settings(url=url)


def engine_in_two_loops(engine: AsyncEngine) -> None:
    async def query() -> None:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    asyncio.run(query())
    asyncio.run(query())


async def second_session_inside_the_first(factory: async_sessionmaker[AsyncSession]) -> None:
    async with factory() as outer:
        await outer.exec(text("SELECT 1"))
        async with factory() as inner:
            await inner.exec(text("SELECT 1"))


async def session_never_closed(factory: async_sessionmaker[AsyncSession]) -> None:
    session = factory()
    await session.exec(text("SELECT 1"))


async def sqlite_without_hooks(url: URL) -> tuple[int, int]:
    """Return the rows that survive a rollback, and the rows that point to nothing."""
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE parent (id INTEGER PRIMARY KEY)"))
        await connection.execute(text("CREATE TABLE child (id INTEGER REFERENCES parent)"))
    async with engine.connect() as connection:
        async with connection.begin_nested():
            await connection.execute(text("INSERT INTO parent VALUES (1)"))
        await connection.rollback()
        await connection.execute(text("INSERT INTO child VALUES (404)"))
        kept = await connection.scalar(text("SELECT COUNT(*) FROM parent"))
        orphans = await connection.scalar(text("SELECT COUNT(*) FROM child"))
    await engine.dispose()
    return kept, orphans


async def memory_database_for_two_sessions(engine: AsyncEngine) -> int:
    """Return how many rows are left of the one that the first session flushed."""
    async with AsyncSession(engine) as first, AsyncSession(engine) as second:
        await first.exec(text("CREATE TABLE seat (id INTEGER)"))
        await first.commit()
        await first.exec(text("INSERT INTO seat VALUES (1)"))
        await second.exec(text("SELECT 1"))
        await second.rollback()
        return (await first.exec(text("SELECT COUNT(*) FROM seat"))).scalar_one()


async def read_then_write(factory: async_sessionmaker[AsyncSession]) -> None:
    """Two transactions read first, as `get` and then `update` do, and write after that."""
    async with factory() as first, factory() as second:
        for session in (first, second):
            await session.exec(text("SELECT COUNT(*) FROM tally"))
        for session in (first, second):
            await session.exec(text("INSERT INTO tally VALUES (1)"))
            await session.commit()
