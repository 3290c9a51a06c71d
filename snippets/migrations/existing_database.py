"""Put a database that `create_all` made under Alembic, with one command for empty and full ones."""

from collections.abc import Collection

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.ext.asyncio import AsyncEngine

from snippets.migrations.data_migrations import Op


class PartialDatabaseError(RuntimeError):
    """Some of the tables are there and some are not: nobody can tell what else differs."""


def is_empty_database(op: Op, tables: Collection[str]) -> bool:
    """Return whether the first revision, the baseline, has to create the tables.

    Begin its `upgrade()` with `if not is_empty_database(op, [...]): return`.

    Raises:
        PartialDatabaseError: only some of the tables are there.
    """
    if op.get_context().as_sql:
        return True
    found = set(tables) & set(sa.inspect(op.get_bind()).get_table_names())
    if found and (missing := set(tables) - found):
        raise PartialDatabaseError(f"the database lacks {', '.join(sorted(missing))}")
    return not found


async def stamp(engine: AsyncEngine, config: Config, revision: str) -> None:
    """Note that the database is at `revision`, and run nothing."""

    def run(connection: sa.Connection) -> None:
        config.attributes["connection"] = connection
        try:
            command.stamp(config, revision)
        finally:
            del config.attributes["connection"]

    async with engine.connect() as connection:
        await connection.run_sync(run)
        await connection.commit()
