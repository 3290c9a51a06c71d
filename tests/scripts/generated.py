"""What tests do with the files that the scaffold wrote, and with its answers."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import scaffold


def run(folder: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run Python in a generated application, as its user would: `-c ...`, or a module's name."""
    prefixes = ("PYTEST_", "DATABASE_", "API_", "TEST_DATABASE_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(prefixes)}
    options = [] if arguments[0].startswith("-") else ["-m"]
    return subprocess.run(
        [sys.executable, *options, *arguments],
        cwd=folder,
        env={**kept, "PYTHONDONTWRITEBYTECODE": "1", **variables},
        capture_output=True,
        text=True,
        timeout=600,  # a hang, not a slow machine
        check=False,
    )


def succeeded(folder: Path, *arguments: str, **variables: str) -> str:
    done = run(folder, *arguments, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def lints(folder: Path) -> None:
    succeeded(folder, "ruff", "check", ".", "--no-cache")
    succeeded(folder, "ruff", "format", "--check", ".", "--no-cache")


def type_checks(folder: Path, tmp_path: Path) -> None:
    """Run mypy; what it knows of the libraries it keeps for the other tests of this process."""
    succeeded(folder, "mypy", "--cache-dir", str(tmp_path.parent / "mypy"))


def modules(folder: Path) -> Iterator[str]:
    """Yield the names of all modules below a folder that Python starts in."""
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(folder).with_suffix("").as_posix()
        yield name.removesuffix("/__init__").replace("/", ".")


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def refusals(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> list[str]:
    """Run the script, expect a failure, and return what it says."""
    try:
        returned = scaffold.main(arguments)
    except SystemExit as stop:
        returned = stop.code
    printed = capsys.readouterr()
    assert returned == code, printed
    assert printed.out == ""
    return printed.err.splitlines()


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """Run the script, expect a failure, and return its one line."""
    (line,) = refusals(capsys, *arguments, code=code)
    return line
