from datetime import datetime

from sqlmodel import Field, SQLModel


class Person(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=50)
    email: str = Field(max_length=120, unique=True)
    # Both are new: the production database has neither.
    created_at: datetime
    role: str = Field(max_length=20)


class Address(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    person_id: int = Field(foreign_key="person.id", index=True)
    street: str = Field(max_length=100)
