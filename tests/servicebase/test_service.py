import asyncio
import datetime as dt
import gc
import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import aclosing
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
import sqlalchemy as sa
from pydantic import BaseModel
from servicebase import songs
from servicebase.songs import (
    Artist,
    ArtistCreate,
    ArtistService,
    Mood,
    Song,
    SongCreate,
    SongGuest,
    SongService,
    SongUpdate,
)
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

from snippets.database_setup.session import session_scope
from snippets.servicebase.errors import (
    InvalidFilterError,
    InvalidPageError,
    InvalidValueError,
    NotFoundError,
    StaleVersionError,
    UnfilteredWriteError,
)
from snippets.servicebase.filters import not_
from snippets.servicebase.service import ServiceBase

VERSION = sa.Column("version", sa.Integer, nullable=False)
SHOUT = sa.column("note", sa.String).concat(sa.literal("!", literal_execute=True))


class GuestService(ServiceBase[SongGuest, SongGuest, SongGuest]): ...


class Remix(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=20)
    plays: int = 3
    touched_at: dt.datetime | None = Field(
        default=None,
        sa_type=songs.Song.__table__.c.recorded_at.type,
        sa_column_kwargs={"onupdate": lambda: dt.datetime(2026, 5, 5, tzinfo=dt.UTC)},
    )


class RemixCreate(BaseModel):
    id: int | None = None
    name: str
    plays: int | None = None


class RemixService(ServiceBase[Remix, RemixCreate, RemixCreate]): ...


class Slogan(SQLModel, table=True):
    band: str = Field(primary_key=True, max_length=20)
    text: str = Field(max_length=20)
    version: int | None = Field(default=None, sa_column=VERSION)

    __mapper_args__: ClassVar = {"version_id_col": VERSION}


class SloganData(BaseModel):
    band: str
    text: str


class SloganService(ServiceBase[Slogan, SloganData, SloganData]): ...


class Venue(SQLModel, table=True):
    name: str = Field(primary_key=True, max_length=20)
    note: str = Field(max_length=20)
    shout: str | None = Field(
        default=None, sa_column=sa.Column(sa.String(21), sa.Computed(SHOUT, persisted=True))
    )


class VenueData(BaseModel):
    name: str
    note: str


class VenueService(ServiceBase[Venue, VenueData, VenueData]): ...


class NorthernVenueService(VenueService):
    def scope(self) -> Sequence[sa.ColumnElement[bool]]:
        return [col(Venue.name) != "South"]


TABLES = [*songs.TABLES, Remix, Slogan, Venue]
Factory = async_sessionmaker[AsyncSession]
ROWS = songs.nasty_rows()
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
async def service(session: AsyncSession) -> SongService:
    await songs.store_nasty_rows(session)
    return SongService(session)


@pytest.fixture
async def free(service: SongService) -> SongService:
    """The rows, with no other table that keeps them from being deleted."""
    await GuestService(service.session).delete_where(everything=True)
    return service


async def test_get_finds_by_key_and_sends_nothing_for_a_loaded_object(
    service: SongService, statements: StatementLog
) -> None:
    song = await service.get(3)
    again = await service.get(3)

    assert (song.id, again) == (3, song)
    assert statements.count <= 1 + 7  # those of the fixture
    statements.clear()
    assert await service.get(3) is song
    assert statements.count == 0


async def test_get_reads_one_row(service: SongService, statements: StatementLog) -> None:
    """get() without LIMIT read all matches."""
    statements.clear()

    song = await service.get(3, load=["artist"])
    first = await service.find(id__gt=3, order_by="-id")

    assert song.artist is not None
    assert first is not None
    assert first.id == 42
    assert statements.count == 2
    assert all("LIMIT" in text for text in statements.texts)


@pytest.mark.parametrize("key", [0, 99, -5, 2**31, 2**70, -(2**70)])
async def test_a_key_that_no_row_has_is_not_found(session: AsyncSession, key: int) -> None:
    service = SongService(session)

    for attempt in (
        service.get(key),
        service.update(key, SongUpdate(plays=1)),
        service.delete(key),
    ):
        with pytest.raises(NotFoundError, match=f"no Song has the key {key}") as raised:
            await attempt
        assert (raised.value.model, raised.value.key) == (Song, key)


