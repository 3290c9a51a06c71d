"""Mend and refuse what autogenerate gets wrong, before it is written."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import sqlalchemy as sa
from alembic.operations import ops
from alembic.runtime.migration import MigrationContext

EnumName = tuple[str | None, str]  # schema, name
KNOWN_ENUMS = "known_enums"  # among the context's options, for `render_item`


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
    wanted = environment and environment.get_x_argument(as_dictionary=True).get("drop")
    for script in directives:
        for upgrade, downgrade in zip(
            script.upgrade_ops_list, script.downgrade_ops_list, strict=True
        ):
            dropped = sorted(filter(None, map(_dropped, _operations(upgrade))))
            if dropped and wanted != "yes":
                given = "" if wanted is None else f" (-x drop={wanted} is not -x drop=yes)"
                what = f"this drops {', '.join(dropped)}; if you renamed, write that"
                raise DestructiveRevisionError(what + given)
            _leave_indexes_to_their_tables(downgrade)
            if context.dialect.name == "postgresql":
                _care_for_enums(context, upgrade, downgrade)


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


def _care_for_enums(
    context: MigrationContext, upgrade: ops.UpgradeOps, downgrade: ops.DowngradeOps
) -> None:
    """PostgreSQL keeps an enum's type after its table, and ADD COLUMN does not make it."""
    known = _known_enums(context)
    added, created = _new_enums(upgrade)
    for name, kind in {**created, **added}.items():
        if name in known:  # another table has it, which made it
            continue
        sql_name = context.dialect.identifier_preparer.format_type(kind)  # type: ignore[attr-defined]
        if name in added:
            members = ", ".join("'" + member.replace("'", "''") + "'" for member in kind.enums)
            create = without_parameters(f"CREATE TYPE {sql_name} AS ENUM ({members})")
            upgrade.ops.insert(0, ops.ExecuteSQLOp(create))
        downgrade.ops.append(ops.ExecuteSQLOp(f"DROP TYPE {sql_name}"))
    context.opts[KNOWN_ENUMS] = known | added.keys()


def without_parameters(sql: str) -> str:
    """Return it for `op.execute`, to which `:word` is a parameter, and `\\:` a colon."""
    return re.sub(r"(\\:[\w$]*|(?<![:\w$]):[\w$]+)(?![:\w$])", r"\\\1", sql)


def _known_enums(context: MigrationContext) -> set[EnumName]:
    inspector: Any = sa.inspect(context.connection)
    default = inspector.default_schema_name
    names = {(found["schema"], found["name"]) for found in inspector.get_enums("*")}
    return names | {(None, name) for schema, name in names if schema == default}


def _new_enums(upgrade: ops.UpgradeOps) -> tuple[dict[EnumName, sa.Enum], dict[EnumName, sa.Enum]]:
    """Return the enums of added columns, and those of new tables."""
    added: dict[EnumName, sa.Enum] = {}
    created: dict[EnumName, sa.Enum] = {}
    for operation in _operations(upgrade):
        if isinstance(operation, ops.AddColumnOp):
            added |= _enums([operation.column.type])
        elif isinstance(operation, ops.CreateTableOp):
            columns = (item for item in operation.columns if isinstance(item, sa.Column))
            created |= _enums(column.type for column in columns)
    return added, created


def _enums(kinds: Iterable[Any]) -> dict[EnumName, sa.Enum]:
    elements = (kind.item_type if isinstance(kind, sa.ARRAY) else kind for kind in kinds)
    found = (kind for kind in elements if isinstance(kind, sa.Enum) and kind.native_enum)
    return {(kind.schema, str(kind.name)): kind for kind in found}


def known_enum_as_code(kind: Any, options: Mapping[str, Any]) -> str | None:
    """Return code that does not make the type again, if PostgreSQL has it by then."""
    if isinstance(kind, sa.ARRAY) or not _enums([kind]).keys() & options.get(KNOWN_ENUMS, ()):
        return None
    schema = f", schema={kind.schema!r}" if kind.schema else ""
    members = ", ".join(map(repr, kind.enums))
    return f"postgresql.ENUM({members}, name={str(kind.name)!r}{schema}, create_type=False)"
