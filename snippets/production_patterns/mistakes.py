"""Wrong code, each function wrong in the way people are wrong. Nothing here is to be copied."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

from sqlalchemy import URL, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlmodel import insert, select, update
from sqlmodel.ext.asyncio.session import AsyncSession
from tenacity import retry, retry_if_exception_type, stop_after_attempt

from snippets.async_operations.transactions import Account, transfer, withdraw
from snippets.database_setup.session import session_scope
from snippets.production_patterns.caching import Cache, Tariff
from snippets.production_patterns.tenancy import Folder
from snippets.relationships.one_to_many import Cellar


def half_of_the_caches(url: URL) -> AsyncEngine:
    return create_async_engine(url, connect_args={"prepared_statement_cache_size": 0})


async def set_for_the_session(session: AsyncSession) -> None:
    await session.exec(text("SET statement_timeout = '100ms'"))


async def read_own_write_from_a_replica(
    writing: async_sessionmaker[AsyncSession], reading: async_sessionmaker[AsyncSession], owner: str
) -> Account:
    async with session_scope(writing) as session:
        session.add(Account(owner=owner))
    async with reading() as session:
        return (await session.exec(select(Account).where(Account.owner == owner))).one()


def copy_the_database_file(engine: AsyncEngine, backup: Path) -> None:
    shutil.copyfile(engine.url.database, backup)


async def load_rows_with_their_ids(session: AsyncSession, rows: list[dict[str, object]]) -> None:
    await session.exec(insert(Account), params=rows)


async def invalidate_before_the_commit(
    factory: async_sessionmaker[AsyncSession], cache: Cache, tariff_id: int, cents: int
) -> None:
    async with session_scope(factory) as session:
        await session.exec(update(Tariff).where(Tariff.id == tariff_id).values(cents=cents))
        await cache.forget([f"tariff:{tariff_id}"])


async def cache_orm_objects(
    factory: async_sessionmaker[AsyncSession], cache: dict[int, Cellar], cellar_id: int
) -> list[str]:
    if cellar_id not in cache:
        async with factory() as session:
            cache[cellar_id] = await session.get_one(Cellar, cellar_id)
    return [shelf.label for shelf in cache[cellar_id].shelves]


async def send_inside_the_transaction(
    factory: async_sessionmaker[AsyncSession], send: Callable[[int], Awaitable[None]], name: str
) -> None:
    async with session_scope(factory) as session:
        tariff = Tariff(name=name, cents=0)
        session.add(tariff)
        await session.flush()
        await send(tariff.id)


async def set_the_tenant_for_the_connection(session: AsyncSession, tenant_id: int) -> None:
    statement = text("SELECT set_config('app.tenant_id', :tenant, false)")
    await session.exec(statement, params={"tenant": str(tenant_id)})


async def cast_a_setting_that_may_be_empty(session: AsyncSession) -> list[Folder]:
    mine = text("tenant_id = current_setting('app.tenant_id', true)::int")
    return list(await session.exec(select(Folder).where(mine)))


async def liveness_asks_the_database(engine: AsyncEngine) -> dict[str, str]:
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    return {"status": "live"}


async def readiness_through_the_requests_pool(engine: AsyncEngine) -> dict[str, str]:
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    return {"status": "ready"}


def listen_on_the_async_engine(engine: AsyncEngine, listener: Callable[..., None]) -> None:
    event.listen(engine, "before_cursor_execute", listener)


def echo_in_production(url: URL) -> AsyncEngine:
    return create_async_engine(url, echo=True)


def instrument_sqlalchemy_2_1(engine: AsyncEngine) -> None:
    from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor

    SQLAlchemyInstrumentor().instrument(engine=engine.sync_engine)


async def retry_in_the_same_session(
    session: AsyncSession, source: int, target: int, cents: int
) -> None:
    await withdraw(session, source, cents)
    tries_left = 3
    while True:
        try:
            return await withdraw(session, target, -cents)
        except DBAPIError:
            tries_left -= 1
            if tries_left == 0:
                raise


@retry(retry=retry_if_exception_type(DBAPIError), stop=stop_after_attempt(3), reraise=True)
async def retry_an_unclear_commit(
    factory: async_sessionmaker[AsyncSession], source: int, target: int, cents: int
) -> None:
    async with session_scope(factory) as session:
        await transfer(session, source, target, cents)


async def deadline_inside_the_scope(
    factory: async_sessionmaker[AsyncSession], report: str, seconds: float
) -> None:
    async with session_scope(factory) as session:
        session.add(Account(owner="ann"))
        await session.flush()
        try:
            async with asyncio.timeout(seconds):
                await session.exec(text(report))
        except TimeoutError:
            pass  # the report is not that important
