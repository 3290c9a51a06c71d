"""Put the application together; uvicorn calls `create_app` as its factory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app.api.error_handlers import add_error_handlers
from app.database.session import run_to_end, session_factory
from app.database.settings import DatabaseSettings, engine_from_settings
from app.hero_routes import router
from app.settings import ApiSettings
from app.statement_counter import StatementCounter, count_statements


def create_app(database: DatabaseSettings | None = None, api: ApiSettings | None = None) -> FastAPI:
    """Return the application; settings that are not given come from the environment."""
    database = database or DatabaseSettings()  # type: ignore[call-arg]
    api = api or ApiSettings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # Made in the loop that uses it, and closed before that loop ends.
        engine = engine_from_settings(database)
        if api.count_statements:
            count_statements(engine)
        app.state.engine = engine
        app.state.reading_factory = session_factory(engine)
        # Routes that write may read first: on SQLite they must lock before they do.
        writing = engine.execution_options(sqlite_begin="IMMEDIATE")
        app.state.session_factory = session_factory(writing)
        try:
            yield
        finally:
            await run_to_end(engine.dispose())

    app = FastAPI(title="Heroes", lifespan=lifespan)
    if api.count_statements:
        app.add_middleware(StatementCounter)
    app.include_router(router)
    add_error_handlers(app)
    return app
