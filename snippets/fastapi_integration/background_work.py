"""Work after the answer, and over websockets: each piece with a session of its own."""

import logging

from fastapi import APIRouter, BackgroundTasks, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.status import WS_1003_UNSUPPORTED_DATA

from snippets.database_setup.session import session_scope
from snippets.fastapi_integration._cinema import BookingService, Key, ScreeningService
from snippets.fastapi_integration.dependencies import Factory, FactoryDep
from snippets.fastapi_integration.error_handlers import documented
from snippets.fastapi_integration.relationships_in_responses import Screenings

logger = logging.getLogger(__name__)
KEY = TypeAdapter[int](Key)


class Accepted(BaseModel):
    accepted: bool = True


router = APIRouter()


@router.post(
    "/screenings/{screening_id}/closing",
    status_code=202,
    responses=documented(404, 422),
    tags=["screenings"],
)
async def close_screening(
    screening_id: int, screenings: Screenings, factory: FactoryDep, background: BackgroundTasks
) -> Accepted:
    """Delete the bookings later; the answer does not wait for it."""
    await screenings.get(screening_id)
    background.add_task(delete_bookings, factory, screening_id)
    return Accepted()


async def delete_bookings(factory: Factory, screening_id: int) -> None:
    """Take ids, not objects, and the factory: the request's session is closed by now.

    Nobody gets its error, and it dies with the process: what must happen belongs into an outbox.
    """
    try:
        async with session_scope(factory) as session:
            await BookingService(session).delete_where(screening_id=screening_id)
    except Exception:
        logger.exception("the bookings of screening %s are not deleted", screening_id)


@router.websocket("/seats")
async def seats_left(socket: WebSocket, factory: FactoryDep) -> None:
    """Answer each screening's id with the number of free seats, or null.

    A session per message: one per socket would keep a connection for as long as somebody looks.
    What fails closes the socket with 1011, see `add_error_handlers`.
    """
    await socket.accept()
    try:
        while (message := await socket.receive())["type"] == "websocket.receive":
            text = message.get("text")
            if text is None:  # Starlette's `iter_text` raises KeyError for a binary frame
                await socket.close(WS_1003_UNSUPPORTED_DATA, "only text is understood")
                return
            await socket.send_json(await _seats(factory, text))
    except WebSocketDisconnect:
        return


async def _seats(factory: Factory, text: str) -> int | None:
    try:
        key = KEY.validate_json(text)
    except ValidationError:
        return None
    async with factory() as session:
        screening = await ScreeningService(session).find(id=key)
    return None if screening is None else screening.seats_left