@pytest.mark.parametrize("key", [None, "1", "1 OR 1=1", True, 1.0, (1, 2), {}, {"title": 1}, []])
async def test_a_key_of_a_wrong_type_raises_before_any_statement(key: Any) -> None:
    with pytest.raises(InvalidFilterError, match="key of Song: "):
        await SongService(AsyncSession()).get(key)


async def test_a_key_of_several_columns_is_a_tuple_or_a_dict(service: SongService) -> None:
    guests = GuestService(service.session)

    one = await guests.get((1, 2))
    same = await guests.get({"artist_id": 2, "song_id": 1}, strict=True)

    assert one is same
    with pytest.raises(InvalidFilterError, match="2 values expected: song_id, artist_id"):
        await guests.get(1)
    with pytest.raises(NotFoundError):
        await guests.get((1, 2**40))


async def test_find_returns_none_when_nothing_matches(service: SongService) -> None:
    assert await service.find(id=99) is None


async def test_exists_stops_at_the_first_row(
    service: SongService, statements: StatementLog
) -> None:
    """exists() counted all rows."""
    statements.clear()

    assert await service.exists()
    assert not await service.exists(id=99)
    assert all("count" not in text.lower() and "LIMIT" in text for text in statements.texts)


async def test_a_stream_holds_one_batch_at_a_time_and_may_be_left(
    service: SongService, statements: StatementLog
) -> None:
    statements.clear()
    most = 0
    listed = [song.id for song in await service.list(order_by="-plays")]
    service.session.expunge_all()
    statements.clear()

    seen = []
    async for song in service.stream(batch=10, order_by="-plays"):
        seen.append(song.id)
        gc.collect(0)
        most = max(most, len(service.session.identity_map))
    async with aclosing(service.stream(batch=5)) as stream:
        async for song in stream:
            await service.update(song.id, SongUpdate(plays=1))
            await service.session.commit()
            break

    assert seen == listed
    assert most <= 22
    assert statements.count == 5 + 1 + 2  # the update reads its row anew, and locks it


async def test_a_stream_needs_a_batch_and_can_be_empty(service: SongService) -> None:
    assert [song async for song in service.stream(id=99)] == []
    assert len([song async for song in service.stream(batch=42)]) == 42
    with pytest.raises(InvalidPageError, match="limit=0"):
        _ = [song async for song in service.stream(batch=0)]


async def test_aggregates_are_the_same_numbers_everywhere(
    service: SongService, statements: StatementLog
) -> None:
    statements.clear()
    by_live = await service.aggregate(
        compute={
            "songs": "count", "plays": "sum:plays", "mean": "avg:plays", "price": "avg:price",
            "spent": "sum:price", "moods": "count_distinct:mood", "first": "min:recorded_at",
            "top": "max:plays", "played": "count:plays", "tempo": "sum:tempo",
        },
        by="live",
        id__lte=12,
    )  # fmt: skip

    assert statements.count == 1
    assert [group["live"] for group in by_live] == [False, True, None]
    rows = [row for row in ROWS[:12] if row["live"] is True]
    plays = [row["plays"] for row in rows if row["plays"] is not None]
    prices = [row["price"] for row in rows if row["price"] is not None]
    group = by_live[1]
    assert group["songs"] == 4
    assert (group["plays"], type(group["plays"])) == (sum(plays), int)
    assert (group["mean"], type(group["mean"])) == (pytest.approx(sum(plays) / len(plays)), float)
    assert type(group["price"]) is Decimal
    assert group["price"] == pytest.approx(sum(prices) / len(prices))
    assert group["spent"] == pytest.approx(sum(prices))
    assert (group["top"], group["played"]) == (max(plays), len(plays))


