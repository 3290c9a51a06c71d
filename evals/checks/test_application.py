import asyncio
import datetime as dt
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from httpx import ASGITransport, AsyncClient
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session


def run(folder: Path, *arguments: str, **variables: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.fixture
async def client(
    url: str, solution: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[AsyncClient]:
    await asyncio.to_thread(run, solution, "alembic", "upgrade", "head", DATABASE_URL=url)
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.chdir(solution)
    from shop.main import create_app

    app = create_app()
    transport = ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=transport, base_url="http://test", timeout=60) as client,
    ):
        yield client


@pytest.fixture
async def ann(client: AsyncClient) -> int:
    answer = await client.post("/customers", json={"name": "Ann", "email": "a@example.org"})
    assert answer.status_code == 201
    return int(answer.json()["id"])


async def order(client: AsyncClient, customer: int, code: str, /, **more: object) -> Any:
    body = {"code": code, "quantity": 1, "customer_id": customer} | more
    return await client.post("/orders", json=body)


async def listed(client: AsyncClient, **query: object) -> list[str]:
    codes: list[str] = []
    for _ in range(50):
        answer = await client.get("/orders", params=query)
        assert answer.status_code == 200, answer.text
        codes += [item["code"] for item in answer.json()["items"]]
        if not answer.json()["next"]:
            return codes
        query["cursor"] = answer.json()["next"]
    raise AssertionError("the pages never end")


async def test_migrations(url: str, solution: Path) -> None:
    for arguments in (
        ["upgrade", "head"], ["check"], ["downgrade", "base"], ["upgrade", "head"], ["check"]
    ):  # fmt: skip
        await asyncio.to_thread(run, solution, "alembic", *arguments, DATABASE_URL=url)


async def test_orders_come_with_their_customer(client: AsyncClient, ann: int) -> None:
    made = await order(client, ann, "a", note="n")
    assert made.status_code == 201
    found = (await client.get(f"/orders/{made.json()['id']}")).json()
    assert found["customer"] == {"id": ann, "name": "Ann", "email": "a@example.org"}
    assert (found["code"], found["quantity"], found["note"]) == ("a", 1, "n")
    placed = dt.datetime.fromisoformat(found["placed_at"])
    assert placed.tzinfo is not None
    assert abs(dt.datetime.now(dt.UTC) - placed) < dt.timedelta(minutes=5)


async def test_conflicts(client: AsyncClient, ann: int) -> None:
    assert (await order(client, ann, "a")).status_code == 201
    other = await order(client, ann, "b")
    assert (await order(client, ann, "a")).status_code == 409
    path = f"/orders/{other.json()['id']}"
    assert (await client.patch(path, json={"code": "a"})).status_code == 409
    assert (await order(client, 999, "c")).status_code == 409
    again = await client.post("/customers", json={"name": "B", "email": "a@example.org"})
    assert again.status_code == 409


async def test_patch_and_delete(client: AsyncClient, ann: int) -> None:
    path = f"/orders/{(await order(client, ann, 'a', note='n')).json()['id']}"
    assert (await client.patch(path, json={"quantity": 5})).status_code == 200
    assert (await client.get(path)).json()["note"] == "n"
    assert (await client.patch(path, json={"note": None})).status_code == 200
    assert (await client.get(path)).json()["note"] is None
    for wrong in ({"quantity": None}, {"quantity": 0}, {"code": None}, {"unknown": 1}):
        assert (await client.patch(path, json=wrong)).status_code == 422
    assert (await client.get(path)).json()["quantity"] == 5
    assert (await client.delete(path)).status_code == 204
    for method in ("GET", "DELETE", "PATCH"):
        body = {"json": {"quantity": 1}} if method == "PATCH" else {}
        assert (await client.request(method, path, **body)).status_code == 404


