"""Keep tenants apart: by row, with PostgreSQL's row level security behind it, or by schema."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from sqlalchemy import (
    Column,
    ColumnClause,
    Connection,
    ForeignKeyConstraint,
    Join,
    MetaData,
    Select,
    Table,
    TableClause,
    Text,
    TextClause,
    UniqueConstraint,
    bindparam,
    event,
    func,
    inspect,
    select,
    text,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, async_sessionmaker
from sqlalchemy.orm import ORMExecuteState, SessionTransaction, with_loader_criteria
from sqlalchemy.schema import CreateSchema
from sqlalchemy.sql import visitors
from sqlalchemy.sql.lambdas import LambdaElement
from sqlalchemy.sql.selectable import Alias, AliasedReturnsRows, SelectBase
from sqlmodel import Field, Relationship, Session, SQLModel, col
from sqlmodel.ext.asyncio.session import AsyncSession

TENANT_CHANGED = "UPDATE can't change tenant_id, and needs no condition on it"
UPSERTS = (mysql.Insert, postgresql.Insert, sqlite.Insert)


class TenantError(Exception):
    """Something would read or write rows of another tenant, or may do so."""


class TenantMixin(SQLModel):
    tenant_id: int = Field(default=None, nullable=False, index=True)  # the session fills it in


class TenantSession(Session):
    """One tenant for as long as the session lives: `get` answers from what the session holds."""

    def __init__(self, *args: Any, tenant_id: int | None = None, **options: Any) -> None:
        if tenant_id is None:
            raise TenantError("a session needs its tenant: make it with tenant_factory")
        super().__init__(*args, **options)
        self.tenant_id = tenant_id

    def _refuse(self, *_args: Any, **_options: Any) -> NoReturn:
        raise TenantError("bulk methods see no tenant: execute insert(Model) with rows as params")

    bulk_save_objects = bulk_insert_mappings = bulk_update_mappings = _refuse


def tenant_factory(engine: AsyncEngine, tenant_id: int) -> async_sessionmaker[AsyncSession]:
    """Return a maker of sessions that see and write the rows of one tenant; one per request."""
    return async_sessionmaker(
        engine,
        class_=AsyncSession,
        expire_on_commit=False,
        sync_session_class=TenantSession,
        tenant_id=tenant_id,
    )


def _tenant_models(mixin: type[TenantMixin] = TenantMixin) -> Iterator[type[TenantMixin]]:
    for model in mixin.__subclasses__():
        if inspect(model, raiseerr=False) is not None:
            yield model
        yield from _tenant_models(model)


@event.listens_for(TenantSession, "do_orm_execute")
def _stay_inside(state: ORMExecuteState) -> None:
    """Filter each statement, and refuse the ones that the filter does not reach."""
    tenant_id: int = state.session.tenant_id  # type: ignore[attr-defined]
    internal = state.is_relationship_load or state.is_column_load
    allowed = internal or state.execution_options.get("tenant_checked")
    if not allowed and (reason := _unfiltered(state, tenant_id)):
        raise TenantError(f'{reason}; execution_options={{"tenant_checked": True}} lets it pass')
    if not allowed and any(_unfiltered_froms(each) for each in _selects(state.statement)):
        state.statement = _filter_selects(state.statement, tenant_id)
    if state.is_orm_statement and not state.is_insert:
        state.statement = state.statement.options(
            *(
                with_loader_criteria(model, col(model.tenant_id) == tenant_id, include_aliases=True)
                for model in _tenant_models()
            )
        )


def _unfiltered(state: ORMExecuteState, tenant_id: int) -> str | None:
    """Return why the filter would not reach all of the statement."""
    if isinstance(state.statement, LambdaElement):
        return "lambda_stmt() is not filtered"
    if not state.is_orm_statement or state.is_from_statement:
        return "SQL text and Core statements are not filtered"
    if state.is_insert:
        return _unchecked_insert(state, tenant_id)
    reason = _beyond_filters(state.statement)
    if reason is None and any(map(_unfiltered_froms, _selects_of_tables_in_columns(state))):
        reason = "column_property() over a Table is not filtered, over its model it is"
    return reason if reason or state.is_select else _unchecked_change(state)


def _beyond_filters(statement: Any) -> str | None:
    if any(map(_reads_unfiltered, statement._with_options)):
        return "a subquery in a loader option is not filtered"
    return next(filter(None, map(_beyond_filter, visitors.iterate(statement))), None)


def _beyond_filter(element: Any) -> str | None:
    """Return why neither SQLAlchemy's criteria nor ours filter what the element names."""
    if isinstance(element, TextClause) or _is_sql(element):  # `a OR b` would swallow the filter
        return "SQL text is not filtered"
    if isinstance(element, TableClause) and not isinstance(element, Table) and _is_tenants(element):
        return f"table({element.name!r}) is not filtered, its model is"
    if isinstance(element, Select) and any(map(_is_tenants, _joined_tables(element))):
        return "a Table in a join is not filtered, nor is join() in select_from; select.join() is"
    entity = element._annotations.get("parententity")
    if entity is not None and any(map(_unfiltered_froms, _selects(entity.selectable))):
        return "aliased() over a subquery is not filtered that has models in conditions alone"
    return None


