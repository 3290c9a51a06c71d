"""Three services that change what `ServiceBase` does: derived values, soft delete, tenants.

Each overrides one of its three methods `values_for_create`, `values_for_update` and `scope`, so
that every read and write follows, in bulk as well.
"""

import datetime as dt
import re
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel
from pydantic import Field as Limit
from sqlalchemy import ColumnElement, UniqueConstraint
from sqlmodel import Field, Relationship, SQLModel, col
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.models.soft_delete import SoftDeleteMixin, soft_delete
from snippets.models.timestamps import utc_now
from snippets.servicebase.filters import Condition
from snippets.servicebase.service import CreateT, ServiceBase, UpdateT

SoftT = TypeVar("SoftT", bound=SoftDeleteMixin)


class SoftDeleteService(ServiceBase[SoftT, CreateT, UpdateT], Generic[SoftT, CreateT, UpdateT]):
    """Marks rows instead of deleting them; a marked row does not exist for any other method.

    Its unique values stay taken: `create` and `upsert_many` raise ConflictError for them.
    """

    def scope(self) -> Sequence[ColumnElement[bool]]:
        return [col(self.model.deleted_at).is_(None)]

    async def delete(self, key: object) -> None:
        item = await self._locked(key, key_share=True)
        soft_delete(item)
        await self.session.flush()

    async def delete_where(
        self, *conditions: Condition, everything: bool = False, **filters: Any
    ) -> int:
        mark = {"deleted_at": utc_now()}
        return await self.update_where(*conditions, values=mark, everything=everything, **filters)


# Example: scaffold.py leaves out what follows.


class Label(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=80, unique=True)
    albums: list["Album"] = Relationship(back_populates="label")


class Album(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    title: str = Field(max_length=120, index=True)
    slug: str = Field(max_length=120, unique=True)
    released_on: dt.date | None = None
    label_id: int | None = Field(default=None, foreign_key="label.id", index=True)
    label: Label | None = Relationship(back_populates="albums")


class AlbumCreate(BaseModel):
    title: str = Limit(min_length=1, max_length=120)
    released_on: dt.date | None = None
    label_id: int | None = None


class AlbumUpdate(BaseModel):
    title: str = Limit(default="", min_length=1, max_length=120)  # may be left out, never null
    released_on: dt.date | None = None
    label_id: int | None = None


class AlbumService(ServiceBase[Album, AlbumCreate, AlbumUpdate]):
    """Derives a column: the slug follows the title, whichever method writes it."""

    filterable: ClassVar = {
        "title": {"eq", "icontains"},
        "label__name": {"eq", "in"},
    }
    sortable = ("title", "released_on")

    def values_for_create(self, data: AlbumCreate) -> dict[str, Any]:
        return _with_slug(super().values_for_create(data))

    def values_for_update(self, data: AlbumUpdate) -> dict[str, Any]:
        return _with_slug(super().values_for_update(data))


def _with_slug(values: dict[str, Any]) -> dict[str, Any]:
    if "title" in values:
        values["slug"] = re.sub(r"\W+", "-", values["title"].lower()).strip("-")
    return values


class Member(SoftDeleteMixin, table=True):
    id: int | None = Field(default=None, primary_key=True)
    email: str = Field(max_length=120, unique=True)
    name: str = Field(max_length=80)


class MemberCreate(BaseModel):
    email: str = Limit(max_length=120)
    name: str = Limit(max_length=80)


class MemberUpdate(BaseModel):
    name: str = Limit(default="", min_length=1, max_length=80)


class MemberService(SoftDeleteService[Member, MemberCreate, MemberUpdate]): ...


class Task(SQLModel, table=True):
    __table_args__ = (UniqueConstraint("club_id", "number"),)

    id: int | None = Field(default=None, primary_key=True)
    club_id: int
    number: int
    text: str = Field(max_length=200)
    done: bool = False


class TaskCreate(BaseModel):
    number: int
    text: str = Limit(max_length=200)


class TaskUpdate(BaseModel):
    text: str = Limit(default="", min_length=1, max_length=200)
    done: bool = False


class TaskService(ServiceBase[Task, TaskCreate, TaskUpdate]):
    """Serves one tenant: tasks of other clubs do not exist. No schema has `club_id`."""

    def __init__(self, session: AsyncSession, club_id: int) -> None:
        super().__init__(session)
        self.club_id = club_id

    def scope(self) -> Sequence[ColumnElement[bool]]:
        return [col(Task.club_id) == self.club_id]

    def values_for_create(self, data: TaskCreate) -> dict[str, Any]:
        return super().values_for_create(data) | {"club_id": self.club_id}
