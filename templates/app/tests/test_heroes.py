from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from app.database.engine import engine_for
from app.database.session import session_factory, session_scope
from app.heroes import HeroService
from app.models import HeroCreate, HeroUpdate
from app.services.errors import ConflictError, NotFoundError

Factory = async_sessionmaker[AsyncSession]


@pytest.fixture
async def factory(database: URL) -> AsyncIterator[Factory]:
    engine = engine_for(database)
    yield session_factory(engine)
    await engine.dispose()


@asynccontextmanager
async def heroes_of(factory: Factory) -> AsyncIterator[HeroService]:
    """Yield the service with a session of its own; what it wrote is committed at the end."""
    async with session_scope(factory) as session:
        yield HeroService(session)


async def test_a_created_hero_is_there_for_other_sessions(factory: Factory) -> None:
    async with heroes_of(factory) as heroes:
        created = await heroes.create(HeroCreate(name="Ada"))

    async with heroes_of(factory) as heroes:
        read = await heroes.get(created.id)

    assert (read.name, read.power) == ("Ada", None)
    assert read.created_at == created.created_at


async def test_only_what_was_given_changes(factory: Factory) -> None:
    async with heroes_of(factory) as heroes:
        hero = await heroes.create(HeroCreate(name="Ada", power="foresight"))
        await heroes.update(hero.id, HeroUpdate(name="Ada Lovelace"))

    async with heroes_of(factory) as heroes:
        read = await heroes.get(hero.id)

    assert (read.name, read.power) == ("Ada Lovelace", "foresight")


async def test_a_name_that_is_taken_is_refused_and_the_rest_is_kept(factory: Factory) -> None:
    async with heroes_of(factory) as heroes:
        await heroes.create(HeroCreate(name="Ada"))
        with pytest.raises(ConflictError):
            await heroes.create(HeroCreate(name="Ada"))
        await heroes.create(HeroCreate(name="Grace"))

    async with heroes_of(factory) as heroes:
        names = [hero.name for hero in await heroes.list(order_by="name")]

    assert names == ["Ada", "Grace"]


async def test_a_deleted_hero_is_gone(factory: Factory) -> None:
    async with heroes_of(factory) as heroes:
        hero = await heroes.create(HeroCreate(name="Ada"))
        await heroes.delete(hero.id)

    async with heroes_of(factory) as heroes:
        with pytest.raises(NotFoundError):
            await heroes.get(hero.id)


async def test_an_error_leaves_nothing_behind(factory: Factory) -> None:
    async def fail() -> None:
        async with heroes_of(factory) as heroes:
            await heroes.create(HeroCreate(name="Ada"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()

    async with heroes_of(factory) as heroes:
        assert await heroes.count() == 0
