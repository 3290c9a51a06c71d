"""Insert rows, or update the ones that are there, atomically, on three databases."""

from collections.abc import Collection, Sequence
from typing import Any, TypeVar

from sqlalchemy import Column, Index, UniqueConstraint, inspect, tuple_
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlmodel import SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.async_operations.bulk_writes import Row, RowsError, check_rows

Model = TypeVar("Model", bound=SQLModel)
KEYS_PER_SELECT = 1000


async def upsert(
    session: AsyncSession,
    model: type[SQLModel],
    rows: Sequence[Row],
    *,
    on: Sequence[str],
    update: Collection[str] | None = None,
) -> None:
    """Insert the rows in one statement; a row whose `on` columns exist updates that one instead.

    MariaDB and MySQL can't be told which key counts: there a conflict on any unique key updates.

    Args:
        session: its caller commits.
        model: the table.
        rows: all with the same keys.
        on: the columns of the primary key, of a unique constraint or of a unique index.
        update: what to overwrite; by default all that `rows` have except `on`. Columns with
            `onupdate` follow. With nothing to update, existing rows stay as they are.

    Raises:
        RowsError: rows that can't go into one such statement; nothing was sent.
    """
    if not rows:
        return
    check_rows(model, rows)
    _check_keys(model, rows, on)
    names = [name for name in rows[0] if name not in on] if update is None else list(update)
    if missing := sorted(set(names) - rows[0].keys()):
        raise RowsError(f"to update {', '.join(missing)}, the rows must have it")
    statement = _statement(session.get_bind().dialect.name, model, on, names)
    await session.exec(statement, params=rows, execution_options={"render_nulls": True})


async def upsert_and_load(
    session: AsyncSession,
    model: type[Model],
    rows: Sequence[Row],
    *,
    on: Sequence[str],
    update: Collection[str] | None = None,
) -> list[Model]:
    """Do `upsert`, and return the rows as they are now, in the order of the input.

    RETURNING would leave out what was not changed, and does not exist on MySQL.

    Raises:
        RowsError: see `upsert`; or a row is gone, so that the caller should roll back.
    """
    await upsert(session, model, rows, on=on, update=update)
    columns = [col(getattr(model, name)) for name in on]
    found: dict[tuple[Any, ...], Model] = {}
    for start in range(0, len(rows), KEYS_PER_SELECT):
        keys = [_key(row, on) for row in rows[start : start + KEYS_PER_SELECT]]
        same = columns[0].in_([key for (key,) in keys]) if len(on) == 1 else None
        where = tuple_(*columns).in_(keys) if same is None else same
        # populate_existing: what the session has loaded before the upsert is old now.
        statement = select(model).where(where).execution_options(populate_existing=True)
        for item in await session.exec(statement):
            found[tuple(getattr(item, name) for name in on)] = item
    return [found.get(_key(row, on)) or await _find(session, model, row, on) for row in rows]


async def _find(session: AsyncSession, model: type[Model], row: Row, on: Sequence[str]) -> Model:
    """Ask for a row whose key the database spells otherwise, as where `A` equals `a`."""
    where = [col(getattr(model, name)) == row[name] for name in on]
    item = (await session.exec(select(model).where(*where))).one_or_none()
    if item is None:
        key = ", ".join(f"{name}={row[name]!r}" for name in on)
        raise RowsError(
            f"no {model.__name__} with {key} after the upsert: it hit another unique key"
        )
    return item


def _key(row: Row, on: Sequence[str]) -> tuple[Any, ...]:
    return tuple(row[name] for name in on)


def _check_keys(model: type[SQLModel], rows: Sequence[Row], on: Sequence[str]) -> None:
    targets = _unique_keys(model)
    if set(on) not in targets:
        choices = " or ".join(str(tuple(sorted(target))) for target in targets)
        raise RowsError(f"on={tuple(on)} is no unique key of {model.__name__}; use {choices}")
    if missing := sorted(set(on) - rows[0].keys()):
        raise RowsError(f"the rows have no {', '.join(missing)}")
    seen: set[tuple[Any, ...]] = set()
    for number, row in enumerate(rows):
        key = _key(row, on)
        if None in key:
            raise RowsError(f"row {number} has None in {tuple(on)}: NULL never conflicts")
        if key in seen:
            raise RowsError(f"row {number} repeats {key}: which of them should win?")
        seen.add(key)


def _unique_keys(model: type[SQLModel]) -> list[set[str]]:
    """Return the sets of attributes that may not repeat; the primary key first."""
    mapper = inspect(model)
    table = mapper.local_table
    groups: list[Any] = [table.primary_key]
    groups += [item for item in table.constraints if isinstance(item, UniqueConstraint)]
    groups += [index for index in table.indexes if index.unique and _is_plain(index)]
    return [{mapper.get_property_by_column(c).key for c in group.columns} for group in groups]


def _is_plain(index: Index) -> bool:
    """Whether the index is over whole columns, and over all rows."""
    partial = any(options.get("where") is not None for options in index.dialect_options.values())
    return not partial and all(isinstance(item, Column) for item in index.expressions)


def _statement(dialect: str, model: type[SQLModel], on: Sequence[str], names: list[str]) -> Any:
    columns = {attr.key: attr.columns[0] for attr in inspect(model).column_attrs}
    conflict = [columns[name] for name in on]
    if dialect in {"mysql", "mariadb"}:
        statement = mysql.insert(model)
        new = {columns[n].key: statement.inserted[columns[n].key] for n in names}
        # No DO NOTHING here, and INSERT IGNORE hides other errors: set the key to itself.
        return statement.on_duplicate_key_update(
            new | _on_update(columns, names) if names else {conflict[0].key: conflict[0]}
        )
    insert: Any = postgresql.insert(model) if dialect == "postgresql" else sqlite.insert(model)
    if not names:
        return insert.on_conflict_do_nothing(index_elements=conflict)
    new = {columns[n].key: insert.excluded[columns[n].key] for n in names}
    return insert.on_conflict_do_update(
        index_elements=conflict, set_=new | _on_update(columns, names)
    )


def _on_update(columns: dict[str, Column[Any]], names: list[str]) -> dict[str, Any]:
    """Return the values that an UPDATE would set by itself; no upsert does."""
    values = {}
    for name, column in columns.items():
        if column.onupdate is not None and name not in names:
            value: Any = column.onupdate.arg  # type: ignore[attr-defined]
            values[column.key] = value(None) if column.onupdate.is_callable else value
    return values
