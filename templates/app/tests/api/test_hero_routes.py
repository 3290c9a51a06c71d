import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from sqlmodel.ext.asyncio.session import AsyncSession

PROBLEM = "application/problem+json"


async def created(client: AsyncClient, *names: str, power: str | None = None) -> list[str]:
    """Create heroes and return their paths."""
    answers = [await client.post("/heroes", json={"name": name, "power": power}) for name in names]
    assert {answer.status_code for answer in answers} == {201}
    return [answer.headers["location"] for answer in answers]


async def names(client: AsyncClient, query: str = "") -> list[str]:
    answer = await client.get(f"/heroes?{query}")
    assert answer.status_code == 200, answer.text
    return [hero["name"] for hero in answer.json()["items"]]


# One hero


async def test_a_created_hero_is_listed_and_can_be_read(client: AsyncClient) -> None:
    created = await client.post("/heroes", json={"name": "Ada", "power": "foresight"})

    listed = await client.get("/heroes")
    read = await client.get(created.headers["location"])

    assert created.status_code == 201
    assert created.json()["name"] == "Ada"
    assert listed.json() == {"items": [created.json()], "next": None, "previous": None}
    assert read.json() == created.json()


async def test_the_location_is_what_the_client_of_a_proxy_can_ask_for(
    client: AsyncClient, app: FastAPI
) -> None:
    transport = ASGITransport(app=app, root_path="/api")
    async with AsyncClient(transport=transport, base_url="http://test") as outside:
        created = await outside.post("/api/heroes", json={"name": "Ada"})
        read = await outside.get(created.headers["location"])

    assert created.headers["location"] == f"/api/heroes/{created.json()['id']}"
    assert read.json() == created.json()


async def test_the_time_of_creation_is_aware_and_now(client: AsyncClient) -> None:
    (path,) = await created(client, "Ada")

    hero = (await client.get(path)).json()

    created_at = datetime.fromisoformat(hero["created_at"])
    assert created_at.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - created_at) < timedelta(minutes=1)


async def test_what_is_left_out_stays_and_null_is_a_value(client: AsyncClient) -> None:
    (path,) = await created(client, "Ada", power="foresight")

    renamed = await client.patch(path, json={"name": "Ada Lovelace"})
    weakened = await client.patch(path, json={"power": None})
    unchanged = await client.patch(path, json={})
    refused = await client.patch(path, json={"name": None})

    assert (renamed.json()["name"], renamed.json()["power"]) == ("Ada Lovelace", "foresight")
    assert (weakened.json()["name"], weakened.json()["power"]) == ("Ada Lovelace", None)
    assert unchanged.json() == weakened.json()
    assert refused.status_code == 422
    assert (await client.get(path)).json() == weakened.json()


async def test_a_deleted_hero_is_gone(client: AsyncClient) -> None:
    (path,) = await created(client, "Ada")

    deleted = await client.delete(path)

    assert (deleted.status_code, deleted.content) == (204, b"")
    for method in ("GET", "DELETE"):
        assert (await client.request(method, path)).status_code == 404
    missing = await client.patch(path, json={"power": "none"})
    assert missing.status_code == 404
    assert missing.headers["content-type"] == PROBLEM
    assert await names(client) == []


@pytest.mark.parametrize("key", ["0", "-1", str(2**31), str(2**63), "9" * 30])
async def test_a_key_that_nothing_has_is_not_found(client: AsyncClient, key: str) -> None:
    assert (await client.get(f"/heroes/{key}")).status_code == 404


async def test_a_name_that_is_taken_is_a_conflict(client: AsyncClient) -> None:
    (_, grace) = await created(client, "Ada", "Grace")

    again = await client.post("/heroes", json={"name": "Ada"})
    renamed = await client.patch(grace, json={"name": "Ada"})

    for answer in (again, renamed):
        assert answer.status_code == 409
        assert answer.headers["content-type"] == PROBLEM
        assert answer.json()["title"] == "Conflict"
        assert [error["field"] for error in answer.json()["errors"]] == ["name"]
    assert await names(client, "sort=name") == ["Ada", "Grace"]


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"name": ""}',
        b'{"name": 5}',
        b'{"name": null}',
        b'{"name": "nul \\u0000"}',
        b'{"name": "half a pair \\ud800"}',
        b'{"name": NaN}',
        b'{"name": "' + b"x" * 81 + b'"}',
    ],
)
async def test_what_cannot_be_stored_is_refused(client: AsyncClient, body: bytes) -> None:
    headers = {"content-type": "application/json"}

    answer = await client.post("/heroes", content=body, headers=headers)

    assert answer.status_code == 422
    assert answer.headers["content-type"] == PROBLEM
    (error,) = answer.json()["errors"]
    assert error.keys() == {"field", "message"}
    assert error["field"] == "body.name"


