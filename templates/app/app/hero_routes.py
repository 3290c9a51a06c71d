"""The routes of heroes.

Each request has one session and one transaction, which is committed before the answer is sent.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from app.api.dependencies import path_of, provided
from app.api.error_handlers import documented
from app.api.query_model import cursor_query
from app.heroes import HeroService
from app.models import Hero, HeroCreate, HeroPublic, HeroUpdate
from app.services.cursor_pagination import CursorPage
from app.services.query_parameters import ListQuery

Heroes = Annotated[HeroService, Depends(provided(HeroService))]
HeroQuery = Annotated[ListQuery, Depends(cursor_query(HeroService))]

router = APIRouter(prefix="/heroes", tags=["heroes"])


@router.post("", status_code=201, response_model=HeroPublic, responses=documented(400, 409, 422))
async def create_hero(
    data: HeroCreate, heroes: Heroes, request: Request, response: Response
) -> Hero:
    hero = await heroes.create(data)
    response.headers["Location"] = path_of(request, "read_hero", hero_id=hero.id)
    return hero


@router.get("", responses=documented(404, 422))
async def list_heroes(query: HeroQuery, heroes: Heroes) -> CursorPage[HeroPublic]:
    page = await heroes.cursor_page(
        *query.where, order_by=query.order_by, limit=query.limit, cursor=query.cursor
    )
    return page.map(HeroPublic.model_validate)


@router.get("/{hero_id}", response_model=HeroPublic, responses=documented(404, 422))
async def read_hero(hero_id: int, heroes: Heroes) -> Hero:
    return await heroes.get(hero_id)


@router.patch("/{hero_id}", response_model=HeroPublic, responses=documented(400, 404, 409, 422))
async def change_hero(hero_id: int, data: HeroUpdate, heroes: Heroes) -> Hero:
    """Change what was sent: null is a value, a field that was left out stays."""
    return await heroes.update(hero_id, data)


@router.delete("/{hero_id}", status_code=204, responses=documented(404, 409, 422))
async def delete_hero(hero_id: int, heroes: Heroes) -> None:
    await heroes.delete(hero_id)
