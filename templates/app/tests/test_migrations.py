import asyncio

from alembic import command
from alembic.config import Config


async def test_models_and_migrations_agree(migrations: Config) -> None:
    await asyncio.to_thread(command.check, migrations)
