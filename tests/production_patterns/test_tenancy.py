import random
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    URL,
    MetaData,
    column,
    exists,
    func,
    lambda_stmt,
    literal_column,
    or_,
    table,
    text,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import DBAPIError, IntegrityError, NoResultFound
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlalchemy.orm import (
    aliased,
    column_property,
    join,
    joinedload,
    query_expression,
    selectinload,
    with_expression,
    with_loader_criteria,
)
from sqlalchemy.schema import CreateSchema, DropSchema
from sqlmodel import Field, SQLModel, col, delete, insert, select, true, update
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

from snippets.async_operations.bulk_writes import insert_rows, update_by_key
from snippets.async_operations.transactions import Account
from snippets.database_setup.engine import engine_for
from snippets.database_setup.session import session_factory, session_scope
from snippets.production_patterns import tenancy
from snippets.production_patterns.tenancy import (
    Contract,
    Document,
    Folder,
    TenantError,
    TenantMixin,
    TenantSchemaBase,
    TenantSession,
    create_tenant_schema,
    row_security_statements,
    schema_engine,
    tenant_factory,
    unprotected_tables,
)
from snippets.servicebase.errors import NotFoundError
from snippets.servicebase.service import ServiceBase


class Order(TenantMixin, table=True):
    """Its name needs quotes, for two reasons."""

    __tablename__ = "Order"

    id: int | None = Field(default=None, primary_key=True)


class FileCabinet(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)


FileCabinet.files = column_property(select(func.count(Document.id)).scalar_subquery())
FileCabinet.newest = query_expression()


class FileVault(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)


FileVault.files = column_property(select(func.count(Document.__table__.c.id)).scalar_subquery())
TABLES = [Account, Folder, Document, Order, FileCabinet]
Factory = async_sessionmaker[AsyncSession]
FOREIGN = 100  # ids from here on are the other tenant's


@pytest.fixture
async def ours(engine: AsyncEngine) -> Factory:
    """The sessions of tenant 1, who has folder 1 and document 1; tenant 2 has 101."""
    for tenant, key in ((1, 1), (2, FOREIGN + 1)):
        async with session_scope(tenant_factory(engine, tenant)) as session:
            folder = Folder(id=key, name=f"folder {key}")
            folder.documents = [Document(id=key, title=f"document {key}")]
            session.add(folder)
    return tenant_factory(engine, 1)


async def everything(engine: AsyncEngine) -> list[tuple[Any, ...]]:
    async with session_factory(engine)() as session:
        folders = select(Folder.id, Folder.tenant_id, Folder.name).order_by(col(Folder.id))
        documents = select(Document.id, Document.tenant_id, Document.title, Document.folder_id)
        rows = [*await session.exec(folders)]
        return [*rows, *await session.exec(documents.order_by(col(Document.id)))]


async def theirs(engine: AsyncEngine) -> list[tuple[Any, ...]]:
    return [row for row in await everything(engine) if row[1] == 2]


