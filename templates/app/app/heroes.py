"""The routes of heroes."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select

from app.database.session import run_to_end
from app.dependencies import SessionDep
from app.models import Hero, HeroCreate, HeroPublic
from app.problems import ConflictError, is_unique_violation

router = APIRouter(prefix="/heroes", tags=["heroes"])


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    responses={HTTPStatus.CONFLICT: {"description": "The name is taken"}},
)
async def create_hero(data: HeroCreate, session: SessionDep) -> HeroPublic:
    hero = Hero.model_validate(data)
    session.add(hero)
    try:
        await run_to_end(session.commit())
    except IntegrityError as error:
        if not is_unique_violation(error):
            raise
        raise ConflictError("a hero of this name exists already") from error
    return HeroPublic.model_validate(hero)


@router.get("")
async def list_heroes(
    session: SessionDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> list[HeroPublic]:
    # Names are unique, so the order is total; without one, pages repeat and lose rows.
    statement = select(Hero).order_by(col(Hero.name)).limit(limit).offset(offset)
    return [HeroPublic.model_validate(hero) for hero in await session.exec(statement)]
