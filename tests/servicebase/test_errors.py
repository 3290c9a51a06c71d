import asyncio
import datetime as dt
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import BaseModel
from servicebase import songs
from servicebase.songs import Artist, ArtistCreate, ArtistService, Song
from sqlalchemy.dialects.postgresql import ExcludeConstraint
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import Field, Relationship, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.async_operations.errors import DatabaseFailure, ErrorKind, classify
from snippets.models.enums_and_json import json_type
from snippets.servicebase import errors
from snippets.servicebase._constraints import columns_of
from snippets.servicebase._guard import update_is_safe
from snippets.servicebase.errors import (
    CheckFailedError,
    ConflictError,
    InvalidFilterError,
    InvalidValueError,
    MissingReferenceError,
    NotFoundError,
    RequiredValueError,
    StaleVersionError,
    StillReferencedError,
    ValueRangeError,
    WriteError,
    contained,
    write_error,
)
from snippets.servicebase.service import ServiceBase

Factory = async_sessionmaker[AsyncSession]
version = sa.Column("version", sa.Integer, nullable=False)


class Gig(SQLModel, table=True):
    __table_args__ = (
        sa.UniqueConstraint("hall", "night", name="gig_hall_night"),
        sa.CheckConstraint(sa.column("seats", sa.Integer) > 0, name="gig_seats"),
        sa.CheckConstraint("night > 0"),
        sa.Index("gig_ticket", "ticket", unique=True),
    )
    __mapper_args__ = {"version_id_col": version}

    id: int | None = Field(default=None, primary_key=True)
    hall: str = Field(max_length=10)
    night: int
    seats: int = 1
    ticket: str | None = Field(default=None, max_length=10)
    code: str | None = Field(default=None, max_length=10, unique=True)
    host_id: int | None = Field(default=None, foreign_key="artist.id")
    version: int | None = Field(default=None, sa_column=version)


class GigData(BaseModel):
    """Takes what the table does not, to see who says so."""

    hall: Any = "h"
    night: Any = 1
    seats: Any = 1
    ticket: Any = None
    code: Any = None
    host_id: Any = None


class GigChange(GigData): ...


