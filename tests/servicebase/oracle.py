"""What each filter means, in plain Python, and strategies that make filters up."""

import datetime as dt
import re
import string
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st
from servicebase.songs import (
    ARTIST_ROWS,
    CODES,
    DATES,
    MOMENTS,
    PLAYS,
    PRICES,
    TEMPOS,
    TIMES,
    TITLES,
    Mood,
    nasty_rows,
)

from snippets.servicebase.filters import Group

Row = Mapping[str, Any]
ASCII = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


@dataclass(frozen=True)
class Letters:
    """How a database compares letters in LIKE and ILIKE."""

    like: Callable[[str], str]
    ilike: Callable[[str], str]


def letters_of(dialect: str) -> Letters:
    """ILIKE knows accented letters on MariaDB, and on PostgreSQL in other collations than C."""

    def ascii_fold(text: str) -> str:
        return text.translate(ASCII)

    return Letters(
        like=ascii_fold if dialect == "sqlite" else str,
        ilike=str.lower if dialect == "mysql" else ascii_fold,
    )


def like(value: str, pattern: str) -> bool:
    parts, escaped = [], False
    for character in pattern:
        if escaped or character not in "%_\\":
            parts.append(re.escape(character))
            escaped = False
        elif character == "\\":
            escaped = True
        else:
            parts.append(".*" if character == "%" else ".")
    return re.fullmatch("".join(parts), value, re.DOTALL) is not None


def holds(value: Any, operator: str, given: Any, letters: Letters) -> bool:  # noqa: C901, PLR0911
    negative = {"ne": "eq", "not_in": "in", "is_not": "is"}
    if operator in negative:
        return not holds(value, negative[operator], given, letters)
    if operator.startswith("not"):
        return not holds(value, operator.removeprefix("not").removeprefix("_"), given, letters)
    if operator in {"eq", "is"}:
        return bool(value == given)
    if operator == "in":
        return value in given
    if operator == "is_null":
        return (value is None) is given
    if value is None:
        return False
    match operator:
        case "gt":
            return bool(value > given)
        case "gte":
            return bool(value >= given)
        case "lt":
            return bool(value < given)
        case "lte":
            return bool(value <= given)
        case "between":
            return bool(given[0] <= value <= given[1])
    insensitive = operator.startswith("i")
    fold = letters.ilike if insensitive else letters.like
    value, given = fold(value), fold(given)
    match operator.removeprefix("i"):
        case "like":
            return like(value, given)
        case "contains":
            return given in value
        case "startswith":
            return bool(value.startswith(given))
        case "endswith":
            return bool(value.endswith(given))
    raise AssertionError(operator)


ARTISTS = {row["id"]: row for row in ARTIST_ROWS}
SONGS = nasty_rows()


def related(row: Row, name: str) -> list[Row]:
    """Return the rows behind a relationship; songs are those that the tables began with."""
    match name:
        case "artist":
            return [ARTISTS[row["artist_id"]]] if row["artist_id"] else []
        case "mentor":
            return [ARTISTS[row["mentor_id"]]] if row["mentor_id"] else []
        case "pupils":
            return [artist for artist in ARTIST_ROWS if artist["mentor_id"] == row["id"]]
        case "songs":
            return [song for song in SONGS if song["artist_id"] == row["id"]]
        case "guests":
            return [ARTISTS[1 + row["id"] % 4]] if row["id"] % 3 == 1 else []
    raise AssertionError(name)


RELATIONSHIPS = {"artist", "mentor", "pupils", "songs", "guests"}


def matches(row: Row, node: Any, letters: Letters) -> bool:
    """Return whether the row meets a Group, or a mapping of keyword filters, all of it."""
    if isinstance(node, Group):
        results = [matches(row, part, letters) for part in node.conditions]
        if node.word == "any":
            results += [matches(row, {k: v}, letters) for k, v in node.filters.items()]
            return any(results)
        results.append(matches(row, node.filters, letters))
        return all(results) if node.word == "all" else not all(results)
    results, crossed = [], {}
    for path, given in node.items():
        name, _, rest = path.partition("__")
        if name in RELATIONSHIPS and rest == "is_null":
            results.append((not related(row, name)) is given)
        elif name in RELATIONSHIPS:
            crossed.setdefault(name, {})[rest] = given
        elif rest == "or":
            results.append(any(holds(row[name], op, v, letters) for op, v in given.items()))
        else:
            results.append(holds(row[name], rest or "eq", given, letters))
    for name, inner in crossed.items():
        results.append(any(matches(other, inner, letters) for other in related(row, name)))
    return all(results)


