"""Alembic runs this file for every command; the models must be imported here.

In a running event loop: `await asyncio.to_thread(command.upgrade, config, "head")`.
"""

from app.migration_tools.environment import run_migrations
from app.models import metadata

run_migrations(metadata)
