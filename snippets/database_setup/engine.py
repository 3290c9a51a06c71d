"""Create the engine with the options that each database needs."""

import asyncio
import json
import re
from functools import partial
from typing import Any

from sqlalchemy import URL, Connection, ExceptionContext, QueuePool, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from snippets.database_setup.sqlite_pragmas import configure_sqlite
from snippets.database_setup.urls import async_url

CONNECT_TIMEOUT = 10  # seconds


def engine_for(
    url: str | URL,
    *,
    application_name: str = "app",
    pool_size: int = 5,
    max_overflow: int = 10,
    pool_timeout: float = 10,
    statement_timeout: float = 30,
    lock_timeout: float = 5,
    **options: Any,
) -> AsyncEngine:
    """Return an engine; nothing connects yet. One per process: it is the pool.

    Args:
        url: with or without a driver; see `async_url`. Its query wins over what is set here.
        application_name: how the database's own views name this process (PostgreSQL).
        pool_size: connections kept open.
        max_overflow: connections opened on top under load.
        pool_timeout: seconds to wait for a free connection.
        statement_timeout: seconds a statement may run (PostgreSQL, MariaDB).
        lock_timeout: seconds to wait for a lock.
        options: go to `create_async_engine`, and win over what is set here.

    Raises:
        DatabaseURLError: no async engine can use the URL.
    """
    url = async_url(url)
    # Parameters are data of people; errors and logs show the statement without them.
    common: dict[str, Any] = {"hide_parameters": True, "json_serializer": _json}
    usual_pool = url.get_dialect().get_pool_class(url)  # type: ignore[attr-defined]
    # Without a size: NullPool, and the one connection that a database in memory is.
    if issubclass(options.get("poolclass") or usual_pool, QueuePool):
        common |= {
            "pool_size": pool_size,
            "max_overflow": max_overflow,
            "pool_timeout": pool_timeout,
        }
    if url.get_backend_name() == "sqlite":
        common["connect_args"] = _unless_in_url(url, {"timeout": lock_timeout})
        engine = create_async_engine(url, **common | options)
        configure_sqlite(engine)
        return engine
    # Ask the server before each checkout: a restart costs a reconnect, not a failed request.
    common["pool_pre_ping"] = True
    if url.get_backend_name() == "postgresql":
        settings = postgresql_settings(application_name, statement_timeout, lock_timeout)
        arguments = postgresql_connect_args(url.get_driver_name(), settings)
    else:
        arguments = mysql_connect_args(statement_timeout, lock_timeout)
    common["connect_args"] = _unless_in_url(url, arguments)
    engine = create_async_engine(url, **common | options)
    if url.get_backend_name() == "postgresql":
        _refuse_empty_commits(engine)
    else:
        event.listen(engine.sync_engine, "do_connect", _bound_handshake)
    return engine


def _unless_in_url(url: URL, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments without those of the URL, which they would replace without a word."""
    ours = {name: value for name, value in arguments.items() if name not in url.query}
    # Several settings in one text: both, and the URL's are the last word.
    if "options" in arguments and "options" in url.query:
        ours["options"] = f"{arguments['options']} {url.query['options']}"
    theirs = re.match(r"(?is)\s*SET\s+([\w@.]+\s*:?=.*)", str(url.query.get("init_command")))
    if "init_command" in arguments and theirs:
        ours["init_command"] = f"{arguments['init_command']}, {theirs[1]}"
    return ours


def _bound_handshake(dialect: Any, _record: Any, _args: Any, options: dict[str, Any]) -> None:
    ours = {"async_creator_fn": partial(connect_in_time, dialect)}
    options.update((ours if dialect.driver == "aiomysql" else {}) | options)


async def connect_in_time(dialect: Any, **options: Any) -> Any:
    """Return aiomysql's connection, or say that the server does not answer.

    Its own limit ends where the server is to speak: one that is halted, or a proxy without a
    server, takes the connection and never does.
    """
    limit = options.get("connect_timeout") or CONNECT_TIMEOUT
    connection = dialect.loaded_dbapi.aiomysql.Connection(**options)
    try:
        async with asyncio.timeout(limit):
            await connection._connect()  # `aiomysql.connect` returns nothing that one could close
    except TimeoutError as error:
        connection.close()
        text = f"Can't connect to MySQL server on {options.get('host')!r} (no answer in {limit} s)"
        raise dialect.loaded_dbapi.OperationalError(2003, text) from error
    except BaseException:  # also a CancelledError: nobody else knows of the connection
        connection.close()
        raise
    return connection


def _refuse_empty_commits(engine: AsyncEngine) -> None:
    """Make a COMMIT fail that saves nothing, since an error before it was swallowed.

    PostgreSQL has ended that transaction, answers its COMMIT with ROLLBACK, and no driver tells.
    """
    event.listen(engine.sync_engine, "handle_error", _note_error)
    event.listen(engine.sync_engine, "begin", _forget_error)
    event.listen(engine.sync_engine, "rollback_savepoint", _forget_error)
    event.listen(engine.sync_engine, "commit", _ask_after_error)


def _note_error(context: ExceptionContext) -> None:
    if context.connection is not None and not context.is_disconnect:
        context.connection.info["has_failed"] = True


def _forget_error(connection: Connection, *_savepoint: object) -> None:
    if not connection.invalidated:
        connection.info.pop("has_failed", None)


def _ask_after_error(connection: Connection) -> None:
    if connection.invalidated or not connection.info.pop("has_failed", False):
        return
    try:
        # A driver's own refusal has ended nothing: the server knows.
        connection.exec_driver_sql("SELECT 1")
    except DBAPIError:
        if not connection.invalidated:
            connection.connection.rollback()  # for SQLAlchemy the transaction is over already
        raise


def _json(value: Any) -> str:
    # Escaped, a key such as `größe` is found by no path on SQLite and MariaDB.
    return json.dumps(value, ensure_ascii=False)


def postgresql_settings(
    application_name: str, statement_timeout: float, lock_timeout: float
) -> dict[str, str]:
    return {
        "application_name": application_name,
        "timezone": "UTC",  # what a timestamp without zone is taken for
        "statement_timeout": f"{round(statement_timeout * 1000)}ms",
        "lock_timeout": f"{round(lock_timeout * 1000)}ms",
        # A forgotten transaction holds locks and stops vacuum: end it.
        "idle_in_transaction_session_timeout": "60s",
        # Short queries gain nothing from compilation, and asyncpg's look at types pays for it.
        "jit": "off",
    }


def postgresql_connect_args(driver: str, settings: dict[str, str]) -> dict[str, Any]:
    if driver == "asyncpg":
        return {"timeout": CONNECT_TIMEOUT, "server_settings": settings}
    escaped = {k: v.replace("\\", "\\\\").replace(" ", "\\ ") for k, v in settings.items()}
    options = " ".join(f"-c {name}={value}" for name, value in escaped.items())
    return {"connect_timeout": CONNECT_TIMEOUT, "options": options}


def mysql_connect_args(statement_timeout: float, lock_timeout: float) -> dict[str, Any]:
    # The comment with M! is run by MariaDB alone; MySQL has no such variable.
    init_command = (
        "SET time_zone = '+00:00'"
        ", sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES,ONLY_FULL_GROUP_BY')"
        f", innodb_lock_wait_timeout = {max(1, round(lock_timeout))}"
        f" /*M!100101 , max_statement_time = {statement_timeout:.3f} */"
    )
    return {
        "charset": "utf8mb4",
        "connect_timeout": CONNECT_TIMEOUT,
        "init_command": init_command,
    }