THEIRS = [(101, 2, "folder 101"), (101, 2, "document 101", 101)]
other_folder = aliased(Folder)
documents = Document.__table__.c
other = Document.__table__.alias().c
light = table("document", column("id"), column("title")).c
from_table = select(documents.id).subquery().c
their_document = exists().where(Document.title == "document 101")
QUERIES = {
    "objects": select(Folder.id),
    "alias": select(other_folder.id),
    "join": select(Document.id).join(Folder, true()),
    "outer join": select(Document.id).select_from(Folder).outerjoin(Document, true()),
    "relationship": select(Document.id).join(Document.folder).where(Folder.name != ""),
    "exists": select(Folder.id).where(Folder.documents.any(Document.title != "")),
    "subquery": select(select(Document.id).subquery().c.id),
    "cte": select(select(Document.id).cte("some").c.id),
    "union": select(Document.id).union_all(select(Folder.id)),
    "scalar": select(select(func.max(Document.id)).scalar_subquery()),
    "in": select(Folder.id).where(col(Folder.id).in_(select(Document.folder_id))),
    "or": select(Folder.id).where((Folder.id == 1) | (Folder.id == FOREIGN + 1)),
    "where alone": select(func.count()).where(Document.title != ""),
    "alias in where alone": select(Folder.id).where(other_folder.id >= Folder.id),
    "where alone in a join": (
        select(Folder.id).join(Folder.documents).where(other_folder.id >= Document.id)
    ),
    "two in a value": select(func.max(Folder.id * Document.id)).where(Document.id >= Folder.id),
    "table": select(documents.id).where(documents.id >= Folder.id),
    "alias of a table": select(other.id).where(other.id >= Folder.id),
    "scalar of a table": select(select(func.max(other.id)).scalar_subquery()).where(Folder.id > 0),
    "the same table": (
        select(select(func.max(Folder.__table__.c.id)).correlate(None).scalar_subquery()).where(
            Folder.id > 0
        )
    ),
    "subquery of a table": select(from_table.id).where(from_table.id >= Folder.id),
    "in of a table": select(Folder.id).where(col(Folder.id).in_(select(documents.folder_id))),
    "correlated": select(other_folder.id).where(exists().where(Document.id == other_folder.id)),
}
EMPTY = {
    "not in": select(Folder.id).where(col(Folder.id).not_in(select(Document.id))),
    "exists": select(Folder.id).where(their_document),
    "exists of a table": select(Folder.id).where(exists().where(documents.title == "document 101")),
    "exists in a subquery": select(select(Folder.id).where(their_document).subquery().c.id),
    "having": select(Folder.id).group_by(col(Folder.id)).having(their_document),
    "any": select(Folder.id).where(other_folder.documents.any(Document.id == FOREIGN + 1)),
}


async def test_no_query_sees_rows_of_others(ours: Factory) -> None:
    found = {}
    async with ours() as session:
        for name, statement in (*QUERIES.items(), *EMPTY.items()):
            rows = (await session.exec(statement)).all()
            found[name] = {row if isinstance(row, int) else row[0] for row in rows}

    assert found == {name: {1} for name in QUERIES} | {name: set() for name in EMPTY}


async def test_an_outer_join_keeps_our_rows_that_have_none(ours: Factory) -> None:
    async with session_scope(ours) as session:
        session.add(Folder(id=2, name="empty"))

    async with ours() as session:
        value = func.coalesce(Document.title, Folder.name)
        query = select(Folder.id, value).outerjoin(Folder.documents).order_by(col(Folder.id))
        some = query.where(or_(Folder.name == "empty", Folder.documents.any()))
        for statement in (query, some):
            found = (await session.exec(statement)).all()
            assert found == [(1, "document 1"), (2, "empty")]


async def test_each_select_of_a_statement_is_filtered(
    ours: Factory, statements: StatementLog
) -> None:
    async with ours() as session:
        statement = select(Folder).where(Folder.documents.any(Document.title != ""))
        loading = statement.options(selectinload(Folder.documents))
        for each in (statement, loading, loading):  # the last one from the cache
            statements.clear()
            await session.exec(each)
            first = next(text for text in statements.texts if "EXISTS" in text)
            assert first.count("document.tenant_id = ") == 1
            assert first.count("folder.tenant_id = document.tenant_id") == 1


async def test_a_count_counts_ours(ours: Factory) -> None:
    async with ours() as session:
        assert (await session.exec(select(func.count()).select_from(Folder))).one() == 1


async def test_get_finds_no_row_of_others(ours: Factory) -> None:
    async with ours() as session:
        assert (await session.get_one(Folder, 1)).name == "folder 1"
        assert await session.get(Folder, FOREIGN + 1) is None
        with pytest.raises(NoResultFound):
            await session.get_one(Folder, FOREIGN + 1)


@pytest.mark.parametrize("load", [selectinload, joinedload])
async def test_loaded_relationships_are_ours_as_are_later_loads(
    ours: Factory, load: Callable[..., Any]
) -> None:
    async with ours() as session:
        statement = select(Folder).options(load(Folder.documents))
        (folder,) = (await session.exec(statement)).unique().all()
        assert [document.id for document in folder.documents] == [1]

        await session.refresh(folder)
        await session.refresh(folder, ["documents"])
        assert [document.id for document in folder.documents] == [1]


