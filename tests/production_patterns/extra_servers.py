"""Servers beyond the three databases: started by the tests themselves, where their programs are."""

import os
import random
import shutil
import socket
from contextlib import suppress

import pytest

NAMES = ("pgbouncer", "replica", "galera", "redis")
_given: set[int] = set()  # ports that a server here may have, and may not yet listen on


def required_servers() -> set[str]:
    """The names that `REQUIRED_SERVERS` promises.

    Raises:
        ValueError: a name that is none of ours.
    """
    names = {n.strip() for n in os.environ.get("REQUIRED_SERVERS", "").split(",") if n.strip()}
    if unknown := names - set(NAMES):
        raise ValueError(
            f"REQUIRED_SERVERS has {', '.join(sorted(unknown))}; it takes {', '.join(NAMES)}"
        )
    return names


def need(server: str, *programs: str) -> list[str]:
    """Return the programs' paths; skip the test without them, or fail where they are promised."""
    folders = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    found = {program: shutil.which(program, path=folders) for program in programs}
    missing = [program for program, path in found.items() if path is None]
    if not missing:
        return [path for path in found.values() if path]
    message = f"{server}: no {', '.join(missing)} on this machine"
    if server in required_servers():
        pytest.fail(f"{message}, but REQUIRED_SERVERS names it")
    pytest.skip(message)


def server_port() -> int:
    """A free port that nobody is given by chance: who ends and starts again gets its own one."""
    while True:
        port = random.randrange(10240, 32768)  # below those of connections and of port 0
        if port in _given:
            continue
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _given.add(port)
            return port
