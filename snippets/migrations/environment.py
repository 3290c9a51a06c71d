"""What `env.py` calls: run the migrations online, offline, or on a connection that is given."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from logging.config import fileConfig
from pathlib import Path
from typing import Any, Literal, cast

from alembic import context
from alembic.autogenerate.api import AutogenContext
from alembic.autogenerate.render import _repr_type
from alembic.ddl.sqlite import SQLiteImpl
from alembic.operations.batch import ApplyBatchImpl
from alembic.runtime.migration import MigrationContext
from sqlalchemy import (
    URL,
    CheckConstraint,
    Connection,
    DefaultClause,
    MetaData,
    Table,
    TextClause,
    literal_column,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.pool import NullPool
from sqlalchemy.types import TypeDecorator
from sqlmodel.sql.sqltypes import AutoString

from snippets.database_setup.engine import engine_for
from snippets.database_setup.settings import DatabaseSettings
from snippets.migrations.autogenerate import guard_revision, known_enum_as_code
from snippets.models.timestamps import UTCTimestamp

# Tables in which migrations keep what they removed, see schema_changes.py; no model has them.
PARKED = "parked_"


class DanglingReferenceError(RuntimeError):
    """On SQLite a migration would leave rows that refer to rows which are not there."""


def run_migrations(metadata: MetaData, **options: Any) -> None:
    """Run the command; `options` go to `context.configure`.

    A program may set `config.attributes`: "connection", which it opened and commits, or
    "database_url". Else the URL is the one of the settings.

    Raises:
        RuntimeError: a transaction is open on a connection to SQLite that checks foreign keys.
    """
    config = context.config
    # On the command line alone: in a program the logging is configured already.
    file = Path(config.config_file_name or "")
    if config.cmd_opts is not None and file.is_file():
        fileConfig(file, disable_existing_loggers=False)
    options = _options(metadata) | options
    if context.is_offline_mode():
        _run(url=_database_url(), literal_binds=True, **options)
    elif (connection := config.attributes.get("connection")) is not None:
        _run_on(connection, options)
    else:
        asyncio.run(_connect_and_run(options))


def _database_url() -> URL:
    """Return the URL as an object: in alembic.ini a percent sign would need to be doubled."""
    given: URL | None = context.config.attributes.get("database_url")
    return given or DatabaseSettings().async_url()  # type: ignore[call-arg]


def _options(metadata: MetaData) -> dict[str, Any]:
    return {
        "target_metadata": metadata,
        "include_name": include_name,
        "include_object": include_object,
        "render_item": render_item,
        "process_revision_directives": guard_revision,
        # SQLite can't alter a table in place; on other databases a batch is plain ALTER TABLE.
        "render_as_batch": True,
        # One that fails does not undo those before it, and none holds the locks of all.
        "transaction_per_migration": True,
        # Alembic from 1.20 on compares named CHECK constraints only when told to.
        "autogenerate_plugins": ["alembic.autogenerate.*", "alembic.ext.checkconstraint_byname"],
    }


def include_name(name: str | None, kind: str, _parents: Mapping[str, str | None]) -> bool:
    """Leave out what is in the database and is none of the models' business."""
    return kind != "table" or name is None or not name.startswith(PARKED)


def include_object(item: Any, _name: Any, _kind: Any, _reflected: bool, _other: Any) -> bool:
    """Leave out models with `info={"unmanaged": True}`, such as views, and heed `ddl_if()`."""
    if item.info.get("unmanaged", False):
        return False
    condition = getattr(item, "_ddl_if", None)  # Alembic does not look at it
    wanted = getattr(condition, "dialect", None)
    names = (wanted,) if isinstance(wanted, str) else wanted
    return names is None or context.get_context().dialect.name in names


def render_item(kind: str, item: Any, autogenerate: AutogenContext) -> str | Literal[False]:
    """Write our own types as SQLAlchemy's: a migration must outlive the code it was made from."""
    if kind != "type":
        return False
    code, needed = _type_as_code(item, autogenerate)
    if (known := known_enum_as_code(item, autogenerate.opts)) is not None:
        code, needed = known, {"from sqlalchemy.dialects import postgresql"}
    autogenerate.imports.update(needed)
    return code


