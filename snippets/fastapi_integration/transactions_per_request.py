"""Write through several services, all or nothing, and once however often the client asks."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, HTTPException
from sqlmodel import col

from snippets.database_setup.session import session_scope
from snippets.fastapi_integration._cinema import (
    Booking,
    BookingCreate,
    BookingService,
    Key,
    Screening,
    ScreeningService,
    Seats,
)
from snippets.fastapi_integration.bodies import Body, Public
from snippets.fastapi_integration.dependencies import FactoryDep, provided
from snippets.fastapi_integration.error_handlers import documented
from snippets.fastapi_integration.relationships_in_responses import Screenings
from snippets.servicebase.errors import ConflictError, NotFoundError

Bookings = Annotated[BookingService, Depends(provided(BookingService))]
RequestKey = Annotated[
    str, Header(alias="Idempotency-Key", pattern=r"^[A-Za-z0-9_-]+$", max_length=80)
]


class BookingRequest(Body):
    screening_id: Key
    seats: Seats


class BookingPublic(Public):
    id: int
    screening_id: int
    seats: int


router = APIRouter(tags=["bookings"])


@router.post(
    "/bookings",
    status_code=201,
    response_model=BookingPublic,
    responses=documented(400, 409, 422),
)
async def book(
    data: BookingRequest, request_key: RequestKey, bookings: Bookings, screenings: Screenings
) -> Booking:
    """Book once per key: a repeated request gets the first one's booking.

    The screening is changed first: its row lock lets one request at a time go on. The other way
    round MariaDB deadlocks, as the new booking's foreign key takes a shared lock of that row.
    """
    taken = await screenings.update_where(
        col(Screening.seats_left) >= data.seats,
        id=data.screening_id,
        values={"seats_left": col(Screening.seats_left) - data.seats},
    )
    if not taken:
        return await _booked_before(bookings, data, request_key, "not enough seats are left")
    try:
        return await bookings.create(BookingCreate(request_key=request_key, **data.model_dump()))
    except ConflictError:
        await give_back(screenings, data.screening_id, data.seats)
        return await _booked_before(bookings, data, request_key, "this key is taken")


async def give_back(screenings: ScreeningService, screening_id: int, seats: int) -> None:
    left = col(Screening.seats_left) + seats
    await screenings.update_where(id=screening_id, values={"seats_left": left})


async def _booked_before(
    bookings: BookingService, data: BookingRequest, request_key: str, otherwise: str
) -> Booking:
    booking = await bookings.find(request_key=request_key, **data.model_dump())
    if booking is None:
        raise HTTPException(409, otherwise)  # and all that was written is rolled back
    return booking


@router.delete("/bookings/{booking_id}", status_code=204, responses=documented(404, 422))
async def cancel_booking(booking_id: int, factory: FactoryDep) -> None:
    """Commit inside: for what must happen after the commit, and for FastAPI 0.118 to 0.120."""
    async with session_scope(factory) as session:
        bookings = BookingService(session)
        booking = await bookings.get(booking_id)
        # By count: of two requests that both have read it, one deletes it.
        if not await bookings.delete_where(id=booking_id):
            raise NotFoundError(Booking, booking_id)
        await give_back(ScreeningService(session), booking.screening_id, booking.seats)
    # Committed: from here on it is safe to tell others.
