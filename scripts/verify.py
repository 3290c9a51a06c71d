# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""Run the documented patterns on your server or on the newest libraries, and tell what holds."""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import venv
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from _command import Parser

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "verify"
VERSION_SETS = {"latest": ".venv", "sa20": ".venv-sa20", "floor": ".venv-floor"}
AVAILABLE = "latest-available"
# The variables that lead the suite to a server, by the scheme of its URL.
SERVERS = {"postgresql": "TEST_POSTGRESQL_URL", "mysql": "TEST_MYSQL_URL", "sqlite": ""}
SCHEMES = {"postgres": "postgresql", "mariadb": "mysql"} | {name: name for name in SERVERS}
EPILOG = """\
examples:
  DATABASE_URL=mysql://user:password@host python scripts/verify.py
  python scripts/verify.py --versions latest-available
  python scripts/verify.py --report build/junit-latest.xml build/junit-floor.xml --readme

A server is named by the variable DATABASE_URL, so that no list of processes shows its password. Its
user must be allowed to create databases: the suite makes its own there, and drops them.

exit codes: 0 all holds, 1 something does not, 2 wrong usage
"""


class UsageError(Exception):
    """What was asked for can't be done; the message is one line that says what to do."""


# Results


@dataclass
class Pattern:
    """What the tests of one pattern say; `place` is the page and heading, or the test file."""

    place: str
    passed: int = 0
    skipped: int = 0
    failures: list[str] = field(default_factory=list)


@dataclass
class Report:
    """A run: what it ran on, and the patterns; its fields are the keys of --json."""

    servers: dict[str, int]
    libraries: dict[str, str]
    patterns: list[Pattern]

    @property
    def failures(self) -> int:
        return sum(len(pattern.failures) for pattern in self.patterns)


def place_of(classname: str) -> str:
    """`tests.models.test_keys` is `references/models.md#keys`.

    Tests that belong to no page are named by their file.
    """
    parts = classname.split(".")
    parts = parts[parts.index("tests") + 1 :] if "tests" in parts else parts
    topic, file = (parts[0], parts[1]) if len(parts) > 1 else ("", parts[0])
    page = ROOT / "references" / f"{topic.replace('_', '-')}.md"
    if page.is_file() and (ROOT / "snippets" / topic).is_dir():
        return f"references/{page.name}#{file.removeprefix('test_').replace('_', '-')}"
    return "/".join(["tests", *filter(None, [topic]), f"{file}.py"])


def read_report(paths: Iterable[Path], libraries: Mapping[str, str]) -> Report:
    """Read what pytest wrote with --junitxml.

    Raises:
        UsageError: a file is missing or is no such report.
    """
    servers: Counter[str] = Counter()
    patterns: dict[str, Pattern] = {}
    for path in paths:
        try:
            cases = list(ET.parse(path).iter("testcase"))  # noqa: S314 - our own file
        except (OSError, ET.ParseError) as error:
            raise UsageError(f"{path} is no report of pytest: {error}") from None
        for case in cases:
            place = place_of(case.get("classname", ""))
            _count(case, patterns.setdefault(place, Pattern(place)), servers)
    return Report(dict(sorted(servers.items())), dict(libraries), _in_order(patterns))


def _in_order(patterns: Mapping[str, Pattern]) -> list[Pattern]:
    return [patterns[place] for place in sorted(patterns)]


def _count(case: ET.Element, pattern: Pattern, servers: Counter[str]) -> None:
    failed = [child for child in case if child.tag in {"failure", "error"}]
    if failed:
        message = (failed[0].get("message") or "").strip().split("\n")[0]
        pattern.failures.append(f"{case.get('name')}: {message[:160]}")
    elif case.find("skipped") is not None:
        pattern.skipped += 1
    else:
        pattern.passed += 1
        ran = [p.get("value", "") for p in case.iter("property") if p.get("name") == "ran"]
        servers.update(ran)


