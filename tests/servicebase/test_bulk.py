import uuid
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import BaseModel
from servicebase import songs
from servicebase.songs import Artist, ArtistService, Song, SongCreate, SongService
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import Field, SQLModel, col
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

from snippets.servicebase.bulk import _check_on, batches
from snippets.servicebase.errors import ConflictError, InvalidValueError
from snippets.servicebase.service import ServiceBase


class Pressing(SQLModel, table=True):
    """Keys and defaults of each origin: Python, the model, the database."""

    id: uuid.UUID = Field(default_factory=uuid.uuid4, primary_key=True)
    isrc: str = Field(max_length=20, unique=True)
    shop: str = Field(max_length=20)
    slot: int | None = None
    stock: int = 5
    state: str = Field(default="new", max_length=10, sa_column_kwargs={"onupdate": "touched"})
    serial: int | None = Field(
        default=None, sa_column_kwargs={"server_default": sa.text("77"), "onupdate": lambda: 78}
    )

    __table_args__ = (sa.UniqueConstraint("shop", "slot"),)


class PressingCreate(BaseModel):
    isrc: str
    shop: str = "main"
    slot: int | None = None
    stock: int = 5
    serial: int | None = None


class PressingService(ServiceBase[Pressing, PressingCreate, PressingCreate]): ...


class Sleeve(SQLModel, table=True):
    """Its columns know nothing of the defaults of its fields."""

    code: str = Field(max_length=10, primary_key=True)
    colour: str = Field(default="grey", sa_column=sa.Column(sa.String(10), nullable=False))
    serial: uuid.UUID | None = Field(
        default_factory=uuid.uuid4, sa_column=sa.Column(sa.Uuid, nullable=True)
    )
    notes: dict[str, Any] | None = Field(default=None, sa_column=sa.Column(sa.JSON))


class SleeveData(BaseModel):
    code: str
    colour: str | None = None


class SleeveService(ServiceBase[Sleeve, SleeveData, SleeveData]): ...


class Chart(SQLModel, table=True):
    week: int = Field(primary_key=True)
    place: int = Field(primary_key=True)
    song: str = Field(max_length=20, default="")


class ChartService(ServiceBase[Chart, Chart, Chart]): ...


class Tag(SQLModel, table=True):
    word: str = Field(primary_key=True, max_length=20)
    uses: int = 0


class TagData(BaseModel):
    word: str
    uses: int = 0


class TagService(ServiceBase[Tag, TagData, TagData]): ...


class Take(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=20, unique=True)


class TakeData(BaseModel):
    id: int | None = None
    name: str


class TakeService(ServiceBase[Take, TakeData, TakeData]): ...


TABLES = [*songs.TABLES, Pressing, Sleeve, Chart, Tag, Take]


async def test_a_thousand_rows_are_one_statement_and_come_back_in_order(
    session: AsyncSession, statements: StatementLog
) -> None:
    """1000 statements for 1000 rows: split by alternating NULLs, sorted RETURNING on SQLite, or
    refreshed row by row.
    """
    data = [SongCreate(title=f"{n}", plays=None if n % 2 else n) for n in range(1000)]

    items = await SongService(session).create_many(data)

    assert statements.count == 1
    assert [item.title for item in items] == [item.title for item in data]
    assert [item.plays for item in items] == [item.plays for item in data]
    ids = [item.id for item in items]
    assert ids == sorted(ids)
    assert items[0].noted_at is not None
    assert items[0] in session


async def test_fields_that_some_left_out_do_not_split_the_statement(
    session: AsyncSession, statements: StatementLog
) -> None:
    data = [PressingCreate(isrc=f"{n}", **({"slot": n} if n % 2 else {})) for n in range(100)]

    items = await PressingService(session).create_many(data)

    assert statements.count == 1
    assert [item.slot for item in items] == [n if n % 2 else None for n in range(100)]
    assert {item.stock for item in items} == {5}


async def test_a_default_of_the_database_takes_one_statement_more(
    session: AsyncSession, statements: StatementLog
) -> None:
    data = [PressingCreate(isrc=f"{n}", **({"serial": n} if n % 2 else {})) for n in range(10)]

    items = await PressingService(session).create_many(data)

    assert statements.count == 2
    assert [item.serial for item in items] == [n if n % 2 else 77 for n in range(10)]
    assert [item.isrc for item in items] == [str(n) for n in range(10)]


