import datetime as dt
import uuid
from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, given, settings
from servicebase import oracle, songs
from servicebase.songs import Artist, ArtistService, Mood, Song, SongService
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

from snippets.servicebase.errors import InvalidFilterError
from snippets.servicebase.filters import Group, all_of, any_of, not_, where

TABLES = songs.TABLES
PROPERTY = settings(
    derandomize=True,
    deadline=None,
    max_examples=25,
    phases=[p for p in Phase if p is not Phase.explain],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
ROWS = songs.nasty_rows()


@pytest.fixture
async def stored(session: AsyncSession) -> AsyncSession:
    await songs.store_nasty_rows(session)
    return session


@pytest.fixture
def letters(stored: AsyncSession) -> oracle.Letters:
    return oracle.letters_of(stored.get_bind().dialect.name)


def expected(rows: Any, node: Any, letters: oracle.Letters) -> set[int]:
    return {row["id"] for row in rows if oracle.matches(row, node, letters)}


async def found(service: Any, *conditions: Any, **filters: Any) -> set[int]:
    return {row.id for row in await service.list(*conditions, **filters)}


@PROPERTY
@given(filters=oracle.keywords(oracle.song_crossings, min_size=1, max_size=3))
async def test_keywords_mean_what_python_says(
    stored: AsyncSession, letters: oracle.Letters, filters: Mapping[str, Any]
) -> None:
    service = SongService(stored)

    ids = await found(service, **filters)

    assert ids == expected(ROWS, filters, letters)
    assert await service.count(**filters) == len(ids)
    assert await service.exists(**filters) == bool(ids)


@PROPERTY
@given(tree=oracle.trees(oracle.song_crossings))
async def test_trees_mean_what_python_says(
    stored: AsyncSession, letters: oracle.Letters, tree: Group
) -> None:
    assert await found(SongService(stored), tree) == expected(ROWS, tree, letters)


@PROPERTY
@given(tree=oracle.trees(oracle.artist_crossings))
async def test_trees_across_collections_count_parents(
    stored: AsyncSession, letters: oracle.Letters, tree: Group
) -> None:
    service = ArtistService(stored)
    wanted = expected(songs.ARTIST_ROWS, tree, letters)

    assert [row.id for row in await service.list(tree)] == sorted(wanted)
    assert await service.count(tree) == len(wanted)


@PROPERTY
@given(tree=oracle.trees(oracle.song_crossings))
async def test_a_condition_and_its_opposite_share_all_rows(
    stored: AsyncSession, tree: Group
) -> None:
    service = SongService(stored)

    assert await found(service, tree) ^ await found(service, not_(tree)) == {r["id"] for r in ROWS}


async def test_expressions_and_keywords_mix(stored: AsyncSession) -> None:
    service = SongService(stored)

    assert await found(service, col(Song.id) < 5, id__gt=2) == {3, 4}
    assert await found(service, any_of(col(Song.id) == 1, id=2), id__lt=9) == {1, 2}
    assert await found(service, Song.id == 3) == {3}


async def test_the_opposite_of_an_expression_takes_in_null(stored: AsyncSession) -> None:
    without = {row["id"] for row in ROWS if row["plays"] is None or row["plays"] <= 1}

    assert await found(SongService(stored), not_(col(Song.plays) > 1)) == without


async def test_filters_across_one_relationship_speak_of_the_same_row(stored: AsyncSession) -> None:
    artists = ArtistService(stored)
    one, other = [row for row in ROWS if row["artist_id"] == 1][:2]

    assert await artists.exists(songs__id=one["id"], songs__plays=one["plays"])
    assert not await artists.exists(songs__id=one["id"], songs__plays=other["plays"])
    assert await artists.exists(all_of(songs__id=one["id"]), songs__plays=other["plays"])


async def test_a_percent_sign_in_a_value_is_text(stored: AsyncSession) -> None:
    """contains="100%" matched "100 Sure"."""
    titles = {row.title for row in await SongService(stored).list(title__contains="100%")}

    assert titles == {"100%"}


async def test_none_and_an_empty_list_are_conditions(stored: AsyncSession) -> None:
    """A filter value of None or an empty list dropped the condition."""
    service = SongService(stored)

    assert await found(service, plays=None) == {r["id"] for r in ROWS if r["plays"] is None}
    assert await found(service, plays__in=[]) == set()
    assert await found(service, plays__not_in=[]) == {r["id"] for r in ROWS}
    assert await found(service, plays__in=[None]) == await found(service, plays=None)


async def test_is_asks_for_null_or_a_truth(stored: AsyncSession) -> None:
    service = SongService(stored)

    assert await found(service, live__is=None) == {r["id"] for r in ROWS if r["live"] is None}
    assert await found(service, live__is=True) == {r["id"] for r in ROWS if r["live"] is True}
    assert await found(service, live__is_not=True) == {r["id"] for r in ROWS if not r["live"]}


async def test_a_datetime_without_zone_is_for_a_column_without_one(stored: AsyncSession) -> None:
    later = dt.datetime(9000, 1, 1)  # noqa: DTZ001

    assert await SongService(stored).count(noted_at__lt=later) == len(ROWS)


async def test_between_takes_a_pair(stored: AsyncSession) -> None:
    """`between` raised."""
    assert await found(SongService(stored), id__between=(2, 4)) == {2, 3, 4}


async def test_a_decimal_keeps_its_digits_in_a_comparison(stored: AsyncSession) -> None:
    """asyncpg's cast to NUMERIC(6, 2) rounded the value: 1.005 matched 1.01."""
    prices = {row.price for row in await SongService(stored).list(price__gt=Decimal("1.005"))}

    assert prices == {Decimal("1.01"), Decimal("9999.99")}
    assert await found(SongService(stored), price=Decimal("1.005")) == set()


async def test_a_number_out_of_range_matches_nothing(stored: AsyncSession) -> None:
    service = SongService(stored)

    for number in (2**31, 2**63, -(2**63) - 1, 10**40):
        assert not await service.exists(id=number)
        assert not await service.exists(id__in=[number])
        assert await service.exists(any_of(id__lt=number, id__gt=number))


async def test_an_enum_that_wraps_a_text_or_number_is_taken_by_value(stored: AsyncSession) -> None:
    class Name(StrEnum):
        ana = "Ana"

    assert await found(ArtistService(stored), name=Name.ana) == {1}


UNKNOWN = [
    ({"titel": "a"}, "Song has no field 'titel'; it has alias, artist_id, code"),
    ({"title__matches": "a"}, "unknown operator 'matches'; there are between, contains, ends"),
    ({"artist__nam": "a"}, "nam: Artist has no field 'nam'; it has id, mentor_id, name"),
    ({"artist__mentor__nam__eq": "a"}, "Artist has no field 'nam'"),
    ({"artist__name__matches": "a"}, "Artist.name__matches: unknown operator 'matches'"),
    ({"title__eq__eq": "a"}, "unknown operator 'eq__eq'"),
    ({"title__or": {"matches": "a"}}, "Song.title__or: unknown operator 'matches'"),
    ({"title__or": {}}, "Song.title__or: operators expected"),
    ({"title__or": "a"}, "Song.title__or: operators expected"),
    ({"artist": 1}, "artist: name a field of the related row (id, mentor_id, name), or"),
    ({"artist__is_null": 1}, "artist__is_null: True or False expected, not 1"),
    ({"__class__": "a"}, "Song has no field ''"),
    ({"metadata": "a"}, "Song has no field 'metadata'"),
    ({"model_fields__eq": "a"}, "Song has no field 'model_fields'"),
    ({"id; DROP TABLE song": 1}, "Song has no field 'id; DROP TABLE song'"),
    ({"title__eq) OR 1=1 --": "a"}, "unknown operator 'eq) OR 1=1 --'"),
]


@pytest.mark.parametrize(("filters", "message"), UNKNOWN)
def test_what_is_unknown_raises_and_lists_what_is_known(
    filters: dict[str, Any], message: str
) -> None:
    """An unknown field, operator or nested operator was silently ignored."""
    for conditions, keywords in (
        ((), filters),
        ((any_of(not_(**filters)),), {}),
        ((), {"id": 1} | filters),
    ):
        with pytest.raises(InvalidFilterError) as raised:
            where(Song, conditions, keywords)
        assert message in str(raised.value)


WRONG = [
    ({"plays": "1"}, "a whole number expected, not '1'"),
    ({"plays": True}, "a whole number expected"),
    ({"plays": 1.0}, "a whole number expected"),
    ({"plays__in": 5}, "a list of values expected, not 5"),
    ({"plays__in": {1: 2}}, "a list of values expected"),
    ({"title__in": "abc"}, "a list of values expected, not 'abc'"),
    ({"plays__in": range(10_001)}, "10001 values in one list; at most 10000 are taken"),
    ({"plays__gt": None}, "None has no order; use is_null"),
    ({"plays__between": 5}, "a pair of bounds expected"),
    ({"plays__between": (1, None)}, "None has no order"),
    ({"plays__contains": "a"}, "this operator is for text columns"),
    ({"plays__is": 5}, "None expected, or True or False of a Boolean"),
    ({"title__is": True}, "None expected, or True or False of a Boolean"),
    ({"plays__is_null": 1}, "True or False expected, not 1"),
    ({"title": 1}, "text expected, not 1"),
    ({"title__contains": None}, "text expected, not None"),
    ({"title": "a\x00"}, "no NUL and no lone surrogates"),
    ({"title__contains": "\ud800"}, "no NUL and no lone surrogates"),
    ({"title__like": "a\\"}, "the pattern ends in a lone backslash"),
    ({"price": "1.0"}, "a number expected"),
    ({"price": True}, "a number expected"),
    ({"price": Decimal("NaN")}, "a finite number expected"),
    ({"tempo": float("inf")}, "a finite number expected"),
    ({"live": 1}, "bool expected"),
    ({"recorded_at": dt.datetime(2026, 1, 1)}, "a datetime with time zone expected"),  # noqa: DTZ001
    ({"recorded_at": "2026"}, "a datetime expected"),
    (
        {"recorded_at": dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=14)))},
        "out of range in UTC",
    ),
    ({"noted_at": dt.datetime.now(dt.UTC)}, "a datetime without time zone expected"),
    ({"released_on": dt.datetime.now(dt.UTC)}, "a date expected"),
    ({"code": "0"}, "UUID expected"),
    ({"mood": "calm"}, "a member of Mood expected"),
    ({"mood__gt": Mood.calm}, "members of an Enum have no order"),
    ({"extra": {"a": 1}}, "only is_null is taken"),
]


