# /// script
# requires-python = ">=3.11"
# dependencies = ["sqlmodel[asyncio]", "aiosqlite", "asyncpg", "aiomysql", "psycopg", "pymysql"]
# ///
"""Measure ServiceBase beside the best hand-written SQLAlchemy for the same work, as ratios."""

import argparse
import asyncio
import base64
import datetime as dt
import gc
import json
import platform
import random
import signal
import statistics
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from _command import Parser

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

try:
    from pydantic import BaseModel
    from servers import KINDS, NAMES, Server, ServerUnavailableError
    from sqlalchemy import Index, and_, event, func, or_, text, tuple_
    from sqlalchemy import select as core_select
    from sqlalchemy.dialects import mysql, postgresql, sqlite
    from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
    from sqlalchemy.orm import selectinload
    from sqlmodel import Field, Relationship, SQLModel, col, delete, insert, select, update
    from sqlmodel.ext.asyncio.session import AsyncSession
    from statements import StatementLog

    from snippets.database_setup.engine import engine_for
    from snippets.database_setup.session import session_factory
    from snippets.servicebase.cursor_pagination import CursorPage
    from snippets.servicebase.offset_pagination import Page
    from snippets.servicebase.service import ServiceBase
except ModuleNotFoundError as error:
    print(f"bench.py: {error.name} is not installed; run: make bench", file=sys.stderr)
    sys.exit(2)

ROWS, LEAST_ROWS = 100_000, 500
ROUNDS = 30
DEPOTS = 100
WAGONS_PER_TRAIN = 10
BULK = 1000
PAGE = 20
MEBIBYTE = 2**20
LIBRARIES = ("sqlmodel", "sqlalchemy", "pydantic", "aiosqlite", "asyncpg", "aiomysql")

EPILOG = """\
examples:
  python scripts/bench.py
  python scripts/bench.py --database sqlite --rows 5000 --operation get --operation "create many"

Both sides share one process, one engine and one connection. A round runs ours, theirs, theirs,
ours; the ratio is the median over all rounds. What a side writes is rolled back after the clock
has stopped. A server comes from TEST_POSTGRESQL_URL (else the embedded one) and TEST_MYSQL_URL.

exit codes: 0 measured, 1 the two sides do not do the same (or --strict, and a goal is missed),
2 wrong usage or no such database, 130 stopped
"""


class UsageError(Exception):
    """What was asked for can't be done; the message is one line that says what to do."""


class DifferenceError(Exception):
    """The two sides of a pair do not do the same work: nothing can be compared."""


# Tables: 100 000 wagons in trains of ten


class Train(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=40)
    wagons: list["Wagon"] = Relationship(back_populates="train")


class Wagon(SQLModel, table=True):
    __table_args__ = (
        Index("ix_wagon_depot_tonnes", "depot", "tonnes", "id"),
        Index("ix_wagon_tonnes", "tonnes", "id"),
    )

    id: int | None = Field(default=None, primary_key=True)
    code: str = Field(max_length=20, unique=True)
    depot: str = Field(max_length=20)
    tonnes: int
    built_on: dt.date
    remark: str | None = Field(default=None, max_length=80)
    train_id: int = Field(foreign_key="train.id", index=True)
    train: Train = Relationship(back_populates="wagons")


class WagonCreate(BaseModel):
    code: str
    depot: str
    tonnes: int
    built_on: dt.date
    remark: str | None = None
    train_id: int


class WagonUpdate(BaseModel):
    depot: str = ""
    tonnes: int = 0
    remark: str | None = None


class WagonService(ServiceBase[Wagon, WagonCreate, WagonUpdate]):
    pass


class TrainService(ServiceBase[Train, Train, Train]):
    pass


FIELDS = tuple(WagonCreate.model_fields)
CHANGED_BY_UPSERT = tuple(name for name in FIELDS if name != "code")


def new_wagon(number: int, train_id: int) -> WagonCreate:
    """Return always the same wagon for a number. Every other one has a NULL."""
    chance = random.Random(number)  # noqa: S311 -- the same data in every run
    return WagonCreate(
        code=f"W{number:09}",
        depot=f"depot {chance.randrange(DEPOTS)}",
        tonnes=chance.randrange(1000),
        built_on=dt.date(2000, 1, 1) + dt.timedelta(days=number % 9000),
        remark=f"remark {number}" if number % 2 else None,
        train_id=train_id,
    )


