from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlmodel import Field, SQLModel, col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.models.columns import (
    LONG_BYTES,
    Article,
    Duration,
    ExactDecimal,
    LowerText,
    exact_text,
)


class Hopper(SQLModel, table=True):
    """The types that SQLModel and SQLAlchemy choose, for comparison."""

    id: int | None = Field(default=None, primary_key=True)
    filling: timedelta = timedelta()
    weight: float = 0
    opened: time = time()
    manual: str = Field(default="", sa_type=sa.Text)
    number: int = 0


TABLES = [Article, Hopper]
Factory = async_sessionmaker[AsyncSession]

bounded = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

text = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
cents = st.integers(-(10**15) + 1, 10**15 - 1).map(lambda n: Decimal(n).scaleb(-2))
billionths = st.integers(-(10**18) + 1, 10**18 - 1).map(lambda n: Decimal(n).scaleb(-9))
microseconds = st.integers(-(2**63), 2**63 - 1).map(lambda n: timedelta(microseconds=n))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "title": st.text(text, max_size=100),
    "sku": st.text(text, max_size=20),
    "manual": st.text(text),
    "picture": st.binary(),
    "price": cents,
    "rate": billionths,
    "weight": st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False),
    "barcode": st.integers(-(2**63), 2**63 - 1),
    "released": st.none() | st.dates(),
    "pickup": st.none() | st.times(),
    "handling": microseconds,
    "labels": st.none() | st.lists(st.text(text)),
}


