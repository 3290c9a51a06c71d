import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from alembic import command
from alembic.config import Config
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy.exc import IntegrityError
from sqlmodel.ext.asyncio.session import AsyncSession

from app.models import Hero
from app.problems import is_unique_violation


async def test_a_created_hero_is_listed(client: AsyncClient) -> None:
    created = await client.post("/heroes", json={"name": "Ada", "power": "foresight"})

    listed = await client.get("/heroes")

    assert created.status_code == 201
    assert created.json()["name"] == "Ada"
    assert listed.json() == [created.json()]


async def test_the_time_of_creation_is_aware_and_now(client: AsyncClient) -> None:
    await client.post("/heroes", json={"name": "Ada"})

    (hero,) = (await client.get("/heroes")).json()

    created_at = datetime.fromisoformat(hero["created_at"])
    assert created_at.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - created_at) < timedelta(minutes=1)


async def test_a_name_that_is_taken_is_a_conflict(client: AsyncClient) -> None:
    await client.post("/heroes", json={"name": "Ada"})

    again = await client.post("/heroes", json={"name": "Ada"})

    assert again.status_code == 409
    assert again.headers["content-type"] == "application/problem+json"
    assert again.json()["title"] == "Conflict"
    assert len((await client.get("/heroes")).json()) == 1


async def test_only_a_taken_value_counts_as_one(app: FastAPI) -> None:
    async with app.state.session_factory() as session:
        session.add(Hero(name=None))  # type: ignore[arg-type]

        with pytest.raises(IntegrityError) as caught:
            await session.commit()

    assert not is_unique_violation(caught.value)


async def test_pages_follow_each_other(client: AsyncClient) -> None:
    for name in ("Grace", "Ada", "Edsger", "Barbara", "Alan"):
        await client.post("/heroes", json={"name": name})

    pages = [
        (await client.get("/heroes", params={"limit": 2, "offset": offset})).json()
        for offset in (0, 2, 4, 6)
    ]

    names = [[hero["name"] for hero in page] for page in pages]
    assert names == [["Ada", "Alan"], ["Barbara", "Edsger"], ["Grace"], []]


async def test_a_client_cannot_choose_the_key(client: AsyncClient) -> None:
    created = await client.post("/heroes", json={"name": "Ada", "id": 4711})

    assert created.status_code == 201
    assert created.json()["id"] != 4711


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"name": ""}',
        b'{"name": 5}',
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
    assert "name" in answer.json()["errors"][0]["loc"]
    assert "input" not in answer.json()["errors"][0]


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "offset=-1", "offset=99999999999999999"])
async def test_a_page_out_of_bounds_is_refused(client: AsyncClient, query: str) -> None:
    answer = await client.get(f"/heroes?{query}")

    assert answer.status_code == 422


async def test_a_commit_that_fails_is_no_success(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_session: AsyncSession) -> None:
        raise ConnectionError("the server went away")

    with monkeypatch.context() as patch:
        patch.setattr(AsyncSession, "commit", broken)
        answer = await client.post("/heroes", json={"name": "Ada"})

    assert answer.status_code == 500
    assert (await client.get("/heroes")).json() == []


async def test_answers_say_how_many_statements_they_took(client: AsyncClient) -> None:
    created = await client.post("/heroes", json={"name": "Ada"})
    listed = await client.get("/heroes")
    refused = await client.post("/heroes", json={})

    counts = [answer.headers["X-SQL-Statements"] for answer in (created, listed, refused)]
    assert counts == ["1", "1", "0"]


async def test_models_and_migrations_agree(migrations: Config) -> None:
    await asyncio.to_thread(command.check, migrations)
