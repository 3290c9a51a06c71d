"""Compare versions, and what this bundle knows of those that are installed."""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
NEWEST_PYTHON = "3.13"  # that the suites ran on; pyproject.toml has the oldest

Version = tuple[int, ...]


def release(version: str) -> Version:
    """The numbers of a version; 2.1.0b1 counts as 2.1.0, for it has what 2.1.0 has."""
    found = re.match(r"[vV]?(\d+(?:\.\d+)*)", version.strip())
    return tuple(map(int, found[1].split("."))) if found else ()


def compare(first: Version, second: Version) -> int:
    """Negative, zero or positive, as the first is older, equal or newer: 2.1 equals 2.1.0."""
    for one, other in zip_longest(first, second, fillvalue=0):
        if one != other:
            return -1 if one < other else 1
    return 0


def satisfies(version: str, ranges: str) -> bool:
    """Whether the version lies in ranges such as `>=2.0.38,<2.2`."""
    return all(_holds(release(version), part.strip()) for part in ranges.split(",") if part.strip())


def _holds(version: Version, part: str) -> bool:
    found = re.match(r"(~=|[=!<>]=|[<>])\s*(.+)", part)
    if not found:
        return True  # an address or an arbitrary equality: nothing to compare
    operator, text = found.groups()
    wanted = release(text)
    if text.endswith(".*"):
        same = version[: len(wanted)] == wanted
        return same if operator == "==" else not same
    order = compare(version, wanted)
    if operator == "~=":
        return order >= 0 and version[: len(wanted) - 1] == wanted[:-1]
    return {
        "==": order == 0,
        "!=": order != 0,
        "<": order < 0,
        "<=": order <= 0,
        ">": order > 0,
        ">=": order >= 0,
    }[operator]


class Requirement(NamedTuple):
    name: str
    ranges: str


REQUIREMENT = re.compile(r"\s*([\w.-]+)\s*(?:\[[^\]]*\])?\s*\(?([^;()]*)\)?\s*(;.*)?")


def requirement(text: str) -> Requirement | None:
    """The package and its ranges; None for what holds only on a condition."""
    found = REQUIREMENT.fullmatch(text)
    if not found or found[3]:
        return None
    return Requirement(normal(found[1]), found[2].strip())


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


class Supported(NamedTuple):
    python: str
    required: dict[str, str]  # package -> ranges
    optional: dict[str, str]
    newest: dict[str, str]  # package -> the version that the suites run
    servers: dict[str, list[str]]  # product -> versions


PIN = re.compile(r"^([\w.-]+)(?:\[.*?\])?==(\S+)", re.MULTILINE)


