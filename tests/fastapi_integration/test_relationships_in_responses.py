from typing import Any

from fastapi import FastAPI
from httpx import AsyncClient
from statements import StatementLog

from snippets.fastapi_integration._cinema import Booking, Film, Screening

TABLES = [Film, Screening, Booking]


async def add_screenings(client: AsyncClient, count: int) -> None:
    for number in range(count):
        film = await client.post("/films", json={"title": f"Film {number}", "year": 1960})
        body: dict[str, Any] = {
            "film_id": film.json()["id"],
            "auditorium": "red",
            "starts_at": f"2026-02-{number + 1:02}T20:00:00Z",
            "seats_left": 10,
        }
        assert (await client.post("/screenings", json=body)).status_code == 201


async def test_screenings_come_with_their_films_in_one_statement(
    client: AsyncClient, sent: StatementLog
) -> None:
    await add_screenings(client, 8)
    sent.clear()

    page = (await client.get("/screenings")).json()

    assert sent.count == 1
    assert page["total"] == 8
    assert [item["film"]["title"] for item in page["items"]] == [f"Film {n}" for n in range(8)]
    assert page["items"][0]["starts_at"] == "2026-02-01T20:00:00Z"


async def test_a_total_that_the_page_does_not_tell_is_the_second_statement(
    client: AsyncClient, sent: StatementLog
) -> None:
    await add_screenings(client, 3)
    sent.clear()

    page = (
        await client.get("/screenings?limit=2&starts_at__lt=2026-02-03T22:00:00%2B01:00")
    ).json()

    assert sent.count == 2
    assert (page["total"], len(page["items"])) == (3, 2)


async def test_a_film_comes_with_its_screenings_in_two_statements(
    client: AsyncClient, sent: StatementLog, film: int, screening: int
) -> None:
    sent.clear()

    answer = (await client.get(f"/films/{film}/screenings")).json()

    assert sent.count == 2
    (found,) = answer["screenings"]
    assert (answer["title"], found["id"]) == ("Metropolis", screening)
    assert found["starts_at"] == "2026-01-31T20:15:00Z"


async def test_a_film_without_screenings_has_an_empty_list(client: AsyncClient, film: int) -> None:
    assert (await client.get(f"/films/{film}/screenings")).json()["screenings"] == []
    assert (await client.get(f"/films/{film + 1}/screenings")).status_code == 404


async def test_openapi_shows_the_nesting(app: FastAPI) -> None:
    schemas = app.openapi()["components"]["schemas"]

    assert schemas["ScreeningWithFilm"]["properties"]["film"] == {
        "$ref": "#/components/schemas/FilmPublic"
    }
