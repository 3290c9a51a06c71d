"""A person with at most one passport, whose primary key is the person's."""

from typing import Optional

from sqlmodel import Field, Relationship, SQLModel


class Person(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=50)
    # No `list` in the annotation makes it scalar; `"Passport | None"` in quotes is not understood.
    passport: Optional["Passport"] = Relationship(back_populates="person", cascade_delete=True)


class Passport(SQLModel, table=True):
    # A key that is also the foreign key: the database refuses a second one, and replacing the
    # passport is one UPDATE.
    person_id: int | None = Field(
        default=None, foreign_key="person.id", primary_key=True, ondelete="CASCADE"
    )
    number: str = Field(max_length=20)
    person: Person = Relationship(back_populates="passport")
