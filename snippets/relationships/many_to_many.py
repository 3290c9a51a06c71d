"""Dishes and spices, linked by a table of two foreign keys."""

from sqlmodel import Field, Relationship, SQLModel


class DishSpice(SQLModel, table=True):
    dish_id: int | None = Field(
        default=None, foreign_key="dish.id", primary_key=True, ondelete="CASCADE"
    )
    # The primary key serves searches by dish; those by spice need their own index.
    spice_id: int | None = Field(
        default=None, foreign_key="spice.id", primary_key=True, ondelete="CASCADE", index=True
    )


class Dish(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=50)
    spices: list["Spice"] = Relationship(
        back_populates="dishes", link_model=DishSpice, passive_deletes=True
    )


class Spice(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=50, unique=True)
    dishes: list[Dish] = Relationship(
        back_populates="spices", link_model=DishSpice, passive_deletes=True
    )
