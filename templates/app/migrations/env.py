"""Run the migrations: on the database of the application's settings, or on the one that a program
hands over as `config.attributes["database_url"]`.

In a running event loop: `await asyncio.to_thread(command.upgrade, config, "head")`.
"""

import asyncio
from logging.config import fileConfig
from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import URL, Connection, event
from sqlalchemy.pool import NullPool
from sqlmodel.sql.sqltypes import AutoString

from app.column_types.timestamps import UTCTimestamp
from app.database.engine import engine_for
from app.database.settings import DatabaseSettings
from app.models import metadata

config = context.config


def database_url() -> URL:
    """Return the URL as an object: in alembic.ini a percent sign would need to be doubled."""
    given: URL | None = config.attributes.get("database_url")
    return given or DatabaseSettings().async_url()  # type: ignore[call-arg]


def render_item(kind: str, item: Any, autogenerate: AutogenContext) -> str | Literal[False]:
    """Write types as SQLAlchemy's own: a migration must outlive the code it was made from."""
    if kind == "type" and isinstance(item, UTCTimestamp):
        autogenerate.imports.add("from sqlalchemy.dialects import mysql")
        variant = 'with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")'
        return f"sa.DateTime(timezone={item.with_zone}).{variant}"
    if kind == "type" and isinstance(item, AutoString):
        length = item.impl_instance.length  # type: ignore[attr-defined]
        if length is None:
            return 'sa.String().with_variant(sa.String(length=255), "mysql", "mariadb")'
        return f"sa.String(length={length})"
    return False


def configure(**where: Any) -> None:
    context.configure(
        target_metadata=metadata,
        render_item=render_item,
        # SQLite can't alter a table in place; on other databases a batch is plain ALTER TABLE.
        render_as_batch=True,
        **where,
    )


def run_offline() -> None:
    configure(url=database_url(), literal_binds=True, dialect_opts={"paramstyle": "named"})
    with context.begin_transaction():
        context.run_migrations()


def run_on(connection: Connection) -> None:
    configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()


def foreign_keys_off(dbapi_connection: Any, _record: Any) -> None:
    """A batch drops the old table: with foreign keys on, rows that refer to it would go too."""
    cursor = dbapi_connection.cursor()
    cursor.execute("PRAGMA foreign_keys = OFF")
    cursor.close()


async def run_online() -> None:
    # Changing a large table may take long; waiting for a lock may not.
    engine = engine_for(database_url(), poolclass=NullPool, statement_timeout=0)
    if engine.dialect.name == "sqlite":
        event.listen(engine.sync_engine, "connect", foreign_keys_off)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(run_on)
    finally:
        await engine.dispose()


# On the command line alone: in a program the logging is configured already.
if config.cmd_opts is not None and config.config_file_name is not None:
    fileConfig(config.config_file_name, disable_existing_loggers=False)

if context.is_offline_mode():
    run_offline()
else:
    asyncio.run(run_online())
