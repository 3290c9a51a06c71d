from typing import TYPE_CHECKING, Optional

from sqlmodel import Field, Relationship, SQLModel

if TYPE_CHECKING:
    from snippets.models.model_modules.consignees import Consignee


class Consignment(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    contents: str = Field(max_length=100)
    # The table's name, not the class: needs no import.
    consignee_id: int | None = Field(default=None, foreign_key="consignee.id", index=True)

    # SQLModel can't read "Consignee | None".
    consignee: Optional["Consignee"] = Relationship(back_populates="consignments")
