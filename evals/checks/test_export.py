import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import export
import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine
from statements import StatementLog

COUNT = 30_000
Counter = Callable[[AsyncEngine], Any]


@pytest.fixture
async def app(url: str) -> AsyncIterator[FastAPI]:
    app = export.create_app(url)
    async with app.router.lifespan_context(app):
        rows = [{"sensor": f"s{n % 3}", "value": n} for n in range(COUNT)]
        async with app.state.engine.begin() as connection:
            await connection.execute(insert(export.Reading.__table__), rows)
        yield app


def client_of(app: FastAPI) -> AsyncClient:
    transport = ASGITransport(app=app, raise_app_exceptions=False)
    return AsyncClient(transport=transport, base_url="http://test")


async def test_all_rows_in_order(app: FastAPI) -> None:
    async with client_of(app) as client:
        answer = await client.get("/export")
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    rows = [json.loads(line) for line in answer.text.splitlines()]
    assert [row["value"] for row in rows] == list(range(COUNT))
    assert set(rows[0]) == {"id", "sensor", "value"}


async def stream(app: FastAPI, connections: Any, *, stop_after: int | None = None) -> list[int]:
    """Send a request by hand; return how many connections were out at each piece of the body."""
    out: list[int] = []
    asked = False
    gone = asyncio.Event()

    async def receive() -> dict[str, object]:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, object]) -> None:
        if message["type"] != "http.response.body" or not message.get("body"):
            return
        if len(out) % 100 == 0:
            await asyncio.sleep(0.01)  # a slow client
        out.append(connections.out)
        if len(out) == stop_after:
            gone.set()
            await asyncio.sleep(600)  # until the application notices

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
        "path": "/export", "raw_path": b"/export", "query_string": b"", "root_path": "",
        "scheme": "http", "headers": [], "client": ("127.0.0.1", 1), "server": ("test", 80),
    }  # fmt: skip
    async with asyncio.timeout(40):
        await app(scope, receive, send)
    return out


async def test_a_slow_client_keeps_no_connection(app: FastAPI, count_connections: Counter) -> None:
    out = await stream(app, count_connections(app.state.engine))
    assert len(out) > 1
    assert max(out) == 0


async def test_rows_are_read_by_parts(app: FastAPI) -> None:
    with StatementLog(app.state.engine) as log:
        async with client_of(app) as client:
            await client.get("/export")
    # One statement would have all rows in memory, or a connection until the last is sent.
    assert log.count > 2


async def test_a_client_that_leaves_leaks_nothing(app: FastAPI, count_connections: Counter) -> None:
    connections = count_connections(app.state.engine)
    await stream(app, connections, stop_after=1)
    assert await connections.are_back()


async def test_an_error_before_the_first_row_is_500(app: FastAPI) -> None:
    async with app.state.engine.begin() as connection:
        await connection.run_sync(export.Reading.__table__.drop)
    async with client_of(app) as client:
        assert (await client.get("/export")).status_code == 500


async def test_delete_says_how_many(app: FastAPI) -> None:
    async with client_of(app) as client:
        assert (await client.delete("/readings/s1")).json() == {"deleted": COUNT // 3}
        assert (await client.delete("/readings/s1")).json() == {"deleted": 0}
        assert len((await client.get("/export")).text.splitlines()) == COUNT // 3 * 2