async def test_aggregates_without_groups_and_rows(service: SongService) -> None:
    assert await service.aggregate(compute={"n": "count", "sum": "sum:plays"}, id=99) == [
        {"n": 0, "sum": None}
    ]
    assert await service.aggregate(compute={}, by=("live", "mood"), id=2) == [
        {"live": True, "mood": Mood.calm}
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compute": {"n": "median:plays"}}, "'median:plays' is no aggregate; use count, avg:fi"),
        ({"compute": {"n": "sum"}}, "'sum' is no aggregate"),
        ({"compute": {"n": "sum:playz"}}, "Song has no field 'playz'; it has alias"),
        ({"compute": {"n": "sum:title"}}, "sum:title: title is no number"),
        ({"compute": {"n": "count"}, "by": "artist"}, "Song has no field 'artist'"),
        ({"compute": {"n": "count"}, "by": ["live", "x"]}, "Song has no field 'x'"),
    ],
)
async def test_unknown_aggregates_raise(options: Any, message: str) -> None:
    with pytest.raises(InvalidFilterError, match=message):
        await SongService(AsyncSession()).aggregate(**options)


async def test_create_flushes_and_leaves_the_commit_to_the_caller(
    session: AsyncSession, factory: Factory
) -> None:
    """create with a commit flag never flushed."""
    song = await SongService(session).create(SongCreate(title="new"))

    assert song.id is not None
    assert (song.title, song.copies, song.live) == ("new", 0, None)
    await session.rollback()
    assert await SongService(session).count() == 0


async def test_a_none_that_nobody_set_leaves_room_for_defaults(session: AsyncSession) -> None:
    """An optional id in the schema was sent as id=NULL."""
    service = RemixService(session)

    one = await service.create(RemixCreate(name="a"))
    many = await service.create_many([RemixCreate(name="b"), RemixCreate(name="c", plays=7)])

    assert [remix.plays for remix in (one, *many)] == [3, 3, 7]
    assert len({one.id, *(remix.id for remix in many)}) == 3


async def test_update_changes_what_was_set_and_nothing_else(
    service: SongService, statements: StatementLog
) -> None:
    """A partial update overwrote unset columns with defaults."""
    before = await service.get(9)
    price, title = before.price, before.title
    await service.update(9, SongUpdate(plays=5, copies=4))
    service.session.expunge_all()
    statements.clear()

    song = await service.update(9, SongUpdate(plays=None))

    assert (song.plays, song.copies, song.price, song.title) == (None, 4, price, title)
    assert statements.count == 2
    assert "copies" not in statements.texts[1]


async def test_an_empty_update_sends_nothing_but_the_select(
    service: SongService, statements: StatementLog
) -> None:
    """An empty update produced broken SQL."""
    statements.clear()

    song = await service.update(1, SongUpdate())

    assert song.id == 1
    assert await service.update_where(values=SongUpdate(), id=1) == 0
    assert statements.count == 1


async def test_update_where_changes_the_matches_and_the_loaded_objects(
    service: SongService, statements: StatementLog
) -> None:
    """update, then the query by the old filter, returned nothing."""
    loaded = await service.get(2)
    statements.clear()

    changed = await service.update_where(title__in=["", "a"], values=SongUpdate(title="new"))

    assert changed == len([row for row in ROWS if row["title"] in {"", "a"}])
    assert loaded.title == "new"
    assert statements.count == 2
    assert await service.count(title="new") == changed


async def test_update_where_takes_expressions_and_relationships(service: SongService) -> None:
    loaded = await service.get(2)

    changed = await service.update_where(
        artist__mentor__name="Ana", values={"copies": 5, "plays": col(Song.id) + 100}
    )
    own = await service.update_where(
        col(Song.artist_id) == 1, guests__name="Cy%", values={"copies": 6}
    )

    assert changed == len([row for row in ROWS if row["artist_id"] == 2])
    assert (await service.get(3)).plays == 103
    assert own == await service.count(copies=6)
    assert loaded.copies in {6, -(2**63)}


async def test_update_where_runs_onupdate_and_shows_it(session: AsyncSession) -> None:
    service = RemixService(session)
    remix = await service.create(RemixCreate(name="a"))

    await service.update_where(values={"plays": 9}, name="a")

    assert remix.plays == 9
    assert remix.touched_at is not None
    assert remix.touched_at.day == 5


async def test_without_loaded_objects_a_bulk_write_is_one_statement(
    free: SongService, statements: StatementLog
) -> None:
    free.session.expunge_all()
    statements.clear()

    await free.update_where(id__lt=10, values={"plays": 5})
    await free.delete_where(id__lt=10)

    assert statements.count == 2
    assert await free.count() == 33


