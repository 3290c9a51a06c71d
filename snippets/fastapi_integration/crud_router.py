"""Routes that create, read, change and delete the rows of one service."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Request, Response

from snippets.fastapi_integration._cinema import (
    Film,
    FilmCreate,
    FilmPublic,
    FilmService,
    FilmUpdate,
)
from snippets.fastapi_integration.dependencies import path_of, provided
from snippets.fastapi_integration.error_handlers import documented

Films = Annotated[FilmService, Depends(provided(FilmService))]

router = APIRouter(tags=["films"])


@router.post(
    "/films",
    status_code=201,
    response_model=FilmPublic,
    responses=documented(400, 409, 422),
)
async def create_film(data: FilmCreate, films: Films, request: Request, response: Response) -> Film:
    film = await films.create(data)
    response.headers["Location"] = path_of(request, "read_film", film_id=film.id)
    return film


@router.post(
    "/bulk/films",
    status_code=201,
    response_model=list[FilmPublic],
    responses=documented(400, 409, 422),
)
async def create_films(
    data: Annotated[list[FilmCreate], Body(min_length=1, max_length=500)], films: Films
) -> Sequence[Film]:
    """Create all or none."""
    return await films.create_many(data)


@router.get("/films/{film_id}", response_model=FilmPublic, responses=documented(404, 422))
async def read_film(film_id: int, films: Films) -> Film:
    return await films.get(film_id)


@router.patch(
    "/films/{film_id}", response_model=FilmPublic, responses=documented(400, 404, 409, 422)
)
async def change_film(film_id: int, data: FilmUpdate, films: Films) -> Film:
    """Change what was sent: null is a value, a field that was left out stays."""
    return await films.update(film_id, data)


@router.delete("/films/{film_id}", status_code=204, responses=documented(404, 409, 422))
async def delete_film(film_id: int, films: Films) -> None:
    await films.delete(film_id)