async def test_keys_made_by_python_or_given_come_back_in_order(
    session: AsyncSession, statements: StatementLog
) -> None:
    made = await PressingService(session).create_many(
        [PressingCreate(isrc=f"{n}") for n in range(50)]
    )
    given = await ChartService(session).create_many(
        [Chart(week=1, place=n, song=f"{n}") for n in (3, 1, 2)]
    )

    assert statements.count == 2
    assert [item.isrc for item in made] == [f"{n}" for n in range(50)]
    assert [item.song for item in given] == ["3", "1", "2"]


async def test_generated_keys_that_are_given_come_back_in_order(session: AsyncSession) -> None:
    class Numbered(ServiceBase[Artist, Artist, Artist]): ...

    items = await Numbered(session).create_many([Artist(id=n, name=f"{n}") for n in (30, 10, 20)])

    assert [(item.id, item.name) for item in items] == [(30, "30"), (10, "10"), (20, "20")]


async def test_many_rows_stay_below_the_limit_of_parameters(
    session: AsyncSession, statements: StatementLog
) -> None:
    data = [PressingCreate(isrc=f"{n}", slot=n, stock=n) for n in range(3000)]
    items = await PressingService(session).create_many(data)
    inserted = statements.count
    statements.clear()
    again = await PressingService(session).upsert_many(data, on="isrc")

    assert inserted <= 3
    assert statements.count <= 3
    assert [item.stock for item in again] == list(range(3000))
    assert again == items


async def test_no_rows_are_no_statement(session: AsyncSession, statements: StatementLog) -> None:
    assert await SongService(session).create_many([]) == []
    assert await ArtistService(session).upsert_many([], on="name") == []
    assert statements.count == 0


async def test_an_upsert_is_one_statement_and_returns_rows_in_the_order_of_the_input(
    session: AsyncSession, statements: StatementLog
) -> None:
    """Upserts read and then wrote, took only the primary key, sent id=NULL, or returned rows in
    another order.
    """
    service = PressingService(session)
    await service.create_many([PressingCreate(isrc=f"{n}", stock=1) for n in range(0, 1000, 2)])
    statements.clear()

    data = [PressingCreate(isrc=f"{n}", stock=n) for n in reversed(range(1000))]
    items = await service.upsert_many(data, on="isrc")

    assert statements.count == 1
    assert [(i.isrc, i.stock) for i in items] == [(d.isrc, d.stock) for d in data]
    assert await service.count() == 1000


async def test_an_upsert_leaves_alone_what_was_not_set(session: AsyncSession) -> None:
    """A default of the schema overwrote what the row had."""
    service = PressingService(session)
    await service.create(PressingCreate(isrc="a", stock=9, slot=3, serial=1))

    (row, new) = await service.upsert_many(
        [PressingCreate(isrc="a", shop="x"), PressingCreate(isrc="b", slot=4)], on=["isrc"]
    )

    assert (row.shop, row.stock, row.slot) == ("x", 9, 3)
    assert (row.state, row.serial) == ("touched", 78)  # onupdate, which no upsert runs by itself
    assert (new.shop, new.stock, new.slot, new.state, new.serial) == ("main", 5, 4, "new", 77)


async def test_rows_of_an_upsert_that_set_different_fields_do_not_share_them(
    session: AsyncSession,
) -> None:
    service = PressingService(session)
    full = {"slot": None, "serial": None}  # so that no row is shorter than another
    await service.create_many([PressingCreate(isrc=isrc, shop="x", stock=9) for isrc in "ab"])

    rows = await service.upsert_many(
        [
            PressingCreate(isrc="a", stock=1, **full),
            PressingCreate(isrc="b", shop="y", **full),
        ],
        on="isrc",
    )

    assert [(row.shop, row.stock) for row in rows] == [("x", 1), ("y", 9)]


async def test_update_names_what_an_upsert_may_change(session: AsyncSession) -> None:
    service = PressingService(session)
    await service.create(PressingCreate(isrc="a", stock=9, slot=3))

    (row,) = await service.upsert_many(
        [PressingCreate(isrc="a", stock=1, slot=1)], on="isrc", update=["slot"]
    )
    (same,) = await service.upsert_many([PressingCreate(isrc="a", stock=2)], on="isrc", update=[])

    assert (row.stock, row.slot) == (9, 1)
    assert same is row
    assert (same.stock, same.state) == (9, "touched")


