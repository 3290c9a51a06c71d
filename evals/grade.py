# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""Grade what an agent has made of a task: run the task's checks on every database."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
DATABASES = ("sqlite", "postgresql", "mysql")
EPILOG = """\
A database that is not there is left out: SQLite always runs, PostgreSQL comes from
TEST_POSTGRESQL_URL or the test dependencies, MariaDB from TEST_MYSQL_URL. The last line says which
ran. What pytest says goes to stderr.

examples:
  .venv/bin/python evals/grade.py upsert ../solution
  .venv/bin/python evals/grade.py --list

exit codes: 0 every assertion holds, 1 one does not, 2 wrong usage
"""


@dataclass
class Grade:
    """Whether each assertion holds on all databases that ran, and if not, why nothing ran."""

    held: dict[str, bool] = field(default_factory=dict)
    databases: set[str] = field(default_factory=set)
    broken: str | None = None

    @property
    def passed(self) -> bool:
        return self.broken is None and all(self.held.values())


def task_names() -> list[str]:
    tasks = json.loads((HERE / "evals.json").read_text(encoding="utf-8"))
    return [task["name"] for task in tasks["evals"]]


def grade(name: str, solution: Path) -> Grade:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        # The native tracebacks: pytest's own fail on deeply nested errors of Python 3.11.
        options = ["-q", "-p", "no:cacheprovider", "-W", "default", "--tb=native"]
        options.append(f"--junitxml={report}")
        command = [sys.executable, "-m", "pytest", *options, f"evals/checks/test_{name}.py"]
        environment = os.environ | {"SOLUTION": str(solution), "PYTHONDONTWRITEBYTECODE": "1"}
        subprocess.run(command, cwd=ROOT, env=environment, stdout=sys.stderr, check=False)
        # A check that hangs ends pytest, which then writes no report.
        cases = list(ET.parse(report).iter("testcase")) if report.exists() else []
    return _grade_of(cases)


def _grade_of(cases: Sequence[ET.Element]) -> Grade:
    found = Grade(broken=None if cases else "the checks did not come to an end")
    for case in cases:
        error = case.find("error")
        if error is not None and error.get("message") == "collection failure":
            found.broken = f"the solution can't be imported: {_last_line(error.text or '')}"
        elif error is not None and case.get("name") == "internal":
            found.broken = f"pytest itself failed: {_last_line(error.text or '')}"
        elif case.find("skipped") is None:
            assertion, _, parameters = (case.get("name") or "").partition("[")
            found.databases.update(name for name in DATABASES if name in parameters)
            passed = error is None and case.find("failure") is None
            found.held[assertion] = found.held.get(assertion, True) and passed
    return found


def _last_line(text: str) -> str:
    """Return the error below a traceback."""
    return text.strip().split("\n")[-1].removeprefix("E").strip()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", nargs="?", help="its name in evals.json")
    parser.add_argument("solution", nargs="?", type=Path, help="the folder that the agent wrote")
    parser.add_argument("--list", action="store_true", help="print the names of the tasks")
    args = parser.parse_args(argv)
    names = task_names()
    if args.list:
        print("\n".join(names))
        return 0
    if args.task not in names:
        parser.error(f"unknown task {args.task!r}: use one of {', '.join(names)}")
    if args.solution is None or not args.solution.is_dir():
        parser.error(f"there is no folder {args.solution}")
    found = grade(args.task, args.solution.resolve())
    for assertion, holds in found.held.items():
        print(f"{'holds' if holds else 'FAILS'}  {assertion.removeprefix('test_')}")
    if found.broken:
        print(f"FAILS  {found.broken}")
    else:
        where = ", ".join(name for name in DATABASES if name in found.databases)
        print(f"{sum(found.held.values())} of {len(found.held)} assertions hold on {where}")
    return 0 if found.passed else 1


if __name__ == "__main__":
    sys.exit(main())