@pytest.mark.parametrize(("filters", "message"), WRONG)
def test_a_value_of_a_wrong_type_raises_before_any_statement(
    filters: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidFilterError) as raised:
        where(Song, (), filters)

    assert message in str(raised.value)
    assert f"Song.{next(iter(filters)).partition('__')[0]}" in str(raised.value)


@pytest.mark.parametrize("empty", [any_of(), all_of(), not_(), not_(any_of())])
def test_an_empty_group_raises(empty: Group) -> None:
    with pytest.raises(InvalidFilterError, match="says nothing"):
        where(Song, (empty,), {})


@pytest.mark.parametrize("plain", [True, False, None, "id = 1", 5])
def test_a_plain_value_is_no_condition(plain: Any) -> None:
    """`Song.title is None` is False, for Python; as a condition it would match nothing."""
    with pytest.raises(InvalidFilterError, match="is no condition"):
        where(Song, (plain,), {})


async def test_json_can_be_asked_for_null_only(stored: AsyncSession) -> None:
    service = SongService(stored)
    stored.add(Song(title="with", extra={"a": 1}))
    await stored.flush()

    assert {row.title for row in await service.list(extra__is_null=False)} == {"with"}
    assert await service.count(extra__is=None) == len(ROWS)


INJECTIONS = ["' OR '1'='1", "'; DROP TABLE song; --", "\\'; --", "%' OR 1=1 --", "${jndi}", "{0}"]