@cache
def supported() -> Supported:
    """What this bundle supports, from its own files."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    own = project["tool"]["async-sqlmodel"]
    core, *others = own["ranges"].values()
    pins = (ROOT / "requirements" / "latest.txt").read_text(encoding="utf-8")
    servers = {}
    for text in own["servers"]:
        product, _, rest = text.partition(" ")
        servers[product] = re.findall(r"\d+(?:\.\d+)*", rest)
    return Supported(
        python=project["project"]["requires-python"],
        required=_ranges(core),
        optional=_ranges(text for texts in others for text in texts),
        newest={normal(name): version for name, version in PIN.findall(pins)},
        servers=servers,
    )


def _ranges(texts: Iterable[str]) -> dict[str, str]:
    return dict(found for text in texts if (found := requirement(text)))


class Combination(NamedTuple):
    """Versions that do not go together; it applies if each package is installed and in range."""

    packages: dict[str, str]
    level: str  # problem, or note where only some code suffers
    what: str
    upgrade: str  # what to install
    page: str
    database: str = ""  # said only for this one, or when none is named


COMBINATIONS = (
    Combination(
        {"sqlalchemy": ">=2.1", "sqlmodel": "<0.0.48"},
        "problem",
        "SQLAlchemy 2.1 needs SQLModel 0.0.48 or newer",
        "sqlmodel>=0.0.48",
        "database-setup.md",
    ),
    Combination(
        {"fastapi": ">=0.118,<0.121"},
        "problem",
        "FastAPI 0.118 to 0.120 answers before a `yield` dependency commits, always",
        "fastapi>=0.121",
        "fastapi-integration.md#commit-after-the-answer",
    ),
    Combination(
        {"aiosqlite": ">=0.22", "sqlalchemy": "<2.0.46"},
        "problem",
        "aiosqlite 0.22 and SQLAlchemy before 2.0.46: a process with an open engine never exits",
        "sqlalchemy[asyncio]>=2.0.46",
        "database-setup.md#event-loops",
        "sqlite",
    ),
    Combination(
        {"aiomysql": "<=0.3.2", "pymysql": ">=1.2.3"},
        "note",
        "aiomysql up to 0.3.2 fails for every `bytes` parameter with PyMySQL 1.2.3 and newer",
        "pymysql<1.2.3",
        "models.md#plain-bytes",
        "mysql",
    ),
)


class Difference(NamedTuple):
    """A row of references/versions.md: what is so since a version, and what was so before it."""

    package: str
    label: str
    since: str
    before: str
    now: str
    page: str

    @property
    def databases(self) -> set[str]:
        """Those that the row is about; none, if it is about all."""
        words = f"{self.label} {self.before} {self.now}".lower()
        return {database for word, database in DATABASE_WORDS.items() if word in words}


DATABASE_WORDS = {
    "aiomysql": "mysql",
    "aiosqlite": "sqlite",
    "asyncpg": "postgresql",
    "mariadb": "mysql",
    "postgresql": "postgresql",
    "pymysql": "mysql",
}
VERSIONS_PAGE = "versions.md"
SINCE = re.compile(r"([A-Za-z][\w-]*) (\d[\d.]*)")
LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")


@cache
def differences() -> tuple[Difference, ...]:
    """The rows of the table in references/versions.md."""
    found = []
    try:
        text = (ROOT / "references" / VERSIONS_PAGE).read_text(encoding="utf-8")
    except OSError:
        return ()
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if len(cells) != 3 or not (since := SINCE.fullmatch(cells[2])):
            continue
        links = LINK.findall(cells[1])
        page = links[0][1] if links else VERSIONS_PAGE
        before, now = (LINK.sub(r"\1", cell) for cell in cells[:2])
        found.append(Difference(normal(since[1]), since[1], since[2], before, now, page))
    return tuple(found)


class Minimum(NamedTuple):
    version: str
    lacks: str  # what an older server lacks


# Below these, patterns of the bundle fail; above, up to what the suites ran on, they should not.
SERVER_MINIMUMS = {
    "SQLite": Minimum("3.35", "RETURNING"),
    "PostgreSQL": Minimum("9.5", "ON CONFLICT and SKIP LOCKED"),
    "MariaDB": Minimum("10.6", "SKIP LOCKED"),
    "MySQL": Minimum("8.0.1", "SKIP LOCKED"),
}


def applying_combinations(packages: Mapping[str, str], database: str) -> Iterator[Combination]:
    """What does not go together here."""
    for combination in COMBINATIONS:
        wanted = combination.packages.items()
        if database and combination.database not in {"", database}:
            continue
        if all(name in packages and satisfies(packages[name], r) for name, r in wanted):
            yield combination


def applying_differences(packages: Mapping[str, str], database: str) -> Iterator[tuple[str, str]]:
    """What holds for the installed versions, and its page."""
    for row in differences():
        version = packages.get(row.package)
        if version is None or (database and row.databases and database not in row.databases):
            continue
        if satisfies(version, f">={row.since}"):
            yield f"since {row.label} {row.since}: {row.before} -> {row.now}", row.page
        else:
            yield (
                f"before {row.label} {row.since}: {row.before} (from then on: {row.now})",
                row.page,
            )


NAMES = {
    "alembic": "Alembic",
    "fastapi": "FastAPI",
    "pymysql": "PyMySQL",
    "sqlalchemy": "SQLAlchemy",
    "sqlmodel": "SQLModel",
}
