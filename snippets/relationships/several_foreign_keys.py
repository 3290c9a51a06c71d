"""A fixture with a home club and an away club: two foreign keys to one table."""

from sqlmodel import Field, Relationship, SQLModel


class Club(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=50)
    home_fixtures: list["Fixture"] = Relationship(
        back_populates="home_club", sa_relationship_kwargs={"foreign_keys": "Fixture.home_club_id"}
    )
    away_fixtures: list["Fixture"] = Relationship(
        back_populates="away_club", sa_relationship_kwargs={"foreign_keys": "Fixture.away_club_id"}
    )


class Fixture(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    home_club_id: int = Field(default=None, foreign_key="club.id", index=True)
    away_club_id: int = Field(default=None, foreign_key="club.id", index=True)
    # The same foreign key on both ends of a pair; crossed ones are found by no check.
    home_club: Club = Relationship(
        back_populates="home_fixtures",
        sa_relationship_kwargs={"foreign_keys": "Fixture.home_club_id"},
    )
    away_club: Club = Relationship(
        back_populates="away_fixtures",
        sa_relationship_kwargs={"foreign_keys": "Fixture.away_club_id"},
    )
