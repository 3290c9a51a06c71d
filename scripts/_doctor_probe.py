"""Run by the interpreter of a project, of whatever version: what is installed, what answers.

A request comes as JSON on stdin, the answer goes as JSON to stdout. Nothing is ever written to a
database. The syntax stays old, so that an old interpreter can say how old it is.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any, Dict, List  # noqa: UP035  (as an old interpreter has them)
from urllib.parse import quote

WAL = 2  # in the header of a SQLite file
MYSQL_VARIABLES = (
    "SHOW VARIABLES WHERE Variable_name IN ('version', 'version_comment', 'read_only',"
    " 'super_read_only', 'innodb_read_only', 'tx_read_only', 'transaction_read_only')"
)

Answer = Dict[str, Any]  # noqa: UP006


def installed(request: Answer) -> Answer:
    import sqlite3

    packages: Answer = {}
    requires: Answer = {}
    try:
        from importlib import metadata
    except ImportError:  # before Python 3.8
        pass
    else:
        for name in request["names"]:
            try:
                found = metadata.distribution(name)
            except metadata.PackageNotFoundError:
                continue
            packages[name] = found.version
            requires[name] = found.requires or []
    return {
        "python": ".".join(map(str, sys.version_info[:3])),
        "sqlite": sqlite3.sqlite_version,
        "packages": packages,
        "requires": requires,
        "greenlet": import_error("greenlet"),
    }


def import_error(module: str) -> "str | None":
    try:
        __import__(module)
    except Exception as error:  # noqa: BLE001  (a broken extension may raise anything)
        return str(error) or type(error).__name__
    return None


def database(request: Answer) -> Answer:  # noqa: PLR0911  (each return says how far we came)
    """What is known of the URL, and then of the server."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    try:
        url = make_url(request["url"])
    except (ArgumentError, ValueError):
        return {"stopped": "parse"}
    try:
        dialect = url.get_dialect()
        dialect = dialect.get_async_dialect_cls(url)
    except NoSuchModuleError:
        return {"stopped": "dialect", "drivername": url.drivername}
    answer: Answer = {"backend": url.get_backend_name(), "driver": dialect.driver}
    if not dialect.is_async:
        return {**answer, "stopped": "sync"}
    try:
        dialect.import_dbapi()
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError)
        return {**answer, "stopped": "driver", "missing": missing, "error": str(error)}
    if request["greenlet"]:
        return {**answer, "stopped": "greenlet"}
    if answer["backend"] == "sqlite":
        file = sqlite_file(url)
        url = file.pop("url", url)
        answer = {**answer, "file": file}
        if file.get("trouble"):
            return {**answer, "stopped": "file"}
    return {**answer, **connected(url, dialect.driver, request["timeout"])}


def sqlite_file(url: Any) -> Answer:
    """The file behind a URL, and the URL that reads it without making or changing anything."""
    name = url.database or ":memory:"
    options = url.query
    if ":memory:" in name or options.get("mode") == "memory":
        return {"path": ":memory:", "writable": True}
    as_uri = str(options.get("uri", "")).lower() in ("true", "1", "on", "yes", "y", "t")
    if as_uri and name.startswith("file:"):
        name = name[len("file:") :]
    path = Path(name).absolute()
    folder = path.parent
    found: Answer = {"path": str(path)}
    if not path.exists():
        if not folder.is_dir():
            trouble = "no folder"
        else:
            trouble = "missing" if os.access(str(folder), os.W_OK) else "folder read-only"
        return {**found, "trouble": trouble}
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except OSError as error:
        return {**found, "trouble": "unreadable", "error": error.strerror}
    if header and not header.startswith(b"SQLite format 3\0"):
        return {**found, "trouble": "no database"}
    # The journal is written beside the file.
    may_write = os.access(str(path), os.W_OK) and os.access(str(folder), os.W_OK)
    by_url = as_uri and (options.get("mode") == "ro" or "immutable" in options)
    found["writable"] = may_write and not by_url
    query = {"uri": "true", "mode": "ro"}
    if len(header) > 19 and WAL in header[18:20]:
        # A reader of such a file makes files beside it, unless it takes it for immutable.
        query["immutable"] = "1"
    found["url"] = url.set(database="file:" + quote(str(path)), query=query)
    return found


