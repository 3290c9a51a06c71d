"""Answer with related rows, in a number of statements that does not grow with the rows."""

import datetime as dt
from typing import Annotated

from fastapi import APIRouter, Depends

from snippets.fastapi_integration._cinema import (
    Film,
    FilmPublic,
    Screening,
    ScreeningCreate,
    ScreeningService,
)
from snippets.fastapi_integration._query_model import offset_query
from snippets.fastapi_integration.bodies import Public
from snippets.fastapi_integration.crud_router import Films
from snippets.fastapi_integration.dependencies import provided
from snippets.fastapi_integration.error_handlers import documented
from snippets.servicebase.offset_pagination import Page
from snippets.servicebase.query_parameters import ListQuery

Screenings = Annotated[ScreeningService, Depends(provided(ScreeningService))]


class ScreeningPublic(Public):
    id: int
    film_id: int
    auditorium: str
    starts_at: dt.datetime
    seats_left: int


class ScreeningWithFilm(ScreeningPublic):
    film: FilmPublic


class FilmWithScreenings(FilmPublic):
    screenings: list[ScreeningPublic]


router = APIRouter(tags=["screenings"])


@router.post(
    "/screenings",
    status_code=201,
    response_model=ScreeningPublic,
    responses=documented(400, 409, 422),
)
async def create_screening(data: ScreeningCreate, screenings: Screenings) -> Screening:
    return await screenings.create(data)


@router.get("/screenings", responses=documented(422))
async def list_screenings(
    query: Annotated[ListQuery, Depends(offset_query(ScreeningService))], screenings: Screenings
) -> Page[ScreeningWithFilm]:
    """Two statements at most: the page with its films, and the total."""
    page = await screenings.page(
        *query.where,
        order_by=query.order_by or "starts_at",
        limit=query.limit,
        offset=query.offset,
        load=[Screening.film],
        strict=True,  # what the response reads and nobody loaded raises, in the first test
    )
    return page.map(ScreeningWithFilm.model_validate)


@router.get(
    "/films/{film_id}/screenings",
    response_model=FilmWithScreenings,
    responses=documented(404, 422),
)
async def film_with_screenings(film_id: int, films: Films) -> Film:
    return await films.get(film_id, load=[Film.screenings], strict=True)
