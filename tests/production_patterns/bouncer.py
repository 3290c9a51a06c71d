"""A PgBouncer in transaction mode before a PostgreSQL, for one test."""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from production_patterns.extra_servers import need
from sqlalchemy import URL

CONFIG = """\
[databases]
* = {server}

[pgbouncer]
listen_addr =
listen_port = 6432
unix_socket_dir = {folder}
auth_type = any
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 300
server_idle_timeout = 600
"""


@contextmanager
def pgbouncer(server: URL, *, pool_size: int, folder: Path | None = None) -> Iterator[URL]:
    """Yield the URL of a PgBouncer that opens at most `pool_size` connections to the server.

    It listens on a socket in a folder of its own: there is no port that another test could take.
    With the `folder` of one that ended it is that one, started again.
    """
    (program,) = need("pgbouncer", "pgbouncer")
    with tempfile.TemporaryDirectory(prefix="pgbouncer_") as name:
        if folder is None:
            folder = Path(name)
        else:
            folder.mkdir()
        config = folder / "pgbouncer.ini"
        log = folder / "log"
        parts = {"server": _connect_string(server), "folder": folder, "pool_size": pool_size}
        config.write_text(CONFIG.format(**parts))
        command = [program, str(config)]
        if os.geteuid() == 0:  # it refuses to run as root
            owner = _owner_of_the_socket(server)
            os.chown(folder, owner, -1)
            command[1:1] = ["-u", _name_of(owner)]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
        url = URL.create(
            "postgresql+asyncpg",
            username=server.username,
            database=server.database,
            query={"host": str(folder), "port": "6432"},
        )
        try:
            _wait_until_it_answers(url, process, log)
            yield url
        finally:
            process.terminate()
            process.wait()


def _connect_string(server: URL) -> str:
    """PgBouncer's own `key=value`; without a database it takes the one that the client names."""
    given = {
        "host": server.host or server.query.get("host"),
        "port": server.port,
        "user": server.username,
        "password": server.password,
    }
    return " ".join(f"{key}={value}" for key, value in given.items() if value)


def _owner_of_the_socket(server: URL) -> int:
    """The embedded server's folder is open to its owner alone."""
    host = str(server.host or server.query.get("host"))
    if host.startswith("/"):
        return Path(host).stat().st_uid
    import pwd

    return pwd.getpwnam("nobody").pw_uid


def _name_of(user: int) -> str:
    import pwd

    return pwd.getpwuid(user).pw_name


def _wait_until_it_answers(url: URL, process: "subprocess.Popen[bytes]", log: Path) -> None:
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    end = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(plain, connect_timeout=10, prepare_threshold=None).close()
        except psycopg.OperationalError as error:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"PgBouncer does not answer: {log.read_text()}") from error
            time.sleep(0.05)
        else:
            return
