from typing import TYPE_CHECKING

from sqlmodel import Field, Relationship, SQLModel

if TYPE_CHECKING:  # at run time this would be a circle
    from snippets.models.model_modules.consignments import Consignment


class Consignee(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=100)

    consignments: list["Consignment"] = Relationship(back_populates="consignee")
