import asyncio
from collections.abc import AsyncIterator

import api
import pytest
from httpx import ASGITransport, AsyncClient
from sqlalchemy import event
from sqlalchemy.orm import Session

ITEM = {"code": "a", "quantity": 1, "note": "n"}


@pytest.fixture
async def client(url: str) -> AsyncIterator[AsyncClient]:
    app = api.create_app(url)
    transport = ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield client


async def test_create_read_delete(client: AsyncClient) -> None:
    made = await client.post("/items", json=ITEM)
    assert made.status_code == 201
    path = f"/items/{made.json()['id']}"
    assert (await client.get(path)).json() == made.json() == {"id": made.json()["id"], **ITEM}
    assert (await client.delete(path)).status_code == 204
    for method in ("GET", "DELETE"):
        assert (await client.request(method, path)).status_code == 404
    assert (await client.patch(path, json={"quantity": 1})).status_code == 404


async def test_patch_tells_null_from_left_out(client: AsyncClient) -> None:
    path = f"/items/{(await client.post('/items', json=ITEM)).json()['id']}"
    assert (await client.patch(path, json={"quantity": 5})).json()["note"] == "n"
    assert (await client.patch(path, json={"note": None})).json()["note"] is None
    assert (await client.patch(path, json={"quantity": None})).status_code == 422
    assert (await client.patch(path, json={"code": None})).status_code == 422
    assert (await client.patch(path, json={"quantity": -1})).status_code == 422
    assert (await client.patch(path, json={"id": 9})).status_code == 422
    assert (await client.patch(path, json={})).status_code == 200
    assert (await client.get(path)).json()["quantity"] == 5


async def test_a_taken_code_is_a_conflict(client: AsyncClient) -> None:
    await client.post("/items", json=ITEM)
    other = await client.post("/items", json=ITEM | {"code": "b"})
    assert (await client.post("/items", json=ITEM)).status_code == 409
    path = f"/items/{other.json()['id']}"
    assert (await client.patch(path, json={"code": "a"})).status_code == 409


@pytest.mark.parametrize(
    "body",
    [
        b'{"code": "a"}', b'{"code": "a", "quantity": -1}', b'{"code": "a", "quantity": NaN}',
        b'{"code": "aaaaaaaaaaaaaaaaaaaaa", "quantity": 1}',
        b'{"id": 7, "code": "a", "quantity": 1}', b'{"code": "a", "quantity": 1e999}',
        b'{"code": "a", "quantity": 99999999999999999999}',
        b'{"code": "a\\u0000", "quantity": 1}', b'{"code": "\\ud800", "quantity": 1}',
        b'{"code": null, "quantity": 1}', b"[]", b"{",
    ],
)  # fmt: skip
async def test_bad_input_is_refused(client: AsyncClient, body: bytes) -> None:
    answer = await client.post("/items", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert (await client.get("/items")).json() == []


async def test_large_ids_in_paths_are_not_found(client: AsyncClient) -> None:
    for key in ("99999999999", "99999999999999999999999"):
        assert (await client.get(f"/items/{key}")).status_code in {404, 422}


async def test_pages(client: AsyncClient) -> None:
    for number in range(5):
        await client.post("/items", json=ITEM | {"code": f"c{number}"})
    answer = (await client.get("/items", params={"limit": 2, "offset": 2})).json()
    assert [row["code"] for row in answer] == ["c2", "c3"]
    for wrong in ({"limit": -1}, {"offset": -1}, {"limit": "x"}):
        assert (await client.get("/items", params=wrong)).status_code == 422


async def test_no_success_before_the_commit(client: AsyncClient) -> None:
    def refuse(_session: Session) -> None:
        raise RuntimeError("the disk is full")

    event.listen(Session, "before_commit", refuse)
    try:
        answer = await client.post("/items", json=ITEM)
    finally:
        event.remove(Session, "before_commit", refuse)
    assert answer.status_code >= 500
    assert (await client.get("/items")).json() == []


async def test_many_requests_at_once(client: AsyncClient) -> None:
    async def use(number: int) -> list[int]:
        made = await client.post("/items", json=ITEM | {"code": f"c{number}"})
        path = f"/items/{made.json()['id']}"
        changed = await client.patch(path, json={"quantity": number})
        read = await client.get(path)
        assert read.json()["quantity"] == number
        return [made.status_code, changed.status_code]

    assert await asyncio.gather(*[use(n) for n in range(40)]) == [[201, 200]] * 40