def connected(url: Any, driver: str, limit: float) -> Answer:
    try:
        return asyncio.run(asyncio.wait_for(server(url, driver, limit), limit))
    except Exception as error:  # noqa: BLE001  (whatever a driver raises is the answer)
        return {"stopped": "connect", "errors": described(error)}


def described(error: "BaseException | None") -> "List[Answer]":  # noqa: UP006
    """An exception and those it was made from."""
    found: List[Answer] = []  # noqa: UP006
    while error is not None and len(found) < 6:
        first = error.args[0] if error.args else None
        code = getattr(error, "sqlstate", None) or (first if isinstance(first, int) else None)
        found.append({"type": type(error).__name__, "text": str(error), "code": code})
        error = getattr(error, "orig", None) or error.__cause__ or error.__context__
    return found


async def server(url: Any, driver: str, limit: float) -> Answer:
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    arguments = {
        # Without prepared statements, which do not pass every pooler.
        "asyncpg": {"timeout": limit, "statement_cache_size": 0},
        "psycopg": {"connect_timeout": max(2, int(limit)), "prepare_threshold": None},
        "aiomysql": {"connect_timeout": limit},
        "asyncmy": {"connect_timeout": max(1, int(limit))},
        "aiosqlite": {"timeout": limit / 2},
    }
    name = driver.replace("psycopg_async", "psycopg")
    engine = create_async_engine(url, poolclass=NullPool, connect_args=arguments.get(name, {}))
    try:
        async with engine.connect() as connection:
            return await facts(connection, url.get_backend_name())
    finally:
        await engine.dispose()


async def facts(connection: Any, backend: str) -> Answer:
    from sqlalchemy import text

    if backend == "sqlite":
        version = await connection.scalar(text("SELECT sqlite_version()"))
        await connection.scalar(text("PRAGMA schema_version"))
        return {"product": "SQLite", "version": version, "read_only": []}
    if backend == "postgresql":
        asked = "SELECT version(), current_setting('transaction_read_only'), pg_is_in_recovery()"
        version, read_only, recovery = (await connection.execute(text(asked))).one()
        reasons = ["it is a standby (in recovery)"] if recovery else []
        if read_only == "on" and not recovery:
            reasons.append("transaction_read_only is on")
        product, _, rest = version.partition(" ")
        return {"product": product, "version": rest.split(" ")[0], "read_only": reasons}
    if backend in ("mysql", "mariadb"):
        rows = (await connection.execute(text(MYSQL_VARIABLES))).all()
        values = {str(name).lower(): str(value) for name, value in rows}
        version, comment = values.pop("version", ""), values.pop("version_comment", "")
        product = "MariaDB" if "mariadb" in (version + comment).lower() else "MySQL"
        version = version.partition("-")[0]
        on = sorted(name for name, value in values.items() if value.upper() not in ("0", "OFF"))
        return {
            "product": product,
            "version": version,
            "read_only": [name + " is on" for name in on],
        }
    return {"product": backend, "version": "", "read_only": []}


def main() -> None:
    # What libraries print must not spoil the answer, nor may this folder hide their modules.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    here = Path(__file__).resolve().parent
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != here]
    request = json.loads(sys.stdin.read())
    answer = database(request) if "url" in request else installed(request)
    answers.write("\n" + json.dumps(answer))
    answers.close()
    sys.stderr.flush()
    # A driver's thread may be waiting still; nobody waits for it.
    os._exit(0)


if __name__ == "__main__":
    main()