async def test_an_upsert_brings_loaded_objects_up_to_date(session: AsyncSession) -> None:
    service = PressingService(session)
    loaded = await service.create(PressingCreate(isrc="a", stock=9))

    await service.upsert_many([PressingCreate(isrc="a", stock=1)], on="isrc")

    assert loaded.stock == 1


async def test_a_conflict_with_another_unique_key_is_a_conflict_everywhere(
    session: AsyncSession,
) -> None:
    """MariaDB updates the row of any unique key: here it would have changed `a`."""
    service = PressingService(session)
    before = await service.create(PressingCreate(isrc="a", slot=1, stock=9))

    with pytest.raises(ConflictError) as raised:
        await service.upsert_many([PressingCreate(isrc="b", slot=1, stock=0)], on="isrc")

    assert raised.value.model is Pressing
    await session.refresh(before)
    assert (before.stock, await service.count()) == (9, 1)


async def test_keys_that_the_collation_takes_for_equal_find_their_rows(
    session: AsyncSession,
) -> None:
    service = TagService(session)
    await service.create_many([TagData(word="rock"), TagData(word="été")])
    data = [TagData(word=word, uses=n) for n, word in enumerate(["jazz", "ROCK", "ete"])]

    items = await service.upsert_many(data, on="word")

    same = session.get_bind().dialect.name == "mysql"
    assert [item.word for item in items] == (
        ["jazz", "rock", "été"] if same else ["jazz", "ROCK", "ete"]
    )
    assert [item.uses for item in items] == [0, 1, 2]


async def test_an_upsert_by_a_key_of_several_columns(session: AsyncSession) -> None:
    service = ChartService(session)
    await service.create(Chart(week=1, place=1, song="a"))

    items = await service.upsert_many(
        [Chart(week=1, place=2, song="c"), Chart(week=1, place=1, song="b")], on=("week", "place")
    )

    assert [item.song for item in items] == ["c", "b"]


WRONG: list[tuple[list[dict[str, Any]], Any, str]] = [
    ([{"isrc": "a"}], "shop", r"on=\('shop',\) is no unique key of Pressing; use \('id',\) or"),
    ([{"isrc": "a"}], "nothing", r"is no unique key of Pressing; use .*\('isrc',\)"),
    ([{"isrc": "a"}], (), "is no unique key"),
    ([{"isrc": "a"}], ("shop", "slot"), r"row 0 has no value in .*: NULL never conflicts"),
    ([{"isrc": "a"}, {"isrc": "b"}, {"isrc": "a"}], "isrc", r"row 0 and a later one have the same"),
]


@pytest.mark.parametrize(("rows", "on", "message"), WRONG)
async def test_a_wrong_upsert_raises_before_any_statement(
    rows: list[dict[str, Any]], on: Any, message: str
) -> None:
    service = PressingService(AsyncSession())

    with pytest.raises(InvalidValueError, match=message):
        await service.upsert_many([PressingCreate(**row) for row in rows], on=on)


async def test_update_must_name_fields_that_are_there(session: AsyncSession) -> None:
    service = PressingService(session)
    data = [PressingCreate(isrc="a")]

    with pytest.raises(InvalidValueError, match="the rows have no serial to update"):
        await service.upsert_many(data, on="isrc", update=["serial"])
    with pytest.raises(InvalidValueError, match="Pressing has no colour; it has id, isrc"):
        await service.upsert_many(data, on="isrc", update=["colour"])


async def test_a_partial_index_is_no_unique_key() -> None:
    table = Song.__table__  # type: ignore[attr-defined]
    partial = sa.Index("song_partial", table.c.title, unique=True, sqlite_where=table.c.plays > 1)
    try:
        with pytest.raises(InvalidValueError, match="is no unique key of Song"):
            await SongService(AsyncSession()).upsert_many([SongCreate(title="a")], on="title")
    finally:
        table.indexes.remove(partial)


