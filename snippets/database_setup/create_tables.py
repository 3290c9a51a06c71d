"""Create all tables at once: for development and tests, never where Alembic is in charge."""

from sqlalchemy import Connection, MetaData, inspect
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import SQLModel


class ManagedByAlembicError(RuntimeError):
    """The database has a migration history; tables made beside it would never be migrated."""


async def create_tables(engine: AsyncEngine, metadata: MetaData = SQLModel.metadata) -> None:
    """Create the tables that are missing; existing ones are not altered.

    The modules of all models must be imported before: a class that was never imported has no table.

    Raises:
        ManagedByAlembicError: the database has Alembic's version table.
    """
    async with engine.begin() as connection:
        await connection.run_sync(_create_tables, metadata)


def _create_tables(connection: Connection, metadata: MetaData) -> None:
    if inspect(connection).has_table("alembic_version"):
        raise ManagedByAlembicError(
            "this database is managed by Alembic; run: alembic upgrade head"
        )
    metadata.create_all(connection)


async def drop_tables(engine: AsyncEngine, metadata: MetaData = SQLModel.metadata) -> None:
    """Drop the tables of the metadata, with all their rows."""
    async with engine.begin() as connection:
        await connection.run_sync(metadata.drop_all)
