"""Servers beyond the three databases: started by the tests themselves, where their programs are."""

import os
import shutil
import socket

import pytest

NAMES = ("pgbouncer", "replica", "galera", "redis")


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


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
