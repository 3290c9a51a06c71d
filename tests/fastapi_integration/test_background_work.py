import asyncio
import json
import logging
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.database_setup.settings import DatabaseSettings
from snippets.fastapi_integration._cinema import Booking, Film, Screening
from snippets.fastapi_integration.app import create_app
from snippets.fastapi_integration.background_work import delete_bookings
from snippets.fastapi_integration.testing import running_client

TABLES = [Film, Screening, Booking]


async def book(client: AsyncClient, screening: int) -> None:
    body = {"screening_id": screening, "seats": 1}
    answer = await client.post("/bookings", json=body, headers={"Idempotency-Key": "a"})
    assert answer.status_code == 201


async def bookings(app: FastAPI) -> list[int | None]:
    async with app.state.reading_factory() as session:
        return list(await session.exec(select(Booking.id)))


async def test_work_after_the_answer_commits_by_itself(
    client: AsyncClient, app: FastAPI, screening: int
) -> None:
    await book(client, screening)

    answer = await client.post(f"/screenings/{screening}/closing")

    assert (answer.status_code, answer.json()) == (202, {"accepted": True})
    assert await bookings(app) == []


async def test_what_is_not_there_is_not_worked_on(client: AsyncClient) -> None:
    assert (await client.post("/screenings/4711/closing")).status_code == 404


async def test_work_that_fails_is_logged(
    client: AsyncClient,
    app: FastAPI,
    screening: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await book(client, screening)

    async def broken(_session: AsyncSession) -> None:
        raise ConnectionError("the server went away")

    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr(AsyncSession, "commit", broken)
        await delete_bookings(app.state.session_factory, screening)

    assert caplog.messages == [f"the bookings of screening {screening} are not deleted"]
    assert len(await bookings(app)) == 1


async def talk(
    app: FastAPI, *texts: str | bytes, answers_read: int = 100
) -> tuple[list[Any], list[int]]:
    """Send frames over a websocket; return the answers, and the connections in use at each.

    The code with which the server closes it counts as an answer. Who has read
    `answers_read` of them is gone: servers raise OSError when they send the next.
    """
    incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    for message in (
        {"type": "websocket.connect"},
        *map(frame, texts),
        {"type": "websocket.disconnect", "code": 1000},
    ):
        incoming.put_nowait(message)
    answers, in_use = [], []

    async def send(message: Any) -> None:
        in_use.append(app.state.engine.pool.checkedout())
        if message["type"] == "websocket.send":
            if len(answers) == answers_read:
                raise OSError
            answers.append(json.loads(message["text"]))
        if message["type"] == "websocket.close":
            answers.append(message["code"])

    scope = {
        "type": "websocket",
        "path": "/seats",
        "raw_path": b"/seats",
        "query_string": b"",
        "headers": [],
        "subprotocols": [],
    }
    await app(scope, incoming.get, send)  # type: ignore[arg-type]
    return answers, in_use


def frame(content: str | bytes) -> dict[str, Any]:
    return {"type": "websocket.receive", "text" if isinstance(content, str) else "bytes": content}


async def test_a_binary_frame_closes_the_socket(
    client: AsyncClient, app: FastAPI, screening: int
) -> None:
    answers, _ = await talk(app, str(screening), b"\xff", str(screening))

    assert answers == [10, 1003]  # unsupported data, and no 1011 for an error of the server


async def test_a_database_that_fails_closes_the_socket(
    settings: DatabaseSettings, engine: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    small = settings.model_copy(update={"pool_size": 1, "max_overflow": 0, "pool_timeout": 0.05})
    app = create_app(small)
    async with running_client(app), app.state.engine.connect():
        answers, _ = await talk(app, "1", "1")

    assert answers == [1011]
    assert caplog.messages == ["an error ends a websocket"]


async def test_a_socket_answers_and_holds_no_connection(
    client: AsyncClient, app: FastAPI, screening: int
) -> None:
    answers, in_use = await talk(app, str(screening), "4711", str(screening))

    assert answers == [10, None, 10]
    assert set(in_use) == {0}


async def test_a_client_that_left_before_its_answer_is_no_error(
    client: AsyncClient, app: FastAPI, screening: int
) -> None:
    answers, _ = await talk(app, *[str(screening)] * 3, answers_read=1)

    assert answers == [10]
    assert app.state.engine.pool.checkedout() == 0


async def test_a_socket_sees_what_was_committed_meanwhile(
    client: AsyncClient, app: FastAPI, screening: int
) -> None:
    before, _ = await talk(app, str(screening))
    await book(client, screening)
    after, _ = await talk(app, str(screening))

    assert (before, after) == ([10], [9])


@pytest.mark.parametrize("text", ["", "x", "0", "9" * 30, '"1"', "\0", "1.5", "null", "[" * 9999])
async def test_a_socket_survives_any_text(client: AsyncClient, app: FastAPI, text: str) -> None:
    assert (await talk(app, text))[0] == [None]
