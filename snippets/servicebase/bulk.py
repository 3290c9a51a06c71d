"""Write many rows in one statement, and get them back as objects in the order of the input."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Any, TypeVar

from sqlalchemy import Column, ColumnElement, and_, case, literal, tuple_, union_all
from sqlalchemy import select as core_select
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlmodel import SQLModel, insert, select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.servicebase._shape import names, next_version, shape_of, table_of, unique_keys
from snippets.servicebase.errors import ConflictError, InvalidValueError, contained

ModelT = TypeVar("ModelT", bound=SQLModel)
Row = dict[str, Any]
SUBQUERY_RETURNS_MORE_ROWS = 1242


def batches(
    model: type[SQLModel], rows: Sequence[Row], written: Sequence[Collection[str]] | None = None
) -> Iterable[list[int]]:
    """Return the positions of the rows that one statement can carry; mostly that is one batch.

    A field that a row lacks becomes NULL, unless its column has a default: a statement takes that
    for all of its rows or for none.
    """
    columns = shape_of(model).columns
    present = set[str]().union(*rows)
    short = [row for row in rows if len(row) < len(present)]
    if not short and (written is None or all(fields == written[0] for fields in written)):
        return [list(range(len(rows)))]
    absent = [name for name in present if not _has_default(columns[name])]
    for row in short:
        row.update({name: None for name in absent if name not in row})
    found: dict[object, list[int]] = {}
    for position, row in enumerate(rows):
        kind = frozenset(row), frozenset(written[position]) if written else None
        found.setdefault(kind, []).append(position)
    return found.values()


def _has_default(column: Column[Any]) -> bool:
    generated = column.table.autoincrement_column
    return column is generated or column.default is not None or column.server_default is not None


def fill_in(model: type[SQLModel], rows: Iterable[Row]) -> None:
    """Add the defaults that a new object has and the columns don't: those beside `sa_column`."""
    columns = shape_of(model).columns
    fields = {
        name: field
        for name, field in model.model_fields.items()
        if name in columns and not field.is_required() and not _has_default(columns[name])
    }
    for row in rows:
        for name in fields.keys() - row.keys():
            value = fields[name].get_default(call_default_factory=True)
            if value is not None:
                row[name] = value


def leave_to_generate(model: type[SQLModel], rows: Iterable[Row]) -> set[str]:
    """Take out a generated key that is None: in one statement for many rows it would be NULL."""
    column = table_of(model).autoincrement_column
    if column is None:
        return set()
    name = shape_of(model).mapper.get_property_by_column(column).key
    empty = [row for row in rows if row.get(name, name) is None]
    for row in empty:
        del row[name]
    return {name} if empty else set()


async def insert_many(
    session: AsyncSession, model: type[ModelT], rows: Sequence[Row]
) -> list[ModelT]:
    """Insert the rows with a statement for each 1000.

    Raises:
        WriteError: a row was refused, and none was inserted; what was done before stays.
    """
    loaded: dict[int, ModelT] = {}
    fill_in(model, rows)
    leave_to_generate(model, rows)
    async with contained(session, model):
        for positions in batches(model, rows):
            part = [rows[position] for position in positions]
            loaded.update(zip(positions, await _insert(session, model, part), strict=True))
    return [loaded[position] for position in range(len(rows))]


async def _insert(
    session: AsyncSession, model: type[ModelT], rows: Sequence[Row]
) -> Sequence[ModelT]:
    dialect = session.get_bind().dialect
    if not dialect.insert_returning:  # MySQL: row by row, or the keys would stay unknown
        items = [model(**row) for row in rows]
        session.add_all(items)
        await session.flush()
        return items
    # SQLite can't return generated keys in order and would insert row by row: sort them here.
    generated = table_of(model).autoincrement_column
    sort_here = generated is not None and dialect.name == "sqlite"
    statement = insert(model).returning(model, sort_by_parameter_order=not sort_here)
    # Without render_nulls a new statement begins wherever the set of NULL columns changes.
    options = {"render_nulls": True}
    result = await session.exec(statement, params=rows, execution_options=options)
    loaded = result.scalars().all()
    if not sort_here:
        return loaded
    (key,) = shape_of(model).key
    by_key = sorted(loaded, key=lambda item: getattr(item, key))
    if key not in rows[0]:
        return by_key
    found = {getattr(item, key): item for item in by_key}
    return [found[row[key]] for row in rows]


