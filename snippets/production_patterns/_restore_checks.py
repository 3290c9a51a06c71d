"""What `verify_restore` asks of each table."""

from sqlalchemy import Boolean, Column, Integer, MetaData, Table, column, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlmodel import SQLModel


async def count_rows(connection: AsyncConnection, table: Table) -> int:
    """Count by reading: each value of each row passes through its column's type."""
    count = 0
    async with connection.stream(select(table)) as rows:
        async for _ in rows:
            count += 1
    return count


async def orphans(connection: AsyncConnection, table: Table) -> list[str]:
    """Return the foreign keys that rows break; a restore may have switched them off meanwhile."""
    found = []
    for key in table.foreign_key_constraints:
        parent = key.referred_table.alias()
        pairs = [(part.parent, parent.c[part.column.key]) for part in key.elements]
        met = select(parent).where(*(child == target for child, target in pairs)).exists()
        filled = (child.is_not(None) for child, _ in pairs)
        query = select(func.count()).select_from(table).where(*filled, ~met)
        if count := (await connection.execute(query)).scalar_one():
            names = ", ".join(child.name for child, _ in pairs)
            target = key.referred_table.fullname
            found.append(f"{table.fullname}.{names}: {count} without their {target}")
    return found


async def sequences_behind(connection: AsyncConnection, table: Table) -> list[str]:
    """Return what the next INSERT would find taken; only PostgreSQL counts apart from the rows."""
    if (found := await _sequence(connection, table)) is None:
        return []
    key, sequence = found
    state = select(column("last_value", Integer), column("is_called", Boolean))
    last, called = (await connection.execute(state.select_from(text(sequence)))).one()
    greatest: int | None = (await connection.execute(select(func.max(key)))).scalar()
    following = last + 1 if called else last
    if greatest is None or greatest < following:
        return []
    return [f"{table.fullname}.{key.name}: {following} comes next, and {greatest} is there"]


async def advance_sequences(engine: AsyncEngine, metadata: MetaData = SQLModel.metadata) -> None:
    """Let PostgreSQL number on after the rows: call it when rows came with their ids."""
    async with engine.begin() as connection:
        for table in metadata.sorted_tables:
            found = await _sequence(connection, table)
            if found and await sequences_behind(connection, table):
                key, sequence = found
                greatest = select(func.max(key)).scalar_subquery()
                await connection.execute(select(func.setval(sequence, greatest)))


async def _sequence(connection: AsyncConnection, table: Table) -> tuple[Column[int], str] | None:
    key = table.autoincrement_column
    if key is None or connection.dialect.name != "postgresql":
        return None
    quoted = connection.dialect.identifier_preparer.format_table(table)
    query = select(func.pg_get_serial_sequence(quoted, key.name))
    sequence = (await connection.execute(query)).scalar_one()
    return None if sequence is None else (key, sequence)