def describe(report: Report) -> Iterator[str]:
    """Yield the lines for people."""
    for pattern in report.patterns:
        tests = f"{pattern.passed} tests" + (f", {pattern.skipped} not run" * bool(pattern.skipped))
        if pattern.failures:
            yield f"DOES NOT HOLD  {pattern.place}"
            yield from (f"    {failure}" for failure in pattern.failures)
        elif pattern.passed:
            yield f"holds          {pattern.place} ({tests})"
        else:
            yield f"not run        {pattern.place}"
    yield ""
    for server, passed in report.servers.items():
        yield f"{server}: {passed} tests passed"
    yield ", ".join(f"{name} {version}" for name, version in report.libraries.items())
    held = sum(1 for p in report.patterns if p.passed and not p.failures)
    broken = sum(1 for p in report.patterns if p.failures)
    yield f"{held} patterns hold, {broken} do not"


# Versions


PIN = re.compile(r"^([A-Za-z0-9._-]+(?:\[[^]]*\])?)==(\S+)", re.MULTILINE)


def direct_requirements(root: Path = ROOT) -> list[str]:
    """The packages that the newest set and the tests name, without their versions."""
    paths = (root / "requirements/latest.txt", root / "requirements/test.txt")
    return [name for path in paths for name, _ in PIN.findall(path.read_text(encoding="utf-8"))]


def newest_environment(folder: Path) -> Path:
    """Make an environment of the newest releases that fit together; return its interpreter.

    Raises:
        UsageError: the installer could not; its last line says why.
    """
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, *direct_requirements()], capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip() or "no reason given").splitlines()[-1]
        raise UsageError(f"the newest releases can't be installed: {last}")
    return python


def interpreter_of(versions: str) -> Path:
    """Raises:
    UsageError: no such set, or its environment is not there.
    """
    if versions == AVAILABLE:
        return newest_environment(BUILD / "venv")
    if versions not in VERSION_SETS:
        choices = ", ".join([*VERSION_SETS, AVAILABLE])
        raise UsageError(f"unknown versions {versions!r}: use {choices}")
    python = ROOT / VERSION_SETS[versions] / "bin" / "python"
    if not python.exists():
        raise UsageError(f"{python} is missing: run make verify VERSIONS={versions}")
    return python


# Its cluster is the tests' own, and not the server that somebody asks about.
CLUSTER = "tests/production_patterns/test_scaling_out.py"
PROBE = """\
import json, sys
from importlib.metadata import version
print(json.dumps({name: version(name) for name in sys.argv[1:]}))
"""
LIBRARIES = (
    "sqlmodel", "sqlalchemy", "pydantic", "fastapi", "alembic", "aiosqlite", "asyncpg", "aiomysql",
)  # fmt: skip


