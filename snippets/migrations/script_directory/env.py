"""Alembic runs this file for every command; all models must be imported here."""  # noqa: INP001 - loaded by path

from snippets.migrations.environment import run_migrations
from snippets.models.constraints import AppModel

run_migrations(AppModel.metadata)