class Poster(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    title: str | None = None
    words: str | None = Field(default=None, sa_type=sa.Text)
    price: Decimal | None = Field(default=None, max_digits=5, decimal_places=2)
    weight: float | None = None
    extra: dict[str, Any] | None = Field(default=None, sa_type=json_type())


class PosterData(BaseModel):
    title: str | None = None
    words: str | None = None
    price: Decimal | None = None
    weight: float | None = None
    extra: dict[str, Any] | None = None


class PosterService(ServiceBase[Poster, PosterData, PosterData]): ...


class Wall(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    nails: list["Nail"] = Relationship()


class Nail(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    wall_id: int | None = Field(default=None, foreign_key="wall.id", nullable=False)


class WallData(BaseModel): ...


class WallService(ServiceBase[Wall, WallData, WallData]): ...


class GigService(ServiceBase[Gig, GigData, GigChange]): ...


class Rental(SQLModel, table=True):
    """Rules over what no unique key, foreign key or CHECK names."""

    __table_args__ = (
        sa.Index(
            "rental_open",
            "plate",
            unique=True,
            postgresql_where=sa.text("returned_on IS NULL"),
            sqlite_where=sa.text("returned_on IS NULL"),
        ).ddl_if(dialect=("postgresql", "sqlite")),
    )

    id: int | None = Field(default=None, primary_key=True)
    plate: str = Field(max_length=10)
    returned_on: dt.date | None = None
    note: str | None = None
    tag: str = Field(default="", max_length=20)
    used_tag: str | None = Field(
        default=None,
        max_length=20,
        unique=True,
        sa_column_args=(sa.Computed("nullif(tag, '')", persisted=True),),
    )


class RentalData(BaseModel):
    plate: str = "OX 1"
    returned_on: dt.date | None = None
    tag: str = "red"


class RentalService(ServiceBase[Rental, RentalData, RentalData]): ...


class Closure(SQLModel, table=True):
    __table_args__ = (
        ExcludeConstraint((sa.text("int4range(first_day, last_day)"), "&&"), using="gist").ddl_if(
            "postgresql"
        ),
    )

    id: int | None = Field(default=None, primary_key=True)
    first_day: int
    last_day: int


class ClosureData(BaseModel):
    first_day: int = 1
    last_day: int = 3


class ClosureService(ServiceBase[Closure, ClosureData, ClosureData]): ...


class Wherry(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    class_: str = Field(sa_column=sa.Column("class", sa.String(10), unique=True, nullable=False))


class WherryData(BaseModel):
    class_: str | None


class WherryService(ServiceBase[Wherry, WherryData, WherryData]): ...


TABLES = [*songs.TABLES, Gig, Poster, Wall, Nail, Rental, Closure, Wherry]
REFUSED: list[tuple[dict[str, Any], type[WriteError], tuple[str, ...]]] = [
    ({}, ConflictError, ("hall", "night")),
    ({"night": 2, "ticket": "t"}, ConflictError, ("ticket",)),
    ({"night": 2, "code": "c"}, ConflictError, ("code",)),
    ({"night": 2, "host_id": 99}, MissingReferenceError, ("host_id",)),
    ({"night": 2, "hall": None}, RequiredValueError, ("hall",)),
    ({"night": 2, "seats": 0}, CheckFailedError, ("seats",)),
]


@pytest.fixture
async def gigs(session: AsyncSession) -> GigService:
    await GigService(session).create(GigData(ticket="t", code="c"))
    await session.commit()
    return GigService(session)


async def halls(session: AsyncSession) -> int:
    return (await session.exec(select(sa.func.count()).select_from(Gig))).one()


@pytest.mark.parametrize(("values", "kind", "columns"), REFUSED)
async def test_each_refusal_has_its_class_and_names_its_columns(
    gigs: GigService, values: dict[str, Any], kind: type[WriteError], columns: tuple[str, ...]
) -> None:
    """Every integrity error was "already exists", without columns on asyncpg since 2.1; CHECK on
    MariaDB, an OperationalError, was missed.
    """
    with pytest.raises(kind) as one:
        await gigs.create(GigData(**values))
    with pytest.raises(kind) as many:
        await gigs.create_many([GigData(hall="x"), GigData(**values)])

    for raised in (one.value, many.value):
        assert type(raised) is kind
        assert raised.model is Gig
        assert raised.columns == columns
        assert isinstance(raised.__cause__, sa.exc.DBAPIError)
        assert str(raised).startswith(f"Gig {kind.reason}: {', '.join(columns)}")
    assert await gigs.count() == 1


async def test_a_constraint_is_named_where_the_driver_names_it(
    gigs: GigService,
) -> None:
    with pytest.raises(ConflictError) as raised:
        await gigs.create(GigData())

    name = gigs.session.get_bind().dialect.name
    assert raised.value.constraint == (None if name == "sqlite" else "gig_hall_night")


@pytest.mark.not_on("sqlite", reason="SQLite has no lengths, and integers of 64 bits")
@pytest.mark.parametrize("values", [{"hall": "h" * 11}, {"night": 2**40}, {"hall": "h" * 300}])
async def test_what_does_not_fit_is_a_range_error(gigs: GigService, values: dict[str, Any]) -> None:
    with pytest.raises(ValueRangeError):
        await gigs.create(GigData(**{"night": 5} | values))
    with pytest.raises(ValueRangeError):
        await gigs.update(1, GigChange(**values))

    assert await gigs.count(hall="h") == 1


async def test_the_work_before_a_refused_write_stays_and_the_session_works(
    gigs: GigService, factory: Factory
) -> None:
    """A conflict rolled back the caller's work, or left the session unusable."""
    session = gigs.session
    artist = Artist(name="Kept")
    session.add(artist)
    changed = await gigs.get(1)
    changed.seats = 7

    for attempt in (
        gigs.create(GigData()),
        gigs.create_many([GigData(hall="x"), GigData()]),
        gigs.update_where(id=1, values={"host_id": 99}),
        gigs.update(1, GigChange(host_id=99)),
        gigs.upsert_many([GigData(hall="y", night=1, code="c")], on=("hall", "night")),
    ):
        with pytest.raises(WriteError):
            await attempt
    other = await gigs.create(GigData(night=2))
    await session.commit()

    assert (artist.name, changed.seats, other.night, changed.host_id) == ("Kept", 7, 2, None)
    async with factory() as fresh:
        assert (await fresh.get(Artist, artist.id)) is not None
        assert [g.seats for g in await GigService(fresh).list()] == [7, 1]


async def test_an_object_is_as_it_was_after_a_refused_update(gigs: GigService) -> None:
    gig = await gigs.get(1)

    with pytest.raises(MissingReferenceError):
        await gigs.update(1, GigChange(seats=50, host_id=99))

    assert (gig.seats, gig.host_id) == (1, None)


async def test_a_stale_version_is_told_and_the_object_has_the_new_one(
    gigs: GigService, factory: Factory
) -> None:
    gig = await gigs.get(1)
    await gigs.session.commit()
    async with factory() as other:
        await GigService(other).update(1, GigChange(seats=5))
        await other.commit()

    with pytest.raises(StaleVersionError, match="changed by somebody else"):
        await gigs.update(1, GigChange(seats=9))

    assert gig.seats in {1, 5}  # MariaDB's snapshot may be older
    await gigs.session.rollback()
    assert (await gigs.update(1, GigChange(seats=9))).version == 3


async def test_a_row_that_vanished_is_stale_too(gigs: GigService, factory: Factory) -> None:
    gig = await gigs.get(1)
    await gigs.session.commit()
    async with factory() as other:
        await GigService(other).delete(1)
        await other.commit()

    with pytest.raises(StaleVersionError):
        await gigs.update(gig.id, GigChange(seats=9))


async def test_a_row_that_is_referred_to_is_not_deleted(session: AsyncSession) -> None:
    artists = ArtistService(session)
    ana = await artists.create(ArtistCreate(name="Ana"))
    await GigService(session).create(GigData(host_id=ana.id))

    for attempt in (artists.delete(ana.id), artists.delete_where(id=ana.id)):
        with pytest.raises(StillReferencedError) as raised:
            await attempt
        assert raised.value.columns == ("id",)
        assert raised.value.model is Artist

    assert await artists.count() == 1


async def test_a_value_that_the_type_refuses_is_an_invalid_value(gigs: GigService) -> None:
    """On SQLite and asyncpg the flush raised a StatementError or DBAPIError of its own."""
    with pytest.raises((InvalidValueError, ValueRangeError, sa.exc.DBAPIError)):
        await gigs.create(GigData(night=2, hall=object()))

    assert await gigs.count() == 1


@pytest.mark.not_on("sqlite", reason="SQLite has one writer, and so no deadlock")
async def test_a_deadlock_stays_a_deadlock(gigs: GigService, factory: Factory) -> None:
    """Deadlocks and lock timeouts were reported as integrity errors; after one, MariaDB's
    savepoint is gone and the failed ROLLBACK TO hid it.
    """
    await gigs.create(GigData(night=2))
    await gigs.session.commit()
    locked = asyncio.Barrier(2)

    async def change(first: int, second: int) -> None:
        async with factory() as session:
            service = GigService(session)
            await service.update_where(id=first, values={"seats": 5})
            await locked.wait()
            await service.update_where(id=second, values={"seats": 6})
            await session.commit()

    results = await asyncio.gather(change(1, 2), change(2, 1), return_exceptions=True)

    (error,) = [result for result in results if result is not None]
    assert isinstance(error, sa.exc.DBAPIError)
    assert classify(error).kind is ErrorKind.DEADLOCK


async def test_a_savepoint_of_ones_own_holds_several_writes(gigs: GigService) -> None:
    with pytest.raises(ConflictError):
        async with contained(gigs.session, Gig):
            await gigs.create(GigData(night=8))
            await gigs.create(GigData())

    assert await gigs.count() == 1


async def test_an_error_of_ones_own_undoes_the_savepoint_and_stays(gigs: GigService) -> None:
    with pytest.raises(ZeroDivisionError):
        async with contained(gigs.session, Gig):
            await gigs.create(GigData(night=8))
            raise ZeroDivisionError

    assert await gigs.count() == 1


async def test_only_a_write_that_may_be_refused_pays_for_a_savepoint(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    savepoints = []
    begin_nested = AsyncSession.begin_nested

    def counting(self: AsyncSession) -> Any:
        savepoints.append(1)
        return begin_nested(self)

    monkeypatch.setattr(AsyncSession, "begin_nested", counting)
    songs_of = songs.SongService(session)
    song = await songs_of.create(songs.SongCreate(title="a"))
    before = len(savepoints)

    await songs_of.update(song.id, songs.SongUpdate(plays=5, title="b"))
    await songs_of.update_where(values={"plays": 6}, id=song.id)
    plain = len(savepoints) - before
    await songs_of.update(song.id, songs.SongUpdate(artist_id=None))
    await songs_of.update_where(values={"plays": 2**40 // 2**40}, id=song.id)
    await songs_of.update_where(values={"plays": sa.func.abs(Song.plays)}, id=song.id)

    assert (before, plain, len(savepoints)) == (1, 0, 3)


def test_other_failures_of_the_database_are_no_write_errors() -> None:
    class DriverError(Exception):
        sqlstate = "40001"

    assert write_error(sa.exc.DBAPIError("", None, DriverError()), Gig) is None


def test_the_tree_is_the_one_that_the_module_draws() -> None:
    assert errors.__doc__ is not None
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, errors.ServiceError):
            assert name in errors.__doc__
    assert str(NotFoundError(Gig, 5)) == "no Gig has the key 5"
    assert str(WriteError(Gig)) == "Gig was refused"


@pytest.mark.parametrize(
    ("kind", "constraint", "columns"),
    [
        (ErrorKind.UNIQUE, "gig_pkey", ("id",)),
        (ErrorKind.UNIQUE, "PRIMARY", ("id",)),
        (ErrorKind.UNIQUE, "gig_code_key", ("code",)),
        (ErrorKind.UNIQUE, "code", ("code",)),
        (ErrorKind.UNIQUE, "gig_ticket", ("ticket",)),
        (ErrorKind.FOREIGN_KEY, "gig_host_id_fkey", ("host_id",)),
        (ErrorKind.FOREIGN_KEY, None, ("host_id",)),
        (ErrorKind.CHECK, "gig_seats", ("seats",)),
        (ErrorKind.UNIQUE, "unheard_of", ()),
        (ErrorKind.CHECK, "gig_night_check", ()),
        (ErrorKind.UNIQUE, None, ()),
    ],
)
def test_columns_are_found_by_the_names_that_servers_make_up(
    kind: ErrorKind, constraint: str | None, columns: tuple[str, ...]
) -> None:
    assert columns_of(Gig, DatabaseFailure(kind, None, constraint, "gig", ())) == columns


class Rider(SQLModel, table=True):
    """Types that the other models do not have."""

    __table_args__ = (sa.CheckConstraint("fee > 0", name="rider_fee"),)

    id: int | None = Field(default=None, primary_key=True)
    fee: int = 1
    kind: str = Field(default="a", sa_type=sa.Enum("a", "b", name="rider_kind"))
    small: int | None = Field(default=None, sa_type=sa.SmallInteger)


class RiderService(ServiceBase[Rider, Rider, Rider]): ...


TABLES.append(Rider)


async def test_a_number_that_no_driver_can_send_is_a_range_error(session: AsyncSession) -> None:
    """SQLite's driver raised OverflowError, the others what their servers say."""
    with pytest.raises(ValueRangeError):
        await RiderService(session).create(Rider(fee=2**70))

    assert await RiderService(session).count() == 0


async def test_a_check_written_as_text_is_named(session: AsyncSession) -> None:
    with pytest.raises(CheckFailedError) as raised:
        await RiderService(session).create(Rider(fee=0))

    assert (raised.value.constraint, raised.value.columns) == ("rider_fee", ("fee",))


async def test_an_enum_of_texts_is_filtered_by_its_names(session: AsyncSession) -> None:
    service = RiderService(session)
    await service.create(Rider(small=2**15 - 1))

    assert (await service.count(kind="a"), await service.count(kind="b")) == (1, 0)
    assert (await service.count(small=2**15), await service.count(small__lt=2**15)) == (0, 1)
    with pytest.raises(InvalidFilterError, match="one of a, b expected, not 'c'"):
        await service.count(kind="c")


async def test_an_unknown_name_of_a_constraint_has_no_columns(session: AsyncSession) -> None:
    await session.exec(sa.text("CREATE UNIQUE INDEX unheard_of ON rider (small)"))
    await session.commit()
    service = RiderService(session)
    await service.create(Rider(small=1))

    with pytest.raises(ConflictError) as raised:
        await service.create(Rider(small=1))

    assert raised.value.columns in {("small",), ()}


async def test_a_text_that_has_no_encoding_is_refused(session: AsyncSession) -> None:
    with pytest.raises((InvalidValueError, sa.exc.DBAPIError)):
        await GigService(session).create(GigData(hall="\ud800"))

    assert await GigService(session).count() == 0


def test_a_check_on_the_changed_column_asks_for_a_savepoint() -> None:
    assert not update_is_safe(Rider, {"fee": 5})
    assert update_is_safe(Rider, {"small": 5})
    assert not update_is_safe(Rider, {"small": "5"})
    assert not update_is_safe(Rider, {"small": 2**15})
    assert not update_is_safe(Rider, {"kind": None})
    assert not update_is_safe(Gig, {"seats": 5})


@pytest.mark.only_on("sqlite", reason="SQLite has no lengths, and integers of 64 bits")
async def test_sqlite_takes_what_does_not_fit(gigs: GigService) -> None:
    gig = await gigs.create(GigData(hall="h" * 11, night=2**40))

    assert (len(gig.hall), gig.night) == (11, 2**40)


REFUSED_VALUES: list[tuple[dict[str, Any], str]] = [
    ({"price": Decimal("999.995")}, "sqlite"),  # NUMERIC(5, 2): rounded, it does not fit
    ({"price": Decimal(1000)}, "sqlite"),
    ({"weight": 1e39}, "sqlite postgresql"),  # FLOAT of MariaDB: four bytes
    ({"title": "x" * 256}, "sqlite postgresql"),  # a str without length is VARCHAR(255) there
    ({"words": "x" * 65536}, "sqlite postgresql"),
    ({"title": "a\x00b"}, "sqlite mysql"),
    ({"extra": {"a": "\x00"}}, "sqlite mysql"),
]


@pytest.mark.parametrize(("values", "taken_by"), REFUSED_VALUES)
async def test_a_refused_value_leaves_what_was_done_before(
    session: AsyncSession, values: dict[str, Any], taken_by: str
) -> None:
    database = session.get_bind().dialect.name
    service = PosterService(session)
    earlier = await service.create(PosterData(title="earlier"))
    refused = [
        service.create(PosterData(**values)),
        service.create_many([PosterData(**values)]),
        service.update(earlier.id, PosterData(**values)),
        service.update_where(id=earlier.id, values=PosterData(**values)),
    ]

    for write in refused:
        if database in taken_by:
            write.close()
            continue
        with pytest.raises((ValueRangeError, InvalidValueError)):
            await write

    assert [poster.title for poster in await service.list()] == ["earlier"]


async def test_a_parent_whose_children_may_not_be_without_it_is_still_referred_to(
    session: AsyncSession,
) -> None:
    """The ORM sets the keys of the children to NULL, which "lacks a required value" of Wall."""
    walls = WallService(session)
    wall = await walls.create(WallData())
    session.add(Nail(wall_id=wall.id))
    await session.flush()

    with pytest.raises(StillReferencedError) as caught:
        await walls.delete(wall.id)

    assert caught.value.columns == ("id",)
    assert await walls.count() == 1


async def test_the_unique_key_of_a_generated_column_refuses_one_write_and_leaves_the_earlier_ones(
    session: AsyncSession,
) -> None:
    """It had no savepoint: the transaction was lost."""
    rentals = RentalService(session)
    await rentals.create(RentalData())
    other = await rentals.create(RentalData(plate="OX 2", tag="blue"))

    with pytest.raises(ConflictError):
        await rentals.update(other.id, RentalData(tag="red"))
    with pytest.raises(ConflictError):
        await rentals.update_where(id=other.id, values={"tag": "red"})

    assert await rentals.count() == 2


@pytest.mark.only_on("postgresql", reason="the others have no EXCLUDE")
async def test_an_exclude_refuses_one_write_and_leaves_the_earlier_ones(
    session: AsyncSession,
) -> None:
    closures = ClosureService(session)
    await closures.create(ClosureData())
    other = await closures.create(ClosureData(first_day=3, last_day=5))

    with pytest.raises(ConflictError):
        await closures.update(other.id, ClosureData(first_day=2))
    with pytest.raises(ConflictError):
        await closures.update_where(id=other.id, values={"first_day": 2})

    assert await closures.count() == 2


@pytest.mark.not_on("mysql", reason="MariaDB has no partial indexes")
async def test_a_row_that_comes_back_into_a_partial_index_has_a_savepoint(
    session: AsyncSession,
) -> None:
    rentals = RentalService(session)
    gone = await rentals.create(RentalData(returned_on=dt.date(2026, 1, 2)))
    await rentals.create(RentalData(tag="blue"))

    with pytest.raises(ConflictError):
        await rentals.update(gone.id, RentalData(returned_on=None))

    assert await rentals.count() == 2


def test_what_a_rule_over_expressions_names_asks_for_a_savepoint() -> None:
    assert not update_is_safe(Rental, {"tag": "red"})
    assert not update_is_safe(Rental, {"returned_on": None})
    assert update_is_safe(Rental, {"note": "scratched"})
    assert not update_is_safe(Closure, {"first_day": 2})


async def test_a_refusal_names_the_field_where_its_column_has_another_name(
    session: AsyncSession,
) -> None:
    """Clients were told of `class`, which no schema has."""
    ferries = WherryService(session)
    await ferries.create(WherryData(class_="car"))

    for value, kind in (("car", ConflictError), (None, RequiredValueError)):
        with pytest.raises(kind) as caught:
            await ferries.create(WherryData(class_=value))
        assert caught.value.columns == ("class_",)