async def test_what_sql_and_python_compare_differently_ends_as_the_database_says(
    session: AsyncSession,
) -> None:
    session.add(Song(alias="ROCK", plays=0))
    await session.flush()
    service = SongService(session)
    (song,) = await service.list()

    changed = await service.update_where(alias="rock", values={"plays": 1})

    assert changed == (1 if session.get_bind().dialect.name == "mysql" else 0)
    assert song.plays == changed


async def test_delete_removes_the_row_and_the_object(free: SongService) -> None:
    song = await free.get(1)

    await free.delete(1)

    assert song not in free.session
    assert await free.count() == 41


class ScopedSongs(SongService):
    def scope(self) -> list[sa.ColumnElement[bool]]:
        return [col(Song.id) > 0]


class PlayedService(RemixService):
    """Serves what was played."""

    def scope(self) -> list[sa.ColumnElement[bool]]:
        return [col(Remix.plays) > 0]


no_row_locks = pytest.mark.not_on("sqlite", reason="it has one writer at a time, and no row locks")
services = pytest.mark.parametrize("service_class", [RemixService, PlayedService])


async def new_remix(factory: Factory) -> int:
    async with session_scope(factory) as session:
        return (await RemixService(session).create(RemixCreate(name="dub"))).id or 0


async def stored_remix(factory: Factory, key: int | None) -> Remix:
    async with factory() as session:
        return await RemixService(session).get(key)


@no_row_locks
@services
async def test_of_two_that_delete_a_row_one_does(
    factory: Factory, service_class: type[RemixService]
) -> None:
    key = await new_remix(factory)
    seen = asyncio.Barrier(2)

    async def delete() -> None:
        async with session_scope(factory) as session:
            service = service_class(session)
            await service.get(key)
            await seen.wait()  # both have seen it
            await service.delete(key)
            await asyncio.sleep(0.1)  # the other one waits for the lock

    async with asyncio.timeout(60):
        results = await asyncio.gather(delete(), delete(), return_exceptions=True)

    assert sorted(type(result).__name__ for result in results) == ["NoneType", "NotFoundError"]


@no_row_locks
@services
async def test_a_row_that_somebody_else_has_deleted_is_not_found_and_earlier_work_stays(
    factory: Factory, service_class: type[RemixService]
) -> None:
    key = await new_remix(factory)
    async with session_scope(factory) as session:
        service = service_class(session)
        loaded = await service.get(key)
        kept = await service.create(RemixCreate(name="kept"))
        async with session_scope(factory) as other:
            await RemixService(other).delete(key)

        with pytest.raises(NotFoundError):
            await service.update(loaded.id, RemixCreate(name="late"))
        with pytest.raises(NotFoundError):
            await service.delete(key)

    assert (await stored_remix(factory, kept.id)).name == "kept"


@no_row_locks
@services
async def test_an_update_writes_what_was_set_whatever_the_object_has(
    factory: Factory, service_class: type[RemixService]
) -> None:
    key = await new_remix(factory)
    async with session_scope(factory) as session:
        service = service_class(session)
        item = await service.get(key)
        async with session_scope(factory) as other:
            await RemixService(other).update(key, RemixCreate(name="theirs", plays=7))

        changed = await service.update(key, RemixCreate(name="dub"))  # as it was loaded

        assert changed is item
        assert item.plays == 7
    assert (await stored_remix(factory, key)).name == "dub"


@services
async def test_relationships_that_are_loaded_stay_loaded(
    service: SongService, service_class: type[RemixService]
) -> None:
    song = await service.get(2, load=[Song.artist])
    assert song.artist is not None
    name = song.artist.name

    songs_service = service if service_class is RemixService else ScopedSongs(service.session)
    assert await songs_service.update(2, SongUpdate(plays=77)) is song

    assert song.plays == 77
    assert song.artist.name == name


@pytest.mark.only_on("postgresql", reason="the others have one kind of lock for writers")
async def test_children_are_added_while_the_parent_is_updated(
    free: SongService, factory: Factory
) -> None:
    artist = await ArtistService(free.session).create(ArtistCreate(name="Nina"))
    await free.session.commit()

    await ArtistService(free.session).update(artist.id, ArtistCreate(name="Nina", mentor_id=1))
    async with session_scope(factory) as other:  # a wait for a lock would be an error, in seconds
        other.add(Song(title="new", artist_id=artist.id))
        await other.flush()
        await other.rollback()


