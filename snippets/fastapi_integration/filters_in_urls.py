"""Filter, sort and page in URLs, within the service's allow-list, and show it in OpenAPI."""

from typing import Annotated

from fastapi import APIRouter, Depends

from snippets.fastapi_integration._cinema import FilmPublic, FilmService
from snippets.fastapi_integration._query_model import cursor_query, offset_query
from snippets.fastapi_integration.crud_router import Films
from snippets.fastapi_integration.error_handlers import documented
from snippets.servicebase.cursor_pagination import CursorPage
from snippets.servicebase.offset_pagination import Page
from snippets.servicebase.query_parameters import ListQuery

router = APIRouter(tags=["films"])


@router.get("/films", responses=documented(422))
async def list_films(
    query: Annotated[ListQuery, Depends(offset_query(FilmService))], films: Films
) -> Page[FilmPublic]:
    page = await films.page(
        *query.where, order_by=query.order_by, limit=query.limit, offset=query.offset
    )
    return page.map(FilmPublic.model_validate)


@router.get("/film-feed", responses=documented(404, 422))
async def feed_of_films(
    query: Annotated[ListQuery, Depends(cursor_query(FilmService))], films: Films
) -> CursorPage[FilmPublic]:
    page = await films.cursor_page(
        *query.where, order_by=query.order_by, limit=query.limit, cursor=query.cursor
    )
    return page.map(FilmPublic.model_validate)
