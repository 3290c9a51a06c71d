import subprocess
import sys

import pytest
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import configure_mappers, registry, selectinload
from sqlmodel import Field, Relationship, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.models.model_modules import Consignee, Consignment

TABLES = [Consignee, Consignment]


async def test_models_of_two_files_relate_to_each_other(session: AsyncSession) -> None:
    consignee = Consignee(name="ann", consignments=[Consignment(contents="tea")])
    session.add(consignee)
    await session.commit()
    session.expunge_all()

    to_many = select(Consignee).options(selectinload(Consignee.consignments))  # type: ignore[arg-type]
    to_one = select(Consignment).options(selectinload(Consignment.consignee))  # type: ignore[arg-type]

    assert (await session.exec(to_many)).one().consignments[0].contents == "tea"
    found = (await session.exec(to_one)).one().consignee
    assert found is not None
    assert found.name == "ann"


def test_all_relationships_find_their_target() -> None:
    configure_mappers()


class Apart(SQLModel, registry=registry()):
    """Keeps the broken relationships below out of everybody's `configure_mappers`."""


def test_an_annotation_that_is_all_text_is_not_understood() -> None:
    class Lorry(Apart, table=True):
        id: int | None = Field(default=None, primary_key=True)
        # What `from __future__ import annotations` makes of list["LorryLoad"].
        loads: "list[LorryLoad]" = Relationship()

    class LorryLoad(Apart, table=True):
        id: int | None = Field(default=None, primary_key=True)
        lorry_id: int | None = Field(default=None, foreign_key="lorry.id")

    try:
        with pytest.raises(InvalidRequestError, match="seems to be using a generic class"):
            Lorry()
    finally:
        Apart._sa_registry.dispose()


def test_a_union_with_none_can_not_be_quoted_as_a_whole() -> None:
    class Tanker(Apart, table=True):
        id: int | None = Field(default=None, primary_key=True)

    class TankerLoad(Apart, table=True):
        id: int | None = Field(default=None, primary_key=True)
        tanker_id: int | None = Field(default=None, foreign_key="tanker.id")
        tanker: "Tanker | None" = Relationship()

    try:
        with pytest.raises(InvalidRequestError, match=r"'Tanker \| None' failed to locate a name"):
            TankerLoad()
    finally:
        Apart._sa_registry.dispose()


@pytest.mark.parametrize("first", ["consignees", "consignments"])
def test_any_file_may_be_imported_first(first: str) -> None:
    code = (
        f"import snippets.models.model_modules.{first}\n"
        "from sqlalchemy.orm import configure_mappers\nconfigure_mappers()"
    )

    subprocess.run([sys.executable, "-c", code], check=True)