async def test_computed_columns_and_conditions_of_options_see_ours(ours: Factory) -> None:
    newest = with_expression(FileCabinet.newest, FileCabinet.id + 1)
    named = selectinload(Folder.documents.and_(Document.title != ""))
    async with session_scope(ours) as session:
        session.add(FileCabinet())
    async with ours() as session:
        cabinet = (await session.exec(select(FileCabinet).options(newest))).one()
        folder = (await session.exec(select(Folder).options(named))).one()

    assert (cabinet.files, cabinet.newest) == (1, 2)
    assert [document.id for document in folder.documents] == [1]


async def test_changes_reach_our_rows_alone(ours: Factory, engine: AsyncEngine) -> None:
    async with session_scope(ours) as session:
        with_documents = col(Folder.id).in_(select(Document.folder_id))
        last = select(func.max(Document.title)).scalar_subquery()
        assert (await session.exec(update(Folder).values(name=last))).rowcount == 1
        assert (await session.get_one(Folder, 1)).name == "document 1"
        await session.exec(update(Folder).where(with_documents).values(name="changed"))
        await session.exec(update(Folder).where(Folder.documents.any()).values(name="changed"))
        for change in (update(Folder).values(name="x"), delete(Folder)):
            assert (await session.exec(change.where(their_document))).rowcount == 0
        assert (await session.exec(delete(Document))).rowcount == 1

    assert await everything(engine) == [(1, 1, "changed"), *THEIRS]


upserts = [
    module.insert(Folder).values(tenant_id=1, name="x") for module in (mysql, postgresql, sqlite)
]
LATER = "is not filtered"
IN_OPTION = "a subquery in a loader option is not filtered"
their_folder = exists().where(other_folder.id == FOREIGN + 1)
REFUSED = {
    "text": (text("SELECT id FROM folder"), "SQL text and Core statements are not filtered"),
    "core": (select(Folder.__table__), "SQL text and Core statements are not filtered"),
    "core insert": (Folder.__table__.insert().values(tenant_id=2), "Core statements"),
    "from text": (select(Folder).from_statement(text("SELECT * FROM folder")), "SQL text and Core"),
    "text in a query": (select(Folder).where(text("1 = 1 OR 1 = 1")), "SQL text is not filtered"),
    "text in an update": (update(Folder).where(text("1 = 1 OR 1 = 1")).values(name=""), LATER),
    "literal column": (select(Folder).where(literal_column("1 = 1 OR 1 = 1")), "SQL text is not"),
    "literal column in an update": (
        update(Folder).where(literal_column("1 = 1 OR 1 = 1")).values(name=""),
        "SQL text is not filtered",
    ),
    "name of a table": (select(Folder.id, light.title), r"table\('document'\) is not filtered"),
    "name of a table in a scalar": (
        select(Folder.id, select(func.max(light.title)).scalar_subquery()),
        r"table\('document'\) is not filtered, its model is",
    ),
    "join of a table": (
        select(Folder.id).join(Document.__table__),
        "a Table in a join is not filtered",
    ),
    "join in select_from": (
        select(Folder.id).select_from(join(Folder, Document)),
        r"nor is join\(\) in select_from; select.join\(\) is",
    ),
    "aliased subquery": (
        select(aliased(Folder, select(Folder).where(their_document).subquery()).id),
        r"aliased\(\) over a subquery is not filtered that has models in conditions alone",
    ),
    "lambda": (
        lambda_stmt(lambda: select(func.count()).where(Document.title != "")),
        r"lambda_stmt\(\) is not filtered",
    ),
    "loader criteria": (
        select(Folder).options(with_loader_criteria(Folder, their_document)),
        IN_OPTION,
    ),
    "loader criteria in a function": (
        select(Folder).options(with_loader_criteria(Folder, lambda _model: their_document)),
        IN_OPTION,
    ),
    "condition of a relationship": (
        select(Folder).options(selectinload(Folder.documents.and_(their_folder))),
        IN_OPTION,
    ),
    "expression of an option": (
        select(FileCabinet).options(
            with_expression(FileCabinet.newest, select(Document.id).limit(1).scalar_subquery())
        ),
        IN_OPTION,
    ),
    "expression of an option with its model in FROM": (
        select(FileCabinet).options(
            with_expression(
                FileCabinet.newest,
                select(Document.id).select_from(Document).limit(1).scalar_subquery(),
            )
        ),
        IN_OPTION,
    ),
    "column over a table": (
        select(FileVault),
        r"column_property\(\) over a Table is not filtered, over its model it is",
    ),
    "update from": (
        update(Folder).where(Folder.id == Document.folder_id).values(name=Document.title),
        "document.folder_id of a second table is not filtered, in a subquery it is",
    ),
    "update from an alias": (
        update(Folder).where(Folder.id == other_folder.id).values(name="x"),
        "of a second table is not filtered",
    ),
    "delete using": (
        delete(Document).where(Document.folder_id == Folder.id),
        "folder.id of a second table is not filtered",
    ),
    "update of the tenant": (
        update(Folder).values(tenant_id=2),
        "UPDATE can't change tenant_id, and needs no condition on it",
    ),
    "insert values": (
        insert(Folder).values(tenant_id=2, name="x"),
        "INSERT needs its rows as params, each with tenant_id=1",
    ),
    "insert from select": (
        insert(Folder).from_select(["tenant_id", "name"], select(Document.id, Document.title)),
        "INSERT needs its rows as params, each with tenant_id=1",
    ),
    **{
        f"upsert {number}": (upsert, "an upsert may change rows of other tenants")
        for number, upsert in enumerate(upserts)
    },
}


