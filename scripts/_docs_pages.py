"""Which official page describes a name, for which version; and which names belong to a topic."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple


class Page(NamedTuple):
    url: str
    versioned: bool  # whether it describes just the installed version line


def line_of(version: str | None) -> tuple[str, str]:
    """Major and minor number."""
    found = re.match(r"(\d+)\.(\d+)", version or "")
    return (found[1], found[2]) if found else ("0", "0")


def official(entry: Mapping[str, Any], versions: Mapping[str, str]) -> Page | None:
    """The page of a name that the probe has described."""
    library, module, name = entry["library"], entry["module"], entry["qualified"]
    major, minor = line_of(versions.get("pydantic") if "pydantic" in library else entry["version"])
    if library == "sqlalchemy":
        path = sqlalchemy_path(module, name)
        return Page(f"https://docs.sqlalchemy.org/en/{major}{minor}/{path}", versioned=True)
    if library in {"pydantic", "pydantic_core", "pydantic_settings"}:
        path = pydantic_path(module, name)
        return Page(f"https://docs.pydantic.dev/{major}.{minor}/api/{path}", versioned=True)
    if library in PYTHON_LIBRARIES:
        path = python_path(module, name)
        return Page(f"https://docs.python.org/{major}.{minor}/library/{path}", versioned=True)
    url = unversioned(library, module, name)
    return Page(url, versioned=False) if url else None


def unversioned(library: str, module: str, name: str) -> str | None:
    """The page of a library that publishes those of its newest version only."""
    if library == "alembic":
        return f"https://alembic.sqlalchemy.org/en/latest/{alembic_path(module, name)}"
    if library in {"fastapi", "starlette"}:
        return f"https://fastapi.tiangolo.com/reference/{fastapi_path(name)}"
    if library == "sqlmodel":
        return f"https://sqlmodel.tiangolo.com/{SQLMODEL_PATHS.get(name.partition('.')[0], '')}"
    known = OTHERS.get(library)
    return known and known.format(anchor=f"{module}.{name}")


PYTHON_LIBRARIES = {"asyncio", "contextlib", "contextvars", "sqlite3"}
OTHERS = {
    "aiomysql": "https://aiomysql.readthedocs.io/en/stable/",
    "aiosqlite": "https://aiosqlite.omnilib.dev/en/stable/api.html",
    "asyncpg": "https://magicstack.github.io/asyncpg/current/api/index.html#{anchor}",
    "httpx": "https://www.python-httpx.org/api/",
    "psycopg": "https://www.psycopg.org/psycopg3/docs/api/",
    "pymysql": "https://pymysql.readthedocs.io/en/latest/",
    "pytest_asyncio": "https://pytest-asyncio.readthedocs.io/en/stable/",
}

# SQLModel has no reference; these chapters explain the name.
SQLMODEL_PATHS = {
    "AsyncSession": "",
    "Field": "tutorial/create-db-and-table/",
    "Relationship": "tutorial/relationship-attributes/define-relationships-attributes/",
    "SQLModel": "tutorial/create-db-and-table/",
    "Session": "tutorial/insert/",
    "col": "tutorial/where/",
    "select": "tutorial/select/",
}

FASTAPI_PATHS = {
    "APIRouter": "apirouter",
    "BackgroundTasks": "background",
    "Body": "parameters",
    "Cookie": "parameters",
    "Depends": "dependencies",
    "FastAPI": "fastapi",
    "File": "parameters",
    "Form": "parameters",
    "HTTPConnection": "httpconnection",
    "HTTPException": "exceptions",
    "Header": "parameters",
    "Path": "parameters",
    "Query": "parameters",
    "Request": "request",
    "Response": "response",
    "Security": "dependencies",
    "TestClient": "testclient",
    "UploadFile": "uploadfile",
    "WebSocket": "websockets",
    "WebSocketException": "exceptions",
}


def fastapi_path(name: str) -> str:
    head = name.partition(".")[0]
    if head.endswith("Response") and head != "Response":
        module = "fastapi" if head in {"ORJSONResponse", "UJSONResponse"} else "starlette"
        return f"responses/#{module}.responses.{name}"
    if head not in FASTAPI_PATHS:
        return ""
    holder = "fastapi.testclient" if head == "TestClient" else "fastapi"
    return f"{FASTAPI_PATHS[head]}/#{holder}.{name}"


PYDANTIC_PATHS = {
    "aliases", "config", "dataclasses", "errors", "fields", "functional_serializers",
    "functional_validators", "json_schema", "networks", "root_model", "type_adapter", "types",
}  # fmt: skip


def pydantic_path(module: str, name: str) -> str:
    if not module.startswith("pydantic."):
        library = module.partition(".")[0]
        return f"{library}/#{library}.{name}" if library != "pydantic" else "base_model/"
    part = module.split(".")[1]
    if part == "main":
        return f"base_model/#pydantic.{name}"
    if part == "validate_call_decorator":
        return f"validate_call/#{module}.{name}"
    return f"{part}/#{module}.{name}" if part in PYDANTIC_PATHS else "base_model/"


def alembic_path(module: str, name: str) -> str:
    head, _, method = name.partition(".")
    if module in {"alembic.op", "alembic.operations"} and not name:
        return "ops.html"
    if module.startswith("alembic.operations"):
        head = {"AbstractOperations": "Operations"}.get(head, head)
        return f"ops.html#alembic.operations.{head}{method and '.' + method}"
    for beginning, page in (
        ("alembic.command", "commands"),
        ("alembic.config", "config"),
        ("alembic.script", "script"),
        ("alembic.autogenerate", "autogenerate"),
    ):
        if module.startswith(beginning):
            return f"api/{page}.html#{beginning}.{name}" if name else f"api/{page}.html"
    return f"api/runtime.html#{module}.{name}" if name else "api/runtime.html"


PYTHON_PAGES = {
    "asyncio.base_events": "asyncio-eventloop",
    "asyncio.events": "asyncio-eventloop",
    "asyncio.exceptions": "asyncio-exceptions",
    "asyncio.futures": "asyncio-future",
    "asyncio.locks": "asyncio-sync",
    "asyncio.queues": "asyncio-queue",
    "asyncio.runners": "asyncio-runner",
    "asyncio.streams": "asyncio-stream",
    "asyncio.subprocess": "asyncio-subprocess",
    "asyncio.taskgroups": "asyncio-task",
    "asyncio.tasks": "asyncio-task",
    "asyncio.threads": "asyncio-task",
    "asyncio.timeouts": "asyncio-task",
}


def python_path(module: str, name: str) -> str:
    library = module.partition(".")[0]
    page = PYTHON_PAGES.get(module, library)
    return f"{page}.html#{library}.{name}" if name else f"{page}.html"


# Where SQLAlchemy's documentation has what its modules define. The first rule that fits wins: the
# module, the names (all, if none are given), the page, and the module that the anchor names.
SQLALCHEMY_RULES: tuple[tuple[str, str, str, str], ...] = (
    (r"sqlalchemy\.ext\.asyncio\b", "", "orm/extensions/asyncio", "sqlalchemy.ext.asyncio"),
    (r"sqlalchemy\.ext\.hybrid", "", "orm/extensions/hybrid", "sqlalchemy.ext.hybrid"),
    (r"sqlalchemy\.ext\.mutable", "", "orm/extensions/mutable", "sqlalchemy.ext.mutable"),
    (
        r"sqlalchemy\.ext\.associationproxy",
        "",
        "orm/extensions/associationproxy",
        "sqlalchemy.ext.associationproxy",
    ),
    (r"sqlalchemy\.orm\.exc", "", "orm/exceptions", "sqlalchemy.orm.exc"),
    (
        r"sqlalchemy\.orm\.strategy_options",
        "defer|load_only|undefer|undefer_group|with_expression",
        "orm/queryguide/columns",
        "sqlalchemy.orm",
    ),
    (
        r"sqlalchemy\.orm\.strategy_options",
        "selectin_polymorphic",
        "orm/queryguide/inheritance",
        "sqlalchemy.orm",
    ),
    (
        r"sqlalchemy\.orm\.strategy_options",
        "",
        "orm/queryguide/relationships",
        "sqlalchemy.orm",
    ),
    (r"sqlalchemy\.orm\.scoping", "", "orm/contextual", "sqlalchemy.orm"),
    (r"sqlalchemy\.orm\.attributes", "QueryableAttribute|InstrumentedAttribute", "orm/internals",
     "sqlalchemy.orm"),
    (r"sqlalchemy\.orm\.attributes", "", "orm/session_api", "sqlalchemy.orm.attributes"),
    (r"sqlalchemy\.orm\.session", "", "orm/session_api", "sqlalchemy.orm"),
    (r"sqlalchemy\.orm\.events", "", "orm/events", "sqlalchemy.orm"),
    (r"sqlalchemy\.orm\.query\b", "", "orm/queryguide/query", "sqlalchemy.orm"),
    (
        r"sqlalchemy\.orm",
        "relationship|backref|dynamic_loader|foreign|remote",
        "orm/relationship_api",
        "sqlalchemy.orm",
    ),
    (r"sqlalchemy\.orm", "column_property", "orm/mapped_sql_expr", "sqlalchemy.orm"),
    (r"sqlalchemy\.orm", "validates|synonym", "orm/mapped_attributes", "sqlalchemy.orm"),
    (r"sqlalchemy\.orm", "composite", "orm/composites", "sqlalchemy.orm"),
    (r"sqlalchemy\.orm", "deferred|query_expression", "orm/queryguide/columns", "sqlalchemy.orm"),
    (
        r"sqlalchemy\.orm",
        "aliased|Bundle|with_loader_criteria|join|outerjoin|with_parent",
        "orm/queryguide/api",
        "sqlalchemy.orm",
    ),
    (r"sqlalchemy\.orm", "with_polymorphic", "orm/queryguide/inheritance", "sqlalchemy.orm"),
    (r"sqlalchemy\.orm\.(writeonly|dynamic)", "", "orm/large_collections", "sqlalchemy.orm"),
    (r"sqlalchemy\.orm\.(base|mapper|decl_api|_orm_constructors)", "", "orm/mapping_api",
     "sqlalchemy.orm"),
    (r"sqlalchemy\.orm", "", "orm/internals", "sqlalchemy.orm"),
    (r"sqlalchemy\.exc", "", "core/exceptions", "sqlalchemy.exc"),
    (r"sqlalchemy\.event", "", "core/event", "sqlalchemy.event"),
    (r"sqlalchemy\.inspection", "", "core/inspection", "sqlalchemy"),
    (r"sqlalchemy\.pool", "", "core/pooling", "sqlalchemy.pool"),
    (r"sqlalchemy\.engine\.create", "", "core/engines", "sqlalchemy"),
    (r"sqlalchemy\.engine\.url", "", "core/engines", "sqlalchemy.engine"),
    (r"sqlalchemy\.engine\.reflection", "", "core/reflection", "sqlalchemy.engine.reflection"),
    (r"sqlalchemy\.engine", "", "core/connections", "sqlalchemy.engine"),
    (r"sqlalchemy\.dialects\.postgresql", "", "dialects/postgresql",
     "sqlalchemy.dialects.postgresql"),
    (r"sqlalchemy\.dialects\.mysql", "", "dialects/mysql", "sqlalchemy.dialects.mysql"),
    (r"sqlalchemy\.dialects\.sqlite", "", "dialects/sqlite", "sqlalchemy.dialects.sqlite"),
    (
        r"sqlalchemy\.sql\.schema",
        r"\w*Constraint|ForeignKey|Index",
        "core/constraints",
        "sqlalchemy.schema",
    ),
    (
        r"sqlalchemy\.sql\.schema",
        "Sequence|Identity|Computed|ColumnDefault|DefaultClause|FetchedValue",
        "core/defaults",
        "sqlalchemy.schema",
    ),
    (r"sqlalchemy\.sql\.schema", "", "core/metadata", "sqlalchemy.schema"),
    (r"sqlalchemy\.sql\.ddl", "", "core/ddl", "sqlalchemy.schema"),
    (r"sqlalchemy\.sql\.type_api", "TypeEngine", "core/type_api", "sqlalchemy.types"),
    (r"sqlalchemy\.sql\.type_api", "", "core/custom_types", "sqlalchemy.types"),
    (r"sqlalchemy\.sql\.sqltypes", "", "core/type_basics", "sqlalchemy.types"),
    (r"sqlalchemy\.sql\.functions", "func", "core/sqlelement", "sqlalchemy.sql.expression"),
    (r"sqlalchemy\.sql\.functions", "", "core/functions", "sqlalchemy.sql.functions"),
    (r"sqlalchemy\.sql\.(dml|_dml_constructors)", "", "core/dml", "sqlalchemy.sql.expression"),
    (
        r"sqlalchemy\.sql\.(selectable|_selectable_constructors|base)",
        "",
        "core/selectable",
        "sqlalchemy.sql.expression",
    ),
    (r"sqlalchemy\.sql", "", "core/sqlelement", "sqlalchemy.sql.expression"),
    (r"sqlalchemy", "func", "core/sqlelement", "sqlalchemy.sql.expression"),
)  # fmt: skip


def sqlalchemy_path(module: str, name: str) -> str:
    head = name.partition(".")[0]
    for pattern, names, page, anchor in SQLALCHEMY_RULES:
        if re.match(pattern, module) and (not names or re.fullmatch(names, head)):
            return f"{page}.html#{anchor}.{name}" if name else f"{page}.html"
    return "genindex.html"


# Topics: the pages of references/, and what readers call their parts. First the sections of this
# bundle, then the names whose official pages belong to it.


class Topic(NamedTuple):
    sections: tuple[str, ...]
    names: tuple[str, ...] = ()


DIALECTS = "sqlalchemy.dialects"
ENGINE = ("create_async_engine", "AsyncEngine", "make_url")
SESSION = (
    "sqlmodel.ext.asyncio.session.AsyncSession",
    "async_sessionmaker",
    "AsyncSession.refresh",
)
LOADING = ("selectinload", "joinedload", "contains_eager", "raiseload")
STATEMENTS = ("sqlmodel.select", "AsyncSession.exec", "sqlalchemy.update", "sqlalchemy.delete")

TOPICS: dict[str, Topic] = {
    "database-setup": Topic(("database-setup.md",), (*ENGINE, *SESSION)),
    "engine": Topic(("database-setup.md#engine",), ENGINE),
    "urls": Topic(("database-setup.md#urls",), ("sqlalchemy.URL", "make_url")),
    "settings": Topic(("database-setup.md#settings",), ("BaseSettings", "SecretStr")),
    "session": Topic(("database-setup.md#session",), SESSION),
    "sqlite-pragmas": Topic(
        ("database-setup.md#sqlite-pragmas",), ("listens_for", "AsyncEngine.sync_engine")
    ),
    "pooling": Topic(
        ("database-setup.md#pooling",), ("AsyncAdaptedQueuePool", "NullPool", "StaticPool")
    ),
    "event-loops": Topic(("database-setup.md#event-loops",), ("AsyncEngine.dispose",)),
    "create-tables": Topic(
        ("database-setup.md#create-tables",), ("MetaData.create_all", "AsyncConnection.run_sync")
    ),
    "models": Topic(("models.md",), ("SQLModel", "sqlmodel.Field", "field_validator")),
    "keys": Topic(("models.md#keys",), ("sqlmodel.Field", "Uuid", "PrimaryKeyConstraint")),
    "columns": Topic(("models.md#columns",), ("sqlmodel.Field", "Numeric", "LargeBinary")),
    "timestamps": Topic(("models.md#timestamps",), ("sqlalchemy.DateTime", "TypeDecorator")),
    "enums-and-json": Topic(
        ("models.md#enums-and-json",),
        ("sqlalchemy.Enum", "sqlalchemy.JSON", f"{DIALECTS}.postgresql.JSONB", "MutableDict"),
    ),
    "constraints": Topic(
        ("models.md#constraints",), ("CheckConstraint", "UniqueConstraint", "Index", "MetaData")
    ),
    "mixins": Topic(("models.md#mixins",), ("declared_attr",)),
    "validation": Topic(
        ("models.md#validation",), ("SQLModel.model_validate", "field_validator", "model_validator")
    ),
    "soft-delete": Topic(("models.md#soft-delete",), ("with_loader_criteria",)),
    "relationships": Topic(
        ("relationships.md",), ("sqlmodel.Relationship", "relationship", *LOADING)
    ),
    "many-to-many": Topic(
        ("relationships.md#many-to-many", "relationships.md#association-object"),
        ("sqlmodel.Relationship", "relationship"),
    ),
    "eager-loading": Topic(("relationships.md#eager-loading",), LOADING),
    "load-policies": Topic(("relationships.md#load-policies",), ("raiseload", "relationship")),
    "cascades": Topic(("relationships.md#cascades",), ("relationship", "ForeignKey")),
    "async-operations": Topic(("async-operations.md",), (*STATEMENTS, "AsyncSession.begin_nested")),
    "queries": Topic(("async-operations.md#queries",), (*STATEMENTS, "col", "Select.where")),
    "aggregations": Topic(("async-operations.md#aggregations",), ("func.count", "func.sum")),
    "transactions": Topic(
        ("async-operations.md#transactions",), ("AsyncSession.begin", "AsyncSession.rollback")
    ),
    "savepoints": Topic(("async-operations.md#savepoints",), ("AsyncSession.begin_nested",)),
    "bulk-writes": Topic(("async-operations.md#bulk-writes",), ("sqlalchemy.insert",)),
    "upsert": Topic(
        ("async-operations.md#upsert",),
        (
            f"{DIALECTS}.postgresql.Insert.on_conflict_do_update",
            f"{DIALECTS}.sqlite.Insert.on_conflict_do_update",
            f"{DIALECTS}.mysql.Insert.on_duplicate_key_update",
        ),
    ),
    "streaming": Topic(
        ("async-operations.md#streaming", "fastapi-integration.md#streaming-responses"),
        ("AsyncSession.stream", "AsyncSession.stream_scalars", "AsyncResult.partitions"),
    ),
    "locking": Topic(
        ("async-operations.md#locking",), ("Select.with_for_update", "StaleDataError")
    ),
    "isolation": Topic(("async-operations.md#isolation",), ("AsyncConnection.execution_options",)),
    "concurrency": Topic(
        ("async-operations.md#concurrency",), ("asyncio.TaskGroup", "asyncio.timeout")
    ),
    "errors": Topic(
        ("async-operations.md#errors", "servicebase.md#errors", "troubleshooting.md"),
        ("sqlalchemy.exc.DBAPIError", "sqlalchemy.exc.IntegrityError", "MissingGreenlet"),
    ),
    "servicebase": Topic(("servicebase.md",), (*STATEMENTS, "selectinload")),
    "filters": Topic(
        ("servicebase.md#filters", "fastapi-integration.md#filters-in-urls"),
        ("Select.where", "ColumnElement.ilike", "or_"),
    ),
    "pagination": Topic(
        ("servicebase.md#offset-pagination", "servicebase.md#cursor-pagination"),
        ("Select.limit", "Select.offset", "tuple_"),
    ),
    "fastapi-integration": Topic(
        ("fastapi-integration.md",), ("FastAPI", "APIRouter", "Depends", "HTTPException")
    ),
    "dependencies": Topic(("fastapi-integration.md#dependencies",), ("Depends",)),
    "error-handlers": Topic(
        ("fastapi-integration.md#error-handlers",),
        ("FastAPI.exception_handler", "HTTPException", "RequestValidationError"),
    ),
    "background-work": Topic(("fastapi-integration.md#background-work",), ("BackgroundTasks",)),
    "testing": Topic(
        ("fastapi-integration.md#testing", "best-practices.md#testing"),
        ("httpx.ASGITransport", "pytest_asyncio.fixture"),
    ),
    "migrations": Topic(
        ("migrations.md",), ("alembic.command.upgrade", "context.configure", "alembic.op")
    ),
    "environment": Topic(
        ("migrations.md#environment",), ("context.configure", "async_engine_from_config")
    ),
    "autogenerate": Topic(
        ("migrations.md#autogenerate",), ("context.configure", "compare_metadata")
    ),
    "schema-changes": Topic(
        ("migrations.md#schema-changes",), ("op.batch_alter_table", "op.alter_column")
    ),
    "online-changes": Topic(
        ("migrations.md#online-changes",), ("op.create_index", "MigrationContext.autocommit_block")
    ),
    "production-patterns": Topic(
        ("production-patterns.md",), ("create_async_engine", "AsyncEngine.dispose", "listens_for")
    ),
    "best-practices": Topic(("best-practices.md",), ("pytest_asyncio.fixture", "sqlmodel.select")),
    "troubleshooting": Topic(("troubleshooting.md",), ("MissingGreenlet", "DetachedInstanceError")),
    "versions": Topic(("versions.md",)),
}  # fmt: skip

ALIASES = {
    "alembic": "migrations",
    "async-session": "session",
    "batch": "schema-changes",
    "crud": "servicebase",
    "database": "database-setup",
    "fastapi": "fastapi-integration",
    "lazy-loading": "eager-loading",
    "loading": "eager-loading",
    "locks": "locking",
    "pool": "pooling",
    "production": "production-patterns",
    "query": "queries",
    "repository": "servicebase",
    "service": "servicebase",
    "sqlite": "sqlite-pragmas",
    "transaction": "transactions",
}