def installed_libraries(python: Path) -> dict[str, str]:
    done = subprocess.run(
        [str(python), "-c", PROBE, *LIBRARIES], capture_output=True, text=True, check=True
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def changed_versions(libraries: Mapping[str, str], root: Path = ROOT) -> list[str]:
    """How the libraries differ from the pinned ones."""
    text = (root / "requirements/latest.txt").read_text(encoding="utf-8")
    pinned = {name.partition("[")[0]: version for name, version in PIN.findall(text)}
    return [
        f"{name} {pinned[name]} -> {version}"
        for name, version in libraries.items()
        if pinned.get(name, version) != version
    ]


# Running


def server_environment(url: str) -> dict[str, str]:
    """The variables that let the suite run on this server alone.

    Raises:
        UsageError: no server of ours is named; the URL is not repeated, it has a password.
    """
    scheme = urlsplit(url).scheme.partition("+")[0]
    name = SCHEMES.get(scheme)
    if name is None:
        known = ", ".join(sorted(SCHEMES))
        raise UsageError(f"DATABASE_URL begins with {scheme or 'no scheme'!r}: use one of {known}")
    chosen = {"TEST_DATABASES": name, "REQUIRED_DATABASES": name}
    return chosen | ({SERVERS[name]: url} if SERVERS[name] else {})


CONNECT = """\
import sys
sys.path.insert(0, "tests")
from servers import KINDS, ServerUnavailableError
try:
    KINDS[sys.argv[1]]().close()
except ServerUnavailableError as error:
    sys.exit(str(error))
"""


def check_server(python: Path, environment: Mapping[str, str]) -> None:
    """Make a database on the server that was named, and drop it.

    Raises:
        UsageError: it does not answer, or the user may not.
    """
    command = [str(python), "-W", "ignore", "-c", CONNECT, environment["TEST_DATABASES"]]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = " ".join(done.stderr.split()) or "no reason given"
        raise UsageError(f"the server of DATABASE_URL can't be used: {said}")


def run_suite(python: Path, environment: Mapping[str, str], tests: Sequence[str]) -> Path:
    """Run the tests of the pages; return the report that pytest wrote."""
    BUILD.mkdir(parents=True, exist_ok=True)
    report = BUILD / "junit.xml"
    report.unlink(missing_ok=True)
    options = ["-n", "auto", "--maxprocesses=4", "-q", "-p", "no:cacheprovider"]
    options += [f"--ignore=tests/{folder}" for folder in ("scripts", "install", "evals")]
    options += [f"--junitxml={report}"]
    command = [str(python), "-m", "pytest", *options, *tests]
    subprocess.run(command, cwd=ROOT, env=environment, stdout=sys.__stderr__, check=False)
    if not report.exists():
        raise UsageError("the suite did not start; its output says why")
    return report


# README

README_HEAD = "| libraries | databases and tests passed |"


def readme_row(report: Report) -> str:
    libraries = ", ".join(f"{name} {version}" for name, version in report.libraries.items())
    servers = "; ".join(f"{server}: {passed}" for server, passed in report.servers.items())
    return f"| {libraries} | {servers} |"


def write_readme(path: Path, rows: Sequence[str]) -> None:
    """Replace the rows of the table of what ran.

    Raises:
        UsageError: there is no such table.
    """
    lines = path.read_text(encoding="utf-8").split("\n")
    if README_HEAD not in lines:
        raise UsageError(f"{path.name} has no table that begins with {README_HEAD}")
    start = end = lines.index(README_HEAD) + 2
    while lines[end].startswith("|"):
        end += 1
    lines[start:end] = rows
    path.write_text("\n".join(lines), encoding="utf-8", newline="\n")


def recorded_reports(paths: Sequence[Path]) -> list[Report]:
    """The reports of full runs, each with the libraries of its set: `junit-SET.xml`."""
    reports = []
    for path in paths:
        versions = path.stem.removeprefix("junit-")
        reports.append(read_report([path], installed_libraries(interpreter_of(versions))))
    return reports


# Command


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="verify.py",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("tests", nargs="*", help="files or folders of tests (default: all pages)")
    choices = ", ".join([*VERSION_SETS, AVAILABLE])
    parser.add_argument("--versions", default="latest", help=f"{choices} (default: latest)")
    parser.add_argument(
        "--report", nargs="+", type=Path, metavar="FILE", help="read these runs, run nothing"
    )
    parser.add_argument("--readme", action="store_true", help="write their table into README.md")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser


def verify(arguments: argparse.Namespace) -> list[Report]:
    if arguments.report:
        return recorded_reports(arguments.report)
    environment = {k: v for k, v in os.environ.items() if k != "DATABASE_URL"}
    if url := os.environ.get("DATABASE_URL"):
        environment |= server_environment(url)
    python = interpreter_of(arguments.versions)
    libraries = installed_libraries(python)
    tests = arguments.tests or ["tests"]
    if url:
        check_server(python, environment)
        tests = [*tests, f"--ignore={CLUSTER}"]
    for change in changed_versions(libraries):
        print(f"other than pinned: {change}", file=sys.stderr)
    report = run_suite(python, environment, tests)
    return [read_report([report], libraries)]


def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    try:
        if arguments.readme and not arguments.report:
            raise UsageError("--readme writes what --report FILE... names")
        reports = verify(arguments)
        if arguments.readme:
            write_readme(ROOT / "README.md", [readme_row(report) for report in reports])
    except UsageError as error:
        print(f"verify.py: {error}", file=sys.stderr)
        return 2
    if arguments.json:
        print(json.dumps([asdict(report) for report in reports], indent=2))
    else:
        for report in reports:
            print("\n".join(describe(report)))
    return 1 if any(report.failures for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main())
