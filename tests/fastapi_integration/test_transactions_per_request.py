import asyncio
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from httpx import AsyncClient, Response
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.types import Message, Receive, Scope, Send

from snippets.async_operations.errors import ErrorKind, classify
from snippets.database_setup.session import session_scope
from snippets.fastapi_integration._cinema import Booking, Film, Screening, ScreeningService

TABLES = [Film, Screening, Booking]


async def book(client: AsyncClient, screening: int, seats: int, key: str) -> Response:
    body = {"screening_id": screening, "seats": seats}
    return await client.post("/bookings", json=body, headers={"Idempotency-Key": key})


async def state(app: FastAPI) -> tuple[int, list[int]]:
    """The seats that are left, and those of each booking."""
    async with app.state.reading_factory() as session:
        left = (await session.exec(select(Screening.seats_left))).one()
        return left, list(await session.exec(select(Booking.seats).order_by(Booking.id)))


async def test_two_services_write_in_one_transaction(
    client: AsyncClient, app: FastAPI, screening: int
) -> None:
    answer = await book(client, screening, 4, "a")

    assert answer.status_code == 201
    assert set(answer.json()) == {"id", "screening_id", "seats"}
    assert await state(app) == (6, [4])


@pytest.mark.parametrize("seats", [11, 1000])
async def test_a_refusal_undoes_what_both_have_written(
    client: AsyncClient, app: FastAPI, screening: int, seats: int
) -> None:
    answer = await book(client, screening, seats, "a")

    assert answer.status_code == 409
    assert answer.json()["detail"] == "not enough seats are left"
    assert await state(app) == (10, [])


async def test_a_booking_without_a_screening_is_refused(client: AsyncClient) -> None:
    assert (await book(client, 4711, 1, "a")).status_code == 409


@pytest.mark.parametrize("seats", [4, 10])
async def test_a_repeated_request_gets_the_first_booking(
    client: AsyncClient, app: FastAPI, screening: int, seats: int
) -> None:
    first = await book(client, screening, seats, "a")
    again = await book(client, screening, seats, "a")

    assert again.status_code == 201
    assert again.json() == first.json()
    assert await state(app) == (10 - seats, [seats])


async def test_a_key_belongs_to_one_request(
    client: AsyncClient, app: FastAPI, screening: int
) -> None:
    await book(client, screening, 4, "a")
    answer = await book(client, screening, 5, "a")

    assert answer.status_code == 409
    assert answer.json()["detail"] == "this key is taken"
    assert await state(app) == (6, [4])


async def test_keys_that_differ_in_case_are_two_requests(
    client: AsyncClient, app: FastAPI, screening: int
) -> None:
    first = await book(client, screening, 2, "Zk3-abc")
    second = await book(client, screening, 2, "ZK3-abc")

    assert first.json()["id"] != second.json()["id"]
    assert await state(app) == (6, [2, 2])


async def test_parallel_requests_with_one_key_book_once(
    client: AsyncClient, app: FastAPI, screening: int
) -> None:
    answers = await asyncio.gather(*(book(client, screening, 2, "a") for _ in range(12)))

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert await state(app) == (8, [2])


async def test_a_key_is_required(client: AsyncClient, screening: int) -> None:
    answer = await client.post("/bookings", json={"screening_id": screening, "seats": 1})

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "header.Idempotency-Key"


async def test_a_cancelled_booking_gives_its_seats_back_once(
    client: AsyncClient, app: FastAPI, screening: int
) -> None:
    await book(client, screening, 3, "other")
    path = f"/bookings/{(await book(client, screening, 4, 'a')).json()['id']}"

    answers = await asyncio.gather(*(client.delete(path) for _ in range(6)))

    assert sorted(answer.status_code for answer in answers) == [204, 404, 404, 404, 404, 404]
    assert await state(app) == (7, [3])


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_a_commit_that_fails_is_no_success(
    client: AsyncClient,
    app: FastAPI,
    screening: int,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    """Before 0.118 and with scope="function" the commit is over when the answer is sent."""
    booking = (await book(client, screening, 4, "a")).json()["id"]

    async def broken(_session: AsyncSession) -> None:
        raise ConnectionError("the server went away")

    with monkeypatch.context() as patch:
        patch.setattr(AsyncSession, "commit", broken)
        if method == "POST":
            answer = await book(client, screening, 2, "b")
        else:
            answer = await client.delete(f"/bookings/{booking}")

    assert answer.status_code == 500
    assert await state(app) == (6, [4])


async def test_others_see_the_write_when_the_answer_begins(
    client: AsyncClient, app: FastAPI, screening: int
) -> None:
    seen = []
    inner = client._transport.app  # type: ignore[attr-defined]

    async def watching(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen.append(await state(app))
            await send(message)

        await inner(scope, receive, sending)

    client._transport.app = watching  # type: ignore[attr-defined]
    await book(client, screening, 4, "a")

    assert seen == [(6, [4])]


async def test_a_storm_of_cancelled_requests_leaves_nothing_half_done(
    client: AsyncClient, app: FastAPI, screening: int
) -> None:
    """Servers cancel requests when they stop, timeouts do when they are over."""
    async with app.state.session_factory() as session:
        row = await session.get_one(Screening, screening)
        row.seats_left = 1000
        await session.commit()

    async def cancelled(number: int) -> None:
        task = asyncio.create_task(book(client, screening, 1, f"key-{number}"))
        await asyncio.sleep(number * 0.002)
        task.cancel()
        await asyncio.wait([task])

    await asyncio.gather(*(cancelled(number) for number in range(40)))

    assert app.state.engine.pool.checkedout() == 0
    left, booked = await state(app)
    assert left + sum(booked) == 1000
    assert (await book(client, screening, 1, "after")).status_code == 201


async def test_a_client_that_leaves_does_not_stop_its_request(
    app: FastAPI, engine: AsyncEngine
) -> None:
    """What it sent is written; asking again with the same key tells so."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    body = b'{"title": "M", "year": 1931}'
    _, writer = await asyncio.open_connection("127.0.0.1", port)

    writer.write(
        b"POST /films HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    )
    await writer.drain()
    writer.close()
    films: list[Any] = []
    async with asyncio.timeout(60):
        while not films:
            await asyncio.sleep(0.02)
            async with AsyncSession(engine) as session:
                films = list(await session.exec(select(Film.title)))
    server.should_exit = True
    await serving

    assert films == ["M"]


async def child_first(app: FastAPI, screening: int) -> list[BaseException]:
    """Two transactions insert a booking, then both change the screening; return what failed."""
    both = asyncio.Barrier(2)

    async def transaction(key: str) -> None:
        async with session_scope(app.state.session_factory) as session:
            session.add(Booking(screening_id=screening, seats=1, request_key=key))
            await session.flush()
            await both.wait()
            await ScreeningService(session).update_where(id=screening, values={"seats_left": 9})

    found = await asyncio.gather(transaction("a"), transaction("b"), return_exceptions=True)
    return [error for error in found if error is not None]


@pytest.mark.only_on("mysql", reason="a foreign key takes a shared lock of the whole parent row")
async def test_a_child_before_its_parent_deadlocks(
    client: AsyncClient, app: FastAPI, screening: int
) -> None:
    (error,) = await child_first(app, screening)

    assert isinstance(error, DBAPIError)
    assert classify(error).kind is ErrorKind.DEADLOCK


@pytest.mark.only_on("postgresql", reason="a foreign key locks the parent's key only")
async def test_a_child_before_its_parent_waits(
    client: AsyncClient, app: FastAPI, screening: int
) -> None:
    assert await child_first(app, screening) == []
