import datetime as dt
from typing import Annotated, Any, ClassVar

import fastapi
import pytest
from fastapi import Depends, FastAPI, Query
from httpx import AsyncClient
from pydantic import BaseModel, ValidationError
from pydantic import Field as Limit
from sqlmodel import Field, SQLModel
from statements import StatementLog

from snippets.fastapi_integration._cinema import (
    Booking,
    Film,
    FilmPublic,
    FilmService,
    Screening,
)
from snippets.fastapi_integration._query_model import cursor_query, query_model
from snippets.fastapi_integration.dependencies import provided
from snippets.fastapi_integration.testing import running_client
from snippets.servicebase.cursor_pagination import CursorPage
from snippets.servicebase.query_parameters import ListQuery
from snippets.servicebase.service import ServiceBase

TABLES = [Film, Screening, Booking]
FILMS = [
    {"title": "Metropolis", "year": 1927, "synopsis": "A city."},
    {"title": "M", "year": 1931},
    {"title": "100% proof", "year": 1931},
    {"title": "Nosferatu", "year": 1922},
]


@pytest.fixture
async def films(client: AsyncClient) -> None:
    answer = await client.post("/bulk/films", json=FILMS)
    assert answer.status_code == 201


async def titles(client: AsyncClient, query: str, path: str = "/films") -> list[str]:
    answer = await client.get(f"{path}?{query}")
    assert answer.status_code == 200, answer.text
    return [film["title"] for film in answer.json()["items"]]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["Metropolis", "M", "100% proof", "Nosferatu"]),
        ("title=M", ["M"]),
        ("title__icontains=m", ["Metropolis", "M"]),
        ("title__icontains=%25", ["100% proof"]),
        ("year=1931&sort=title", ["100% proof", "M"]),
        ("year__in=1922&year__in=1927&sort=-year", ["Metropolis", "Nosferatu"]),
        ("year__gte=1927&year__lte=1930", ["Metropolis"]),
        ("synopsis__is_null=false", ["Metropolis"]),
        ("sort=year,-title&limit=2&offset=1", ["Metropolis", "M"]),
        ("year=99999999999999999999", []),
        ("offset=9223372036854775807", []),
    ],
)
async def test_urls_filter_sort_and_page(
    client: AsyncClient, films: None, query: str, expected: list[str]
) -> None:
    assert await titles(client, query) == expected


async def test_urls_filter_across_relationships(client: AsyncClient, screening: int) -> None:
    assert await titles(client, "screenings__auditorium=red") == ["Metropolis"]
    assert await titles(client, "screenings__auditorium=blue") == []


async def test_a_page_has_a_total(client: AsyncClient, films: None) -> None:
    page = (await client.get("/films?limit=1&year__gte=1927")).json()

    assert (page["total"], page["offset"], page["limit"]) == (3, 0, 1)
    assert page["items"][0]["title"] == "Metropolis"


async def test_a_feed_goes_there_and_back(client: AsyncClient, films: None) -> None:
    query: dict[str, Any] = {"sort": "-year", "limit": 3}
    first = (await client.get("/film-feed", params=query)).json()
    last = (await client.get("/film-feed", params=query | {"cursor": first["next"]})).json()
    again = (await client.get("/film-feed", params=query | {"cursor": last["previous"]})).json()

    assert [film["title"] for film in last["items"]] == ["Nosferatu"]
    assert last["next"] is None
    assert again["items"] == first["items"]


async def test_a_cursor_of_another_order_is_not_found(client: AsyncClient, films: None) -> None:
    cursor = (await client.get("/film-feed?limit=1")).json()["next"]

    for query in (f"cursor={cursor}&sort=year", "cursor=zzz", "cursor=" + "é" * 9):
        answer = await client.get(f"/film-feed?{query}")
        assert answer.status_code == 404
        assert answer.json()["detail"] == "this is no cursor for this list"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("colour=red", "query.colour"),
        ("id=1", "query.id"),
        ("synopsis=A", "query.synopsis"),
        ("cursor=x", "query.cursor"),
        ("year__ne=1", "query.year__ne"),
        ("year=soon", "query.year"),
        ("year__in=1&year__in=x", "query.year__in.1"),
        ("&".join(["year__in=1"] * 21), "query.year__in"),
        ("title=", "query.title"),
        ("title=%00", "query.title"),
        ("synopsis__is_null=maybe", "query.synopsis__is_null"),
        ("sort=synopsis", "query.sort"),
        ("sort=title,-title", "query.sort"),
        ("limit=0", "query.limit"),
        ("limit=101", "query.limit"),
        ("offset=-1", "query.offset"),
        ("offset=9223372036854775808", "query.offset"),
    ],
)
async def test_what_the_service_does_not_list_is_refused_by_name(
    client: AsyncClient, sent: StatementLog, query: str, field: str
) -> None:
    answer = await client.get(f"/films?{query}")

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == field
    assert sent.count == 0


