"""Models with a column of each kind, and forty rows that are hard to filter, sort and page."""

import datetime as dt
import enum
import itertools
import uuid
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy.dialects import mysql
from sqlmodel import Field, Relationship, SQLModel

from snippets.servicebase.service import ServiceBase


class Mood(enum.Enum):
    calm = "c"
    wild = "w"
    blue = "b"


def exact_text(length: int) -> Any:
    """Text that every database compares by code point."""
    return (
        sa.String(length)
        .with_variant(sa.String(length, collation="C"), "postgresql")
        .with_variant(mysql.VARCHAR(length, collation="utf8mb4_nopad_bin"), "mysql", "mariadb")
    )


class Artist(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=40, sa_type=exact_text(40), unique=True)
    mentor_id: int | None = Field(default=None, foreign_key="artist.id")
    mentor: "Artist" = Relationship(
        back_populates="pupils", sa_relationship_kwargs={"remote_side": "Artist.id"}
    )
    pupils: list["Artist"] = Relationship(back_populates="mentor")
    songs: list["Song"] = Relationship(back_populates="artist")


class SongGuest(SQLModel, table=True):
    song_id: int = Field(foreign_key="song.id", primary_key=True)
    artist_id: int = Field(foreign_key="artist.id", primary_key=True)


class Song(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    title: str | None = Field(default=None, sa_type=exact_text(60))
    alias: str | None = Field(default=None, max_length=60)  # the database's own collation
    plays: int | None = None
    copies: int = Field(default=0, sa_type=sa.BigInteger)
    price: Decimal | None = Field(default=None, max_digits=6, decimal_places=2)
    tempo: float | None = Field(default=None, sa_type=sa.Double)
    swing: float | None = None  # FLOAT: four bytes on MariaDB
    live: bool | None = None
    recorded_at: dt.datetime | None = Field(default=None, sa_type=sa.DateTime(timezone=True))
    released_on: dt.date | None = None
    starts_at: dt.time | None = None
    code: uuid.UUID | None = None
    mood: Mood | None = None
    extra: dict[str, Any] | None = Field(default=None, sa_type=sa.JSON(none_as_null=True))
    noted_at: dt.datetime | None = Field(
        default=None, sa_type=sa.DateTime, sa_column_kwargs={"server_default": sa.func.now()}
    )
    artist_id: int | None = Field(default=None, foreign_key="artist.id")
    artist: Artist | None = Relationship(back_populates="songs")
    guests: list[Artist] = Relationship(link_model=SongGuest)


TABLES = [Artist, Song, SongGuest]


class SongCreate(BaseModel):
    title: str | None = None
    plays: int | None = None
    copies: int = 0
    artist_id: int | None = None


class SongUpdate(BaseModel):
    title: str | None = None
    plays: int | None = None
    copies: int = 0
    artist_id: int | None = None


class SongService(ServiceBase[Song, SongCreate, SongUpdate]):
    pass


class ArtistCreate(BaseModel):
    name: str
    mentor_id: int | None = None


class ArtistService(ServiceBase[Artist, ArtistCreate, ArtistCreate]):
    pass


TITLES = [
    None, "", "a", "A", "b", "aa", "a ", " a", "100%", "100 Sure", "a_b", "aXb", "a\\b", "a\\%",
    "a/b", "%", "_", "\\", "é", "É", "ß", "ü", "😀", "😀a", "𝄞", "'; --", '"a"', "null",
]  # fmt: skip
PLAYS = [None, 0, -1, 1, 2, 2**31 - 1, -(2**31), 7]
PRICES = [
    None,
    Decimal(0),
    Decimal("1.00"),
    Decimal("1.01"),
    Decimal("-9999.99"),
    Decimal("9999.99"),
]
TEMPOS = [None, 0.0, 0.1, 0.30000000000000004, 1e300, -1.5]
MOMENTS = [None, *(dt.datetime(2026, 1, d, 12, tzinfo=dt.UTC) for d in (1, 2, 3))]
DATES = [None, dt.date(1, 1, 1), dt.date(2026, 2, 28), dt.date(9999, 12, 31)]
TIMES = [None, dt.time(0), dt.time(23, 59, 59)]
CODES = [None, *(uuid.UUID(int=n) for n in (0, 1, 2**127, 2**128 - 1))]
LIVE = [None, True, False]
MOODS = [None, *Mood]
ARTISTS = [None, 1, 2, 3]


def nasty_rows(count: int = 42) -> list[dict[str, Any]]:
    """Rows in which every field repeats at a pace of its own, so that all pairs meet."""
    pools = {
        "title": TITLES, "alias": TITLES, "plays": PLAYS, "price": PRICES, "tempo": TEMPOS,
        "swing": TEMPOS[:4], "live": LIVE, "recorded_at": MOMENTS, "released_on": DATES,
        "starts_at": TIMES, "code": CODES, "mood": MOODS, "artist_id": ARTISTS,
    }  # fmt: skip
    streams = {name: itertools.cycle(pool) for name, pool in pools.items()}
    rows = [{"id": n} | {k: next(s) for k, s in streams.items()} for n in range(1, count + 1)]
    return [row | {"copies": 2**62 if row["id"] % 2 else -(2**63)} for row in rows]


ARTIST_ROWS = [
    {"id": 1, "name": "Ana", "mentor_id": None},
    {"id": 2, "name": "Bo", "mentor_id": 1},
    {"id": 3, "name": "Cy%", "mentor_id": 2},
    {"id": 4, "name": "Di", "mentor_id": 1},
]


def _without_id(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "id"}


async def store_nasty_rows(session: Any, count: int = 42) -> list[dict[str, Any]]:
    rows = nasty_rows(count)
    # Without their ids, which the databases then count in the same way.
    session.add_all([Artist(**_without_id(row)) for row in ARTIST_ROWS])
    await session.flush()
    plain = [_without_id(row) for row in rows]
    await session.exec(sa.insert(Song), params=plain, execution_options={"render_nulls": True})
    await session.exec(
        sa.insert(SongGuest),
        params=[{"song_id": n, "artist_id": 1 + n % 4} for n in range(1, count + 1, 3)],
    )
    await session.commit()
    return rows
