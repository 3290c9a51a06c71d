"""Create the tables that are missing; those that exist stay as they are."""

import asyncio

from app.database.create_tables import create_tables
from app.database.session import run_to_end
from app.database.settings import DatabaseSettings, engine_from_settings
from app.models import metadata


async def main(database: DatabaseSettings | None = None) -> None:
    engine = engine_from_settings(database or DatabaseSettings())  # type: ignore[call-arg]
    try:
        await create_tables(engine, metadata)
    finally:
        await run_to_end(engine.dispose())


if __name__ == "__main__":
    asyncio.run(main())
