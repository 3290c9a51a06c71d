"""An export of all films: what `streaming_responses` is for."""

from collections.abc import AsyncIterator

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from snippets.fastapi_integration._cinema import Film, FilmPublic
from snippets.fastapi_integration.dependencies import Factory, FactoryDep
from snippets.fastapi_integration.streaming_responses import NDJSON, batches_by_key, streamed

router = APIRouter(tags=["films"])


@router.get(
    "/film-export",
    response_class=StreamingResponse,
    responses={200: {"content": {NDJSON: {"schema": {"type": "string"}}}}},
)
async def export_films(factory: FactoryDep) -> StreamingResponse:
    return await streamed(film_lines(factory))


async def film_lines(factory: Factory, *, size: int = 100) -> AsyncIterator[str]:
    """Yield a line of JSON per film, by batches."""
    async for films in batches_by_key(factory, Film, size=size):
        yield "".join(f"{FilmPublic.model_validate(film).model_dump_json()}\n" for film in films)
