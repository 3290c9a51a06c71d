"""Put the application together; `uvicorn --factory …app:create_app` serves it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from snippets.database_setup.session import run_to_end, session_factory
from snippets.database_setup.settings import DatabaseSettings, engine_from_settings
from snippets.fastapi_integration import (
    _film_export,
    background_work,
    crud_router,
    filters_in_urls,
    relationships_in_responses,
    transactions_per_request,
)
from snippets.fastapi_integration.error_handlers import add_error_handlers

ROUTERS = (
    crud_router.router,
    filters_in_urls.router,
    relationships_in_responses.router,
    transactions_per_request.router,
    background_work.router,
    _film_export.router,
)


def create_app(settings: DatabaseSettings | None = None) -> FastAPI:
    """Return the application; settings that are not given come from the environment."""
    settings = settings or DatabaseSettings()  # type: ignore[call-arg]

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # Made in the loop that uses it, and closed before that loop ends.
        engine = engine_from_settings(settings)
        app.state.engine = engine
        app.state.reading_factory = session_factory(engine)
        # Routes that write may read first: on SQLite they must lock before they do.
        writing = engine.execution_options(sqlite_begin="IMMEDIATE")
        app.state.session_factory = session_factory(writing)
        try:
            yield
        finally:
            await run_to_end(engine.dispose())

    app = FastAPI(title="Cinema", lifespan=lifespan)
    add_error_handlers(app)
    for router in ROUTERS:
        app.include_router(router)
    return app