async def test_bad_input_is_refused(client: AsyncClient, ann: int) -> None:
    for more in (
        {"quantity": 0}, {"quantity": 1001}, {"code": "x" * 21}, {"id": 7}, {"quantity": 10**30},
        {"code": "a\x00"}, {"customer_id": None}, {"placed_at": "2020-01-01T00:00:00Z"},
    ):  # fmt: skip
        assert (await order(client, ann, "ok", **more)).status_code == 422, more
    text = f'{{"code": "n", "customer_id": {ann}, "quantity": NaN}}'
    headers = {"content-type": "application/json"}
    assert (await client.post("/orders", content=text, headers=headers)).status_code in {400, 422}
    for query in ({"limit": -1}, {"limit": "x"}, {"nonsense": 1}, {"customer_id": "x"}):
        assert (await client.get("/orders", params=query)).status_code == 422, query
    answer = await client.get("/orders", params={"cursor": "nonsense"})
    assert answer.status_code in {400, 404, 422}
    for key in (10**12, 10**30):
        assert (await client.get(f"/orders/{key}")).status_code in {404, 422}


async def test_pages_have_each_order_once(client: AsyncClient, ann: int) -> None:
    for number in range(7):
        await order(client, ann, f"c{number}")
    newest_first = [f"c{number}" for number in reversed(range(7))]
    assert await listed(client, limit=3) == newest_first
    assert await listed(client, limit=100) == newest_first
    page = (await client.get("/orders", params={"limit": 3})).json()
    await order(client, ann, "between")
    rest = await listed(client, limit=3, cursor=page["next"])
    assert rest == newest_first[3:]


async def test_filters(client: AsyncClient, ann: int) -> None:
    answer = await client.post("/customers", json={"name": "Bob", "email": "b@example.org"})
    bob = answer.json()["id"]
    await order(client, ann, "50%_a")
    await order(client, bob, "50xxa")
    assert await listed(client, code_contains="%_") == ["50%_a"]
    assert await listed(client, customer_id=bob) == ["50xxa"]
    assert await listed(client, customer_id=bob, code_contains="%") == []


@pytest.fixture
def statements() -> Iterator[list[str]]:
    texts: list[str] = []

    def record(_c: Any, _cu: Any, text: str, _p: Any, _ctx: Any, _many: bool) -> None:
        if text.lstrip().upper().startswith(("SELECT", "WITH")):
            texts.append(text)

    event.listen(Engine, "before_cursor_execute", record)
    yield texts
    event.remove(Engine, "before_cursor_execute", record)


async def test_a_list_costs_a_constant_number_of_statements(
    client: AsyncClient, ann: int, statements: list[str]
) -> None:
    counts = []
    for number in range(12):
        await order(client, ann, f"c{number}")
        if number in {1, 11}:
            statements.clear()
            items = (await client.get("/orders", params={"limit": 50})).json()["items"]
            assert {item["customer"]["name"] for item in items} == {"Ann"}
            counts.append(len(statements))
    assert counts[0] == counts[1] <= 4


async def test_no_success_before_the_commit(client: AsyncClient, ann: int) -> None:
    def refuse(_session: Session) -> None:
        raise RuntimeError("the disk is full")

    event.listen(Session, "before_commit", refuse)
    try:
        answer = await order(client, ann, "lost")
    finally:
        event.remove(Session, "before_commit", refuse)
    assert answer.status_code >= 500
    assert await listed(client) == []


async def test_many_requests_at_once(client: AsyncClient, ann: int) -> None:
    async def use(number: int) -> list[int]:
        made = await order(client, ann, f"c{number}")
        path = f"/orders/{made.json().get('id')}"
        changed = await client.patch(path, json={"quantity": number + 1})
        read = await client.get(path)
        return [made.status_code, changed.status_code, read.json().get("quantity")]

    expected = [[201, 200, number + 1] for number in range(40)]
    assert await asyncio.gather(*[use(n) for n in range(40)]) == expected


def test_its_own_tests_pass(solution: Path, tmp_path: Path) -> None:
    assert list(solution.glob("tests/**/test_*.py"))
    run(
        solution,
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        DATABASE_URL=f"sqlite+aiosqlite:///{tmp_path}/t.db",
    )


def test_ruff_finds_nothing(solution: Path) -> None:
    run(solution, "ruff", "check", "--no-cache", ".")
