import pytest
from sqlalchemy.exc import MultipleResultsFound
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

from snippets.async_operations.queries import (
    Machine,
    find_machines,
    hall_is_used,
    machines_in_hall,
    names_and_halls,
    only_machine_named,
    power_by_name,
    strongest_machine,
)

TABLES = [Machine]


@pytest.fixture
async def machines(session: AsyncSession) -> AsyncSession:
    session.add_all(
        [
            Machine(name="Saw 100%", hall="A", power_kw=5),
            Machine(name="Saw 1000", hall="A"),
            Machine(name="PRESS", hall="B", power_kw=90),
        ]
    )
    await session.commit()
    session.expunge_all()
    return session


async def test_exec_gives_objects(machines: AsyncSession) -> None:
    assert [m.name for m in await machines_in_hall(machines, "A")] == ["Saw 100%", "Saw 1000"]


async def test_the_only_one_is_found_or_none(machines: AsyncSession) -> None:
    found = await only_machine_named(machines, "PRESS")

    assert found is not None
    assert found.hall == "B"
    assert await only_machine_named(machines, "Lathe") is None


async def test_a_second_one_of_the_name_is_an_error(machines: AsyncSession) -> None:
    machines.add(Machine(name="PRESS", hall="C"))

    with pytest.raises(MultipleResultsFound):
        await only_machine_named(machines, "PRESS")


async def test_the_first_is_read_with_a_limit_and_null_is_not_the_strongest(
    machines: AsyncSession, statements: StatementLog
) -> None:
    found = await strongest_machine(machines)

    assert found is not None
    assert found.name == "PRESS"
    assert "LIMIT" in statements.texts[-1]


async def test_two_columns_come_as_tuples(machines: AsyncSession) -> None:
    rows = await names_and_halls(machines)

    assert sorted(tuple(row) for row in rows) == [
        ("PRESS", "B"),
        ("Saw 100%", "A"),
        ("Saw 1000", "A"),
    ]


async def test_existence_is_one_row_and_not_all(
    machines: AsyncSession, statements: StatementLog
) -> None:
    assert await hall_is_used(machines, "A") is True
    assert await hall_is_used(machines, "Z") is False
    assert all("EXISTS" in text for text in statements.texts)


@pytest.mark.parametrize(
    ("conditions", "names"),
    [
        ({}, ["Saw 100%", "Saw 1000", "PRESS"]),
        ({"halls": ["B", "C"]}, ["PRESS"]),
        ({"halls": []}, []),
        ({"name_contains": "100%"}, ["Saw 100%"]),
        ({"name_contains": "press"}, ["PRESS"]),
        ({"power_other_than": 90}, ["Saw 100%", "Saw 1000"]),
        ({"limit": 1}, ["Saw 100%"]),
        ({"halls": ["A"], "name_contains": "0", "power_other_than": 5}, ["Saw 1000"]),
    ],
)
async def test_conditions_combine_and_none_of_them_is_dropped(
    machines: AsyncSession, conditions: dict[str, object], names: list[str]
) -> None:
    found = await find_machines(machines, **conditions)

    assert [machine.name for machine in found] == names


async def test_sql_text_takes_parameters(machines: AsyncSession, engine: AsyncEngine) -> None:
    assert await power_by_name(machines, "A") == {"Saw 100%": 5, "Saw 1000": None}
    assert await power_by_name(machines, "A' OR '1'='1") == {}
