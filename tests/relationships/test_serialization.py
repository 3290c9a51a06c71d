import pytest
from sqlalchemy.orm import load_only
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

from snippets.relationships.one_to_many import Cellar, Jar, Shelf
from snippets.relationships.serialization import (
    read_cellars,
    read_jars,
    read_shelf_summaries,
)

TABLES = [Cellar, Shelf, Jar]


@pytest.fixture(autouse=True)
async def cellar(session: AsyncSession, statements: StatementLog) -> None:
    plum = Jar(id=1, fruit="plum", grams=200)
    shelf = Shelf(id=1, label="top", jars=[plum, Jar(id=2, fruit="fig")])
    session.add(Cellar(id=1, name="north", shelves=[shelf]))
    session.add(Shelf(id=2, label="loose"))
    await session.commit()
    session.expunge_all()
    statements.clear()


async def test_a_response_goes_down_as_deep_as_its_model(
    session: AsyncSession, statements: StatementLog
) -> None:
    (cellar,) = await read_cellars(session)

    plum = {"id": 1, "fruit": "plum", "grams": 200}
    fig = {"id": 2, "fruit": "fig", "grams": 300}
    assert cellar.model_dump() == {
        "id": 1,
        "name": "north",
        "shelves": [{"id": 1, "label": "top", "jars": [plum, fig]}],
    }
    assert statements.count == 3


async def test_a_response_goes_up_one_step_and_ends(
    session: AsyncSession, statements: StatementLog
) -> None:
    jars = await read_jars(session)

    assert jars[0].model_dump() == {
        "id": 1,
        "fruit": "plum",
        "grams": 200,
        "shelf": {"id": 1, "label": "top"},
    }
    assert statements.count == 1


async def test_children_are_counted_in_one_statement_and_none_is_loaded(
    session: AsyncSession, statements: StatementLog
) -> None:
    summaries = await read_shelf_summaries(session)

    assert [(summary.label, summary.jar_count) for summary in summaries] == [
        ("top", 2),
        ("loose", 0),
    ]
    assert statements.count == 1
    assert not [loaded for loaded in session.identity_map.values() if isinstance(loaded, Jar)]


async def test_a_table_object_dumps_no_relationship(session: AsyncSession) -> None:
    shelf = Shelf(label="top", jars=[Jar(fruit="plum")])

    assert "jars" not in shelf.model_dump()


async def test_columns_that_are_not_loaded_are_missing_from_a_dump(session: AsyncSession) -> None:
    some = select(Jar).where(Jar.id == 1).options(load_only(Jar.fruit))
    jar = (await session.exec(some)).one()

    assert jar.model_dump() == {"id": 1, "fruit": "plum"}