async def test_what_the_filter_does_not_reach_is_refused(
    ours: Factory, engine: AsyncEngine
) -> None:
    async with session_scope(ours) as session:
        for statement, reason in REFUSED.values():
            with pytest.raises(TenantError, match=reason):
                await session.exec(statement)

    assert await theirs(engine) == THEIRS


ROWS_REFUSED = [
    (update(Folder), [{"id": FOREIGN + 1, "name": "x"}], "UPDATE by primary key is not filtered"),
    (update(Folder), ({"id": FOREIGN + 1, "name": "x"},), "UPDATE by primary key is not filtered"),
    (update(Folder).where(Folder.id == 1), {"tenant_id": 2}, "UPDATE can't change tenant_id"),
    (update(Folder).values(name=""), {"tenant_id": 2}, "UPDATE can't change tenant_id"),
    (insert(Folder), [{"tenant_id": 1, "name": ""}, {"name": ""}], "each with tenant_id=1"),
    (insert(Folder), {"tenant_id": 2, "name": ""}, "each with tenant_id=1"),
    (
        insert(Folder).values(name=select(func.max(Document.title)).scalar_subquery()),
        {"tenant_id": 1},
        "SELECT inside INSERT is not filtered",
    ),
]


async def test_rows_for_others_are_refused(ours: Factory, engine: AsyncEngine) -> None:
    async with session_scope(ours) as session:
        for statement, rows, reason in ROWS_REFUSED:
            with pytest.raises(TenantError, match=reason):
                await session.exec(statement, params=rows)

    assert await theirs(engine) == THEIRS


class FolderPublic(TenantMixin):
    """A schema with the tenant in it, which is no table to be filtered."""

    name: str


class FolderService(ServiceBase[Folder, FolderPublic, FolderPublic]):
    def values_for_create(self, data: FolderPublic) -> dict[str, Any]:
        tenant_id = self.session.sync_session.tenant_id
        return super().values_for_create(data) | {"tenant_id": tenant_id}


@pytest.mark.parametrize(
    "write",
    [
        lambda session: session.bulk_update_mappings(Folder, [{"id": FOREIGN + 1, "name": "x"}]),
        lambda session: session.bulk_insert_mappings(Folder, [{"tenant_id": 2, "name": "x"}]),
        lambda session: session.bulk_save_objects([Folder(tenant_id=2, name="x")]),
    ],
)
async def test_bulk_methods_are_refused(
    ours: Factory, engine: AsyncEngine, write: Callable[[Any], None]
) -> None:
    async with session_scope(ours) as session:
        with pytest.raises(TenantError, match="bulk methods see no tenant"):
            await session.run_sync(write)

    assert await theirs(engine) == THEIRS


