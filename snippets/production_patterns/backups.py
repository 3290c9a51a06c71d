"""Back up while others write, restore into an empty database, and prove that all came back."""

import asyncio
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, MetaData, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import NullPool
from sqlmodel import SQLModel

from snippets.database_setup.engine import engine_for
from snippets.database_setup.urls import ASYNCPG_DIALECT_KEYS
from snippets.production_patterns._restore_checks import count_rows, orphans, sequences_behind

LIBPQ_NAMES = {"database": "dbname", "ssl": "sslmode"}  # of what asyncpg calls otherwise


class BackupError(RuntimeError):
    """The database's own tool failed, or would do harm; the message says how."""


async def back_up(engine: AsyncEngine, path: Path) -> None:
    """Write one consistent state of the database to a file, which is there when it is complete.

    Raises:
        BackupError: `pg_dump` or `mariadb-dump` failed.
        DBAPIError: SQLite did.
    """
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        if engine.dialect.name == "sqlite":
            await _vacuum_into(engine, partial)
        else:
            await _run(_dump_command(engine.url, partial), engine.url)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


async def _vacuum_into(engine: AsyncEngine, path: Path) -> None:
    """Not a copy of the file: the newest commits are in the one beside it, `-wal`."""
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("VACUUM INTO :path"), {"path": str(path)})


async def restore(path: Path, url: URL) -> None:
    """Fill an empty database from the file; `verify_restore` comes next.

    Raises:
        BackupError: the database has tables, or the tool failed; PostgreSQL keeps nothing then.
        FileExistsError: the database of SQLite is not a new file, or an older one has left a log.
    """
    if url.get_backend_name() == "sqlite":
        await asyncio.to_thread(_copy_to_new, path, Path(url.database or ""))
        return
    await _refuse_tables(url)  # those of the same name would be dropped on MariaDB
    if url.get_backend_name() == "postgresql":
        options = ["--single-transaction", "--no-owner"]  # fails whole, at the first error
        await _run(["pg_restore", *options, "--dbname", _libpq_url(url), str(path)], url)
    else:
        with path.open("rb") as source:
            await _run(["mariadb", *_mysql_options(url), url.database or ""], url, source)


async def _refuse_tables(url: URL) -> None:
    engine = engine_for(url, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            names = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    finally:
        await engine.dispose()
    if names:
        found = ", ".join(sorted(names))
        raise BackupError(f"{url.database} is not empty, it has {found}: restore into a new one")


def _copy_to_new(source: Path, target: Path) -> None:
    for suffix in ("-wal", "-journal"):
        left = target.with_name(target.name + suffix)
        if left.exists():
            raise FileExistsError(f"{left} would be replayed into the restored database: move it")
    with source.open("rb") as backup, target.open("xb") as database:
        shutil.copyfileobj(backup, database)


def _dump_command(url: URL, path: Path) -> list[str]:
    if url.get_backend_name() == "postgresql":
        return ["pg_dump", "--format=custom", "--file", str(path), "--dbname", _libpq_url(url)]
    # One snapshot for all tables, and no locks; a migration meanwhile would still break it.
    options = ["--single-transaction", "--quick", "--routines", "--events", "--hex-blob"]
    file = ["--result-file", str(path)]
    return ["mariadb-dump", *_mysql_options(url), *options, *file, url.database or ""]


def _libpq_url(url: URL) -> str:
    """The URL without its password: arguments are seen by everybody on the machine."""
    left_out = ASYNCPG_DIALECT_KEYS | {"command_timeout", "password"}
    query = {LIBPQ_NAMES.get(k, k): v for k, v in url.query.items() if k not in left_out}
    query |= _libpq_hosts(url)
    plain = URL.create("postgresql", url.username, None, url.host, url.port, url.database, query)
    return plain.render_as_string()


def _libpq_hosts(url: URL) -> dict[str, str]:
    """Return several hosts as lists: for SQLAlchemy they are `host=a:5432&host=b:5432`, too."""
    hosts, ports = (url.query.get(name, ()) for name in ("host", "port"))
    if isinstance(hosts, str):
        hosts = tuple(hosts.split(","))
    found = [re.fullmatch(r"([^:]+):(\d+)", host) for host in hosts]
    if any(found):
        ports = tuple(match[2] if match else "" for match in found)  # "": libpq's default
        hosts = tuple(match[1] if match else host for match, host in zip(found, hosts, strict=True))
    given = {"host": hosts, "port": ports}
    return {name: v if isinstance(v, str) else ",".join(v) for name, v in given.items() if v}


def _mysql_options(url: URL) -> list[str]:
    given = {
        "--host": url.host,
        "--port": url.port,
        "--user": url.username,
        "--socket": url.query.get("unix_socket"),
        "--default-character-set": "utf8mb4",
    }
    return [f"{option}={value}" for option, value in given.items() if value]


async def _run(arguments: Sequence[str], url: URL, source: IO[bytes] | None = None) -> None:
    password = url.password or url.query.get("password")
    given = {name: str(password) for name in ("PGPASSWORD", "MYSQL_PWD") if password}
    process = await asyncio.create_subprocess_exec(
        *arguments,
        env=os.environ | given,
        stdin=source or asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, said = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise BackupError(f"{arguments[0]}: {said.decode(errors='replace').strip()}")


@dataclass
class RestoreReport:
    """`rows` of each table, to compare with what you expect; `problems` must be empty."""

    rows: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


async def verify_restore(
    engine: AsyncEngine, metadata: MetaData = SQLModel.metadata, config: Config | None = None
) -> RestoreReport:
    """Read every row of every table, follow every foreign key, and look at sequences and schema.

    Args:
        engine: of the restored database.
        metadata: what should be there.
        config: of Alembic, for the same database: its revision and its schema are compared, too.
    """
    report = RestoreReport()
    if config is not None:
        try:
            await asyncio.to_thread(command.check, config)
        except Exception as error:  # noqa: BLE001 - env.py is the application's, and so are its errors
            report.problems.append(str(error))
    for table in metadata.sorted_tables:
        try:
            async with engine.connect() as connection:
                report.rows[table.fullname] = await count_rows(connection, table)
                report.problems += await orphans(connection, table)
                report.problems += await sequences_behind(connection, table)
        except Exception as error:  # noqa: BLE001 - whatever stops a reader is a finding
            report.problems.append(f"{table.fullname} can't be read: {error}")
    return report