async def test_a_client_cannot_choose_the_key(client: AsyncClient) -> None:
    answer = await client.post("/heroes", json={"name": "Ada", "id": 4711})

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "body.id"


# Many heroes


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("name=Ada", ["Ada"]),
        ("name__icontains=A&sort=-name", ["Grace", "Barbara", "Ada"]),
        ("name__in=Ada&name__in=Grace&sort=name", ["Ada", "Grace"]),
        ("power__is_null=true", ["Grace"]),
        ("power=foresight&sort=name", ["Ada", "Barbara"]),
        ("created_at__lt=2020-01-01T00:00:00Z", []),
    ],
)
async def test_urls_filter_and_sort(client: AsyncClient, query: str, found: list[str]) -> None:
    await created(client, "Ada", "Barbara", power="foresight")
    await created(client, "Grace")

    assert await names(client, query) == found


@pytest.mark.parametrize(
    "query",
    [
        "age=7",
        "name__like=A%25",
        "sort=power",
        "power__is_null=perhaps",
        "created_at__lt=2020",
        "limit=0",
        "limit=101",
        "offset=1",
    ],
)
async def test_what_the_service_does_not_offer_is_refused(client: AsyncClient, query: str) -> None:
    answer = await client.get(f"/heroes?{query}")

    assert answer.status_code == 422
    assert answer.headers["content-type"] == PROBLEM
    assert answer.json()["errors"][0]["field"].startswith("query.")


async def test_a_cursor_that_is_none_is_not_found(client: AsyncClient) -> None:
    answer = await client.get("/heroes?cursor=nonsense")

    assert answer.status_code == 404
    assert answer.headers["content-type"] == PROBLEM


async def test_pages_follow_each_other_whatever_is_created_meanwhile(client: AsyncClient) -> None:
    await created(client, "Grace", "Ada", "Edsger", "Barbara", "Alan")
    pages: list[list[str]] = []
    query = {"sort": "name", "limit": "2"}

    for _ in range(3):
        page = (await client.get("/heroes", params=query)).json()
        pages.append([hero["name"] for hero in page["items"]])
        query["cursor"] = page["next"]
        await created(client, f"Aaron {len(pages)}")

    assert pages == [["Ada", "Alan"], ["Barbara", "Edsger"], ["Grace"]]
    assert page["next"] is None
    query["cursor"] = page["previous"]
    back = (await client.get("/heroes", params=query)).json()
    assert [hero["name"] for hero in back["items"]] == pages[1]


# Transactions


async def test_a_commit_that_fails_is_no_success(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_session: AsyncSession) -> None:
        raise ConnectionError("the server went away")

    with monkeypatch.context() as patch:
        patch.setattr(AsyncSession, "commit", broken)
        answer = await client.post("/heroes", json={"name": "Ada"})

    assert answer.status_code == 500
    assert answer.json()["detail"] == "internal error"
    assert await names(client) == []


async def test_requests_at_once_that_read_and_write_wait_for_each_other(
    client: AsyncClient,
) -> None:
    (path,) = await created(client, "Ada")
    powers = [f"power {number}" for number in range(20)]

    answers = await asyncio.gather(*(client.patch(path, json={"power": power}) for power in powers))

    assert [answer.status_code for answer in answers] == [200] * 20
    assert [answer.json()["power"] for answer in answers] == powers
    assert (await client.get(path)).json()["power"] in powers


async def test_of_requests_at_once_for_one_name_one_gets_it(client: AsyncClient) -> None:
    answers = await asyncio.gather(
        *(client.post("/heroes", json={"name": "Ada"}) for _ in range(10))
    )

    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 9
    assert await names(client) == ["Ada"]


async def test_answers_say_how_many_statements_they_took(client: AsyncClient) -> None:
    new = await client.post("/heroes", json={"name": "Ada"})
    path = new.headers["location"]
    answers = [
        new,
        await client.get("/heroes"),
        await client.get(path),
        await client.patch(path, json={"power": "foresight"}),
        await client.post("/heroes", json={}),
    ]

    counts = [answer.headers["X-SQL-Statements"] for answer in answers]
    # A write that a constraint may refuse is one in a savepoint, which takes two more.
    assert counts == ["3", "1", "1", "2", "0"]


async def test_the_interface_is_described(app: FastAPI) -> None:
    paths = app.openapi()["paths"]

    offered = {parameter["name"] for parameter in paths["/heroes"]["get"]["parameters"]}
    assert {"name__icontains", "power__is_null", "sort", "limit", "cursor"} <= offered
    assert PROBLEM in paths["/heroes/{hero_id}"]["patch"]["responses"]["409"]["content"]
