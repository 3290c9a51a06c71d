import datetime as dt
from typing import Annotated

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from pydantic import BeforeValidator, ValidationError

from snippets.fastapi_integration.bodies import (
    Body,
    Moment,
    Public,
    Text,
    may_be_left_out,
    number,
)
from snippets.models.keys import Warehouse


class Change(Body):
    title: Text = may_be_left_out()
    seats: Annotated[int, BeforeValidator(number)] = may_be_left_out()
    at: Moment = may_be_left_out()
    note: Text | None = None


def refused(**values: object) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        Change.model_validate(values)
    return [str(error["loc"][0]) for error in caught.value.errors()]


def test_what_is_left_out_is_not_set_and_null_is_refused_where_it_is_no_value() -> None:
    assert Change().model_dump(exclude_unset=True) == {}
    assert Change(note=None).model_dump(exclude_unset=True) == {"note": None}
    assert refused(title=None, seats=None, at=None) == ["title", "seats", "at"]


def test_an_unknown_field_is_refused() -> None:
    assert refused(titel="Ran") == ["titel"]


@pytest.mark.parametrize("text", ["", "a\0b", "\ud800"])
def test_text_that_no_database_stores_is_refused(text: str) -> None:
    assert refused(title=text) == ["title"]
    assert refused(note=text) == ["note"]


@pytest.mark.parametrize("value", ["5", True, 5.5, float("nan"), float("inf")])
def test_what_is_no_whole_number_in_json_is_refused(value: object) -> None:
    assert refused(seats=value) == ["seats"]


def test_a_whole_number_may_be_written_with_a_point() -> None:
    assert Change.model_validate_json('{"seats": 5.0}').seats == 5


@pytest.mark.parametrize("value", [0, "0", 1700000000, "2026-01-31T20:15:00", "2026-13-01"])
def test_moments_are_texts_with_a_zone(value: object) -> None:
    assert refused(at=value) == ["at"]


def test_moments_arrive_in_utc() -> None:
    at = Change.model_validate({"at": "2026-01-31T20:15:00+02:00"}).at

    assert at == dt.datetime(2026, 1, 31, 18, 15, tzinfo=dt.UTC)
    assert at.utcoffset() == dt.timedelta()


def test_an_answer_is_read_from_the_object_of_the_table() -> None:
    class Shown(Public):
        name: str

    assert Shown.model_validate(Warehouse(name="North")).name == "North"


async def test_no_default_that_a_client_could_not_send_is_in_openapi() -> None:
    app = FastAPI()

    @app.patch("/films")
    async def change(data: Change) -> list[str]:
        return sorted(data.model_fields_set)

    fields = app.openapi()["components"]["schemas"]["Change"]["properties"]
    async with AsyncClient(transport=ASGITransport(app=app), base_url="http://test") as client:
        answer = await client.patch("/films", json={"title": "Ran"})

    assert "default" not in fields["title"]
    assert fields["title"]["pattern"] == r"^[^\x00]*$"
    assert answer.json() == ["title"]
