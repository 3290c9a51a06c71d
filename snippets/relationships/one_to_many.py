"""A shelf with jars, in a cellar: a foreign key on the many side, and an attribute on each side."""

from sqlmodel import Field, Relationship, SQLModel


class Cellar(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=50)
    shelves: list["Shelf"] = Relationship(
        back_populates="cellar", sa_relationship_kwargs={"order_by": "Shelf.id"}
    )


class Shelf(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    label: str = Field(max_length=50)
    cellar_id: int | None = Field(default=None, foreign_key="cellar.id", index=True)
    cellar: Cellar | None = Relationship(back_populates="shelves")
    jars: list["Jar"] = Relationship(
        back_populates="shelf", sa_relationship_kwargs={"order_by": "Jar.id"}
    )


class Jar(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    fruit: str = Field(max_length=50)
    grams: int = 300
    # NOT NULL, yet the type checker accepts Jar(shelf=shelf). Indexed, because every load of `jars`
    # searches it and only MariaDB does it unasked.
    shelf_id: int = Field(default=None, foreign_key="shelf.id", index=True)
    shelf: Shelf = Relationship(back_populates="jars")
