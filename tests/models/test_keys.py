import time
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.models.keys import Container, Currency, Parcel, StockLevel, Warehouse, uuid7

TABLES = [Warehouse, Parcel, Container, Currency, StockLevel]
Factory = async_sessionmaker[AsyncSession]

bounded = settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

rfc_uuids = st.sampled_from([1, 3, 4, 5]).flatmap(lambda version: st.uuids(version=version))


async def test_the_database_numbers_rows_beyond_32_bits(
    session: AsyncSession, engine: AsyncEngine
) -> None:
    session.add(Warehouse(id=2**40, name="north"))
    await session.flush()
    south = Warehouse(name="south")
    session.add(south)
    await session.commit()

    # A key that was given does not move PostgreSQL's sequence.
    assert south.id == (1 if engine.dialect.name == "postgresql" else 2**40 + 1)
    if engine.dialect.name == "postgresql":
        await session.exec(sa.text("SELECT setval('warehouse_id_seq', 1099511627776)"))
        east = Warehouse(name="east")
        session.add(east)
        await session.commit()
        assert east.id == 2**40 + 1


@bounded
@given(keys=st.lists(rfc_uuids, min_size=5, max_size=10, unique=True))
async def test_uuids_round_trip_as_keys_and_in_conditions(
    factory: Factory, keys: list[UUID]
) -> None:
    for model, field in ((Parcel, "content"), (Container, "label")):
        async with factory() as session:
            session.add_all([model(id=key, **{field: str(key)}) for key in keys])
            await session.flush()
            session.expunge_all()

            found = (await session.exec(select(model).where(col(model.id).in_(keys)))).all()
            got = await session.get(model, keys[0])

            assert {row.id: getattr(row, field) for row in found} == {key: str(key) for key in keys}
            assert got is not None
            assert isinstance(got.id, UUID)


@pytest.mark.only_on("mysql", reason="the others take any 128 bits")
@pytest.mark.parametrize(
    ("key", "taken"),
    [
        ("00000000-0000-0000-0000-000000000000", True),
        ("ffffffff-ffff-ffff-ffff-ffffffffffff", True),
        ("eb1167b3-67a9-c378-7c65-c1e582e2e662", sa.__version__ < "2.1"),
    ],
)
async def test_the_uuid_type_of_mariadb_refuses_bits_that_no_standard_knows(
    session: AsyncSession, key: str, taken: bool
) -> None:
    session.add(Parcel(id=UUID(key), content="odd"))

    if taken:
        await session.flush()
    else:
        with pytest.raises(OperationalError, match="Incorrect uuid value"):
            await session.flush()


def test_uuid7_has_version_variant_and_the_time() -> None:
    before = time.time_ns() // 1_000_000
    key = uuid7()
    after = time.time_ns() // 1_000_000

    assert before <= key.int >> 80 <= after
    many = {uuid7() for _ in range(1000)}
    assert len(many) == 1000
    assert {(key.version, key.variant) for key in many} == {(7, "specified in RFC 4122")}


async def test_uuid7_keys_sort_by_creation_in_sql(session: AsyncSession) -> None:
    parcels = []
    for number in range(4):
        parcels.append(Parcel(content=str(number)))
        time.sleep(0.002)  # noqa: ASYNC251 - the next millisecond
    session.add_all(reversed(parcels))
    await session.flush()

    contents = (await session.exec(select(Parcel.content).order_by(col(Parcel.id)))).all()

    assert contents == ["0", "1", "2", "3"]


async def test_an_old_char_column_keeps_working(session: AsyncSession, engine: AsyncEngine) -> None:
    if engine.dialect.name == "mysql":
        async with engine.begin() as connection:
            await connection.execute(sa.text("ALTER TABLE container MODIFY id CHAR(32) NOT NULL"))
    old = uuid4()
    raw = f"'{old}'" if engine.dialect.name == "postgresql" else f"'{old.hex}'"
    await session.exec(sa.text(f"INSERT INTO container (id, label) VALUES ({raw}, 'old')"))
    session.add(Container(label="new"))
    await session.flush()

    assert (await session.get(Container, old)) is not None
    assert (await session.exec(select(Container.label).order_by(Container.label))).all() == [
        "new",
        "old",
    ]


async def test_types_of_uuid_columns(engine: AsyncEngine) -> None:
    def types(connection: sa.Connection) -> tuple[str, ...]:
        inspector = sa.inspect(connection)
        return tuple(
            str(inspector.get_columns(name)[0]["type"]) for name in ("parcel", "container")
        )

    async with engine.connect() as connection:
        found = await connection.run_sync(types)

    native = "UUID" if sa.__version__ >= "2.1" else "CHAR(32)"
    assert (
        found
        == {
            "sqlite": ("CHAR(32)", "CHAR(32)"),
            "postgresql": ("UUID", "UUID"),
            "mysql": (native, "CHAR(32)"),
        }[engine.dialect.name]
    )


async def test_natural_keys_tell_case_apart(session: AsyncSession) -> None:
    session.add_all([Currency(code="USD", name="dollar"), Currency(code="usd", name="other")])
    await session.flush()
    session.expunge_all()

    found = await session.get(Currency, "usd")

    assert found is not None
    assert found.name == "other"


@pytest.mark.parametrize("by", ["tuple", "names"])
async def test_composite_keys_are_found_by_tuple_and_by_names(
    session: AsyncSession, by: str
) -> None:
    session.add_all([Currency(code="EUR", name="euro"), Warehouse(id=5, name="west")])
    await session.flush()
    session.add(StockLevel(warehouse_id=5, currency_code="EUR", value=2**40))
    await session.commit()
    session.expunge_all()

    key = (5, "EUR") if by == "tuple" else {"warehouse_id": 5, "currency_code": "EUR"}
    level = await session.get(StockLevel, key)

    assert level is not None
    assert level.value == 2**40