async def upsert_many(
    session: AsyncSession,
    model: type[ModelT],
    rows: Sequence[Row],
    *,
    on: Sequence[str],
    written: Sequence[Collection[str]],
    scope: Sequence[ColumnElement[bool]] = (),
) -> list[ModelT]:
    """Insert the rows; one whose `on` fields exist updates that row, if the scope covers it.

    `written` says for each row which fields an update takes: what was set, not what is a default.

    Raises:
        InvalidValueError: `on` is no unique key, or the rows repeat it or leave it out.
        ConflictError: a row met another unique key, or a row outside the scope.
    """
    fill_in(model, rows)
    without = leave_to_generate(model, rows)
    _check_on(model, rows, on)
    loaded: dict[int, ModelT] = {}
    async with contained(session, model):
        for positions in batches(model, rows, written):
            part = [rows[position] for position in positions]
            fields = sorted(set(written[positions[0]]) - {*on, *without})
            if missing := set(fields) - part[0].keys():
                raise InvalidValueError(f"the rows have no {', '.join(sorted(missing))} to update")
            items = await _upsert(session, model, part, on, written=fields, scope=scope)
            loaded.update(zip(positions, items, strict=True))
        _check_distinct(loaded.values(), on)
    return [loaded[position] for position in range(len(rows))]


async def _upsert(
    session: AsyncSession,
    model: type[ModelT],
    rows: Sequence[Row],
    on: Sequence[str],
    *,
    written: Sequence[str],
    scope: Sequence[ColumnElement[bool]],
) -> Sequence[ModelT]:
    dialect = session.get_bind().dialect
    statement: Any
    if dialect.name in {"mysql", "mariadb"}:
        statement = _on_duplicate_key(model, on, written, scope, rows[0])
    else:
        statement = _on_conflict(dialect.name, model, on, written, scope)
    if dialect.insert_returning:
        statement = statement.returning(model)
    options = {"render_nulls": True, "populate_existing": True}
    try:
        result = await session.exec(statement, params=rows, execution_options=options)
    except DBAPIError as error:
        if error.orig and error.orig.args[:1] == (SUBQUERY_RETURNS_MORE_ROWS,):
            raise ConflictError(model) from error
        raise
    if not dialect.insert_returning:  # MySQL: a second statement reads the rows
        columns = [getattr(model, name) for name in on]
        keys = [tuple(row[name] for name in on) for row in rows]
        query = select(model).where(tuple_(*columns).in_(keys))
        result = await session.exec(query, execution_options={"populate_existing": True})
        return _in_input_order(model, result.all(), rows, on)
    return _in_input_order(model, result.scalars().all(), rows, on)


def _on_conflict(
    dialect: str,
    model: type[SQLModel],
    on: Sequence[str],
    written: Sequence[str],
    scope: Sequence[ColumnElement[bool]],
) -> Any:
    dialects = postgresql if dialect == "postgresql" else sqlite
    statement: Any = dialects.insert(model)
    columns = shape_of(model).columns
    # With nothing to write the key is set to itself: DO NOTHING would return no row.
    new = {columns[n].name: statement.excluded[columns[n].name] for n in written or on}
    return statement.on_conflict_do_update(
        index_elements=[columns[name] for name in on],
        set_=new | _on_update(model, written),
        where=and_(*scope) if scope else None,
    )


