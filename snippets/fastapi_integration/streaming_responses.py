"""Stream any number of rows while holding no connection between two batches."""

from collections.abc import AsyncIterator

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from snippets.fastapi_integration._cinema import FilmPublic, FilmService
from snippets.fastapi_integration.dependencies import Factory, FactoryDep

router = APIRouter(tags=["films"])
NDJSON = "application/x-ndjson"


@router.get(
    "/film-export",
    response_class=StreamingResponse,
    responses={200: {"content": {NDJSON: {"schema": {"type": "string"}}}}},
)
async def export_films(factory: FactoryDep) -> StreamingResponse:
    batches = film_lines(factory)
    # The first batch before the status: afterwards an error can only cut the body short.
    first = await anext(batches)
    return StreamingResponse(_with_first(first, batches), media_type=NDJSON)


async def film_lines(factory: Factory, *, batch: int = 100) -> AsyncIterator[str]:
    """Yield a line of JSON per film, by batches.

    Each is a statement in a session that is closed before the batch is sent, so that neither a
    slow client nor one that leaves keeps a connection. A batch sees what is committed then.
    """
    cursor = None
    while True:
        async with factory() as session:
            page = await FilmService(session).cursor_page(cursor=cursor, limit=batch)
        films = [FilmPublic.model_validate(film) for film in page.items]
        yield "".join(f"{film.model_dump_json()}\n" for film in films)
        cursor = page.next
        if cursor is None:
            return


async def _with_first(first: str, rest: AsyncIterator[str]) -> AsyncIterator[str]:
    yield first
    async for batch in rest:
        yield batch
