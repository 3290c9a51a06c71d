"""A revision, in which `op` is a module; test_data_migrations.py runs mypy over it."""

import sqlalchemy as sa
from alembic import op

from snippets.migrations.data_migrations import rewrite_in_batches, update_in_batches
from snippets.migrations.existing_database import is_empty_database
from snippets.migrations.schema_changes import add_filled_column, rename_column
from snippets.migrations.version_upgrades import enum_to_text

ROWS = sa.table("sail", sa.column("id"), sa.column("area"))


def upgrade() -> None:
    if is_empty_database(op, ["sail"]):
        return
    rename_column(op, "sail", "size", "area")
    add_filled_column(op, "sail", sa.Column("mast", sa.Integer), 1)
    enum_to_text(op, "sail", "kind", sa.Enum("JIB", name="sailkind"), {"JIB": "jib"})
    small = ROWS.c.area.is_(None)
    update_in_batches(op, ROWS.c.id, small, {"area": 0})
    rewrite_in_batches(op, ROWS.c.id, small, [ROWS.c.area], lambda row: {"area": row.area})
