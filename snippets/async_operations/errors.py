"""Tell what a database error means, by its code, the same on every driver."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from traceback import walk_tb
from typing import Any

from sqlalchemy.exc import DBAPIError, OperationalError


class ErrorKind(StrEnum):
    UNIQUE = "unique"
    FOREIGN_KEY = "foreign_key"
    NOT_NULL = "not_null"
    CHECK = "check"
    TOO_LONG = "too_long"
    OUT_OF_RANGE = "out_of_range"
    DEADLOCK = "deadlock"
    SERIALIZATION = "serialization"
    LOCK_TIMEOUT = "lock_timeout"
    STATEMENT_TIMEOUT = "statement_timeout"
    CONNECTION_LOST = "connection_lost"
    OTHER = "other"


@dataclass(frozen=True)
class DatabaseFailure:
    """What the server said; a name that it left out is None, columns are ().

    The table of a foreign key is the one that has it. Its columns are the referring ones, except
    for a refused delete on PostgreSQL, which names the columns that are referred to.
    """

    kind: ErrorKind
    code: str | int | None  # SQLSTATE, errno, or sqlite_errorname
    constraint: str | None
    table: str | None
    columns: tuple[str, ...]


POSTGRESQL_KINDS = {
    "23505": ErrorKind.UNIQUE,
    "23P01": ErrorKind.UNIQUE,  # exclusion constraint: no two rows may overlap
    "23503": ErrorKind.FOREIGN_KEY,
    "23001": ErrorKind.FOREIGN_KEY,  # ON DELETE RESTRICT, since PostgreSQL 18
    "23502": ErrorKind.NOT_NULL,
    "23514": ErrorKind.CHECK,
    "22001": ErrorKind.TOO_LONG,
    "22003": ErrorKind.OUT_OF_RANGE,
    "22008": ErrorKind.OUT_OF_RANGE,  # date and time
    "40P01": ErrorKind.DEADLOCK,
    "40001": ErrorKind.SERIALIZATION,
    "55P03": ErrorKind.LOCK_TIMEOUT,
    "57014": ErrorKind.STATEMENT_TIMEOUT,
    "25P03": ErrorKind.CONNECTION_LOST,  # idle in transaction for too long
    "57P01": ErrorKind.CONNECTION_LOST,
    "57P02": ErrorKind.CONNECTION_LOST,
    "57P03": ErrorKind.CONNECTION_LOST,
    "53300": ErrorKind.CONNECTION_LOST,  # too many: never had, and worth another try
}
MYSQL_KINDS = {
    1062: ErrorKind.UNIQUE,
    1586: ErrorKind.UNIQUE,
    1216: ErrorKind.FOREIGN_KEY,
    1217: ErrorKind.FOREIGN_KEY,
    1451: ErrorKind.FOREIGN_KEY,
    1452: ErrorKind.FOREIGN_KEY,
    1048: ErrorKind.NOT_NULL,
    1364: ErrorKind.NOT_NULL,  # left out of the INSERT
    3819: ErrorKind.CHECK,  # MySQL
    4025: ErrorKind.CHECK,  # MariaDB
    1406: ErrorKind.TOO_LONG,
    1264: ErrorKind.OUT_OF_RANGE,
    1690: ErrorKind.OUT_OF_RANGE,
    1213: ErrorKind.DEADLOCK,
    1020: ErrorKind.SERIALIZATION,
    1412: ErrorKind.SERIALIZATION,  # the snapshot is older than a migration of the table
    1205: ErrorKind.LOCK_TIMEOUT,
    3572: ErrorKind.LOCK_TIMEOUT,  # MySQL, NOWAIT
    1317: ErrorKind.STATEMENT_TIMEOUT,
    1969: ErrorKind.STATEMENT_TIMEOUT,  # MariaDB
    3024: ErrorKind.STATEMENT_TIMEOUT,  # MySQL
    1040: ErrorKind.CONNECTION_LOST,  # too many
    1203: ErrorKind.CONNECTION_LOST,
    1927: ErrorKind.CONNECTION_LOST,
    2002: ErrorKind.CONNECTION_LOST,
    2003: ErrorKind.CONNECTION_LOST,
    2006: ErrorKind.CONNECTION_LOST,
    2013: ErrorKind.CONNECTION_LOST,
    2055: ErrorKind.CONNECTION_LOST,
}
ACCOUNT_LIMIT = 1226
SAVEPOINT_MISSING = 1305
ENDS_TRANSACTION = (1213, 1020, 1205)  # the last with innodb_rollback_on_timeout
SQLITE_KINDS = {
    "SQLITE_CONSTRAINT_UNIQUE": ErrorKind.UNIQUE,
    "SQLITE_CONSTRAINT_PRIMARYKEY": ErrorKind.UNIQUE,
    "SQLITE_CONSTRAINT_ROWID": ErrorKind.UNIQUE,
    "SQLITE_CONSTRAINT_FOREIGNKEY": ErrorKind.FOREIGN_KEY,
    "SQLITE_CONSTRAINT_NOTNULL": ErrorKind.NOT_NULL,
    "SQLITE_CONSTRAINT_CHECK": ErrorKind.CHECK,
    "SQLITE_TOOBIG": ErrorKind.TOO_LONG,
    "SQLITE_BUSY_SNAPSHOT": ErrorKind.SERIALIZATION,  # read, then write, and another wrote between
    "SQLITE_BUSY": ErrorKind.LOCK_TIMEOUT,
    "SQLITE_LOCKED": ErrorKind.LOCK_TIMEOUT,
    "SQLITE_INTERRUPT": ErrorKind.STATEMENT_TIMEOUT,
}
RETRYABLE = {
    ErrorKind.DEADLOCK,
    ErrorKind.SERIALIZATION,
    ErrorKind.LOCK_TIMEOUT,
    ErrorKind.CONNECTION_LOST,
}


def classify(error: DBAPIError) -> DatabaseFailure:
    """Return what the error means: kind by code, names from the server's fields where it has any.

    Never decide by the class: with asyncpg a deadlock is a bare DBAPIError, on MariaDB a CHECK
    violation is an OperationalError.
    """
    failure = _failure(error)
    if failure.kind is ErrorKind.OTHER and error.connection_invalidated:
        return replace(failure, kind=ErrorKind.CONNECTION_LOST)
    return failure


def _failure(error: DBAPIError) -> DatabaseFailure:
    orig: Any = error.orig
    if name := getattr(orig, "sqlite_errorname", None):
        return _sqlite_failure(name, str(orig))
    if orig is not None and orig.args and isinstance(orig.args[0], int):
        return _mysql_failure(error, orig.args[0], str(orig.args[-1]))
    return _postgresql_failure(error)


def is_retryable(error: DBAPIError) -> bool:
    """Return whether the whole transaction, run again from its start, may succeed.

    False for a connection lost during COMMIT: nobody knows whether that transaction was saved.
    """
    if error.connection_invalidated and error.statement is None:
        return False
    return _is_stale_plan(error.orig) or classify(error).kind in RETRYABLE


def _is_stale_plan(orig: object) -> bool:
    """Return whether a migration has changed the types of a statement that the driver prepared."""
    if type(orig).__name__ == "InvalidCachedStatementError":  # asyncpg
        return True
    fields = getattr(orig, "diag", None)  # psycopg; the code is that of all that is not supported
    return getattr(fields, "source_function", None) == "RevalidateCachedQuery"


def is_failed_connect(error: BaseException) -> bool:
    """Return whether asyncpg could not connect, which SQLAlchemy passes on as it is.

    That is an OSError of any class, told from those of a file or another server by where it comes
    from; on SQLAlchemy 2.0 also an error of asyncpg's own.
    """
    if isinstance(error, ValueError):  # options or a certificate, which no second try mends
        return False
    if isinstance(error, OSError):
        frames = (frame for frame, _ in walk_tb(error.__traceback__))
        return any(_is_asyncpg(frame.f_globals.get("__name__", "")) for frame in frames)
    code = getattr(error, "sqlstate", None) or "08"  # without a code it is the connection's
    lost = code[:2] in {"08", "57"} or code == "53300"  # too many connections
    return lost and _is_asyncpg(type(error).__module__)


def _is_asyncpg(module: str) -> bool:
    return module.startswith("asyncpg.")


def _postgresql_failure(error: DBAPIError) -> DatabaseFailure:
    code: str | None = getattr(error.orig, "sqlstate", None)
    # Fields, which no language setting translates: psycopg has them in `diag`, asyncpg in its own
    # exception behind SQLAlchemy's. `error.driver_exception` raises for some errors of 2.1.
    driver: Any = getattr(error.orig, "__cause__", None)
    fields = getattr(error.orig, "diag", driver)
    detail = getattr(fields, "message_detail", None) or getattr(fields, "detail", None)
    column: str | None = getattr(fields, "column_name", None)
    kind = _postgresql_kind(error, code)
    has_keys = kind in {ErrorKind.UNIQUE, ErrorKind.FOREIGN_KEY}  # others have the row itself there
    return DatabaseFailure(
        kind=kind,
        code=code,
        constraint=getattr(fields, "constraint_name", None),
        table=getattr(fields, "table_name", None),
        columns=(column,) if column else _key_columns(detail or "" if has_keys else ""),
    )


def _postgresql_kind(error: DBAPIError, code: str | None) -> ErrorKind:
    if code is None:  # the driver's own error; psycopg can't connect, or not any more
        driver = getattr(error.orig, "__cause__", None)
        no_primary = type(driver).__name__ == "TargetServerAttributeNotMatched"  # asyncpg
        lost = no_primary or isinstance(error, OperationalError)
        return ErrorKind.CONNECTION_LOST if lost else ErrorKind.OTHER
    if code.startswith("08"):
        return ErrorKind.CONNECTION_LOST
    # asyncpg refuses a number before it sends it, under the code of all its refusals.
    if code == "22000" and any(isinstance(e, OverflowError) for e in _chain(error)):
        return ErrorKind.OUT_OF_RANGE
    return POSTGRESQL_KINDS.get(code, ErrorKind.OTHER)


def _key_columns(detail: str) -> tuple[str, ...]:
    """Return the columns of `Key (a, b)=(1, 2) …`; () for an index on expressions."""
    found = re.search(r"\((.+?)\)=\(", detail)
    names = [name.strip('"') for name in found[1].split(", ")] if found else []
    return () if any(re.search(r"[(:]", name) for name in names) else tuple(names)


def _mysql_failure(error: DBAPIError, code: int, text: str) -> DatabaseFailure:
    kind = MYSQL_KINDS.get(code, ErrorKind.OTHER)
    # What ends the transaction ends its savepoints; what arrives is the failed ROLLBACK TO.
    if code == SAVEPOINT_MISSING:
        causes = (_errno(e) for e in _chain(error))
        kind = next((MYSQL_KINDS[c] for c in causes if c in ENDS_TRANSACTION), kind)
    if code == ACCOUNT_LIMIT and "max_user_connections" in text:  # others are those of an hour
        kind = ErrorKind.CONNECTION_LOST
    constraint, table, columns = _mysql_names(kind, text)
    return DatabaseFailure(kind, code, constraint, table, columns)


def _mysql_names(kind: ErrorKind, text: str) -> tuple[str | None, str | None, tuple[str, ...]]:
    """Read the names from the text, which is the only place where this server puts them."""
    if kind is ErrorKind.UNIQUE:
        # The last one: the value before it is the user's. MySQL 8 writes 'table.key'.
        key = re.search(r".* for key '(?:([^'.]+)\.)?([^']+)'", text, re.DOTALL)
        return (key[2], key[1], ()) if key else (None, None, ())
    if kind is ErrorKind.FOREIGN_KEY:
        found = re.search(r"`([^`]+)`, CONSTRAINT `([^`]+)` FOREIGN KEY \(([^)]+)\)", text)
        if found:
            return found[2], found[1], tuple(re.findall(r"`([^`]+)`", found[3]))
    if kind is ErrorKind.CHECK:
        names = re.findall(r"[`']([^`']+)[`']", text)  # MySQL says no table
        return names[0] if names else None, names[-1] if len(names) > 1 else None, ()
    if kind in {ErrorKind.NOT_NULL, ErrorKind.TOO_LONG, ErrorKind.OUT_OF_RANGE}:
        column = re.search(r"(?:Column|Field|column) '([^']+)'", text)
        return None, None, (column[1],) if column else ()
    return None, None, ()


def _sqlite_failure(code: str, text: str) -> DatabaseFailure:
    kind = SQLITE_KINDS.get(code) or SQLITE_KINDS.get(code.rpartition("_")[0], ErrorKind.OTHER)
    # ON DELETE RESTRICT is a trigger inside SQLite; users' triggers share its code.
    if code == "SQLITE_CONSTRAINT_TRIGGER" and text == "FOREIGN KEY constraint failed":
        kind = ErrorKind.FOREIGN_KEY
    _, _, names = text.partition(" constraint failed: ")
    if kind is ErrorKind.CHECK:
        return DatabaseFailure(kind, code, names or None, None, ())
    if index := re.fullmatch(r"index '(.+)'", names):  # an index on expressions
        return DatabaseFailure(kind, code, index[1], None, ())
    pairs = [name.rpartition(".") for name in names.split(", ")] if names else []
    table = pairs[0][0] if pairs else None
    return DatabaseFailure(kind, code, None, table, tuple(column for _, _, column in pairs))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and all that it came from."""
    if error is not None:
        yield error
        yield from _chain(error.__cause__)
        if error.__context__ is not error.__cause__:
            yield from _chain(error.__context__)


def _errno(error: BaseException) -> Any:
    return error.args[0] if error.args else None