def _reads_unfiltered(option: Any) -> bool:
    criteria = [getattr(option, "where_criteria", None)]
    for load in getattr(option, "context", ()):
        criteria += load._extra_criteria  # of with_expression() too
    selects = (each for one in criteria if one is not None for each in _selects(one))
    return any(map(_unfiltered_froms, selects))


def _selects_of_tables_in_columns(state: ORMExecuteState) -> Iterator[Any]:
    """Those of models are filtered with the statement that loads the column."""
    for mapper in state.all_mappers:
        for each in (each for attribute in mapper.column_attrs for each in attribute.columns):
            yield from (select for select in _selects(each) if not _is_orm(select))


def _is_orm(statement: Any) -> bool:
    return bool(statement._propagate_attrs.get("compile_state_plugin") == "orm")


def _joined_tables(statement: Any) -> Iterator[Any]:
    joins = [each for each in statement._from_obj if isinstance(each, Join)]
    targets = [target for target, *_ in statement._setup_joins if not _entity(target)]
    for each in (*joins, *targets):
        yield from (each, *_without_subqueries(each))


def _is_sql(element: Any) -> bool:
    literal = isinstance(element, ColumnClause) and element.is_literal
    return literal and not re.fullmatch(r"\*|\d+", element.name)  # as in count(*), select(1)


def _is_tenants(from_clause: Any) -> bool:
    while isinstance(from_clause, AliasedReturnsRows):
        from_clause = from_clause.element
    names = {inspect(model).local_table.name for model in _tenant_models()}
    return isinstance(from_clause, TableClause) and from_clause.name in names


def _entity(element: Any) -> Any:
    return element._annotations.get("parententity") or getattr(element, "entity", None)


def _selects(statement: Any) -> Iterator[Any]:
    return (each for each in visitors.iterate(statement) if isinstance(each, Select))


def _unfiltered_froms(statement: Any) -> list[Any]:
    """Return what a SELECT reads that with_loader_criteria does not filter for sure.

    That goes by columns that stand alone, FROM and joins. It may miss models in expressions and
    (SQLAlchemy 2.0) in WHERE, and always misses tables.
    """
    named = [*statement._raw_columns, *statement._where_criteria]
    inner = [each for element in named for each in _without_subqueries(element)]
    left = [each for _, _, each, _ in statement._setup_joins if each is not None]
    froms = dict.fromkeys(
        getattr(each, "table", each) for each in (*named, *inner, *statement._from_obj, *left)
    )
    sure = [each for each in (*statement._raw_columns, *statement._from_obj) if _entity(each)]
    filtered = {getattr(each, "table", each) for each in sure} if _is_orm(statement) else set()
    filtered |= {getattr(_entity(each), "selectable", None) for each, *_ in statement._setup_joins}
    return [each for each in froms if _is_tenants(each) and each not in filtered]


def _filter_selects(statement: Any, tenant_id: int) -> Any:
    def filter_one(select: Any) -> None:
        froms = _unfiltered_froms(select)
        select._where_criteria += tuple(each.c.tenant_id == tenant_id for each in froms)

    elements = list(visitors.iterate(statement))
    keep = [each for each in elements if isinstance(each, Alias)]
    keep += [option for each in elements for option in getattr(each, "_with_options", ())]
    return visitors.cloned_traverse(statement, {"stop_on": keep}, {"select": filter_one})


def _unchecked_change(state: ORMExecuteState) -> str | None:
    if _changes_tenant_rows(state):
        if isinstance(state.parameters, Sequence):
            return "UPDATE by primary key is not filtered"
        if state.is_update and "tenant_id" in (state.parameters or {}):
            return TENANT_CHANGED
    target = state.bind_mapper and state.bind_mapper.local_table
    for element in _without_subqueries(state.statement):
        if getattr(element, "table", target) is not target:
            return f"{element} of a second table is not filtered, in a subquery it is"
        if isinstance(element, Column) and state.is_update and element.name == "tenant_id":
            return TENANT_CHANGED
    return None


