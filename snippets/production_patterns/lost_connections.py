"""Notice in bounded time that the server or the network is gone, and report it in one way."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect, ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine


def survive_lost_connections(engine: AsyncEngine, *, silence: float = 15) -> None:
    """Install what no option of the engine covers; call once, before the first connect.

    Args:
        engine: of `engine_for`, whose `pool_pre_ping` replaces what was lost while idle.
        silence: seconds until a connection is given up whose packets nobody acknowledges. Without
            it Linux waits a quarter of an hour after a statement, and hours for an answer.
    """
    if engine.dialect.name == "sqlite":
        return

    def limit(dbapi_connection: DBAPIConnection, _record: Any) -> None:
        limit_silence(network_socket(dbapi_connection), silence)

    event.listen(engine.sync_engine, "connect", limit)
    event.listen(engine.sync_engine, "do_connect", _connect)
    event.listen(engine.sync_engine, "handle_error", _mark_failed_connect)
    if engine.dialect.driver == "asyncpg":
        _translate_set_up(engine.dialect)
        _translate_client_errors(engine.dialect.loaded_dbapi)


def _connect(dialect: Dialect, _record: Any, args: Any, arguments: Any) -> DBAPIConnection:
    with _database_errors(dialect.loaded_dbapi):
        return dialect.connect(*args, **arguments)


def _translate_set_up(dialect: Any) -> None:
    """A new connection of asyncpg is told how to read JSON; what fails there passes as it is."""

    def translated(step: Any) -> Any:
        async def set_up(connection: Any) -> None:
            with _database_errors(dialect.loaded_dbapi):
                await step(connection)

        return set_up

    for name in ("setup_asyncpg_json_codec", "setup_asyncpg_jsonb_codec"):
        setattr(dialect, name, translated(getattr(dialect, name)))


@contextmanager
def _database_errors(dbapi: Any) -> Iterator[None]:
    """Raise a DBAPIError where asyncpg raises a bare OSError, or its own error."""
    try:
        yield
    except Exception as error:
        own = type(error).__module__.startswith("asyncpg.")
        mistaken = isinstance(error, ValueError)  # arguments, which a second try does not mend
        if isinstance(error, dbapi.Error) or mistaken or not (own or isinstance(error, OSError)):
            raise
        failure = dbapi.OperationalError(f"can't connect: {error!r}")
        failure.sqlstate = getattr(error, "sqlstate", None)
        raise failure from error


def _translate_client_errors(dbapi: Any) -> None:
    """Let SQLAlchemy before 2.0.50 know the error of a connection whose end asyncpg is reading.

    "cannot switch to state": it passed as it was, and failed the ping instead of replacing.
    """
    known = getattr(dbapi, "_asyncpg_error_translate", {})
    known.setdefault(dbapi.asyncpg.InternalClientError, dbapi.InternalError)


def _mark_failed_connect(context: ExceptionContext) -> None:
    # Lost while connecting (MariaDB behind a proxy): nothing was sent, so it is no lost COMMIT.
    if context.connection is None and not context.is_pre_ping:
        context.is_disconnect = False


def network_socket(dbapi_connection: Any) -> socket.socket:
    """Return a second handle of the driver's socket; close it after use."""
    driver = dbapi_connection.driver_connection
    if hasattr(driver, "fileno"):  # psycopg
        return socket.socket(fileno=os.dup(driver.fileno()))
    transport = getattr(driver, "_transport", None) or driver._writer.transport
    return socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))


def limit_silence(handle: socket.socket, seconds: float) -> None:
    probe = max(1, round(seconds / 3))
    options = {
        "TCP_KEEPIDLE": probe,  # while it waits for an answer it asks whether the peer is there
        "TCP_KEEPINTVL": probe,
        "TCP_KEEPCNT": 2,
        "TCP_USER_TIMEOUT": round(seconds * 1000),  # for what was sent; Linux alone has it
    }
    with handle:
        if handle.family == socket.AF_UNIX:
            return
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name in options.keys() & vars(socket).keys():
            handle.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), options[name])
