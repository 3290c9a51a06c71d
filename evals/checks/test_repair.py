import asyncio
import datetime as dt
from collections.abc import AsyncIterator

import pytest
import shop
from httpx import ASGITransport, AsyncClient


@pytest.fixture
async def client(url: str) -> AsyncIterator[AsyncClient]:
    app = shop.create_app(url)
    transport = ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield client


async def order(client: AsyncClient, code: str, **more: object) -> int:
    return (await client.post("/orders", json={"code": code, "quantity": 1} | more)).status_code


async def first_order(client: AsyncClient) -> dict[str, object]:
    for number in range(1, 6):
        answer = await client.get(f"/orders/{number}")
        if answer.status_code == 200:
            found: dict[str, object] = answer.json()
            return found
    raise AssertionError(answer.text)


async def test_an_order_shows_its_customer(client: AsyncClient) -> None:
    made = await client.post("/customers", json={"name": "Ann"})
    assert made.status_code == 201
    assert await order(client, "a", customer_id=made.json()["id"]) == 201
    found = await first_order(client)
    assert found["customer"]["name"] == "Ann"
    assert (await client.get("/orders/999")).status_code == 404


async def test_a_duplicate_is_no_success(client: AsyncClient) -> None:
    assert await order(client, "a") == 201
    assert await order(client, "a") in {400, 409, 422}
    assert (await client.get("/search", params={"q": "a"})).json() == ["a"]


async def test_bodies_are_validated(client: AsyncClient) -> None:
    assert await order(client, "a", quantity=-5) == 422
    await order(client, "b", id=4711)
    assert (await client.get("/orders/4711")).status_code == 404
    made = await client.post("/customers", json={"name": "Ann", "id": 4711})
    assert made.status_code == 422 or made.json()["id"] != 4711


async def test_search_takes_text(client: AsyncClient) -> None:
    for code in ("abc", "d", "50%", "n/m", "n\\m"):
        await order(client, code)
    for text, found in {
        "%": ["50%"], "_": [], "/": ["n/m"], "\\": ["n\\m"], "B": ["abc"], "": 5,
    }.items():  # fmt: skip
        answer = (await client.get("/search", params={"q": text})).json()
        assert (len(answer) if found == 5 else answer) == found, text


async def test_the_summary_holds_when_asked_often(client: AsyncClient) -> None:
    await order(client, "a")
    answers = await asyncio.gather(*[client.get("/summary") for _ in range(20)])
    assert [a.json() for a in answers] == [{"orders": 1, "customers": 0}] * 20


async def test_moments_have_a_zone_and_are_of_now(client: AsyncClient) -> None:
    before = dt.datetime.now(dt.UTC)
    await asyncio.sleep(1.1)  # a column may hold whole seconds
    await order(client, "a")
    placed = dt.datetime.fromisoformat(str((await first_order(client))["placed_at"]))
    assert placed.utcoffset() == dt.timedelta(0)
    assert before < placed < before + dt.timedelta(minutes=5)