@dataclass(frozen=True)
class Cursors:
    """The same place, as each side writes it down; None is the first page."""

    ours: str | None = None
    theirs: str | None = None


@dataclass
class Data:
    """What is in the tables, for those who choose what to ask for."""

    rows: int
    wagon_ids: Sequence[int] = ()
    train_ids: Sequence[int] = ()
    deep: Cursors = field(default_factory=Cursors)

    @property
    def deep_offset(self) -> int:
        """How many rows lie before a deep page: nine of ten."""
        return self.rows * 9 // 10

    def wagon_id(self, call: int) -> int:
        return self.wagon_ids[call * 7919 % len(self.wagon_ids)]

    def new_wagons(self, first: int, count: int) -> list[WagonCreate]:
        trains = self.train_ids
        return [new_wagon(n, trains[n % len(trains)]) for n in range(first, first + count)]


async def create_tables(engine: AsyncEngine, data: Data) -> None:
    tables = [SQLModel.metadata.tables[name] for name in ("train", "wagon")]
    trains = [{"name": f"train {n}"} for n in range(data.rows // WAGONS_PER_TRAIN)]
    async with engine.begin() as connection:
        await connection.run_sync(lambda sync: SQLModel.metadata.create_all(sync, tables=tables))
        await connection.execute(insert(Train), trains)
    async with session_factory(engine)() as session:
        data.train_ids = [key for key in await session.exec(select(Train.id)) if key]
    await add_wagons(engine, data, first=0)


async def add_wagons(engine: AsyncEngine, data: Data, *, first: int) -> None:
    """Add as many wagons as the table is meant to have, and look at it as a planner does."""
    analyze = {
        "mysql": "ANALYZE TABLE train, wagon",
        "postgresql": "VACUUM ANALYZE train, wagon",  # VACUUM: also what rollbacks left behind
    }.get(engine.dialect.name, "ANALYZE")
    async with engine.begin() as connection:
        for start in range(first, first + data.rows, 5000):
            count = min(5000, first + data.rows - start)
            rows = [wagon.model_dump() for wagon in data.new_wagons(start, count)]
            await connection.execute(insert(Wagon.__table__), rows)  # type: ignore[attr-defined]
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text(analyze))
    async with session_factory(engine)() as session:
        keys = await session.exec(select(Wagon.id).order_by(col(Wagon.id)))
        data.wagon_ids = [key for key in keys if key]


async def look_deep(engine: AsyncEngine, data: Data) -> None:
    """Find the cursors of a deep page."""
    async with session_factory(engine)() as session:
        there = (await page_by_hand(session, data.deep_offset)).items[0]
        deep = await service(session).cursor_page(
            tonnes__gte=there.tonnes, order_by="tonnes", limit=PAGE
        )
    data.deep = Cursors(deep.next, written_cursor(deep.items[-1]))


# Pairs: ours, and what an expert would write by hand


def service(session: AsyncSession) -> WagonService:
    return WagonService(session)


async def get_ours(session: AsyncSession, key: int) -> Wagon:
    return await service(session).get(key)


async def get_by_hand(session: AsyncSession, key: int) -> Wagon:
    wagon = await session.get(Wagon, key)
    if wagon is None:
        raise LookupError(key)
    return wagon


async def list_ours(session: AsyncSession, depot: str) -> Sequence[Wagon]:
    return await service(session).list(
        depot=depot, tonnes__gte=300, tonnes__lt=900, order_by="-tonnes", limit=50
    )


async def list_by_hand(session: AsyncSession, depot: str) -> Sequence[Wagon]:
    statement = (
        select(Wagon)
        .where(Wagon.depot == depot, Wagon.tonnes >= 300, Wagon.tonnes < 900)
        .order_by(col(Wagon.tonnes).desc(), col(Wagon.id).desc())
        .limit(50)
    )
    return (await session.exec(statement)).all()


async def children_ours(session: AsyncSession, offset: int) -> Sequence[Train]:
    return await TrainService(session).list(limit=100, offset=offset, load=[Train.wagons])


async def children_by_hand(session: AsyncSession, offset: int) -> Sequence[Train]:
    statement = select(Train).options(selectinload(Train.wagons))  # type: ignore[arg-type]
    statement = statement.order_by(col(Train.id)).limit(100).offset(offset)
    return (await session.exec(statement)).all()


async def count_ours(session: AsyncSession, depot: str) -> int:
    return await service(session).count(depot=depot)


async def count_by_hand(session: AsyncSession, depot: str) -> int:
    statement = select(func.count()).select_from(Wagon).where(col(Wagon.depot) == depot)
    return (await session.exec(statement)).one()


async def exists_ours(session: AsyncSession, code: str) -> bool:
    return await service(session).exists(code=code)


async def exists_by_hand(session: AsyncSession, code: str) -> bool:
    statement = select(Wagon.id).where(Wagon.code == code).limit(1)
    return (await session.exec(statement)).first() is not None


async def create_ours(session: AsyncSession, item: WagonCreate) -> Wagon:
    return await service(session).create(item)


async def create_by_hand(session: AsyncSession, item: WagonCreate) -> Wagon:
    wagon = Wagon(**item.model_dump())
    session.add(wagon)
    await session.flush()
    return wagon


async def create_contained_by_hand(session: AsyncSession, item: WagonCreate) -> Wagon:
    async with session.begin_nested():
        return await create_by_hand(session, item)


async def create_many_ours(session: AsyncSession, items: list[WagonCreate]) -> Sequence[Wagon]:
    return await service(session).create_many(items)


async def create_many_by_hand(session: AsyncSession, items: list[WagonCreate]) -> Sequence[Wagon]:
    rows = [item.model_dump() for item in items]
    # Sorted RETURNING makes SQLite insert row by row.
    sort_here = session.get_bind().dialect.name == "sqlite"
    statement = insert(Wagon).returning(Wagon, sort_by_parameter_order=not sort_here)
    options = {"render_nulls": True}
    wagons = (await session.exec(statement, params=rows, execution_options=options)).scalars().all()
    return sorted(wagons, key=lambda wagon: wagon.id or 0) if sort_here else wagons


async def update_ours(session: AsyncSession, key: int) -> Wagon:
    return await service(session).update(key, WagonUpdate(tonnes=-1, remark=None))


async def update_by_hand(session: AsyncSession, key: int) -> Wagon:
    # Locked, as ours: or a row that goes meanwhile takes the transaction along.
    wagon = await session.get_one(Wagon, key, populate_existing=True, with_for_update=True)
    for name, value in WagonUpdate(tonnes=-1, remark=None).model_dump(exclude_unset=True).items():
        setattr(wagon, name, value)
    await session.flush()
    return wagon


async def update_returning_by_hand(session: AsyncSession, key: int) -> Wagon:
    values = WagonUpdate(tonnes=-1, remark=None).model_dump(exclude_unset=True)
    statement = update(Wagon).where(col(Wagon.id) == key).values(**values)
    options = {"synchronize_session": False}
    if not session.get_bind().dialect.update_returning:  # MariaDB, MySQL
        await session.exec(statement, execution_options=options)
        return await get_by_hand(session, key)
    options["populate_existing"] = True
    returning = statement.returning(Wagon)
    wagon: Wagon = (await session.exec(returning, execution_options=options)).scalar_one()
    return wagon


async def update_where_ours(session: AsyncSession, depot: str) -> int:
    return await service(session).update_where(depot=depot, values={"tonnes": -1})


async def update_where_by_hand(session: AsyncSession, depot: str) -> int:
    statement = update(Wagon).where(col(Wagon.depot) == depot).values(tonnes=-1)
    options = {"synchronize_session": False}
    return (await session.exec(statement, execution_options=options)).rowcount


async def upsert_many_ours(session: AsyncSession, items: list[WagonCreate]) -> Sequence[Wagon]:
    return await service(session).upsert_many(items, on="code")


async def upsert_many_by_hand(session: AsyncSession, items: list[WagonCreate]) -> Sequence[Wagon]:
    rows = [item.model_dump() for item in items]
    dialect = session.get_bind().dialect
    statement: Any = upsert_statement(dialect.name)
    if dialect.insert_returning:
        statement = statement.returning(Wagon)
    options = {"render_nulls": True, "populate_existing": True}
    result = await session.exec(statement, params=rows, execution_options=options)
    if not dialect.insert_returning:  # MySQL
        codes = [row["code"] for row in rows]
        query = select(Wagon).where(col(Wagon.code).in_(codes))
        result = await session.exec(query.execution_options(populate_existing=True))
    wagons = result.scalars() if dialect.insert_returning else result
    by_code = {wagon.code: wagon for wagon in wagons}
    return [by_code[row["code"]] for row in rows]


def upsert_statement(dialect: str) -> Any:
    if dialect in {"mysql", "mariadb"}:
        statement = mysql.insert(Wagon)
        new = {name: statement.inserted[name] for name in CHANGED_BY_UPSERT}
        return statement.on_duplicate_key_update(new)
    other: Any = postgresql.insert(Wagon) if dialect == "postgresql" else sqlite.insert(Wagon)
    new = {name: other.excluded[name] for name in CHANGED_BY_UPSERT}
    return other.on_conflict_do_update(index_elements=["code"], set_=new)


async def delete_where_ours(session: AsyncSession, depot: str) -> int:
    return await service(session).delete_where(depot=depot)


async def delete_where_by_hand(session: AsyncSession, depot: str) -> int:
    statement = delete(Wagon).where(col(Wagon.depot) == depot)
    options = {"synchronize_session": False}
    return (await session.exec(statement, execution_options=options)).rowcount


async def page_ours(session: AsyncSession, offset: int) -> Page[Wagon]:
    return await service(session).page(order_by="tonnes", limit=PAGE, offset=offset)


async def page_by_hand(session: AsyncSession, offset: int) -> Page[Wagon]:
    ordered = select(Wagon).order_by(col(Wagon.tonnes), col(Wagon.id))
    items = (await session.exec(ordered.limit(PAGE).offset(offset))).all()
    total = (await session.exec(select(func.count()).select_from(Wagon))).one()
    return Page(items, total, offset, PAGE)


async def cursor_page_ours(session: AsyncSession, cursors: Cursors) -> CursorPage[Wagon]:
    return await service(session).cursor_page(cursor=cursors.ours, order_by="tonnes", limit=PAGE)


async def cursor_page_by_hand(session: AsyncSession, cursors: Cursors) -> CursorPage[Wagon]:
    """Go forward only; a hand-written page rarely does more."""
    statement = select(Wagon).order_by(col(Wagon.tonnes), col(Wagon.id)).limit(PAGE + 1)
    if cursors.theirs is not None:
        statement = statement.where(beyond(cursors.theirs, session.get_bind().dialect.name))
    found = (await session.exec(statement)).all()
    items = found[:PAGE]
    following = written_cursor(items[-1]) if len(found) > PAGE else None
    return CursorPage(items, following, written_cursor(items[0]) if cursors.theirs else None)


def written_cursor(wagon: Wagon) -> str:
    return base64.urlsafe_b64encode(json.dumps([wagon.tonnes, wagon.id]).encode()).decode()


def beyond(cursor: str, dialect: str) -> Any:
    tonnes, key = json.loads(base64.urlsafe_b64decode(cursor))
    if dialect in {"mysql", "mariadb"}:  # their optimizer reads the whole index for a row value
        ties = and_(col(Wagon.tonnes) == tonnes, col(Wagon.id) > key)
        return and_(col(Wagon.tonnes) >= tonnes, or_(col(Wagon.tonnes) > tonnes, ties))
    return tuple_(col(Wagon.tonnes), col(Wagon.id)) > tuple_(tonnes, key)


async def summed(wagons: AsyncIterator[Wagon]) -> tuple[int, int]:
    count = tonnes = 0
    async for wagon in wagons:
        count += 1
        tonnes += wagon.tonnes
    return count, tonnes


async def stream_ours(session: AsyncSession, highest: int) -> tuple[int, int]:
    return await summed(service(session).stream(id__lte=highest, batch=BULK))


async def stream_by_hand(session: AsyncSession, highest: int) -> tuple[int, int]:
    return await summed(cursor_of_the_server(session, highest))


async def cursor_of_the_server(session: AsyncSession, highest: int) -> AsyncIterator[Wagon]:
    statement = select(Wagon).where(col(Wagon.id) <= highest).order_by(col(Wagon.id))
    result = await session.stream_scalars(statement.execution_options(yield_per=BULK))
    async for batch in result.partitions():
        for wagon in batch:
            yield wagon


# What a result is worth, without what may differ: generated keys, spelling of cursors


def as_is(result: Any) -> Any:
    return result


def row(wagon: Wagon) -> tuple[Any, ...]:
    return tuple(getattr(wagon, name) for name in FIELDS)


def rows(wagons: Sequence[Wagon]) -> list[tuple[Any, ...]]:
    return [row(wagon) for wagon in wagons]


def families(trains: Sequence[Train]) -> list[tuple[Any, ...]]:
    return [(train.id, train.name, sorted(rows(train.wagons))) for train in trains]


def offset_page(page: Page[Wagon]) -> tuple[Any, ...]:
    return rows(page.items), page.total, page.offset, page.limit


def cursor_page(page: CursorPage[Wagon]) -> tuple[Any, ...]:
    return rows(page.items), page.next is not None, page.previous is not None


# Operations and their goals

Side = Callable[[AsyncSession, Any], Awaitable[Any]]


@dataclass(frozen=True)
class Goal:
    """At most this ratio, and at most this many statements of ours; None is no goal."""

    ratio: float | None = None
    statements: int | None = None

    def is_met(self, ratio: float, statements: int) -> bool:
        quick = self.ratio is None or round(ratio, 2) <= self.ratio
        return quick and (self.statements is None or statements <= self.statements)

    def __str__(self) -> str:
        parts = [] if self.ratio is None else [f"<= {self.ratio:.2f}"]
        parts += [] if self.statements is None else [f"{self.statements} stmt"]
        return ", ".join(parts) or "-"


READ = Goal(ratio=1.10)
WRITE_MANY = Goal(ratio=1.15, statements=2)
NO_GOAL = Goal()


@dataclass(frozen=True)
class Operation:
    """A pair of sides, and what the n-th call is given: the same for both."""

    name: str
    ours: Side
    theirs: Side
    given: Callable[[Data, int], Any]
    value: Callable[[Any], Any] | None  # None: the sides are not meant to return the same
    goal: Goal = NO_GOAL
    calls: int = 10  # in one sample, where one call is too short for a clock
    at_most: int | None = None  # rounds


def _depot(_data: Data, call: int) -> str:
    return f"depot {call % DEPOTS}"


def _new(data: Data, call: int) -> WagonCreate:
    return data.new_wagons(10**8 + call, 1)[0]


def _half_new(data: Data, _call: int) -> list[WagonCreate]:
    """Half of them are there already, with other values."""
    known = data.new_wagons(0, BULK // 2)
    changed = [wagon.model_copy(update={"tonnes": -1}) for wagon in known]
    return [wagon for pair in zip(changed, _bulk(data, 0), strict=False) for wagon in pair]


def _bulk(data: Data, _call: int) -> list[WagonCreate]:
    return data.new_wagons(10**8, BULK)


def _deep_offset(data: Data, _call: int) -> int:
    return data.deep_offset


def _deep_cursors(data: Data, _call: int) -> Cursors:
    return data.deep


async def _first_cursor_page_ours(session: AsyncSession, _cursors: Cursors) -> CursorPage[Wagon]:
    return await cursor_page_ours(session, Cursors())


async def _first_page_ours(session: AsyncSession, _offset: int) -> Page[Wagon]:
    return await page_ours(session, 0)


OPERATIONS = (
    Operation("get", get_ours, get_by_hand, Data.wagon_id, row, READ),
    Operation("list", list_ours, list_by_hand, _depot, rows, READ),
    Operation(
        "list with children", children_ours, children_by_hand,
        lambda data, call: call * 100 % max(1, len(data.train_ids) - 100), families,
        Goal(ratio=1.10, statements=2), calls=1,
    ),
    Operation("count", count_ours, count_by_hand, _depot, as_is, READ),
    Operation(
        "exists", exists_ours, exists_by_hand,
        lambda data, call: f"W{call * 31 % data.rows:09}", as_is, READ,
    ),
    Operation(
        "first offset page", page_ours, page_by_hand, lambda *_: 0, offset_page, READ, calls=1
    ),
    Operation(
        "deep offset page", page_ours, page_by_hand, _deep_offset, offset_page, READ, calls=1
    ),
    Operation(
        "first cursor page", cursor_page_ours, cursor_page_by_hand,
        lambda *_: Cursors(), cursor_page, READ,
    ),
    Operation(
        "deep cursor page", cursor_page_ours, cursor_page_by_hand, _deep_cursors, cursor_page, READ
    ),
    Operation(
        "deep/first cursor page", cursor_page_ours, _first_cursor_page_ours,
        _deep_cursors, None, Goal(ratio=1.20),
    ),
    Operation(
        "deep/first offset page", page_ours, _first_page_ours, _deep_offset, None, calls=1
    ),
    Operation("create", create_ours, create_by_hand, _new, row),
    Operation("create in a savepoint", create_ours, create_contained_by_hand, _new, row),
    Operation(
        "create many", create_many_ours, create_many_by_hand, _bulk, rows, WRITE_MANY, calls=1
    ),
    Operation("update", update_ours, update_by_hand, Data.wagon_id, row, READ),
    Operation(
        "update by RETURNING", update_ours, update_returning_by_hand, Data.wagon_id, row
    ),
    Operation(
        "update where", update_where_ours, update_where_by_hand, _depot, as_is, WRITE_MANY,
        calls=1,
    ),
    Operation(
        "upsert many", upsert_many_ours, upsert_many_by_hand, _half_new, rows, WRITE_MANY, calls=1
    ),
    Operation(
        "delete where", delete_where_ours, delete_where_by_hand, _depot, as_is, WRITE_MANY,
        calls=1,
    ),
)  # fmt: skip

# The last one, because it doubles the table.
STREAM = Operation(
    "stream", stream_ours, stream_by_hand, lambda data, _call: data.wagon_ids[-1], as_is,
    calls=1, at_most=1,
)  # fmt: skip
NAMES_OF_OPERATIONS = tuple(operation.name for operation in (*OPERATIONS, STREAM))


# Measuring


@dataclass(frozen=True)
class Both:
    """One number for each side."""

    ours: float
    theirs: float


@dataclass(frozen=True)
class Work:
    """What a side did in one call, and how many statements and savepoints that took."""

    result: Any
    statements: int
    savepoints: int
    state: tuple[Any, ...]  # of the table, before it was rolled back


@dataclass(frozen=True)
class Comparison:
    operation: str
    statements: Both
    savepoints: Both
    ratio: float
    spread: tuple[float, float]  # the quartiles of the rounds
    microseconds: Both
    goal: Goal

    @property
    def verdict(self) -> str:
        if self.goal == NO_GOAL:
            return "no goal"
        return "met" if self.goal.is_met(self.ratio, int(self.statements.ours)) else "MISSED"


@dataclass(frozen=True)
class Memory:
    """The peak of Python objects while a stream runs, in MiB: ours must not grow with the rows."""

    rows: int
    ours: float
    for_a_tenth: Both

    @property
    def verdict(self) -> str:
        if self.rows < 20 * BULK:  # a tenth of them is not even two batches
            return "no goal"
        return "met" if self.ours <= 1.2 * self.for_a_tenth.ours else "MISSED"


@dataclass(frozen=True)
class Report:
    """What was measured on one database."""

    name: str
    version: str
    comparisons: list[Comparison]
    memory: Memory | None

    @property
    def missed(self) -> bool:
        missed = any(one.verdict == "MISSED" for one in self.comparisons)
        return missed or (self.memory is not None and self.memory.verdict == "MISSED")


@dataclass(frozen=True)
class Bench:
    """One database with its data; all sessions share one connection."""

    engine: AsyncEngine
    factory: async_sessionmaker[AsyncSession]
    data: Data
    rounds: int

    async def compare(self, operation: Operation) -> Comparison:
        """Look whether both sides do the same, then let them run by turns.

        Raises:
            DifferenceError: they do not.
        """
        given = operation.given(self.data, 0)
        ours = await self.work(operation.ours, given, operation.value)
        theirs = await self.work(operation.theirs, given, operation.value)
        done = [(side.result, side.state) for side in (ours, theirs)]
        if operation.value is not None and done[0] != done[1]:
            shown = "\n".join(f"{one!r:.300}" for one in done)
            raise DifferenceError(f"{operation.name}: the sides differ\n{shown}")
        rounds = min(self.rounds, operation.at_most or self.rounds)
        samples = [await self.round(operation, number) for number in range(rounds)]
        ratios = [both.ours / both.theirs for both in samples]
        quartiles = statistics.quantiles(ratios, n=4) if rounds > 1 else [*ratios, *ratios, *ratios]
        return Comparison(
            operation.name,
            Both(ours.statements, theirs.statements),
            Both(ours.savepoints, theirs.savepoints),
            ratio=statistics.median(ratios),
            spread=(quartiles[0], quartiles[2]),
            microseconds=Both(
                statistics.median(both.ours for both in samples) * 1e6,
                statistics.median(both.theirs for both in samples) * 1e6,
            ),
            goal=operation.goal,
        )

    async def work(
        self, side: Side, given: Any, value: Callable[[Any], Any] | None = as_is
    ) -> Work:
        """Run a side once, count, and roll back."""
        async with self.factory() as session:
            await session.connection()
            with StatementLog(self.engine) as log, savepoints(self.engine) as savepoint_names:
                result = await side(session, given)
                statements = log.count
            shown = value(result) if value else None
            state = await table_state(session)
            await session.rollback()
        return Work(shown, statements, len(savepoint_names), state)

    async def round(self, operation: Operation, number: int) -> Both:
        """Return seconds per call of ours, theirs, theirs, ours: a drift hits both alike."""
        first = number * operation.calls
        given = [operation.given(self.data, first + n) for n in range(operation.calls)]
        ours, theirs = operation.ours, operation.theirs
        spent = [await self.sample(side, given) for side in (ours, theirs, theirs, ours)]
        return Both((spent[0] + spent[3]) / 2, (spent[1] + spent[2]) / 2)

    async def sample(self, side: Side, given: Sequence[Any]) -> float:
        """Return seconds per call, in a transaction that is open before and rolled back after."""
        spent = 0.0
        async with self.factory() as session:
            await session.connection()
            with no_garbage_collection():
                for one in given:
                    start = time.perf_counter()
                    result = await side(session, one)
                    spent += time.perf_counter() - start
                    session.expunge_all()
                    del result
            await session.rollback()
        return spent / len(given)

    async def memory(self) -> Memory:
        ids = self.data.wagon_ids
        tenth = ids[len(ids) // 10]
        ours = await self.peak(stream_ours, tenth)
        theirs = await self.peak(stream_by_hand, tenth)
        return Memory(len(ids), await self.peak(stream_ours, ids[-1]), Both(ours, theirs))

    async def peak(self, side: Side, highest: int) -> float:
        """Return the most mebibytes that Python objects took beyond what there was before."""
        async with self.factory() as session:
            await side(session, highest // 10)  # what is kept for good: compiled statements
            gc.collect()
            tracemalloc.start()
            try:
                await side(session, highest)
                return tracemalloc.get_traced_memory()[1] / MEBIBYTE
            finally:
                tracemalloc.stop()


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def savepoints(engine: AsyncEngine) -> Iterator[list[str]]:
    """Yield the names of the savepoints that are set; each costs two round trips."""
    names: list[str] = []

    def record(_connection: object, name: str) -> None:
        names.append(name)

    event.listen(engine.sync_engine, "savepoint", record)
    try:
        yield names
    finally:
        event.remove(engine.sync_engine, "savepoint", record)


async def table_state(session: AsyncSession) -> tuple[Any, ...]:
    """Return numbers that differ if the tables' contents do."""
    numbers = [func.count(), func.count(col(Wagon.remark)), func.sum(Wagon.tonnes)]
    statement: Any = core_select(*numbers, func.sum(Wagon.train_id), func.max(Wagon.code))
    return tuple((await session.exec(statement)).one())


async def measure(
    server: Server, names: Sequence[str], *, rows: int, rounds: int
) -> tuple[list[Comparison], Memory | None]:
    """Fill the server's database, and compare the operations with these names.

    Raises:
        DifferenceError: two sides do not do the same, or one has left something behind.
    """
    # The open cursor of a stream is one statement: its time includes what the reader does.
    engine = engine_for(server.url, pool_size=1, max_overflow=0, statement_timeout=3600)
    bench = Bench(engine, session_factory(engine), Data(rows), rounds)
    comparisons = []
    memory = None
    try:
        say(f"{server.version}: filling")
        await create_tables(engine, bench.data)
        await look_deep(engine, bench.data)
        before = await bench.work(get_by_hand, bench.data.wagon_ids[0], row)
        gc.collect()
        gc.freeze()  # later collections then look at what the sides leave, not at the libraries
        for operation in [one for one in OPERATIONS if one.name in names]:
            say(f"{server.version}: {operation.name}")
            comparisons.append(await bench.compare(operation))
        if (await bench.work(get_by_hand, bench.data.wagon_ids[0], row)).state != before.state:
            raise DifferenceError("an operation has left something behind")
        if STREAM.name in names:
            say(f"{server.version}: {STREAM.name}")
            await add_wagons(engine, bench.data, first=rows)
            comparisons.append(await bench.compare(STREAM))
            memory = await bench.memory()
    finally:
        gc.unfreeze()
        await engine.dispose()
    return comparisons, memory


# Databases


def started(name: str, *, required: bool) -> Server | None:
    """Return the server, or None if it is not there and need not be.

    Raises:
        UsageError: it was asked for.
    """
    try:
        return KINDS[name]()
    except (ServerUnavailableError, ModuleNotFoundError) as error:
        if required:
            raise UsageError(f"no {name}: {error}") from None
        say(f"{name} is left out: {error}")
        return None


def run(wanted: Sequence[str], operations: Sequence[str], rows: int, rounds: int) -> list[Report]:
    """Measure one database after the other, and show each table as soon as it is there.

    Raises:
        UsageError: no such database.
        DifferenceError: two sides do not do the same.
    """
    reports = []
    for name in wanted or NAMES:
        server = started(name, required=bool(wanted))
        if server is None:
            continue
        with closing(server):
            measured = asyncio.run(measure(server, operations, rows=rows, rounds=rounds))
        report = Report(name, server.version, *measured)
        print("\n".join(table(report)), flush=True)
        reports.append(report)
    return reports


# What is shown


def say(line: str) -> None:
    print(f"bench.py: {line}", file=sys.stderr, flush=True)


def table(report: Report) -> Iterator[str]:
    yield f"\n{report.version}"
    yield from aligned(
        [
            ("operation", "statements", "savepoints", "ratio", "quartiles", "goal", "verdict"),
            *(cells(comparison) for comparison in report.comparisons),
        ]
    )
    if report.memory:
        yield memory_line(report.memory)


def cells(comparison: Comparison) -> tuple[str, ...]:
    return (
        comparison.operation,
        f"{comparison.statements.ours}/{comparison.statements.theirs}",
        f"{comparison.savepoints.ours}/{comparison.savepoints.theirs}",
        f"{comparison.ratio:.2f}",
        "-".join(f"{quartile:.2f}" for quartile in comparison.spread),
        str(comparison.goal),
        comparison.verdict,
    )


def aligned(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        yield " | ".join(padded).rstrip()


def memory_line(memory: Memory) -> str:
    tenth = memory.for_a_tenth
    return (
        f"stream of {memory.rows} rows: at most {memory.ours:.1f} MiB of Python objects; "
        f"{tenth.ours:.1f} for a tenth of them, {tenth.theirs:.1f} by hand: {memory.verdict}"
    )


def as_json(reports: Sequence[Report], rows: int, rounds: int) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "rows": rows,
        "rounds": rounds,
        "databases": [
            {
                "name": report.name,
                "version": report.version,
                "operations": [
                    {**asdict(one), "verdict": one.verdict} for one in report.comparisons
                ],
                "memory": report.memory
                and {**asdict(report.memory), "verdict": report.memory.verdict},
            }
            for report in reports
        ],
    }


def at_least(smallest: int) -> Callable[[str], int]:
    def number(given: str) -> int:
        if not given.isdecimal() or int(given) < smallest:
            raise argparse.ArgumentTypeError(f"{given!r} is no whole number from {smallest} on")
        return int(given)

    return number


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="bench.py",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--database", action="append", choices=NAMES, default=[],
        help="measure on this one; may be repeated (default: all that are there)",
    )  # fmt: skip
    parser.add_argument(
        "--operation", action="append", choices=NAMES_OF_OPERATIONS, default=[], metavar="NAME",
        help=f"measure this one; may be repeated (default: all): {', '.join(NAMES_OF_OPERATIONS)}",
    )  # fmt: skip
    parser.add_argument(
        "--rows", type=at_least(LEAST_ROWS), default=ROWS, help=f"in the table (default: {ROWS})"
    )
    parser.add_argument(
        "--rounds", type=at_least(1), default=ROUNDS, help=f"of each pair (default: {ROUNDS})"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured there")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a goal is missed")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    operations = arguments.operation or NAMES_OF_OPERATIONS
    try:
        reports = run(arguments.database, operations, arguments.rows, arguments.rounds)
        if arguments.json:
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            content = as_json(reports, arguments.rows, arguments.rounds)
            arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except UsageError as error:
        say(str(error))
        return 2
    except (DifferenceError, OSError) as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("stopped; its databases are dropped")
        return 128 + signal.SIGINT
    return int(arguments.strict and any(report.missed for report in reports))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
