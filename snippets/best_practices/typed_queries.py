"""Types that a checker follows from the statement to the value."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import ScalarResult
from sqlmodel import SQLModel, col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from snippets.best_practices.query_plans import Letter

ModelT = TypeVar("ModelT", bound=SQLModel)


async def first_rows(
    session: AsyncSession, statement: SelectOfScalar[ModelT], number: int
) -> Sequence[ModelT]:
    """Take a statement of any model and keep its type."""
    result: ScalarResult[ModelT] = await session.exec(statement.limit(number))
    return result.all()


def saved_id(row: Any) -> int:
    """Return the id of a flushed row, which its type says may be None.

    Raises:
        ValueError: the row was never flushed.
    """
    key: int | None = row.id
    if key is None:
        raise ValueError(f"{type(row).__name__} has no id yet: flush before")
    return key


# Example: scaffold.py leaves out what follows.


class TownCount(NamedTuple):
    town: str
    letters: int


async def letters_per_town(session: AsyncSession) -> list[TownCount]:
    """Name the columns of a row once, where they are selected."""
    number = func.count(col(Letter.id))
    statement = select(Letter.town, number).group_by(Letter.town).order_by(Letter.town)
    return [TownCount(*row) for row in await session.exec(statement)]
