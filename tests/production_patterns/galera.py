"""Three MariaDB servers of our own that form a Galera cluster: start them, kill one, end all."""

import faulthandler
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pymysql
import pytest
from production_patterns.extra_servers import need, required_servers, server_port
from sqlalchemy import URL

LIBRARIES = [
    Path("/usr", folder, "libgalera_smm.so")
    for folder in ("lib/galera", "lib64/galera-4", "lib64/galera", "lib")
]
DATABASE = "galera"
LOG_SIZE = "8M"  # it is copied to each node that joins
PATIENCE = 180.0  # seconds, on a machine that does much else
# Kills the servers' process group when its input ends, which it does however our process ends.
GUARD = "read _; kill -s KILL -- -$0"


def wait_until(reached: Callable[[], bool], failure: Callable[[], str]) -> None:
    end = time.monotonic() + PATIENCE
    while not reached():
        if time.monotonic() > end:
            raise TimeoutError(failure())
        time.sleep(0.1)


def as_servers_user(folder: Path) -> list[str]:
    """Give the folder to the servers' user where we are root: rsync writes as nobody for root."""
    if os.geteuid() != 0:
        return []
    shutil.chown(folder, "mysql", "mysql")
    return ["--user=mysql"]


class Node:
    def __init__(self, folder: Path, library: Path, server: str) -> None:
        folder.mkdir()
        self._user = as_servers_user(folder)
        self._folder = folder
        self._library = library
        self._server = server
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self.port, self.group_port, self._ist_port, self._sst_port = (
            server_port() for _ in range(4)
        )
        self.address = ("127.0.0.1", self.port)

    @property
    def url(self) -> URL:
        return URL.create("mysql+aiomysql", "root", None, "127.0.0.1", self.port, DATABASE)

    def install(self, program: str) -> None:
        command = [
            program,
            "--no-defaults",
            f"--datadir={self._folder / 'data'}",
            f"--innodb-log-file-size={LOG_SIZE}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            *self._user,
        ]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self, group: list[int]) -> None:
        """Start the node as a member of the group; of a new one when that is empty."""
        (self._folder / "data").mkdir(exist_ok=True)
        as_servers_user(self._folder / "data")
        options = [f"--{name}={value}" for name, value in self._options(group).items()]
        first = [] if group else ["--wsrep-new-cluster"]
        self._process = subprocess.Popen(
            [self._server, "--no-defaults", *options, *first, *self._user],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a group of its own: what it starts dies with it
        )
        self._guard = subprocess.Popen(
            ["sh", "-c", GUARD, str(self._process.pid)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        wait_until(self._synced, self._complaint)

    def _options(self, group: list[int]) -> dict[str, Any]:
        provider = {
            "gmcast.listen_addr": f"tcp://127.0.0.1:{self.group_port}",
            "ist.recv_addr": f"127.0.0.1:{self._ist_port}",
            "gcache.size": "16M",
            # Twice the default: a busy machine must not pass for a dead node.
            "evs.suspect_timeout": "PT10S",
            "evs.inactive_timeout": "PT30S",
            "pc.recovery": "no",  # a killed node asks the others, not its own memory of the group
        }
        return {
            "datadir": self._folder / "data",
            "socket": self._folder / "server.sock",
            "pid-file": self._folder / "server.pid",
            "log-error": self._folder / "server.log",
            "bind-address": "127.0.0.1",
            "port": self.port,
            "innodb-buffer-pool-size": "64M",
            "innodb-log-file-size": LOG_SIZE,
            "innodb-flush-log-at-trx-commit": 0,  # the cluster keeps what a killed node loses
            "innodb-autoinc-lock-mode": 2,
            "binlog-format": "ROW",
            "wsrep-on": "ON",
            "wsrep-provider": self._library,
            "wsrep-provider-options": ";".join(f"{k}={v}" for k, v in provider.items()),
            "wsrep-cluster-name": self._folder.parent.name,
            "wsrep-cluster-address": "gcomm://" + ",".join(f"127.0.0.1:{p}" for p in group),
            "wsrep-node-name": self._folder.name,
            "wsrep-node-address": "127.0.0.1",
            "wsrep-sst-method": "rsync",
            "wsrep-sst-receive-address": f"127.0.0.1:{self._sst_port}",
        }

    def _synced(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._complaint()
        return self.status("wsrep_local_state") == "4"

    def _complaint(self) -> str:
        lines = (self._folder / "server.log").read_text(errors="replace").splitlines()
        return "\n".join([f"{self._folder.name} is not what it should be:", *lines[-40:]])

    @property
    def version(self) -> str:
        return str(self.query("SELECT VERSION()")[0][0]).partition("-")[0]

    def status(self, name: str) -> str | None:
        try:
            return str(self.query(f"SHOW GLOBAL STATUS LIKE '{name}'")[0][1])
        except pymysql.err.MySQLError:  # it does not listen yet
            return None

    def query(self, statement: str) -> tuple[tuple[Any, ...], ...]:
        with closing(self.connection()) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall()

    def connection(self) -> "pymysql.connections.Connection":
        return pymysql.connect(
            host="127.0.0.1", port=self.port, user="root", autocommit=True, connect_timeout=10
        )

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Let the node answer, and apply nothing that the others commit."""
        with closing(self.connection()) as connection, connection.cursor() as cursor:
            cursor.execute("FLUSH TABLES WITH READ LOCK")
            yield

    def wait_for_members(self, number: int) -> None:
        wait_until(
            lambda: self._synced() and self.status("wsrep_cluster_size") == str(number),
            self._complaint,
        )

    def kill(self) -> None:
        """End it as a power cut would, and whatever it has started."""
        if self._process is not None and self._guard is not None:
            self._guard.communicate()
            self._process.wait()
            self._process = self._guard = None


@contextmanager
def galera() -> Iterator[list[Node]]:
    """The nodes of a running cluster; skips the test where the programs are missing."""
    server, install, _ = need("galera", "mariadbd", "mariadb-install-db", "rsync")
    provider = library()
    # The suite's limit for one test is too short for what starts, falls and returns here.
    faulthandler.dump_traceback_later(900, exit=True, file=sys.__stderr__)
    folder = Path(tempfile.mkdtemp(prefix="galera_"))
    nodes: list[Node] = []
    try:
        as_servers_user(folder)
        nodes += (Node(folder / f"node{i}", provider, server) for i in range(3))
        nodes[0].install(install)
        for number, node in enumerate(nodes):
            node.start([other.group_port for other in nodes[:number]])
        nodes[0].query(f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4")
        for node in nodes:
            node.wait_for_members(3)
        yield nodes
    finally:
        for node in nodes:
            node.kill()
        shutil.rmtree(folder)


def library() -> Path:
    """Galera itself, which the servers load."""
    for path in LIBRARIES:
        if path.exists():
            return path
    message = "galera: no libgalera_smm.so on this machine"
    if "galera" in required_servers():
        pytest.fail(f"{message}, but REQUIRED_SERVERS names it")
    pytest.skip(message)
