"""Whoever reads what a script prints may stop early, or know few letters."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
COMMANDS = [
    ("lint.py", "--list-rules"),
    ("lint.py", "."),
    ("doctor.py", "."),
    ("docs.py", "select"),
    ("scaffold.py", "list"),
    ("check.py", "--root", "."),
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a finding in a file whose name is not UTF-8."""
    (tmp_path / "pyproject.toml").touch()
    odd = os.fsdecode(b"odd_\xff.py")
    (tmp_path / odd).write_text("import time\nasync def wait():\n    time.sleep(1)\n")
    return tmp_path


def started(command: tuple[str, ...], folder: Path, out: int) -> "subprocess.CompletedProcess[str]":
    script, *arguments = command
    return subprocess.run(
        [sys.executable, str(SCRIPTS / script), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        stdout=out,
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_who_stops_reading_sees_no_error(command: tuple[str, ...], project: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)

    done = started(command, project, writing)

    os.close(writing)
    assert done.stderr == ""


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_letters_that_are_not_known_are_spelled(command: tuple[str, ...], project: Path) -> None:
    done = started(command, project, subprocess.PIPE)

    assert done.stderr == ""
    assert done.stdout
    assert done.returncode in {0, 1}


def test_an_aborted_list_of_findings_is_no_success(project: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)

    done = started(("lint.py", "."), project, writing)

    os.close(writing)
    assert done.returncode == 1


def test_the_name_of_a_file_that_is_no_text_is_shown(project: Path) -> None:
    done = started(("lint.py", "."), project, subprocess.PIPE)

    assert "odd_\\udcff.py:3: blocking-call" in done.stdout
