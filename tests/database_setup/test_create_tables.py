import pytest
from sqlalchemy import Column, Integer, MetaData, Table, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine

from snippets.database_setup.create_tables import (
    ManagedByAlembicError,
    create_tables,
    drop_tables,
)

METADATA = MetaData()
Table("leaf", METADATA, Column("id", Integer, primary_key=True))


async def tables(engine: AsyncEngine) -> list[str]:
    async with engine.connect() as connection:
        return await connection.run_sync(lambda sync: inspect(sync).get_table_names())


async def test_tables_are_created_once_and_dropped(engine: AsyncEngine) -> None:
    await create_tables(engine, METADATA)
    await create_tables(engine, METADATA)
    assert await tables(engine) == ["leaf"]

    await drop_tables(engine, METADATA)
    assert await tables(engine) == []


async def test_a_database_with_migrations_is_left_alone(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))

    with pytest.raises(ManagedByAlembicError, match="run: alembic upgrade head"):
        await create_tables(engine, METADATA)

    assert await tables(engine) == ["alembic_version"]