def _unchecked_insert(state: ORMExecuteState, tenant_id: int) -> str | None:
    statement: Any = state.statement
    if _changes_tenant_rows(state):
        if isinstance(statement, UPSERTS):
            return "an upsert may change rows of other tenants"
        parameters: Any = state.parameters or {}
        rows = parameters if isinstance(parameters, Sequence) else [parameters]
        if any(row.get("tenant_id") != tenant_id for row in rows):
            return f"INSERT needs its rows as params, each with tenant_id={tenant_id}"
    if any(isinstance(element, SelectBase) for element in visitors.iterate(statement)):
        return "SELECT inside INSERT is not filtered"
    return None


def _changes_tenant_rows(state: ORMExecuteState) -> bool:
    return state.bind_mapper is not None and issubclass(state.bind_mapper.class_, TenantMixin)


def _without_subqueries(element: Any) -> Iterator[Any]:
    for child in element.get_children():
        if not isinstance(child, SelectBase):
            yield child
            yield from _without_subqueries(child)


@event.listens_for(TenantSession, "before_flush")
def _write_inside(session: TenantSession, _context: Any, _instances: Any) -> None:
    for row in (*session.new, *session.dirty, *session.deleted):
        if not isinstance(row, TenantMixin):
            continue
        given: int | None = row.tenant_id
        if given is None and row in session.new:
            row.tenant_id = session.tenant_id
        elif given != session.tenant_id:
            raise TenantError(
                f"a {type(row).__name__} of tenant {given}, in a session of {session.tenant_id}"
            )


SETTING = "app.tenant_id"


@event.listens_for(TenantSession, "after_begin")
def _tell_row_security(
    session: TenantSession, transaction: SessionTransaction, connection: Connection
) -> None:
    if connection.dialect.name == "postgresql" and not transaction.nested:
        # true: until the end of the transaction, so that the pool hands it to nobody else.
        statement = text("SELECT set_config(:name, :tenant, true)")
        connection.execute(statement, {"name": SETTING, "tenant": str(session.tenant_id)})


def row_security_statements(table: str, schema: str | None = None) -> list[str]:
    """Return what a migration executes for a table with `tenant_id`, on PostgreSQL.

    FORCE binds the table's owner too; superusers and roles with BYPASSRLS pass all the same.
    """
    # Once set, the setting is '' in later transactions, no longer NULL.
    mine = f"tenant_id = nullif(current_setting('{SETTING}', true), '')::int"
    dialect: Any = postgresql.dialect
    quote = dialect().identifier_preparer.quote
    name = f"{quote(schema)}.{quote(table)}" if schema else quote(table)
    policy = quote(f"{table}_tenant")
    return [
        f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY {policy} ON {name} USING ({mine}) WITH CHECK ({mine})",
    ]


async def unprotected_tables(connection: AsyncConnection) -> list[str]:
    """Return the tenant tables that row level security leaves open to this role; at start-up."""
    tables = {inspect(model).local_table for model in _tenant_models()}
    active = select(func.row_security_active(bindparam("name", type_=Text)))
    name = connection.dialect.identifier_preparer.format_table  # PostgreSQL reads it as SQL does
    ordered = sorted(tables, key=lambda table: table.fullname)
    return [t.fullname for t in ordered if not await connection.scalar(active, {"name": name(t)})]


class TenantSchemaBase(SQLModel):
    """For models whose tables each tenant has in a schema of its own."""

    metadata = MetaData(schema="tenant")  # a placeholder: no schema has this name


def schema_engine(engine: AsyncEngine, schema: str | None) -> AsyncEngine:
    """Return an engine on the same pool for one tenant's schema, on MariaDB its database.

    SQLite has a file, and so an engine, per tenant: None there.
    """
    return engine.execution_options(schema_translate_map={"tenant": schema})


async def create_tenant_schema(engine: AsyncEngine, tenant_id: int) -> str:
    """Create the schema and its tables; on MariaDB this commits by itself. Return its name."""
    schema = f"tenant_{tenant_id:d}"  # a number: no user can choose the name
    async with schema_engine(engine, schema).begin() as connection:
        await connection.execute(CreateSchema(schema))
        await connection.run_sync(TenantSchemaBase.metadata.create_all)
    return schema


# Example: scaffold.py leaves out what follows.


class Folder(TenantMixin, table=True):
    __table_args__ = (UniqueConstraint("tenant_id", "id"),)  # for the foreign key to refer to

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=50)
    documents: list["Document"] = Relationship(back_populates="folder")


class Document(TenantMixin, table=True):
    # With the tenant in the key no document lies in another tenant's folder.
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "folder_id"], ["folder.tenant_id", "folder.id"]),
    )

    id: int | None = Field(default=None, primary_key=True)
    folder_id: int = Field(default=None, nullable=False)
    title: str = Field(max_length=50)
    folder: Folder = Relationship(back_populates="documents")


class Contract(TenantSchemaBase, table=True):
    id: int | None = Field(default=None, primary_key=True)
    partner: str = Field(max_length=50)
