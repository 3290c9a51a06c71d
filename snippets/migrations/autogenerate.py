"""Mend and refuse what autogenerate gets wrong, before it is written."""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic.operations import ops
from alembic.runtime.migration import MigrationContext


class DestructiveRevisionError(RuntimeError):
    """Autogenerate would drop what has rows; a rename looks like that to it."""


def guard_revision(
    context: MigrationContext, _revision: Any, directives: list[ops.MigrationScript]
) -> None:
    """For `process_revision_directives`: enums and downgrades that work, no unwanted DROP.

    `alembic -x drop=yes revision --autogenerate` wants it.

    Raises:
        DestructiveRevisionError: the revision would drop a table or a column.
    """
    environment = context.environment_context
    wanted = environment is not None and "drop" in environment.get_x_argument(as_dictionary=True)
    for script in directives:
        for upgrade, downgrade in zip(
            script.upgrade_ops_list, script.downgrade_ops_list, strict=True
        ):
            dropped = sorted(filter(None, map(_dropped, _operations(upgrade))))
            if dropped and not wanted:
                names = ", ".join(dropped)
                raise DestructiveRevisionError(f"this drops {names}; if you renamed, write that")
            _leave_indexes_to_their_tables(downgrade)
            if context.dialect.name == "postgresql":
                _care_for_enums(upgrade, downgrade)


def _operations(container: ops.OpContainer) -> Iterator[ops.MigrateOperation]:
    for item in container.ops:
        if isinstance(item, ops.OpContainer):
            yield from _operations(item)
        else:
            yield item


def _dropped(operation: ops.MigrateOperation) -> str:
    if isinstance(operation, ops.DropColumnOp):
        return f"{operation.table_name}.{operation.column_name}"
    return operation.table_name if isinstance(operation, ops.DropTableOp) else ""


def _leave_indexes_to_their_tables(downgrade: ops.DowngradeOps) -> None:
    """MariaDB refuses to drop an index that a foreign key needs; it goes with its table anyway."""
    tables = {item.table_name for item in downgrade.ops if isinstance(item, ops.DropTableOp)}
    for item in downgrade.ops:
        if isinstance(item, ops.ModifyTableOps) and item.table_name in tables:
            item.ops = [part for part in item.ops if not isinstance(part, ops.DropIndexOp)]


def _care_for_enums(upgrade: ops.UpgradeOps, downgrade: ops.DowngradeOps) -> None:
    """PostgreSQL keeps an enum's type after its table, and ADD COLUMN does not make it."""
    for operation in list(_operations(upgrade)):
        columns: list[Any] = []
        if isinstance(operation, ops.CreateTableOp):
            columns = [item for item in operation.columns if isinstance(item, sa.Column)]
        elif isinstance(operation, ops.AddColumnOp):
            columns = [operation.column]
        for kind in (column.type for column in columns):
            if not (isinstance(kind, sa.Enum) and kind.native_enum):
                continue
            if isinstance(operation, ops.AddColumnOp):
                members = ", ".join("'" + member.replace("'", "''") + "'" for member in kind.enums)
                upgrade.ops.insert(
                    0, ops.ExecuteSQLOp(f"CREATE TYPE {kind.name} AS ENUM ({members})")
                )
            downgrade.ops.append(ops.ExecuteSQLOp(f"DROP TYPE {kind.name}"))
