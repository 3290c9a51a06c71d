import pytest
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.best_practices.query_plans import Letter
from snippets.best_practices.testing import new_letter
from snippets.best_practices.typed_queries import (
    TownCount,
    first_rows,
    letters_per_town,
    saved_id,
)

TABLES = [Letter]


async def test_rows_have_names(session: AsyncSession) -> None:
    for town in ("Oslo", "Bergen", "Oslo"):
        await new_letter(session, town=town)

    assert await letters_per_town(session) == [
        TownCount(town="Bergen", letters=1),
        TownCount(town="Oslo", letters=2),
    ]


async def test_a_statement_of_any_model_is_cut(session: AsyncSession) -> None:
    letters = [await new_letter(session) for _ in range(3)]

    found = await first_rows(session, select(Letter).order_by(Letter.code), 2)

    assert list(found) == letters[:2]


async def test_the_id_of_a_saved_row_is_a_number(session: AsyncSession) -> None:
    letter = Letter(code="L", town="Oslo")
    with pytest.raises(ValueError, match="Letter has no id yet: flush before"):
        saved_id(letter)

    session.add(letter)
    await session.flush()

    assert saved_id(letter) == letter.id