async def test_a_service_stays_inside_too(engine: AsyncEngine) -> None:
    async with session_scope(tenant_factory(engine, 2)) as session:
        session.add(Folder(id=FOREIGN + 1, name="theirs"))

    async with session_scope(tenant_factory(engine, 1)) as session:
        service = FolderService(session)
        await service.create_many([FolderPublic(name=name) for name in "ab"])
        assert (await service.page()).total == 2
        assert not await service.exists(name="theirs")
        with pytest.raises(NotFoundError):
            await service.delete(FOREIGN + 1)
        assert await service.update_where(values={"name": "x"}, everything=True) == 2

    assert await theirs(engine) == [(FOREIGN + 1, 2, "theirs")]


async def test_a_checked_statement_passes(ours: Factory) -> None:
    statement = text("SELECT name FROM folder WHERE tenant_id = :tenant")
    options = {"tenant_checked": True}
    async with ours() as session:
        with pytest.raises(TenantError, match="tenant_checked"):
            await session.exec(statement, params={"tenant": 1})
        found = await session.exec(statement, params={"tenant": 1}, execution_options=options)

        assert found.all() == [("folder 1",)]


async def test_rows_inserted_in_bulk_say_their_tenant(ours: Factory, engine: AsyncEngine) -> None:
    async with session_scope(ours) as session:
        rows = [{"id": key, "tenant_id": 1, "name": "x"} for key in (50, 51)]
        await insert_rows(session, Folder, rows)

    async with ours() as session:
        assert len((await session.exec(select(Folder))).all()) == 3
    assert await theirs(engine) == THEIRS


async def test_no_other_tenant_is_written_by_a_flush(ours: Factory, engine: AsyncEngine) -> None:
    async with tenant_factory(engine, 2)() as session:
        foreign = await session.get_one(Folder, FOREIGN + 1)

    async def change(session: AsyncSession) -> None:
        foreign.name = "changed"
        session.add(foreign)

    async def drop(session: AsyncSession) -> None:
        await session.delete(foreign)

    async def add(session: AsyncSession) -> None:
        session.add(Folder(tenant_id=2, name="new"))

    async def give_away(session: AsyncSession) -> None:
        (await session.get_one(Folder, 1)).tenant_id = 2

    async def forget_whose(session: AsyncSession) -> None:
        (await session.get_one(Folder, 1)).tenant_id = None

    for write in (change, drop, add, give_away, forget_whose):
        with pytest.raises(TenantError, match=r"a Folder of tenant (2|None), in a session of 1"):
            async with session_scope(ours) as session:
                await write(session)
        session.sync_session.expunge_all()
    assert await theirs(engine) == THEIRS


async def test_rows_of_other_tables_are_written_as_ever(ours: Factory) -> None:
    async with session_scope(ours) as session:
        session.add_all([Folder(id=50, name="ours"), Account(id=7, owner="Ada")])
        await insert_rows(session, Account, [{"id": 8, "owner": "Alan"}])
        await update_by_key(session, Account, [{"id": 8, "owner": "Grace"}])

    async with ours() as session:
        assert (await session.get_one(Folder, 50)).tenant_id == 1
        assert await session.get(Account, 7)
        assert (await session.get_one(Account, 8)).owner == "Grace"


async def test_no_row_can_refer_to_another_tenants(ours: Factory, engine: AsyncEngine) -> None:
    with pytest.raises(IntegrityError):
        async with session_scope(ours) as session:
            session.add(Document(folder_id=FOREIGN + 1, title="peeping"))
    with pytest.raises(IntegrityError):  # such a key is taken, by whom it does not say
        async with session_scope(ours) as session:
            await session.merge(Folder(id=FOREIGN + 1, name="mine"))

    assert await theirs(engine) == THEIRS