@services
async def test_what_the_caller_has_not_flushed_is_saved_with_the_update(
    factory: Factory, service_class: type[RemixService]
) -> None:
    key = await new_remix(factory)
    async with session_scope(factory) as session:
        session.sync_session.autoflush = False
        item = await service_class(session).get(key)
        item.plays = 9
        await service_class(session).update(key, RemixCreate(name="both"))

    stored = await stored_remix(factory, key)
    assert (stored.name, stored.plays) == ("both", 9)


async def test_delete_where_forgets_the_objects_that_it_deleted(free: SongService) -> None:
    first, last = await free.get(1), await free.get(42)

    assert await free.delete_where(id__lt=10) == 9

    assert first not in free.session
    assert last in free.session
    with pytest.raises(NotFoundError):
        await free.get(1)


async def test_objects_with_a_key_of_several_columns_follow_a_bulk_delete(
    service: SongService,
) -> None:
    guests = GuestService(service.session)
    one, other = await guests.get((1, 2)), await guests.get((4, 1))

    await guests.delete_where(artist_id=2)

    assert (one in service.session, other in service.session) == (False, True)


UNFILTERED: list[Any] = [
    {}, {"id__not_in": []}, {"id__gt": -(2**40)}, {"id__is_null": False}, {"id__ne": 2**70},
]  # fmt: skip


@pytest.mark.parametrize("filters", UNFILTERED)
async def test_a_write_that_nothing_limits_is_refused(filters: dict[str, Any]) -> None:
    """A delete without filter emptied the table; so did one whose filter was dropped."""
    service = SongService(AsyncSession())

    with pytest.raises(UnfilteredWriteError, match="everything=True"):
        await service.delete_where(**filters)
    with pytest.raises(UnfilteredWriteError, match="some rows of Song"):
        await service.update_where(values={"plays": 1}, **filters)
    with pytest.raises(UnfilteredWriteError):
        await service.delete_where(not_(id__in=[]))


async def test_everything_is_said_to_write_everything(free: SongService) -> None:
    assert await free.update_where(values={"plays": 1}, everything=True) == 42
    assert await free.delete_where(everything=True) == 42
    assert await free.count() == 0


@pytest.mark.parametrize("filters", [{"titel": "a"}, {"title__foo": "a"}, {"artist__x": 1}])
async def test_a_wrong_filter_never_reaches_the_table(filters: dict[str, Any]) -> None:
    """An unknown field was ignored, so that a filtered delete hit the whole table."""
    service = SongService(AsyncSession())

    with pytest.raises(InvalidFilterError):
        await service.delete_where(**filters)
    with pytest.raises(InvalidFilterError):
        await service.delete_where(everything=True, **filters)
    with pytest.raises(InvalidFilterError):
        await service.update_where(values={"plays": 1}, **filters)


async def test_none_and_an_empty_list_limit_a_write(free: SongService) -> None:
    """A filter value of None or an empty list dropped the condition, and all rows went."""
    assert await free.delete_where(id__in=[]) == 0
    assert await free.delete_where(plays=None) == len([r for r in ROWS if r["plays"] is None])


async def test_a_column_with_the_name_of_an_option_is_filtered_in_a_group(
    session: AsyncSession,
) -> None:
    from snippets.servicebase.filters import all_of

    with pytest.raises(InvalidFilterError, match="Song has no field 'limit'"):
        await SongService(session).list(all_of(limit=1))


ModelT = TypeVar("ModelT", bound=SQLModel)


def test_a_generic_service_learns_its_model_from_its_subclass() -> None:
    class Middle(ServiceBase[ModelT, BaseModel, BaseModel]): ...

    class Artists(Middle[Artist]): ...

    class More(Artists): ...

    assert Artists.model is Artist
    assert More.model is Artist
    with pytest.raises(TypeError, match=r"Middle names no model: ServiceBase\[Model, \.\.\.\]"):
        Middle(AsyncSession())


