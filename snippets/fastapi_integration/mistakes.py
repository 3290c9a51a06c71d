"""What goes wrong between FastAPI and the database, one function per mistake."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from httpx import ASGITransport, AsyncClient
from pydantic import BaseModel, BeforeValidator
from pydantic import Field as Limit
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.fastapi_integration._cinema import Film, FilmCreate, FilmPublic, FilmService
from snippets.fastapi_integration.dependencies import scope_option
from snippets.fastapi_integration.relationships_in_responses import FilmWithScreenings


def commit_after_the_answer(factory: async_sessionmaker[AsyncSession]) -> FastAPI:
    app = FastAPI()

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with factory() as session:
            yield session
            await session.commit()

    @app.post("/films", status_code=201)
    async def create(
        data: FilmCreate, session: Annotated[AsyncSession, Depends(get_session)]
    ) -> dict[str, str]:
        session.add(Film(**data.model_dump()))
        return {"status": "saved"}

    return app


def answer_with_an_expired_object(engine: AsyncEngine) -> FastAPI:
    app = FastAPI()

    @app.post("/films", response_model=Film)
    async def create(data: FilmCreate) -> Any:
        async with AsyncSession(engine) as session:
            film = Film(**data.model_dump())
            session.add(film)
            await session.commit()
            return film

    return app


def lazy_field_in_the_response(factory: async_sessionmaker[AsyncSession]) -> FastAPI:
    app = FastAPI()

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with factory() as session:
            yield session

    @app.get("/films/{film_id}", response_model=FilmWithScreenings)
    async def read(film_id: int, session: Annotated[AsyncSession, Depends(get_session)]) -> Any:
        return await FilmService(session).get(film_id)

    return app


def answer_that_repeats_the_input() -> FastAPI:
    app = FastAPI()

    @app.post("/films", status_code=201)
    async def create(data: FilmCreate) -> None: ...

    return app


def driver_text_in_the_answer(factory: async_sessionmaker[AsyncSession]) -> FastAPI:
    app = FastAPI()

    @app.post("/films", status_code=201)
    async def create(data: FilmCreate) -> None:
        async with factory() as session:
            session.add(Film(**data.model_dump()))
            try:
                await session.commit()
            except IntegrityError as error:
                raise HTTPException(400, str(error))

    return app


def stream_over_the_request_session(factory: async_sessionmaker[AsyncSession]) -> FastAPI:
    app = FastAPI()

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with factory() as session:
            yield session

    @app.get("/films")
    async def export(
        session: Annotated[AsyncSession, Depends(get_session, **scope_option())],
    ) -> StreamingResponse:
        async def lines() -> AsyncIterator[str]:
            for film in await session.exec(select(Film)):
                yield FilmPublic.model_validate(film).model_dump_json()

        return StreamingResponse(lines())

    return app


def client_without_lifespan(app: FastAPI) -> AsyncClient:
    return AsyncClient(transport=ASGITransport(app=app), base_url="http://test")


def app_given_to_the_client(app: FastAPI) -> AsyncClient:
    return AsyncClient(app=app, base_url="http://test")


class LimitsBehindAValidator(BaseModel):
    seats: Annotated[int, BeforeValidator(int), Limit(ge=1)]


def limits_behind_a_validator() -> dict[str, Any]:
    return LimitsBehindAValidator.model_json_schema()["properties"]["seats"]