async def test_a_session_needs_a_tenant(engine: AsyncEngine) -> None:
    forgetful = async_sessionmaker(engine, class_=AsyncSession, sync_session_class=TenantSession)
    with pytest.raises(TenantError, match="a session needs its tenant: make it with tenant_fact"):
        forgetful()


class Play:
    """Random operations of one tenant, and what its tables must look like after them."""

    def __init__(self, engine: AsyncEngine, tenant: int, dice: random.Random) -> None:
        self.factory = tenant_factory(engine, tenant)
        self.dice = dice
        self.rows: dict[int, str] = {}
        self.moves = (
            self.add, self.bulk_add, self.rename_all, self.rename_one, self.delete_some, self.look,
            self.meddle,
        )  # fmt: skip

    async def move(self, foreign: list[int]) -> None:
        """Do one of them in a transaction, of which every third is rolled back."""
        before = dict(self.rows)
        keep = self.dice.random() < 2 / 3
        try:
            async with session_scope(self.factory) as session:
                await self.dice.choice(self.moves)(session, foreign)
                if not keep:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            self.rows = before

    async def add(self, session: AsyncSession, _foreign: list[int]) -> None:
        folder = Folder(name=uuid.uuid4().hex)
        session.add(folder)
        await session.flush()
        self.rows[folder.id] = folder.name

    async def bulk_add(self, session: AsyncSession, _foreign: list[int]) -> None:
        tenant = session.sync_session.tenant_id
        rows = [{"tenant_id": tenant, "name": uuid.uuid4().hex} for _ in range(2)]
        await insert_rows(session, Folder, rows)
        names = {row["name"] for row in rows}
        added = await session.exec(select(Folder).where(col(Folder.name).in_(names)))
        self.rows |= {folder.id: folder.name for folder in added}

    async def rename_all(self, session: AsyncSession, _foreign: list[int]) -> None:
        name = uuid.uuid4().hex
        result = await session.exec(update(Folder).values(name=name))
        assert result.rowcount == len(self.rows)
        self.rows = dict.fromkeys(self.rows, name)

    async def rename_one(self, session: AsyncSession, _foreign: list[int]) -> None:
        if self.rows:
            key = self.dice.choice(list(self.rows))
            (await session.get_one(Folder, key)).name = self.rows[key] = uuid.uuid4().hex

    async def delete_some(self, session: AsyncSession, _foreign: list[int]) -> None:
        if len(self.rows) > 5:
            limit = self.dice.choice(list(self.rows))
            await session.exec(delete(Folder).where(col(Folder.id) <= limit))
            self.rows = {key: name for key, name in self.rows.items() if key > limit}

    async def look(self, session: AsyncSession, _foreign: list[int]) -> None:
        found = (await session.exec(select(Folder.id, Folder.name))).all()
        assert dict(found) == self.rows

    async def meddle(self, session: AsyncSession, foreign: list[int]) -> None:
        for key in foreign:
            assert await session.get(Folder, key) is None
            result = await session.exec(update(Folder).where(Folder.id == key).values(name="mine"))
            assert result.rowcount == 0
            result = await session.exec(delete(Folder).where(Folder.id == key))
            assert result.rowcount == 0


async def play(engine: AsyncEngine, seed: int, moves: int = 120) -> None:
    dice = random.Random(seed)
    first, second = (Play(engine, tenant, dice) for tenant in (1, 2))
    for _ in range(moves):
        actor, other = dice.sample([first, second], 2)
        await actor.move(list(other.rows)[:3])
    for player in (first, second):
        async with player.factory() as session:
            await player.look(session, [])


@pytest.mark.parametrize("seed", range(3))
async def test_two_tenants_with_one_connection_never_meet(
    engine: AsyncEngine, database_url: URL, seed: int
) -> None:
    shared = engine_for(database_url, pool_size=1, max_overflow=0)
    try:
        await play(shared, seed)
    finally:
        await shared.dispose()


