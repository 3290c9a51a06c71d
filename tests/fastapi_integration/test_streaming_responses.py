import asyncio
import json

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy.orm import joinedload, selectinload
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.types import Message

from snippets.fastapi_integration._cinema import Booking, Film, Screening
from snippets.fastapi_integration._film_export import film_lines
from snippets.fastapi_integration.streaming_responses import batches_by_key
from snippets.models.keys import StockLevel

TABLES = [Film, Screening, Booking]


async def add_films(client: AsyncClient, count: int) -> None:
    bodies = [{"title": f"Film {number}", "year": 1960} for number in range(count)]
    assert (await client.post("/bulk/films", json=bodies)).status_code == 201


async def test_an_export_has_all_rows_in_order(client: AsyncClient) -> None:
    await add_films(client, 250)

    answer = await client.get("/film-export")

    assert answer.headers["content-type"].startswith("application/x-ndjson")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["title"] for line in lines] == [f"Film {number}" for number in range(250)]


async def test_an_export_of_nothing_is_empty(client: AsyncClient) -> None:
    answer = await client.get("/film-export")

    assert (answer.status_code, answer.text) == (200, "")


async def test_no_connection_is_held_while_a_batch_is_sent(
    client: AsyncClient, app: FastAPI
) -> None:
    await add_films(client, 5)

    batches, in_use = 0, set()
    async for _ in film_lines(app.state.reading_factory, size=2):
        batches += 1
        in_use.add(app.state.engine.pool.checkedout())

    assert (batches, in_use) == (3, {0})


async def test_conditions_narrow_the_batches(client: AsyncClient, app: FastAPI) -> None:
    await add_films(client, 6)
    factory = app.state.reading_factory

    some = [
        [film.title for film in films]
        async for films in batches_by_key(factory, Film, col(Film.title) != "Film 1", size=3)
    ]
    none = [films async for films in batches_by_key(factory, Film, col(Film.year) == 1)]

    assert some == [["Film 0", "Film 2", "Film 3"], ["Film 4", "Film 5"]]
    assert none == []


async def test_batches_come_with_what_the_body_shows(
    client: AsyncClient, app: FastAPI, screening: int
) -> None:
    for load in (selectinload, joinedload):
        async for films in batches_by_key(
            app.state.reading_factory, Film, options=[load(Film.screenings)]
        ):
            assert [[each.id for each in film.screenings] for film in films] == [[screening]]


@pytest.mark.parametrize("size", [0, -1])
async def test_a_batch_has_rows(client: AsyncClient, app: FastAPI, size: int) -> None:
    with pytest.raises(ValueError, match=f"size={size}: use a positive number"):
        await anext(batches_by_key(app.state.reading_factory, Film, size=size))


async def test_a_key_of_several_columns_is_refused(client: AsyncClient, app: FastAPI) -> None:
    with pytest.raises(ValueError, match="StockLevel has several columns"):
        await anext(batches_by_key(app.state.reading_factory, StockLevel))


async def test_a_client_that_leaves_keeps_no_connection(client: AsyncClient, app: FastAPI) -> None:
    await add_films(client, 250)
    sent = asyncio.Event()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            sent.set()
            await asyncio.Event().wait()  # a client that reads no further

    async def receive() -> Message:
        await sent.wait()
        return {"type": "http.disconnect"}

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/film-export",
        "raw_path": b"/film-export",
        "query_string": b"",
        "headers": [],
        "http_version": "1.1",
    }
    async with asyncio.timeout(60):
        await app(scope, receive, send)

    assert app.state.engine.pool.checkedout() == 0


async def test_an_error_before_the_first_batch_has_its_status(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_args: object, **_options: object) -> None:
        raise ConnectionError("the server went away")

    monkeypatch.setattr(AsyncSession, "exec", broken)

    assert (await client.get("/film-export")).status_code == 500