EQUAL = ("eq", "ne", "in", "not_in", "is_null")
ORDERED = (*EQUAL, "gt", "gte", "lt", "lte", "between")
TEXT = (
    "like", "not_like", "notlike", "ilike", "not_ilike", "notilike", "startswith", "endswith",
    "contains", "istartswith", "iendswith", "icontains",
)  # fmt: skip
HUGE = [2**31, -(2**31) - 1, 2**63, -(2**63) - 1, 10**30, 3]
DECIMALS = [Decimal("1.005"), Decimal("1.004"), Decimal(10000), Decimal("-1e30"), 1, 1.01]
OFFSET = dt.timezone(dt.timedelta(hours=5))
POOLS: dict[str, tuple[tuple[str, ...], list[Any]]] = {
    "id": (ORDERED, [1, 2, 20, 42, 43, *HUGE]),
    "title": ((*ORDERED, *TEXT), [*TITLES, "zz", "%a%", "a%", "\\%", "_", "__"]),
    "plays": (ORDERED, [*PLAYS, *HUGE]),
    "copies": (ORDERED, [2**62, -(2**63), 0, *HUGE]),
    "price": (ORDERED, [*PRICES, *DECIMALS]),
    "tempo": (ORDERED, [*TEMPOS, 10**400, Decimal("0.1"), 7]),
    "live": ((*ORDERED, "is", "is_not"), [None, True, False]),
    "recorded_at": (ORDERED, [*MOMENTS, dt.datetime(2026, 1, 2, 17, tzinfo=OFFSET)]),
    "released_on": (ORDERED, [*DATES, dt.date(2026, 3, 1)]),
    "starts_at": (ORDERED, TIMES),
    "code": (EQUAL, [*CODES, uuid.UUID(int=5)]),
    "mood": (EQUAL, [None, *Mood]),
}
ARTIST_POOLS = {
    "id": (ORDERED, [1, 2, 3, 4, 5, 2**40]),
    "name": ((*ORDERED, *TEXT), ["Ana", "ana", "Bo", "%", "C", "y", "Cy%", ""]),
    "mentor_id": (ORDERED, [None, 1, 2, 9]),
}


def value_for(operator: str, pool: list[Any]) -> st.SearchStrategy[Any]:
    present = [value for value in pool if value is not None]
    if operator in {"in", "not_in"}:
        return st.lists(st.sampled_from(pool), max_size=4)
    if operator == "is_null":
        return st.booleans()
    if operator == "between":
        return st.tuples(st.sampled_from(present), st.sampled_from(present))
    if operator in {"like", "not_like", "notlike", "ilike", "not_ilike", "notilike"}:
        text = st.one_of(st.sampled_from(present), st.text("aAbé%_\\", max_size=4))
        return text.filter(lambda t: (len(t) - len(t.rstrip("\\"))) % 2 == 0)
    if operator in TEXT:
        return st.one_of(st.sampled_from(present), st.text("aAbéÉ%_\\/ ", max_size=3))
    return st.sampled_from(pool if operator in {"eq", "ne", "is", "is_not"} else present)


@st.composite
def keyword(draw: Any, pools: Any, crossings: Mapping[str, Any], depth: int = 2) -> tuple[str, Any]:
    """Draw one keyword filter, maybe across relationships, maybe with `__or`."""
    if depth and crossings and draw(st.integers(0, 3)) == 0:
        name = draw(st.sampled_from(sorted(crossings)))
        if draw(st.integers(0, 3)) == 0:
            return f"{name}__is_null", draw(st.booleans())
        path, value = draw(keyword(*crossings[name](), depth - 1))
        return f"{name}__{path}", value
    field = draw(st.sampled_from(sorted(pools)))
    operators, pool = pools[field]
    if draw(st.integers(0, 5)) == 0:
        chosen = draw(st.lists(st.sampled_from(operators), min_size=1, max_size=3, unique=True))
        return f"{field}__or", {op: draw(value_for(op, pool)) for op in chosen}
    operator = draw(st.sampled_from(operators))
    path = field if operator == "eq" and draw(st.booleans()) else f"{field}__{operator}"
    return path, draw(value_for(operator, pool))


def artist_crossings() -> tuple[Any, Mapping[str, Any]]:
    return ARTIST_POOLS, {
        "mentor": artist_crossings, "pupils": artist_crossings, "songs": song_crossings,
    }  # fmt: skip


def song_crossings() -> tuple[Any, Mapping[str, Any]]:
    return POOLS, {"artist": artist_crossings, "guests": artist_crossings}


def keywords(crossings: Any, **sizes: int) -> st.SearchStrategy[dict[str, Any]]:
    return st.lists(keyword(*crossings()), **sizes).map(dict)


def trees(crossings: Any) -> st.SearchStrategy[Group]:
    """Groups in groups: every `Group` has something in it."""
    words = st.sampled_from(["all", "any", "not"])
    leaf = st.builds(Group, words, st.just(()), keywords(crossings, min_size=1, max_size=3))

    def nest(inner: st.SearchStrategy[Group]) -> st.SearchStrategy[Group]:
        parts = st.lists(inner, min_size=1, max_size=3).map(tuple)
        return st.builds(Group, words, parts, keywords(crossings, max_size=2))

    return st.recursive(leaf, nest, max_leaves=5)