@pytest.fixture
async def role(engine: AsyncEngine) -> AsyncIterator[str]:
    """An ordinary role that owns nothing and may use the tables, which are protected."""
    name = f"async_sqlmodel_{uuid.uuid4().hex}"
    async with engine.begin() as connection:
        await connection.execute(text(f"CREATE ROLE {name}"))
        await connection.execute(text(f"GRANT USAGE ON SCHEMA public TO {name}"))
        await connection.execute(text(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {name}"))
        await connection.execute(text(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {name}"))
        for table in ("folder", "document", "Order"):
            for statement in row_security_statements(table):
                await connection.execute(text(statement))
    yield name
    async with engine.begin() as connection:
        await connection.execute(text(f"REASSIGN OWNED BY {name} TO CURRENT_USER"))
        await connection.execute(text(f"DROP OWNED BY {name}"))
        await connection.execute(text(f"DROP ROLE {name}"))


@pytest.fixture
async def app_engine(role: str, database_url: URL) -> AsyncIterator[AsyncEngine]:
    """One connection as that role, for all tenants in turn."""
    arguments = {"server_settings": {"role": role}}
    engine = engine_for(database_url, pool_size=1, max_overflow=0, connect_args=arguments)
    yield engine
    await engine.dispose()


on_postgresql = pytest.mark.only_on("postgresql", reason="the one with row level security")
ALL_NAMES = text("SELECT name FROM folder ORDER BY id")
CHECKED = {"tenant_checked": True}


async def names(factory: Factory) -> list[str]:
    async with factory() as session:
        result = await session.exec(ALL_NAMES, execution_options=CHECKED)
        return [name for (name,) in result]


@on_postgresql
async def test_row_security_filters_sql_text_too(app_engine: AsyncEngine, ours: Factory) -> None:
    assert await names(tenant_factory(app_engine, 1)) == ["folder 1"]
    assert await names(tenant_factory(app_engine, 2)) == ["folder 101"]


@on_postgresql
async def test_the_setting_does_not_reach_the_next_user_of_the_connection(
    app_engine: AsyncEngine, ours: Factory
) -> None:
    nobody = session_factory(app_engine)
    assert await names(nobody) == []

    async with session_scope(tenant_factory(app_engine, 1)) as session:
        await session.get_one(Folder, 1)
    assert await names(nobody) == []  # after a commit
    with pytest.raises(ZeroDivisionError):
        async with session_scope(tenant_factory(app_engine, 1)) as session:
            await session.get_one(Folder, 1)
            raise ZeroDivisionError
    assert await names(nobody) == []  # after a rollback


@on_postgresql
async def test_the_setting_outlives_a_savepoint_and_follows_a_commit(
    app_engine: AsyncEngine, ours: Factory
) -> None:
    with StatementLog(app_engine) as log:
        async with tenant_factory(app_engine, 1)() as session:
            savepoint = await session.begin_nested()
            await savepoint.rollback()
            found = await session.exec(ALL_NAMES, execution_options=CHECKED)
            assert found.all() == [("folder 1",)]
            await session.commit()
            found = await session.exec(ALL_NAMES, execution_options=CHECKED)
            assert found.all() == [("folder 1",)]

    assert sum("set_config" in statement for statement in log.texts) == 2  # one a transaction


@on_postgresql
@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO folder (tenant_id, name) VALUES (2, 'x')",
        "UPDATE folder SET tenant_id = 2",
    ],
)
async def test_row_security_refuses_rows_for_others(
    app_engine: AsyncEngine, ours: Factory, statement: str
) -> None:
    with pytest.raises(DBAPIError) as caught:
        async with session_scope(tenant_factory(app_engine, 1)) as session:
            await session.exec(text(statement), execution_options=CHECKED)

    assert 'new row violates row-level security policy for table "folder"' in str(caught.value)


@on_postgresql
async def test_two_tenants_never_meet_behind_row_security(app_engine: AsyncEngine) -> None:
    await play(app_engine, seed=7)


@on_postgresql
async def test_tables_without_protection_are_found(
    engine: AsyncEngine, app_engine: AsyncEngine, role: str
) -> None:
    async def unprotected(engine: AsyncEngine) -> list[str]:
        async with engine.connect() as connection:
            return await unprotected_tables(connection)

    assert await unprotected(engine) == ["Order", "document", "folder"]  # a superuser
    assert await unprotected(app_engine) == []

    async with engine.begin() as connection:
        await connection.execute(text(f"ALTER TABLE folder OWNER TO {role}"))
    assert await unprotected(app_engine) == []
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE folder NO FORCE ROW LEVEL SECURITY"))
    assert await unprotected(app_engine) == ["folder"]


class Vault(SQLModel, table=True):
    """As a tenant's model in a schema is; a real one would be looked for by all other tests."""

    metadata = MetaData()
    __table_args__ = {"schema": "Safe"}

    id: int | None = Field(default=None, primary_key=True)
    tenant_id: int


@on_postgresql
async def test_a_table_of_a_schema_is_protected_and_looked_for(
    engine: AsyncEngine, role: str, app_engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the table's name alone: `relation "vault" does not exist`."""
    monkeypatch.setattr(tenancy, "_tenant_models", lambda: [Vault])
    async with engine.begin() as connection:
        await connection.execute(CreateSchema("Safe"))
        await connection.run_sync(Vault.__table__.create)
        await connection.execute(text(f'GRANT USAGE ON SCHEMA "Safe" TO {role}'))
    async with app_engine.connect() as connection:
        before = await unprotected_tables(connection)

    async with engine.begin() as connection:
        for statement in row_security_statements("vault", schema="Safe"):
            await connection.execute(text(statement))
    async with app_engine.connect() as connection:
        after = await unprotected_tables(connection)
    async with engine.begin() as connection:
        await connection.execute(DropSchema("Safe", cascade=True))

    assert (before, after) == (["Safe.vault"], [])


async def add_contract(engine: AsyncEngine, partner: str) -> list[str]:
    async with session_scope(session_factory(engine)) as session:
        session.add(Contract(partner=partner))
    async with session_factory(engine)() as session:
        return list(await session.exec(select(Contract.partner).order_by(col(Contract.id))))


@pytest.mark.not_on("sqlite", reason="SQLite has no schemas to create")
async def test_each_tenant_has_a_schema(database_url: URL) -> None:
    shared = engine_for(database_url, pool_size=1, max_overflow=0)
    numbers = random.sample(range(10**8, 10**9), 2)  # on MariaDB they are the server's databases
    schemas = [await create_tenant_schema(shared, number) for number in numbers]
    try:
        first, second = (schema_engine(shared, schema) for schema in schemas)
        assert first.pool is second.pool
        assert await add_contract(first, "Ada") == ["Ada"]
        assert await add_contract(second, "Grace") == ["Grace"]
        assert await add_contract(first, "Alan") == ["Ada", "Alan"]
    finally:
        async with shared.begin() as connection:
            for schema in schemas:
                cascade = connection.dialect.name == "postgresql"
                await connection.execute(DropSchema(schema, cascade=cascade))
        await shared.dispose()


@pytest.mark.only_on("sqlite", reason="a file per tenant is SQLite's schema")
async def test_each_tenant_has_a_file(tmp_path: Path) -> None:
    engines = [engine_for(f"sqlite:///{tmp_path}/{name}.db") for name in "ab"]
    first, second = (schema_engine(engine, None) for engine in engines)
    for engine in (first, second):
        async with engine.begin() as connection:
            await connection.run_sync(TenantSchemaBase.metadata.create_all)

    assert await add_contract(first, "Ada") == ["Ada"]
    assert await add_contract(second, "Grace") == ["Grace"]

    for engine in engines:
        await engine.dispose()


async def test_without_a_schema_nothing_is_found(
    session: AsyncSession, engine: AsyncEngine
) -> None:
    with pytest.raises(DBAPIError) as caught:
        await session.exec(select(Contract))

    assert {
        "sqlite": "no such table: tenant.contract",
        "postgresql": 'relation "tenant.contract" does not exist',
        "mysql": "Table 'tenant.contract' doesn't exist",
    }[engine.dialect.name] in str(caught.value)


def test_the_schemas_tables_are_apart_from_the_shared_ones() -> None:
    assert not TenantSchemaBase.metadata.tables.keys() & SQLModel.metadata.tables.keys()
