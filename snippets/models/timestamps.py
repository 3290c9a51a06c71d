"""Timestamps in UTC, with microseconds, on every database and every SQLModel."""

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator
from sqlalchemy import DateTime
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine


class TimestampError(ValueError):
    """A value that names no moment, or one outside the years 1 to 9999 in UTC."""


def utc_now() -> datetime:
    return datetime.now(UTC)


def as_utc(value: datetime) -> datetime:
    """Return the same moment in UTC.

    Raises:
        TimestampError: no datetime, no time zone, or out of range.
    """
    if not isinstance(value, datetime):
        raise TimestampError(f"expected a datetime, got {type(value).__name__}")
    if value.utcoffset() is None:
        raise TimestampError(f"{value} has no time zone; use datetime.now(UTC)")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise TimestampError(f"{value} is out of range in UTC") from None


# For schemas: a client that leaves out the zone gets its error here, not from the database.
Moment = Annotated[datetime, AfterValidator(as_utc)]


class UTCTimestamp(TypeDecorator[datetime]):
    """A moment; comes back aware, in UTC.

    `with_zone=False` is for a PostgreSQL column that SQLModel before 0.0.45 made without a zone:
    it reads and writes UTC there, whatever the session's TimeZone is.

    Raises:
        TimestampError: as `as_utc` (inside a `StatementError`).
    """

    impl = DateTime
    cache_ok = True

    def __init__(self, *, with_zone: bool = True) -> None:
        super().__init__(timezone=with_zone)
        self.with_zone = with_zone

    def __repr__(self) -> str:  # what Alembic writes into a migration
        return "UTCTimestamp()" if self.with_zone else "UTCTimestamp(with_zone=False)"

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name in {"mysql", "mariadb"}:
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime(timezone=self.with_zone))

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment = as_utc(value)
        return moment if self.with_zone else moment.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class server_utc_now(FunctionElement[datetime]):  # noqa: N801 - reads as a function, as func.now()
    """The database's clock in UTC as a `server_default`: for rows that other programs insert.

    `func.now()` is local time on MariaDB, and on SQLite a shorter text than the values beside it.
    """

    type = UTCTimestamp()
    inherit_cache = True


@compiles(server_utc_now)
def _server_utc_now(_element: Any, _compiler: Any, **_options: Any) -> str:
    return "CURRENT_TIMESTAMP"


@compiles(server_utc_now, "mysql", "mariadb")
def _mysql_utc_now(_element: Any, _compiler: Any, **_options: Any) -> str:
    return "(UTC_TIMESTAMP(6))"


@compiles(server_utc_now, "sqlite")
def _sqlite_utc_now(_element: Any, _compiler: Any, **_options: Any) -> str:
    return "(strftime('%Y-%m-%d %H:%M:%f000', 'now'))"