async def test_a_parameter_that_contradicts_itself_is_refused(client: AsyncClient) -> None:
    answer = await client.get("/films?limit=1&limit=2")

    assert answer.status_code == 422
    assert answer.json()["detail"] == "limit is given 2 times"


@pytest.mark.parametrize("text", ["0.5", "1700000000", "2026-01-31T20:15:00", "soon"])
async def test_a_moment_in_a_url_needs_a_date_and_a_zone(client: AsyncClient, text: str) -> None:
    answer = await client.get("/screenings", params={"starts_at__gte": text})

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "query.starts_at__gte"


def test_openapi_shows_the_parameters(app: FastAPI) -> None:
    parameters = app.openapi()["paths"]["/films"]["get"]["parameters"]
    found = {parameter["name"]: parameter["schema"] for parameter in parameters}

    assert list(found) == [
        "offset", "limit", "sort", "title", "title__icontains", "year", "year__gte", "year__in",
        "year__lte", "synopsis__is_null", "screenings__auditorium",
    ]  # fmt: skip
    assert not any(parameter["required"] for parameter in parameters)
    assert found["limit"]["maximum"] == 100
    assert found["year__in"]["items"] == {"type": "integer"}
    assert "default" not in found["year"]
    assert len(found["sort"]["enum"]) == 12


class Turnstile(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    hall: str = Field(max_length=10)
    entered_on: dt.date
    open: bool | None
    people: int


class Turnstiles(ServiceBase[Turnstile, BaseModel, BaseModel]):
    filterable: ClassVar = {
        "people": {"between"},
        "open": {"eq"},
        "entered_on": {"eq"},
    }
    sortable: ClassVar = ("hall", "people", "entered_on")


class Unsorted(ServiceBase[Turnstile, BaseModel, BaseModel]):
    max_limit: ClassVar = 5


def test_more_sort_fields_become_a_pattern() -> None:
    model = query_model(Turnstiles)

    for sort in ("hall", "-people", "hall,-people,entered_on"):
        assert model.model_validate({"sort": sort}).sort == sort  # type: ignore[attr-defined]
    for sort in ("open", "hall,", "--hall", ""):
        with pytest.raises(ValidationError):
            model.model_validate({"sort": sort})


def test_between_takes_two_values() -> None:
    model = query_model(Turnstiles)

    assert model.model_validate({"people__between": ["1", "2"]}).people__between == [1, 2]  # type: ignore[attr-defined]
    for values in (["1"], ["1", "2", "3"]):
        with pytest.raises(ValidationError):
            model.model_validate({"people__between": values})


def test_other_types_are_taken_as_the_column_has_them() -> None:
    values = query_model(Turnstiles).model_validate({"open": "true", "entered_on": "2026-01-31"})

    assert values.open == "true"  # type: ignore[attr-defined]
    assert values.entered_on == dt.date(2026, 1, 31)  # type: ignore[attr-defined]


class BySynopsis(FilmService):
    sortable = ("synopsis",)


async def test_a_feed_takes_the_cursor_of_a_long_text(
    app: FastAPI, client: AsyncClient, films: None
) -> None:
    """4000 characters were taken, of which a text of 500 Chinese ones needs more."""

    @app.get("/by-synopsis")
    async def feed(
        query: Annotated[ListQuery, Depends(cursor_query(BySynopsis))],
        found: Annotated[BySynopsis, Depends(provided(BySynopsis))],
    ) -> CursorPage[FilmPublic]:
        page = await found.cursor_page(
            *query.where, order_by=query.order_by, limit=query.limit, cursor=query.cursor
        )
        return page.map(FilmPublic.model_validate)

    for number, sign in enumerate("\u6771\U0001f3ac"):
        long = {"title": f"long {number}", "year": 1999, "synopsis": sign * 2000}
        assert (await client.post("/films", json=long)).status_code == 201

    query: dict[str, Any] = {"sort": "-synopsis", "limit": 1}
    seen = 0
    while True:
        page = (await client.get("/by-synopsis", params=query)).json()
        seen += len(page["items"])
        if page["next"] is None:
            break
        query["cursor"] = page["next"]

    assert seen == len(FILMS) + 2


def test_a_service_that_opens_nothing_has_pages_only() -> None:
    model = query_model(Unsorted)

    assert set(model.model_fields) == {"limit"}
    assert model().limit == 5  # type: ignore[attr-defined]


class Aliased(BaseModel):
    model_config = {"extra": "forbid"}

    hall_name: str = Limit(default="", alias="hall")


async def test_a_query_model_with_aliases_needs_a_newer_fastapi() -> None:
    app = FastAPI()

    @app.get("/")
    async def read(query: Annotated[Aliased, Query()]) -> str:
        return query.hall_name

    async with running_client(app) as client:
        answer = await client.get("/?hall=red")

    if fastapi.__version__ == "0.115.0":
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["loc"] == ["query", "hall_name"]
    else:
        assert (answer.status_code, answer.json()) == (200, "red")