async def stored(factory: Factory, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Write the rows with one session, read them with another, in the same order."""
    async with factory() as session:
        articles = [Article(**row) for row in rows]
        session.add_all(articles)
        await session.flush()
        ids = {article.id: number for number, article in enumerate(articles)}
        await session.commit()
    async with factory() as session:
        found = await session.exec(select(Article).where(col(Article.id).in_(ids)))
        by_number = {ids[article.id]: article for article in found}
    return [{name: getattr(by_number[n], name) for name in row} for n, row in enumerate(rows)]


@bounded
@given(rows=st.lists(st.fixed_dictionaries(VALUES), min_size=8, max_size=8))
async def test_every_column_gives_back_the_value_and_the_type_it_was_given(
    factory: Factory, rows: list[dict[str, Any]]
) -> None:
    found = await stored(factory, rows)

    assert found == rows
    kinds = [{name: type(value) for name, value in row.items()} for row in found]
    assert kinds == [{name: type(value) for name, value in row.items()} for row in rows]


LIMITS: list[tuple[str, Any]] = [
    ("title", "🚚" * 100),
    ("title", "trailing  "),
    ("manual", "ö" * 70_000),
    ("picture", bytes(range(256)) * 300),
    ("price", Decimal("9999999999999.99")),
    ("price", Decimal("0.01")),
    ("rate", Decimal("-999999999.999999999")),
    ("rate", Decimal("123456789.123456789")),
    ("weight", 0.1 + 0.2),
    ("weight", 1.7976931348623157e308),
    ("barcode", -(2**63)),
    ("released", date.min),
    ("released", date.max),
    ("pickup", time(23, 59, 59, 999999)),
    ("handling", timedelta(days=-1, microseconds=1)),
    ("labels", []),
    ("labels", ['"quoted", {braced}\\', "", "NULL"]),
]


async def test_limits_are_kept(factory: Factory) -> None:
    rows = [{name: value} for name, value in LIMITS]

    assert await stored(factory, rows) == rows


@bounded
@given(values=st.lists(billionths, min_size=2, max_size=8, unique=True))
async def test_exact_decimals_sort_compare_and_sum_in_sql(
    factory: Factory, values: list[Decimal]
) -> None:
    rate = col(Article.rate)
    async with factory() as session:
        session.add_all([Article(rate=value) for value in values])
        await session.flush()

        ordered = (await session.exec(select(rate).order_by(rate))).all()
        above = (await session.exec(select(rate).where(rate > values[0]))).all()
        total = (await session.exec(select(func.sum(rate)))).one()

    assert list(ordered) == sorted(values)
    assert set(above) == {value for value in values if value > values[0]}
    assert total == sum(values)


@pytest.mark.parametrize("value", ["1.0000000001", "1000000000", "NaN", "1E+400000000"])
async def test_a_decimal_that_would_be_rounded_is_refused(
    session: AsyncSession, value: str
) -> None:
    session.add(Article(rate=Decimal(value)))

    with pytest.raises(StatementError, match=r"does not fit into ExactDecimal\(digits=18"):
        await session.flush()


async def test_trailing_zeros_are_no_extra_places(factory: Factory) -> None:
    (row,) = await stored(factory, [{"rate": Decimal("1.50000000000000")}])

    assert row == {"rate": Decimal("1.5")}


async def test_null_stays_null_in_the_decorated_types(session: AsyncSession) -> None:
    nothing = select(sa.literal(None, ExactDecimal(5, 2)), sa.literal(None, Duration()))

    assert (await session.exec(nothing)).one() == (None, None)
    assert (await session.exec(select(func.sum(col(Article.rate))))).one() is None


def test_exact_decimals_end_where_64_bits_end() -> None:
    with pytest.raises(ValueError, match="SQLite's numbers end there"):
        ExactDecimal(19, 2)


@bounded
@given(values=st.lists(st.timedeltas(-timedelta(10**5), timedelta(10**5)), min_size=1, max_size=8))
async def test_durations_sort_compare_and_sum_in_sql(
    factory: Factory, values: list[timedelta]
) -> None:
    handling = col(Article.handling)
    async with factory() as session:
        session.add_all([Article(handling=value) for value in values])
        await session.flush()

        ordered = (await session.exec(select(handling).order_by(handling))).all()
        long = (await session.exec(select(handling).where(handling > timedelta(days=1)))).all()
        total = (await session.exec(select(func.sum(handling)))).one()

    assert list(ordered) == sorted(values)
    assert sorted(long) == sorted(value for value in values if value > timedelta(days=1))
    assert total == sum(values, timedelta())


async def test_exact_text_tells_case_and_accents_apart(session: AsyncSession) -> None:
    session.add_all([Article(sku=sku) for sku in ("a", "A", "á", "🚚", "🚛")])
    await session.flush()

    for sku in ("a", "A", "á", "🚚", "🚛"):
        assert (await session.exec(select(Article.sku).where(Article.sku == sku))).all() == [sku]


async def test_exact_text_takes_trailing_spaces_for_nothing_on_mariadb_only(
    session: AsyncSession, engine: AsyncEngine
) -> None:
    session.add(Article(sku="a "))
    await session.flush()

    found = (await session.exec(select(Article.sku).where(Article.sku == "a"))).all()

    assert found == (["a "] if engine.dialect.name == "mysql" else [])


@pytest.mark.only_on("mysql", reason="the collation is MariaDB's")
async def test_a_collation_without_padding_counts_trailing_spaces(engine: AsyncEngine) -> None:
    table = sa.Table(
        "label", sa.MetaData(), sa.Column("sku", exact_text(9, mysql_collation="utf8mb4_nopad_bin"))
    )
    async with engine.begin() as connection:
        await connection.run_sync(table.create)
        await connection.execute(table.insert(), [{"sku": "a"}, {"sku": "a "}, {"sku": "A"}])

        for sku in ("a", "a ", "A"):
            found = await connection.execute(select(table.c.sku).where(table.c.sku == sku))
            assert found.scalars().all() == [sku]


async def test_plain_text_is_found_in_any_case_on_mariadb_only(
    session: AsyncSession, engine: AsyncEngine
) -> None:
    session.add_all([Article(title="a"), Article(title="A"), Article(title="á")])
    await session.flush()

    found = (await session.exec(select(Article.title).where(Article.title == "a"))).all()

    assert sorted(found) == (["A", "a", "á"] if engine.dialect.name == "mysql" else ["a"])


@pytest.mark.parametrize("picture", [b"", b"\0\xff", None])
async def test_bytes_can_be_searched_and_be_null(session: AsyncSession, picture: bytes) -> None:
    value = sa.literal(picture, LONG_BYTES)
    session.add(Article(picture=picture or b""))
    await session.flush()

    found = (await session.exec(select(Article.id).where(col(Article.picture) == value))).all()

    assert len(found) == (0 if picture is None else 1)


async def test_plain_types_lose_precision_on_mariadb_only(
    session: AsyncSession, engine: AsyncEngine
) -> None:
    given = (timedelta(microseconds=7), 0.123456789, time(1, 2, 3, 4))
    hopper = Hopper(filling=given[0], weight=given[1], opened=given[2])
    session.add(hopper)
    await session.flush()
    await session.refresh(hopper)

    found = (hopper.filling, hopper.weight, hopper.opened)
    lost = (timedelta(), 0.123457, time(1, 2, 3))
    assert found == (lost if engine.dialect.name == "mysql" else given)


@pytest.mark.parametrize(
    ("values", "refused_by"),
    [({"manual": "x" * 65_536}, {"mysql"}), ({"number": 2**31}, {"mysql", "postgresql"})],
)
async def test_plain_types_have_limits(
    session: AsyncSession, engine: AsyncEngine, values: dict[str, Any], refused_by: set[str]
) -> None:
    session.add(Hopper(**values))

    if engine.dialect.name in refused_by:
        with pytest.raises(DBAPIError, match=r"Data too long|Out of range|out of int32 range"):
            await session.flush()
    else:
        await session.flush()


async def test_text_that_is_too_long_is_refused_except_by_sqlite(
    session: AsyncSession, engine: AsyncEngine
) -> None:
    session.add(Article(title="x" * 101))

    if engine.dialect.name == "sqlite":
        await session.flush()
    else:
        with pytest.raises(DBAPIError, match=r"value too long for type|Data too long for column"):
            await session.flush()


async def test_sums_of_plain_numeric_are_exact_enough_to_its_places(session: AsyncSession) -> None:
    session.add_all([Article(price=Decimal("0.10")) for _ in range(3)])
    await session.flush()

    total = (await session.exec(select(func.sum(col(Article.price))))).one()

    assert total == Decimal("0.30")


def test_types_write_themselves_into_a_migration() -> None:
    assert repr(ExactDecimal(12, 4)) == "ExactDecimal(digits=12, places=4)"
    assert repr(Duration()) == "Duration()"


async def test_autogenerate_finds_no_difference(engine: AsyncEngine) -> None:
    def differences(connection: sa.Connection) -> Any:
        options = {"include_name": lambda name, kind, _: kind != "table" or name == "article"}
        context = MigrationContext.configure(connection, opts=options | {"compare_type": True})
        wanted = sa.MetaData()
        Article.__table__.to_metadata(wanted)
        return compare_metadata(context, wanted)

    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_lower_text_is_unique_and_found_in_any_case(session: AsyncSession) -> None:
    rows = [Article(contact="Ada@B.org"), Article(contact="adá@b.org"), Article()]
    session.add_all(rows)
    await session.commit()

    found = await session.exec(select(Article).where(Article.contact == "ADA@b.ORG"))
    assert found.all() == rows[:1]
    assert rows[0].contact == "Ada@B.org"  # until it is read anew
    by_start = select(Article.contact).where(col(Article.contact).startswith("ADA"))
    assert (await session.exec(by_start)).all() == ["ada@b.org"]

    session.add(Article(contact="ADA@B.ORG"))
    with pytest.raises(IntegrityError):
        await session.flush()


def test_lower_text_is_written_into_a_migration_as_it_is_made() -> None:
    assert repr(LowerText(20)) == "LowerText(length=20)"
    assert LowerText(20).length == 20