def _type_as_code(item: Any, autogenerate: AutogenContext) -> tuple[str | Literal[False], set[str]]:
    """Return the type's code, or False for Alembic's own, and the imports that either needs."""
    code: str | Literal[False] = False
    needed: set[str] = set()
    if isinstance(item, UTCTimestamp):
        variant = 'with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")'
        code = f"sa.DateTime(timezone={item.with_zone}).{variant}"
        needed = {"from sqlalchemy.dialects import mysql"}
    elif isinstance(item, AutoString):
        length = item.impl_instance.length  # type: ignore[attr-defined]
        code = f"sa.String(length={length})"
        if length is None:
            code = 'sa.String().with_variant(sa.String(length=255), "mysql", "mariadb")'
    elif isinstance(item, JSONB | ARRAY):  # as variants Alembic writes them with a bare `Text()`
        code = f"postgresql.JSONB(none_as_null={getattr(item, 'none_as_null', False)})"
        if isinstance(item, ARRAY):
            code = f"postgresql.ARRAY({_repr_type(item.item_type, autogenerate)})"
        needed = {"from sqlalchemy.dialects import postgresql"}
    elif isinstance(item, mysql.LONGBLOB):
        code = "mysql.LONGBLOB()"
        needed = {"from sqlalchemy.dialects import mysql"}
    elif isinstance(item, TypeDecorator):
        needed = {f"import {type(item).__module__}"}
    return code, needed


def _run(**where_and_how: Any) -> None:
    context.configure(**where_and_how)
    with context.begin_transaction():
        context.run_migrations()


def _run_on(connection: Connection, options: dict[str, Any]) -> None:
    if connection.dialect.name != "sqlite":
        _run(connection=connection, **options)
        return
    with _foreign_keys_off(connection):
        _run(connection=connection, **{"on_version_apply": _check_references} | options)


@contextmanager
def _foreign_keys_off(connection: Connection) -> Iterator[None]:
    """A batch drops the old table: with foreign keys on, rows that refer to it would go too."""
    if not _pragma(connection, "foreign_keys"):
        yield
        return
    if connection.in_transaction():  # where the setting can't be changed
        raise RuntimeError("end the transaction before you hand over the connection")
    _pragma(connection, "foreign_keys = OFF")
    try:
        yield
        connection.commit()  # a query of Alembic's begins one as well
    finally:
        connection.rollback()
        _pragma(connection, "foreign_keys = ON")


def _pragma(connection: Connection, what: str) -> Any:
    """Run it past SQLAlchemy, which would begin a transaction; return what is set."""
    cursor = connection.connection.cursor()
    try:
        cursor.execute(f"PRAGMA {what}")
        row = cursor.fetchone()
    finally:
        cursor.close()
    return row and row[0]


def _check_references(*, ctx: MigrationContext, **_step: Any) -> None:
    """Still in the transaction of the migration: what is wrong is rolled back."""
    connection = cast("Connection", ctx.connection)
    if dangling := connection.exec_driver_sql("PRAGMA foreign_key_check").all():
        tables = ", ".join(sorted({row[0] for row in dangling}))
        raise DanglingReferenceError(f"rows of {tables} refer to rows that are not there")


async def _connect_and_run(options: dict[str, Any]) -> None:
    # Changing a large table may take long; waiting for a lock may not.
    engine = engine_for(_database_url(), poolclass=NullPool, statement_timeout=0)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_run_on, options)
    finally:
        await engine.dispose()


# --- SQL that the database gave back ---


def keep_as_written(table: Table) -> None:
    """Keep reflected defaults and CHECKs as they are: in text `:word` is a parameter, in JSON too.

    One that has a value is no part of what was reflected, and stays a parameter.
    """
    for column in table.columns:
        if isinstance(column.server_default, DefaultClause):
            column.server_default.arg = _as_written(column.server_default.arg)
    for constraint in table.constraints:
        if isinstance(constraint, CheckConstraint):
            constraint.sqltext = _as_written(constraint.sqltext)


def _as_written(clause: Any) -> Any:
    if isinstance(clause, TextClause) and None in clause.compile().params.values():
        return literal_column(clause.text)
    return clause


class _SQLite(SQLiteImpl):
    """What Alembic does on SQLite, from the import on: a batch copies what was there."""

    __dialect__ = "sqlite"

    def prep_table_for_batch(self, batch_impl: ApplyBatchImpl, table: Table) -> None:
        super().prep_table_for_batch(batch_impl, table)
        keep_as_written(cast("Table", batch_impl.new_table))
        for index in batch_impl.indexes.values():
            options = index.dialect_options["sqlite"]
            options["where"] = _as_written(options["where"])
