"""Test the application over HTTP in the test's own loop, with or without keeping what it writes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.fastapi_integration.dependencies import Factory, get_factory


@asynccontextmanager
async def running_client(app: FastAPI) -> AsyncIterator[AsyncClient]:
    """Start the application, which ASGITransport does not, and yield a client for it.

    An error of the application is answered with 500, as a server would, not raised.
    """
    transport = ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield client


@asynccontextmanager
async def rolled_back_sessions(engine: AsyncEngine) -> AsyncIterator[Factory]:
    """Yield a maker of sessions whose commits are undone at the end of the block.

    They share one connection: use one session after the other.
    """
    async with engine.connect() as connection:
        transaction = await connection.begin()
        try:
            yield async_sessionmaker(
                connection,
                class_=AsyncSession,
                expire_on_commit=False,
                join_transaction_mode="create_savepoint",  # commit and rollback end a savepoint
            )
        finally:
            await transaction.rollback()


@asynccontextmanager
async def rolled_back(app: FastAPI) -> AsyncIterator[Factory]:
    """Undo at the end of the block what requests commit in it, and what the yielded maker does.

    Send one request after the other. The application must run.
    """
    async with rolled_back_sessions(app.state.engine) as factory:
        before = {k: v for k, v in app.dependency_overrides.items() if k is get_factory}
        app.dependency_overrides[get_factory] = lambda: factory
        try:
            yield factory
        finally:
            app.dependency_overrides.pop(get_factory, None)  # unless the block has cleared them
            app.dependency_overrides.update(before)