@pytest.mark.only_on("mysql", reason="MySQL has no RETURNING; here MariaDB plays its part")
async def test_without_returning_the_same_rows_come_back(
    engine: AsyncEngine, session: AsyncSession, statements: StatementLog
) -> None:
    engine.dialect.insert_returning = False  # type: ignore[misc]
    service = PressingService(session)

    created = await service.create_many([PressingCreate(isrc=f"{n}") for n in range(3)])
    songs_made = await SongService(session).create_many(
        [SongCreate(title="a"), SongCreate(title="b")]
    )
    statements.clear()
    items = await service.upsert_many(
        [PressingCreate(isrc="9"), PressingCreate(isrc="1", stock=2)], on="isrc"
    )

    assert [item.isrc for item in created] == ["0", "1", "2"]
    assert [song.title for song in songs_made] == ["a", "b"]
    assert [(item.isrc, item.stock) for item in items] == [("9", 5), ("1", 2)]
    assert items[1] is created[1]
    assert statements.count == 4  # two for those that set other fields than the others


def test_rows_that_carry_the_same_fields_are_one_batch() -> None:
    rows: list[dict[str, Any]] = [{"title": "a"}, {"title": "b", "plays": 1}, {"copies": 1}]

    assert list(batches(Song, rows)) == [[0, 1], [2]]
    assert rows[0] == {"title": "a", "plays": None}


async def test_fields_that_the_table_does_not_have_raise() -> None:
    class Loose(BaseModel):
        title: str = "a"
        colour: str = "red"

    class LooseService(ServiceBase[Song, Loose, Loose]): ...

    service = LooseService(AsyncSession())

    for attempt in (
        service.create(Loose()),
        service.create_many([Loose()]),
        service.upsert_many([Loose()], on="id"),
        service.update_where(id=1, values={"colour": 1}),
        service.update_where(col(Song.id) == 1, values={"artist": 1}),
    ):
        with pytest.raises(InvalidValueError, match=r"Song has no .*; it has alias, artist_id"):
            await attempt


async def test_a_generated_key_that_is_none_is_generated(session: AsyncSession) -> None:
    service = TakeService(session)
    rows = [TakeData(id=None, name="a"), TakeData(id=None, name="b")]

    created = await service.create_many(rows)
    upserted = await service.upsert_many([*rows, TakeData(id=None, name="c")], on="name")

    assert [item.name for item in upserted] == ["a", "b", "c"]
    assert [item.id for item in upserted[:2]] == [item.id for item in created]


async def test_keys_that_the_collation_takes_for_equal_are_repeated_keys(
    session: AsyncSession,
) -> None:
    service = TagService(session)
    await service.create(TagData(word="jazz"))
    data = [TagData(word="rock", uses=1), TagData(word="ROCK", uses=2)]

    if session.get_bind().dialect.name == "mysql":
        with pytest.raises(InvalidValueError, match=r"two rows have the same .* for the database"):
            await service.upsert_many(data, on="word")
    else:
        assert len(await service.upsert_many(data, on="word")) == 2

    assert await service.exists(word="rock") is (session.get_bind().dialect.name != "mysql")
    assert await service.exists(word="jazz")


async def test_rows_have_the_defaults_that_an_object_has(session: AsyncSession) -> None:
    """Beside `sa_column` they are the field's alone: `lacks a required value`, or NULL."""
    service = SleeveService(session)
    one = await service.create(SleeveData(code="a"))

    items = [SleeveData(code="b"), SleeveData(code="c", colour="red")]
    many = await service.create_many(items)
    changed = await service.upsert_many([SleeveData(code="c"), SleeveData(code="d")], on="code")

    assert [row.colour for row in (one, *many)] == ["grey", "grey", "red"]
    assert [row.colour for row in changed] == ["red", "grey"]
    assert len({row.serial for row in (one, *many, *changed)} - {None}) == 4
    empty = sa.select(sa.func.count()).where(sa.cast(sa.column("notes"), sa.Text).is_(None))
    query = empty.where(sa.column("code") != "a").select_from(Sleeve.__table__)  # type: ignore[attr-defined]
    # Not the null of JSON, which `create` writes where a column has not `none_as_null`.
    assert await (await session.connection()).scalar(query) == 3


class ComparedText(str):
    __slots__ = ()
    comparisons = 0

    def __eq__(self, other: object) -> bool:
        ComparedText.comparisons += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_a_repeated_key_among_many_is_found_by_few_comparisons() -> None:
    """Each key was counted in the whole list: 100 000 rows stopped the loop for minutes."""
    rows = [{"isrc": ComparedText(number)} for number in [*range(2000), 1999]]

    with pytest.raises(InvalidValueError, match=r"row 1999 and a later one have the same"):
        _check_on(Pressing, rows, ["isrc"])

    assert ComparedText.comparisons < 10 * len(rows)
