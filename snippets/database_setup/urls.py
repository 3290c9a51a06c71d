"""Turn any database URL into one that an async engine accepts, without printing its password."""

import re
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
ASYNCPG_DIALECT_KEYS = {"prepared_statement_cache_size"}
# What a URL can give to a driver: there all is text, of which SQLAlchemy makes some into numbers.
ASYNCPG_KEYS = {
    "command_timeout", "database", "gsslib", "host", "krbsrvname", "passfile", "password", "port",
    "service", "servicefile", "ssl", "target_session_attrs", "user",
}  # fmt: skip
AIOMYSQL_KEYS = {
    "auth_plugin", "charset", "client_flag", "connect_timeout", "db", "host", "init_command",
    "local_infile", "password", "program_name", "read_default_file", "read_default_group",
    "sql_mode", "unix_socket", "use_unicode", "user",
}  # fmt: skip
TLS_KEYS = {"ssl_ca", "ssl_capath", "ssl_cert", "ssl_check_hostname", "ssl_cipher", "ssl_key"}
# Refused keys that a message may name: any other may be a part of a password with `@` and `?`.
SHOWN_KEYS = ASYNCPG_KEYS | AIOMYSQL_KEYS | TLS_KEYS | {
    "application_name", "autocommit", "channel_binding", "compress", "connection_limit",
    "direct_tls", "max_cacheable_statement_size", "max_cached_statement_lifetime", "options",
    "pgbouncer", "pool_timeout", "prepare_threshold", "read_timeout", "schema", "server_settings",
    "ssl-mode", "ssl_mode", "sslaccept", "sslcert", "sslkey", "sslmode", "sslrootcert",
    "statement_cache_size", "timeout", "write_timeout",
}  # fmt: skip
REMEDIES = {
    "asyncpg": ["use postgresql+psycopg, which takes libpq's options"],
    "aiomysql": ["for TLS connect_args=mysql_connect_args(30, 5) | {'ssl': a context}"],
}


class DatabaseURLError(ValueError):
    """A database URL that no async engine can use; the message never has its password."""


def async_url(url: str | URL) -> URL:
    """Return the URL with an async driver, ready for `create_async_engine`.

    A bare scheme gets the default driver, libpq's `sslmode` becomes asyncpg's `ssl`.

    Raises:
        DatabaseURLError: not a URL, an unknown database, a sync driver, a driver that is not
            installed, or a query key that the driver would refuse at the first connect: it does
            not know it, or not as text. Values are not looked at.
    """
    parsed = _parsed(url)
    name = ASYNC_DRIVERNAMES.get(parsed.drivername, parsed.drivername)
    parsed = parsed.set(drivername=re.sub(r"^postgres\+", "postgresql+", name))
    database, _, driver = parsed.drivername.partition("+")
    if database not in ASYNC_DRIVERS:
        known = ", ".join(ASYNC_DRIVERNAMES)
        raise DatabaseURLError(f"unknown database {database!r} in the URL; known are {known}")
    if driver not in ASYNC_DRIVERS[database]:
        choices = " or ".join(f"{database}+{name}" for name in ASYNC_DRIVERS[database])
        raise DatabaseURLError(f"{parsed.drivername} is not async; write {choices}")
    if find_spec(driver) is None:
        raise DatabaseURLError(f"{driver} is not installed; run: pip install {driver}")
    if driver == "asyncpg" and (sslmode := parsed.query.get("sslmode")):
        parsed = parsed.difference_update_query(["sslmode"]).update_query_dict({"ssl": sslmode})
    if driver != "aiosqlite":  # SQLite gets them as parts of a file's URI, or not at all
        _check_query(driver, set(parsed.query))
    return parsed


def _parsed(url: str | URL) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        # SQLAlchemy's own message quotes the URL, password included.
        hint = "expected dialect://user:password@host:port/name, special characters escaped"
        raise DatabaseURLError(f"the database URL can't be parsed; {hint}") from None


def _check_query(driver: str, keys: set[str]) -> None:
    """Refuse what the driver would refuse with a bare TypeError, in words of our own."""
    unknown = keys - _known_keys(driver)
    names = sorted(unknown & SHOWN_KEYS)
    if unknown - SHOWN_KEYS:
        names.append("a key that is not shown: perhaps the password has an @ and a ? unescaped")
    if names:
        remedies = ["remove it", "give it in connect_args", *REMEDIES.get(driver, ())]
        taken = f"{driver} does not take from a URL: {', '.join(names)}"
        raise DatabaseURLError(f"{taken}; {', or '.join(remedies)}")


def _known_keys(driver: str) -> set[str]:
    if driver == "asyncpg":
        import asyncpg

        return ASYNCPG_DIALECT_KEYS | (ASYNCPG_KEYS & set(signature(asyncpg.connect).parameters))
    if driver == "psycopg":
        from psycopg import pq

        return {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    return AIOMYSQL_KEYS if driver == "aiomysql" else AIOMYSQL_KEYS | TLS_KEYS


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
