"""What happens to the children of a deleted parent: the ORM and the database must agree on it."""

from collections.abc import Collection

from sqlmodel import Field, Relationship, SQLModel, col, delete
from sqlmodel.ext.asyncio.session import AsyncSession


class Crate(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    label: str = Field(max_length=50)
    # Owned: the database deletes what is not loaded, the ORM what is; a removed bottle is deleted.
    bottles: list["Bottle"] = Relationship(
        back_populates="crate", cascade_delete=True, passive_deletes=True
    )


class Bottle(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    content: str = Field(max_length=50)
    crate_id: int = Field(default=None, foreign_key="crate.id", ondelete="CASCADE", index=True)
    crate: Crate = Relationship(back_populates="bottles")


class Basket(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    label: str = Field(max_length=50)
    # Shared: apples stay, without a basket.
    apples: list["Apple"] = Relationship(back_populates="basket", passive_deletes=True)


class Apple(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    sort: str = Field(max_length=50)
    basket_id: int | None = Field(
        default=None, foreign_key="basket.id", ondelete="SET NULL", index=True
    )
    basket: Basket | None = Relationship(back_populates="apples")


class Cupboard(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    label: str = Field(max_length=50)
    # Protected: "all" keeps the ORM from detaching loaded plates, so that the database refuses.
    plates: list["Plate"] = Relationship(back_populates="cupboard", passive_deletes="all")


class Plate(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    pattern: str = Field(max_length=50)
    cupboard_id: int = Field(
        default=None, foreign_key="cupboard.id", ondelete="RESTRICT", index=True
    )
    cupboard: Cupboard = Relationship(back_populates="plates")


async def delete_crates(session: AsyncSession, crate_ids: Collection[int]) -> int:
    """Delete crates in one statement, bottles with them; return how many crates there were."""
    result = await session.exec(delete(Crate).where(col(Crate.id).in_(crate_ids)))
    # The session forgets the crates; bottles that the database deleted are still in it.
    for bottle in session.identity_map.values():
        # From its dict: an expired one would load itself.
        if isinstance(bottle, Bottle) and vars(bottle).get("crate_id") in crate_ids:
            session.expunge(bottle)
    return result.rowcount