async def test_a_value_is_never_sql(stored: AsyncSession) -> None:
    service = SongService(stored)
    stored.add_all([Song(title=text, plays=-77) for text in INJECTIONS])
    await stored.flush()

    for text in INJECTIONS:
        for operator in ("eq", "contains", "startswith", "endswith", "icontains"):
            rows = await service.list(**{f"title__{operator}": text})
            assert {row.title for row in rows} == {text}
    assert await found(service, title__in=INJECTIONS) == await found(service, plays=-77)
    assert await service.count() == len(ROWS) + len(INJECTIONS)


async def test_a_relationship_in_a_filter_is_one_statement(
    stored: AsyncSession, statements: StatementLog
) -> None:
    statements.clear()

    await SongService(stored).count(artist__mentor__name="Ana", guests__name="Bo")

    assert statements.count == 1


@pytest.mark.only_on("postgresql", reason="SQLite has MATCH for FTS tables only")
async def test_match_searches_words_on_postgresql(session: AsyncSession) -> None:
    session.add_all([Song(title="the blue lines"), Song(title="protection")])
    await session.flush()

    assert [s.title for s in await SongService(session).list(title__match="blue")] == [
        "the blue lines"
    ]


@pytest.mark.only_on("mysql", reason="MATCH … AGAINST needs a FULLTEXT index there")
async def test_match_searches_words_on_mariadb(session: AsyncSession) -> None:
    await session.exec(sa.text("CREATE FULLTEXT INDEX words ON song (title)"))
    session.add_all([Song(title="the blue lines"), Song(title="protection")])
    await session.commit()

    assert [s.title for s in await SongService(session).list(title__match="blue")] == [
        "the blue lines"
    ]


@pytest.mark.only_on("sqlite", reason="SQLite has MATCH for FTS tables only")
async def test_match_needs_a_full_text_table_on_sqlite(session: AsyncSession) -> None:
    session.add(Song(title="the blue lines"))
    await session.flush()

    with pytest.raises(sa.exc.OperationalError, match="unable to use function MATCH"):
        await SongService(session).list(title__match="blue")


def test_uuid_and_number_checks_name_the_column() -> None:
    with pytest.raises(InvalidFilterError, match=r"^Artist\.id__eq: a whole number expected"):
        where(Artist, (), {"id": uuid.uuid4()})


async def test_letters_and_floats_compare_as_each_database_does(session: AsyncSession) -> None:
    session.add(Song(alias="rock É", swing=0.1, tempo=0.1))
    await session.flush()
    service = SongService(session)
    name = session.get_bind().dialect.name
    filters: list[dict[str, Any]] = [
        {"alias__contains": "ROCK"}, {"alias__icontains": "ROCK"}, {"alias__icontains": "é"},
        {"alias": "ROCK É"}, {"swing": 0.1}, {"tempo": 0.1},
    ]  # fmt: skip

    found = [await service.exists(**one) for one in filters]

    assert (
        found
        == {
            "sqlite": [True, True, False, False, True, True],
            "postgresql": [False, True, True, False, True, True],
            "mysql": [True, True, True, True, False, True],
        }[name]
    )
