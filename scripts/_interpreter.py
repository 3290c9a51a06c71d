"""Find the interpreter of a project, and put questions to it in a process of its own."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

EXECUTABLES = ("bin/python", "Scripts/python.exe")


class Interpreter(NamedTuple):
    path: str
    origin: str  # why this one


class InterpreterError(Exception):
    """There is no such interpreter; the message is one line that says what to do."""


class ProbeError(Exception):
    """The interpreter ran, but gave no answer."""


class ProbeTimeoutError(ProbeError):
    """It had to be stopped."""


def find_interpreter(project: Path, given: str | None = None) -> Interpreter:
    """Return the interpreter that runs the project; its link is kept, a venv is found by it.

    Raises:
        InterpreterError: the one that is named, or that the project has, can't be run.
    """
    if given:
        if (path := _executable(Path(given))) or (path := shutil.which(given)):
            return Interpreter(path, "--python")
        raise InterpreterError(f"--python {given}: no interpreter and no virtual environment")
    for folder, origin in (
        (project / ".venv", "the project's .venv"),
        (Path(os.environ.get("VIRTUAL_ENV") or "/nowhere"), "$VIRTUAL_ENV"),
    ):
        if path := _executable(folder):
            return Interpreter(path, origin)
        if (folder / "pyvenv.cfg").exists():
            raise InterpreterError(f"{folder} has no interpreter: make it anew, or name --python")
    return Interpreter(sys.executable, "the running one; name another with --python")


def _executable(path: Path) -> str | None:
    """The path itself if it can be run, or what is in the virtual environment there."""
    choices = [path / name for name in EXECUTABLES] if path.is_dir() else [path]
    # Not resolved: behind the link of a virtual environment is the interpreter without it.
    found = (str(p.absolute()) for p in choices if p.is_file() and os.access(p, os.X_OK))
    return next(found, None)


def ask(
    interpreter: Interpreter, probe: Path, request: Mapping[str, Any], folder: Path, limit: float
) -> dict[str, Any]:
    """Run a probe with the interpreter, in a folder, for at most `limit` seconds.

    The request goes through a pipe: what is in it, a password perhaps, no list of processes shows.

    Raises:
        ProbeTimeoutError: no answer in time; the process and its children are gone.
        ProbeError: it could not be started, or failed.
    """
    command = [interpreter.path, "-B", str(probe)]
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONWARNINGS": "ignore"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise ProbeError(f"{interpreter.path} can't be run: {error.strerror}") from error
    try:
        out, err = process.communicate(json.dumps(request).encode(), timeout=limit)
    except subprocess.TimeoutExpired:
        raise ProbeTimeoutError(f"no answer within {limit:g} seconds") from None
    finally:
        _stop(process)
    try:
        # Whatever the interpreter prints as it starts comes before.
        answer: dict[str, Any] = json.loads(out.splitlines()[-1])
    except (ValueError, IndexError):
        last = err.decode(errors="replace").strip().splitlines()[-1:] or ["nothing was printed"]
        message = f"{interpreter.path} failed, exit code {process.returncode}: {last[0]}"
        raise ProbeError(message) from None
    return answer


def _stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        process.communicate()