def _on_duplicate_key(
    model: type[SQLModel],
    on: Sequence[str],
    written: Sequence[str],
    scope: Sequence[ColumnElement[bool]],
    row: Row,
) -> Any:
    """MariaDB updates on a conflict with any unique key; refuse all but `on`, as the others do."""
    statement = mysql.insert(model)
    columns = shape_of(model).columns
    conflict = [columns[name] for name in on]
    key: Any = conflict[0]
    if scope or _has_other_keys(model, on, row):
        meant = and_(*(column == statement.inserted[column.name] for column in conflict), *scope)
        two_rows = union_all(core_select(literal(1)), core_select(literal(2))).scalar_subquery()
        key = case((meant, conflict[0]), else_=two_rows)  # an error that the server raises
    new = [(columns[name].name, statement.inserted[columns[name].name]) for name in written]
    values = [(conflict[0].name, key), *new, *_on_update(model, written).items()]
    return statement.on_duplicate_key_update(values)


def _has_other_keys(model: type[SQLModel], on: Sequence[str], row: Row) -> bool:
    generated = table_of(model).autoincrement_column
    columns = shape_of(model).columns
    return any(
        key != set(on) and not (columns[min(key)] is generated and min(key) not in row)
        for key in unique_keys(model)
    )


def _on_update(model: type[SQLModel], written: Sequence[str]) -> dict[str, Any]:
    """Return the values that an UPDATE would set by itself; no upsert does."""
    if not written:
        return {}
    columns = shape_of(model).columns
    values = {columns[n].name: v for n, v in next_version(model).items() if n not in written}
    for name, column in columns.items():
        if column.onupdate is not None and name not in written:
            value: Any = column.onupdate.arg  # type: ignore[attr-defined]
            values[column.name] = value(None) if column.onupdate.is_callable else value
    return values


def _in_input_order(
    model: type[ModelT], items: Sequence[ModelT], rows: Sequence[Row], on: Sequence[str]
) -> Sequence[ModelT]:
    if len(items) < len(rows):
        raise ConflictError(model, columns=on)  # a row that the scope does not cover
    by_key = dict(zip(map(attrgetter(*on), items), items, strict=True))
    found = [by_key[key] for key in map(itemgetter(*on), rows) if key in by_key]
    # A collation finds "a" for "A", which Python does not; the statement's own order then serves.
    return found if len(found) == len(rows) else items


def _check_on(model: type[SQLModel], rows: Sequence[Row], on: Sequence[str]) -> None:
    targets = unique_keys(model)
    if set(on) not in targets:
        choices = " or ".join(str(tuple(sorted(target))) for target in targets)
        raise InvalidValueError(
            f"on={tuple(on)} is no unique key of {model.__name__}; use {choices}"
        )
    for number, row in enumerate(rows):
        if None in map(row.get, on):
            raise InvalidValueError(
                f"row {number} has no value in {tuple(on)}: NULL never conflicts"
            )
    keys = list(map(itemgetter(*on), rows))
    if len(set(keys)) < len(keys):
        counts = Counter(keys)  # counted key by key, 100 000 rows would take minutes
        key = next(key for key in keys if counts[key] > 1)
        raise InvalidValueError(
            f"row {keys.index(key)} and a later one have the same {tuple(on)}: {key!r}"
        )


def _check_distinct(items: Collection[SQLModel], on: Sequence[str]) -> None:
    """Refuse keys that only a collation takes for equal: of two rows one would be lost."""
    if len(set(map(id, items))) < len(items):
        raise InvalidValueError(f"two rows have the same {tuple(on)} for the database")


def check_fields(model: type[SQLModel], rows: Iterable[Mapping[str, Any]]) -> None:
    """Refuse fields that the table does not have; a statement would leave them out.

    Raises:
        InvalidValueError: says which, and lists the others.
    """
    columns = shape_of(model).columns
    if unknown := set[str]().union(*rows) - columns.keys():
        raise InvalidValueError(
            f"{model.__name__} has no {', '.join(sorted(unknown))}; it has {names(columns)}"
        )