async def test_the_service_neither_commits_nor_rolls_back(
    session: AsyncSession, factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_self: AsyncSession) -> None:
        raise AssertionError("the caller owns the transaction")

    with monkeypatch.context() as patch:
        patch.setattr(AsyncSession, "commit", never)
        patch.setattr(AsyncSession, "rollback", never)
        service = SongService(session)
        song = await service.create(SongCreate(title="a"))
        await service.create_many([SongCreate(title="b")])
        await service.update(song.id, SongUpdate(plays=1))
        await service.update_where(values={"plays": 2}, id=song.id)
        await service.delete_where(title="b")
        await service.delete(song.id)
        with pytest.raises(InvalidValueError):
            await service.upsert_many([SongCreate()], on="title")
    await session.rollback()

    assert (await session.exec(select(Song))).all() == []


TYPED_EXAMPLE = Path(__file__).with_name("typed_example.py")


def test_mypy_accepts_and_rejects_what_it_should() -> None:
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed here; the newest set has it")
    options = ["--strict", "--explicit-package-bases"]
    command = [sys.executable, "-m", "mypy", *options, str(TYPED_EXAMPLE)]

    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)

    assert done.returncode == 0, done.stdout


def test_pyright_accepts_and_rejects_what_it_should(tmp_path: Path) -> None:
    if importlib.util.find_spec("basedpyright") is None:
        pytest.skip("basedpyright is not installed here; the newest set has it")
    config = tmp_path / "pyrightconfig.json"
    settings = {
        "include": [str(TYPED_EXAMPLE)],
        "extraPaths": [str(ROOT)],
        "typeCheckingMode": "standard",
        "reportUnnecessaryTypeIgnoreComment": "error",
    }
    config.write_text(json.dumps(settings))
    options = ["--project", str(config), "--pythonpath", sys.executable]
    command = [sys.executable, "-m", "basedpyright", *options]

    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)

    assert "0 errors, 0 warnings" in done.stdout, done.stdout


async def test_a_bulk_write_counts_as_a_version(session: AsyncSession, factory: Factory) -> None:
    service = SloganService(session)
    kept = await service.create(SloganData(band="Blur", text="tea"))
    await session.commit()
    async with factory() as other:
        await SloganService(other).update_where(band="Blur", values={"text": "water"})
        await other.commit()

    assert kept.version == 1
    with pytest.raises(StaleVersionError):
        await service.update("Blur", SloganData(band="Blur", text="wine"))
    await session.rollback()
    slogan = await service.get("Blur", load=(), strict=True)
    assert (slogan.text, slogan.version) == ("water", 2)

    await service.upsert_many([SloganData(band="Blur", text="gin")], on="band")
    await service.update_where(band="Blur", values={"text": "rum"})
    assert (slogan.text, slogan.version) == ("rum", 4)


@pytest.mark.only_on("mysql", reason="its collation finds a key that is spelled otherwise")
@pytest.mark.parametrize("service_of", [VenueService, NorthernVenueService])
async def test_a_key_that_is_spelled_otherwise_is_read_anew(
    session: AsyncSession, factory: Factory, service_of: type[VenueService]
) -> None:
    service = service_of(session)
    kept = await service.create(VenueData(name="Roxy", note="old"))
    await session.commit()
    async with factory() as other:
        await VenueService(other).update("Roxy", VenueData(name="Roxy", note="new"))
        await other.commit()

    await service.update("roxy", VenueData(name="Roxy", note="old"))
    await session.commit()

    assert kept.note == "old"
    async with factory() as other:
        assert (await VenueService(other).get("Roxy")).note == "old"


async def test_a_computed_column_follows_a_bulk_write(session: AsyncSession) -> None:
    service = VenueService(session)
    venue = await service.create(VenueData(name="Roxy", note="a"))
    await session.refresh(venue)

    await service.update_where(name="Roxy", values={"note": "bc"})

    assert venue.shout == "bc!"


@pytest.mark.parametrize("wanted", ["max:mood", "min:live", "max:code", "min:extra"])
async def test_an_order_that_databases_do_not_share_has_no_greatest(
    session: AsyncSession, wanted: str
) -> None:
    with pytest.raises(InvalidFilterError, match="databases do not agree on an order of"):
        await SongService(session).aggregate(compute={"most": wanted})
