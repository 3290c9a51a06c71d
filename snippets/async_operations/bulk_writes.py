"""Insert, change and delete many rows in one statement, not one each."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import inspect
from sqlmodel import SQLModel, col, delete, insert, update
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.async_operations.aggregations import Reading

Model = TypeVar("Model", bound=SQLModel)
Row = Mapping[str, Any]


class RowsError(ValueError):
    """Rows that one statement can't carry; nothing was sent."""


def check_rows(model: type[SQLModel], rows: Sequence[Row]) -> None:
    """Refuse rows that would be written in part, or in many statements.

    A key that is no column is dropped without a word; so is, in Core, one that only later rows
    have, while the ORM begins a new statement wherever the keys change.

    Raises:
        RowsError: rows with different keys, or a key that is no column.
    """
    known = inspect(model).column_attrs.keys()
    if unknown := sorted(rows[0].keys() - known):
        raise RowsError(f"{model.__name__} has no {', '.join(unknown)}; it has {', '.join(known)}")
    for number, row in enumerate(rows):
        if different := sorted(row.keys() ^ rows[0].keys()):
            raise RowsError(f"row {number} and row 0 differ in their keys: {', '.join(different)}")


async def insert_rows(session: AsyncSession, model: type[SQLModel], rows: Sequence[Row]) -> None:
    """Insert any number of rows in one statement; defaults of columns apply.

    Raises:
        RowsError: see `check_rows`.
    """
    if not rows:  # SQLAlchemy would insert one row of defaults
        return
    check_rows(model, rows)
    # Without render_nulls a new statement begins wherever the set of NULL columns changes.
    await session.exec(insert(model), params=rows, execution_options={"render_nulls": True})


async def insert_and_load(
    session: AsyncSession, model: type[Model], rows: Sequence[Row]
) -> list[Model]:
    """Insert the rows, and return them as objects in the same order: a statement per 1000 rows.

    Not on MySQL, which has no RETURNING: make the keys in Python and use `insert_rows`.

    Raises:
        RowsError: see `check_rows`.
    """
    if not rows:
        return []
    check_rows(model, rows)
    # SQLite can't return integer keys in order, and so would insert row by row: sort them here.
    counter = model.__table__.autoincrement_column  # type: ignore[attr-defined]
    sort_here = counter is not None and session.get_bind().dialect.name == "sqlite"
    statement = insert(model).returning(model, sort_by_parameter_order=not sort_here)
    options = {"render_nulls": True}
    result = await session.exec(statement, params=rows, execution_options=options)
    loaded = list(result.scalars())
    if sort_here:
        key = inspect(model).get_property_by_column(counter).key
        positions = {row.get(key): position for position, row in enumerate(rows)}
        loaded.sort(key=lambda item: (positions.get(getattr(item, key), 0), getattr(item, key)))
    return loaded


async def update_by_key(session: AsyncSession, model: type[SQLModel], rows: Sequence[Row]) -> None:
    """Give many rows values of their own; each row has its primary key and the same other keys.

    Raises:
        RowsError: see `check_rows`.
        StaleDataError: a key does not exist; asyncpg can't tell, there it passes silently.
    """
    if not rows:
        return
    check_rows(model, rows)
    await session.exec(update(model), params=rows)


# Example: scaffold.py leaves out what follows.


async def add_to_rain(session: AsyncSession, station: str, millimetres: int) -> int:
    """Change many rows alike, on the server; return how many."""
    statement = (
        update(Reading)
        .where(col(Reading.station) == station)
        .values(rain_mm=col(Reading.rain_mm) + millimetres)
    )
    return (await session.exec(statement)).rowcount


async def delete_readings_before(session: AsyncSession, day: dt.date) -> int:
    """Delete without loading; return how many. ORM cascades do not run, the database's do."""
    return (await session.exec(delete(Reading).where(col(Reading.day) < day))).rowcount
