"""Turn any database URL into one that an async engine accepts, without printing its password."""

from importlib.util import find_spec
from inspect import signature

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

# What a bare scheme means here. `postgres` is the spelling that hosting platforms hand out.
ASYNC_DRIVERNAMES = {
    "sqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "mysql": "mysql+aiomysql",
    "mariadb": "mariadb+aiomysql",
}
ASYNC_DRIVERS = {
    "sqlite": ("aiosqlite",),
    "postgresql": ("asyncpg", "psycopg"),
    "mysql": ("aiomysql", "asyncmy"),
    "mariadb": ("aiomysql", "asyncmy"),
}
# Query keys that SQLAlchemy's asyncpg dialect takes itself; all others go to asyncpg.connect().
ASYNCPG_DIALECT_KEYS = {
    "async_creator_fn",
    "prepared_statement_cache_size",
    "prepared_statement_name_func",
}


class DatabaseURLError(ValueError):
    """A database URL that no async engine can use; the message never has its password."""


def async_url(url: str | URL) -> URL:
    """Return the URL with an async driver, ready for `create_async_engine`.

    A bare scheme gets the default driver, libpq's `sslmode` becomes asyncpg's `ssl`.

    Raises:
        DatabaseURLError: not a URL, an unknown database, a sync driver, a driver that is not
            installed, or a query key that the driver would refuse at the first connect.
    """
    parsed = _parsed(url)
    parsed = parsed.set(drivername=ASYNC_DRIVERNAMES.get(parsed.drivername, parsed.drivername))
    database, _, driver = parsed.drivername.partition("+")
    if database not in ASYNC_DRIVERS:
        known = ", ".join(ASYNC_DRIVERNAMES)
        raise DatabaseURLError(f"unknown database {database!r} in the URL; known are {known}")
    if driver not in ASYNC_DRIVERS[database]:
        choices = " or ".join(f"{database}+{name}" for name in ASYNC_DRIVERS[database])
        raise DatabaseURLError(f"{parsed.drivername} is not async; write {choices}")
    if find_spec(driver) is None:
        raise DatabaseURLError(f"{driver} is not installed; run: pip install {driver}")
    return _asyncpg_url(parsed) if driver == "asyncpg" else parsed


def _parsed(url: str | URL) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        # SQLAlchemy's own message quotes the URL, password included.
        hint = "expected dialect://user:password@host:port/name, special characters escaped"
        raise DatabaseURLError(f"the database URL can't be parsed; {hint}") from None


def _asyncpg_url(url: URL) -> URL:
    """Translate libpq's `sslmode`; refuse what asyncpg would refuse with a bare TypeError."""
    import asyncpg

    if sslmode := url.query.get("sslmode"):
        url = url.difference_update_query(["sslmode"]).update_query_dict({"ssl": sslmode})
    known = ASYNCPG_DIALECT_KEYS | set(signature(asyncpg.connect).parameters)
    if unknown := sorted(set(url.query) - known):
        remedy = "remove it, or use postgresql+psycopg, which takes libpq's options"
        raise DatabaseURLError(f"asyncpg does not know {', '.join(unknown)}; {remedy}")
    return url


def build_url(
    drivername: str,
    *,
    username: str | None = None,
    password: str | None = None,
    host: str | None = None,
    port: int | None = None,
    database: str,
) -> URL:
    """Return a URL from its parts, special characters of the password escaped.

    Raises:
        DatabaseURLError: as `async_url`.
    """
    return async_url(URL.create(drivername, username, password, host, port, database))


def with_password(url: URL) -> str:
    """Return the URL as text, password included: for tools that take text. Never for logs."""
    return url.render_as_string(hide_password=False)
