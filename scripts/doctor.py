# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""Say what is wrong with a project's interpreter, libraries, database URL and database server."""

import argparse
import json
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, unquote_plus

import _versions
from _command import Parser, run, seconds
from _interpreter import (
    Interpreter,
    InterpreterError,
    ProbeError,
    ProbeTimeoutError,
    ask,
    find_interpreter,
)
from _versions import NAMES, normal, requirement, satisfies, supported

PROBE = Path(__file__).resolve().parent / "_doctor_probe.py"
START_SECONDS = 60  # an interpreter on a busy machine, imports included

ASYNC_DRIVERS = {
    "sqlite": ("aiosqlite",),
    "postgresql": ("asyncpg", "psycopg"),
    "mysql": ("aiomysql", "asyncmy"),
    "mariadb": ("aiomysql", "asyncmy"),
}
OTHER_SPELLINGS = {"postgres": "postgresql", "pg": "postgresql", "sqlite3": "sqlite"}
PACKAGES = (
    "sqlmodel", "sqlalchemy", "greenlet", "pydantic", "pydantic-core", "pydantic-settings",
    "fastapi", "starlette", "alembic", "aiosqlite", "asyncpg", "psycopg", "aiomysql", "asyncmy",
    "pymysql", "cryptography", "pytest-asyncio", "httpx",
)  # fmt: skip

OK, NOTE, PROBLEM = "ok", "note", "problem"
# What a problem is about decides the exit code; whatever is not here can be mended in the project.
EXIT_CODES = {"connection": 3, "server": 4}
EPILOG = """\
examples:
  python scripts/doctor.py
  DATABASE_URL=... python scripts/doctor.py ../shop --json

The URL is that of --url, of DATABASE_URL, or of DATABASE_URL in PROJECT/.env. A list of processes
shows what is given with --url: use the environment for a password. It is never printed. Nothing
is ever written, neither to the database nor to the project.

exit codes:
  0 all right, perhaps with notes
  1 something to mend in the interpreter, its packages or the URL
  2 wrong usage
  3 nothing to mend there, but the database does not answer, or refuses the login
  4 the database answers, but is too old or read-only
"""


@dataclass(frozen=True)
class Finding:
    """`about` is a stable name: python, package, combination, difference, url, driver, ..."""

    level: str
    about: str
    what: str
    fix: str | None = None
    page: str | None = None

    def __str__(self) -> str:
        see = f" ({self.page})" if self.page else ""
        fix = f"\n    fix: {self.fix}" if self.fix else ""
        return f"{self.level:<8}{self.what}{see}{fix}"


@dataclass
class Report:
    """Its fields are the keys of --json."""

    python: dict[str, str]
    packages: dict[str, str] = field(default_factory=dict)
    url: str | None = None
    url_from: str | None = None
    server: dict[str, Any] | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        codes = {EXIT_CODES.get(f.about, 1) for f in self.findings if f.level == PROBLEM}
        return min(codes, default=0)


def page(name: str) -> str:
    return f"references/{name}"


# URLs


def shown(url: str) -> str:
    """The URL without its password and without the values of its query."""
    found = re.fullmatch(r"([A-Za-z][\w+.-]*)://(.*)", url, re.DOTALL)
    if not found:
        return "(not shown: this is no database URL)"
    scheme, rest = found.groups()
    user, at, place = rest.rpartition("@")
    name = user.partition(":")[0]
    # Whatever does not look like a name may be a part of a password.
    name = name if re.fullmatch(r"[\w.%+-]*", name) else "***"
    secret = ":***" if ":" in user else ""
    place, _, query = place.partition("?")
    keys = [item.partition("=")[0] for item in re.split("[&;]", query) if item]
    options = f"?{'&'.join(f'{key}=...' for key in keys)}" if keys else ""
    return f"{scheme}://{name}{secret}{at}{place}{options}"


def secrets_of(url: str) -> list[str]:
    """Each spelling of what must not be printed, the longest first."""
    rest = url.partition("://")[2] or url
    found = {rest.rpartition("@")[0].partition(":")[2], rest.partition("@")[0].partition(":")[2]}
    if "@" not in rest:
        found = set()
    found |= {v for k, v in re.findall(r"[?&;]([^=&;]*)=([^&;]*)", rest) if _is_secret(k)}
    spelled = {s for raw in found for s in (raw, unquote(raw), unquote_plus(raw), quote(raw))}
    return sorted(spelled - {""}, key=lambda s: (-len(s), s))


def _is_secret(key: str) -> bool:
    return bool(re.search(r"pass|pwd|secret|token|key|odbc_connect", key, re.IGNORECASE))


def redacted(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def find_url(project: Path, given: str | None) -> tuple[str, str] | None:
    """The URL, and where it comes from."""
    if given is not None:
        return given, "--url"
    if url := os.environ.get("DATABASE_URL"):
        return url, "DATABASE_URL"
    try:
        text = (project / ".env").read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None
    # A comment follows the quotes, or a blank: in a password # is a letter.
    value = r"(?:'(?P<single>[^'\n]*)'|\"(?P<double>[^\"\n]*)\"|(?P<bare>.*?))"
    line = rf"^\s*(?:export\s+)?DATABASE_URL\s*=[ \t]*{value}(?:[ \t]+#.*|\s*)$"
    found = re.search(line, text, re.MULTILINE)
    url = found and next(filter(None, found.groups()), "")
    return (url, ".env") if url else None


# Interpreter and packages


class Installer:
    """The command that installs into this project."""

    def __init__(self, project: Path, python: str) -> None:
        tools = {"uv.lock": "uv add", "poetry.lock": "poetry add", "pdm.lock": "pdm add"}
        found = (command for lock, command in tools.items() if (project / lock).exists())
        self.command = next(found, f"{shlex.quote(python)} -m pip install")

    def __call__(self, *requirements: str) -> str:
        return f"{self.command} {shlex.join(requirements)}"


def label(name: str) -> str:
    return NAMES.get(name, name)


def check_python(version: str) -> Iterator[Finding]:
    wanted = supported().python
    if not satisfies(version, wanted):
        what = f"Python {version} is too old: this bundle needs {wanted}"
        yield Finding(PROBLEM, "python", what, "make the environment anew with a newer Python")
    elif not satisfies(version, f"<={_versions.NEWEST_PYTHON}.999"):
        what = f"Python {version} is newer than what this bundle ran on ({_versions.NEWEST_PYTHON})"
        yield Finding(NOTE, "python", what)


def check_packages(packages: Mapping[str, str], install: Installer) -> Iterator[Finding]:
    known = supported()
    for name, ranges in {**known.required, **known.optional}.items():
        extra = "[asyncio]" if name == "sqlalchemy" else ""
        if name not in packages:
            if name in {"sqlmodel", "sqlalchemy", "pydantic"}:
                fix = install(f"{name}{extra}{ranges}")
                yield Finding(PROBLEM, "package", f"{label(name)} is not installed", fix)
        elif not satisfies(packages[name], ranges):
            what = f"{label(name)} {packages[name]} is not supported: this bundle needs {ranges}"
            yield Finding(PROBLEM, "package", what, install(f"{name}{extra}{ranges}"))
        elif _is_newer(packages[name], known.newest.get(name, "")):
            what = f"{label(name)} {packages[name]} is newer than what this bundle ran on"
            yield Finding(NOTE, "package", f"{what} ({known.newest[name]})")
    optional = [label(n) for n in ("pydantic-settings", "fastapi", "alembic") if n not in packages]
    if optional:
        what = f"not installed, needed only by the pages about it: {', '.join(optional)}"
        yield Finding(NOTE, "package", what)


def _is_newer(version: str, newest: str) -> bool:
    """Whether it is of a newer line; a newer patch is none."""
    last = _versions.release(newest)
    parts = 3 if last[:2] == (0, 0) else 2
    return bool(last) and _versions.compare(_versions.release(version)[:parts], last[:parts]) > 0


def check_requirements(
    requires: Mapping[str, Sequence[str]], packages: Mapping[str, str], install: Installer
) -> Iterator[Finding]:
    """What the packages themselves say that they need."""
    for name, texts in requires.items():
        for wanted in filter(None, map(requirement, texts)):
            have = packages.get(wanted.name)
            if have is None or satisfies(have, wanted.ranges):
                continue
            if {name, wanted.name} == {"sqlmodel", "sqlalchemy"}:
                continue  # check_combinations says it better
            what = f"{label(name)} {packages[name]} needs {label(wanted.name)} {wanted.ranges}"
            fix = install(f"{wanted.name}{wanted.ranges}")
            yield Finding(PROBLEM, "package", f"{what}, but {have} is installed", fix)


def check_combinations(
    packages: Mapping[str, str], database: str, install: Installer
) -> Iterator[Finding]:
    for known in _versions.applying_combinations(packages, database):
        have = ", ".join(f"{label(name)} {packages[name]}" for name in known.packages)
        fix, see = install(known.upgrade), page(known.page)
        yield Finding(known.level, "combination", f"{known.what} (here: {have})", fix, see)


def check_greenlet(answer: Mapping[str, Any], install: Installer) -> Iterator[Finding]:
    error = answer["greenlet"]
    if not error or "sqlalchemy" not in answer["packages"]:
        return
    have = "greenlet" in answer["packages"]
    what = f"greenlet can't be imported: {error}" if have else "greenlet is not installed"
    what = f"{what}; without it no async engine connects"
    fix = install("sqlalchemy[asyncio]" if not have else "--force-reinstall", *["greenlet"] * have)
    yield Finding(PROBLEM, "greenlet", what, fix, page("database-setup.md#greenlet-left-to-luck"))


def check_drivers(packages: Mapping[str, str], install: Installer) -> Iterator[Finding]:
    """For a project whose URL is not known."""
    names = sorted({name for names in ASYNC_DRIVERS.values() for name in names})
    if have := [f"{name} {packages[name]}" for name in names if name in packages]:
        yield Finding(OK, "driver", f"async drivers: {', '.join(have)}")
    else:
        fix = f"{install('aiosqlite')}   (or asyncpg for PostgreSQL, aiomysql for MariaDB)"
        see = page("database-setup.md#decide")
        yield Finding(PROBLEM, "driver", "no async driver is installed", fix, see)


# The URL and the server


def check_url_text(url: str) -> Iterator[Finding]:
    """What can be said without SQLAlchemy."""
    see = page("database-setup.md#urls")
    scheme, separator, rest = url.partition("://")
    if not separator or not re.fullmatch(r"[A-Za-z][\w+.-]*", scheme):
        what = "the database URL can't be parsed (it is not shown: it may have a password)"
        fix = "write dialect+driver://user:password@host:port/name"
        yield Finding(PROBLEM, "url", what, fix, see)
    elif rest.partition("?")[0].count("@") > 1 and not scheme.startswith("sqlite"):
        what = f"{shown(url)}: an @ in the user or the password is not escaped"
        fix = "write %40 for it; sqlalchemy.URL.create() escapes whatever needs it"
        yield Finding(PROBLEM, "url", what, fix, see)


def check_answer(
    answer: Mapping[str, Any], url: str, packages: Mapping[str, str], install: Installer
) -> Iterator[Finding]:
    """What the probe found out about URL, driver and server."""
    stopped = answer.get("stopped")
    if stopped == "parse":
        what = f"{shown(url)}: SQLAlchemy can't parse this URL"
        fix = "write dialect+driver://user:password@host:port/name, special characters escaped"
        yield Finding(PROBLEM, "url", what, fix, page("database-setup.md#urls"))
    elif stopped in {"dialect", "sync"}:
        yield _not_async(url, stopped)
    elif stopped == "driver":
        yield _without_driver(answer, install)
    else:
        driver = answer["driver"].replace("psycopg_async", "psycopg")
        version = packages.get(driver, "")
        yield Finding(OK, "driver", f"{shown(url)}: {driver} {version} is async")
        if driver in {"aiomysql", "asyncmy"} and "cryptography" not in packages:
            what = "cryptography is not installed: MySQL 8 refuses logins by password without TLS"
            yield Finding(NOTE, "driver", what, install("cryptography"))
        if stopped == "file":
            yield _file_trouble(answer["file"])
        elif stopped == "connect":
            yield connection_trouble(answer["errors"], secrets_of(url))
        elif stopped is None:
            yield from check_server(answer)


def _not_async(url: str, stopped: str) -> Finding:
    name = url.partition("://")[0]
    backend = name.partition("+")[0].lower()
    backend = OTHER_SPELLINGS.get(backend, backend)
    known = stopped == "sync" and "+" in name
    what = f"{shown(url)}: {name.partition('+')[2]} is not an async driver"
    if not known:
        what = f"{shown(url)}: {name} names no async driver that SQLAlchemy knows here"
    choices = [f"{backend}+{driver}://" for driver in ASYNC_DRIVERS.get(backend, ())]
    fix = f"write {' or '.join(choices)}" if choices else f"use one of {', '.join(ASYNC_DRIVERS)}"
    return Finding(PROBLEM, "url", what, fix, page("database-setup.md#sync-driver"))


def _without_driver(answer: Mapping[str, Any], install: Installer) -> Finding:
    name = answer["driver"].replace("psycopg_async", "psycopg")
    wanted = "psycopg[binary]" if name == "psycopg" else name
    wanted += supported().optional.get(name, "")
    what = f"the URL needs {name}, which is not installed"
    if not answer["missing"]:
        what = f"{name} can't be imported: {answer['error']}"
    return Finding(PROBLEM, "driver", what, install(wanted), page("database-setup.md#urls"))


def _file_trouble(file: Mapping[str, Any]) -> Finding:
    path = file["path"]
    if file["trouble"] == "missing":
        return Finding(NOTE, "connection", f"{path} does not exist; the first connection makes it")
    folder = shlex.quote(str(Path(path).parent))
    what, fix = {
        "no folder": (f"{path}: its folder does not exist", f"mkdir -p {folder}"),
        "folder read-only": (f"{path} can't be made: its folder is not writable", None),
        "unreadable": (f"{path} can't be read: {file.get('error')}", None),
        "no database": (f"{path} is no SQLite database, or an encrypted one", "name another file"),
    }[file["trouble"]]
    return Finding(PROBLEM, "connection", what, fix)


def connection_trouble(errors: Sequence[Mapping[str, Any]], secrets: Sequence[str]) -> Finding:
    """Why the database did not let us in, and what to do about it."""
    types = {error["type"] for error in errors}
    codes = {error["code"] for error in errors if error["code"] is not None}
    text = " ".join(str(errors[-1]["text"] or errors[0]["text"]).split())
    text = redacted(text.partition(" (Background on this error")[0][:300], secrets)
    everything = " ".join(str(error["text"]) for error in errors)
    codes |= {int(number) for number in re.findall(r"\((\d{4}), ", everything)}
    if types & {"TimeoutError", "CancelledError", "ConnectionTimeout"}:
        return unanswered("in time")
    if codes & {"28P01", "28000", 1045, 1698} or "authentication failed" in everything:
        what, fix = "the server refuses the login", "mend user or password in the URL"
    elif codes & {"3D000", 1049} or re.search(r'database ".*" does not exist', everything):
        what, fix = "the server has no such database", "create it, or mend the name in the URL"
    elif "ConnectionRefusedError" in types or "Connection refused" in everything:
        what, fix = "nothing listens at this host and port", "start the server, or mend the URL"
    elif "gaierror" in types or "resolve host" in everything:
        what, fix = "the host name is not known", "mend the host in the URL"
    elif "TypeError" in types or "invalid connection option" in everything:
        what, fix = "the driver does not take an option of this URL", "remove it from the URL"
        see = page("database-setup.md#libpq-options-for-asyncpg")
        return Finding(PROBLEM, "url", f"{what}: {text}", fix, see)
    elif "database is locked" in everything:
        what, fix = "another process holds a lock on the file", "end its transaction"
    else:
        return Finding(PROBLEM, "connection", f"the connection failed: {text}")
    return Finding(PROBLEM, "connection", f"{what}: {text}", fix)


def unanswered(how_long: str) -> Finding:
    what = f"the database did not answer {how_long}"
    fix = "look at host, port, firewall and server; --timeout gives it more seconds"
    return Finding(PROBLEM, "connection", what, fix)


def check_server(answer: Mapping[str, Any]) -> Iterator[Finding]:
    product, version = answer["product"], answer["version"]
    yield Finding(OK, "server", f"{product} {version} answers".replace("  ", " "))
    minimum = _versions.SERVER_MINIMUMS.get(product)
    ran = supported().servers.get(product)
    if minimum and not satisfies(version, f">={minimum.version}"):
        what = f"{product} {version} is too old: it has no {minimum.lacks}"
        yield Finding(PROBLEM, "server", what, f"upgrade to {minimum.version} or newer")
    elif not ran:
        tested = ", ".join(f"{name} {' and '.join(v)}" for name, v in supported().servers.items())
        yield Finding(NOTE, "server", f"this bundle did not run on {product}; it ran on {tested}")
    elif not satisfies(version, f">={min(ran, key=_versions.release)}"):
        what = f"{product} {version} is older than what this bundle ran on: {' and '.join(ran)}"
        yield Finding(NOTE, "server", what)
    reasons = list(answer["read_only"])
    file = answer.get("file") or {}
    if file.get("writable") is False:
        reasons.append(f"{file['path']}, its folder or the URL does not allow it")
    if reasons:
        what = f"the database can't be written to: {', '.join(reasons)}"
        fix = "name the primary or a writable file in the URL; or only read, on purpose"
        yield Finding(PROBLEM, "server", what, fix)


# All of it


def examine(
    project: Path, interpreter: Interpreter, found_url: tuple[str, str] | None, timeout: float
) -> Report:
    """Look at everything.

    Raises:
        ProbeError: the interpreter itself does not work.
    """
    names = {*PACKAGES, *supported().required, *supported().optional}
    answer = ask(interpreter, PROBE, {"names": sorted(names)}, project, START_SECONDS)
    packages = {normal(name): version for name, version in answer["packages"].items()}
    requires = {normal(name): texts for name, texts in answer["requires"].items()}
    install = Installer(project, interpreter.path)
    python = {"version": answer["python"], "path": interpreter.path, "origin": interpreter.origin}
    report = Report(python, packages)
    findings = report.findings
    what = f"Python {answer['python']} at {interpreter.path} ({interpreter.origin})"
    findings.append(Finding(OK, "python", what))
    findings += check_python(answer["python"])
    if have := [f"{label(n)} {packages[n]}" for n in PACKAGES[:10] if n in packages]:
        findings.append(Finding(OK, "package", ", ".join(have)))
    findings += check_packages(packages, install)
    findings += check_requirements(requires, packages, install)
    findings += check_combinations(packages, backend_of(found_url), install)
    findings += check_greenlet(answer, install)
    if found_url is None:
        findings += check_drivers(packages, install)
        what = "no database was asked: --url, DATABASE_URL or .env would name one"
        findings.append(Finding(NOTE, "connection", what))
    else:
        url, report.url_from = found_url
        report.url = shown(url)
        findings += examine_url(report, url, timeout, project, install)
    differences = _versions.applying_differences(packages, backend_of(found_url))
    findings += [Finding(NOTE, "difference", text, page=page(name)) for text, name in differences]
    return report


def examine_url(
    report: Report, url: str, timeout: float, project: Path, install: Installer
) -> Iterator[Finding]:
    if faults := list(check_url_text(url)):
        yield from faults
        return
    if "sqlalchemy" not in report.packages:
        yield Finding(NOTE, "connection", f"{shown(url)}: not asked, for SQLAlchemy is missing")
        return
    broken = any(finding.about == "greenlet" for finding in report.findings)
    interpreter = Interpreter(report.python["path"], report.python["origin"])
    request = {"url": url, "timeout": timeout, "greenlet": broken}
    try:
        answer = ask(interpreter, PROBE, request, project, timeout + START_SECONDS / 2)
    except ProbeTimeoutError:
        yield unanswered(f"within {timeout:g} seconds, and the driver could not be interrupted")
        return
    except ProbeError as error:
        yield Finding(PROBLEM, "connection", redacted(str(error), secrets_of(url)))
        return
    if "product" in answer:
        kept = ("product", "version", "read_only")
        report.server = {key: answer[key] for key in kept}
        report.server["read_only"] = bool(answer["read_only"]) or (
            (answer.get("file") or {}).get("writable") is False
        )
    yield from check_answer(answer, url, report.packages, install)


def backend_of(found_url: tuple[str, str] | None) -> str:
    name = re.split(r"[+:]", found_url[0])[0].lower() if found_url else ""
    return {"mariadb": "mysql", **OTHER_SPELLINGS}.get(name, name)


def describe(report: Report) -> Iterator[str]:
    """Yield the lines for people, those of the differences last."""
    yield from map(str, report.findings)
    counts = {level: sum(f.level == level for f in report.findings) for level in (PROBLEM, NOTE)}
    yield ", ".join(f"{n} {word}{'' if n == 1 else 's'}" for word, n in counts.items())


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="doctor.py",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "project", metavar="PROJECT", nargs="?", default=".", help="its folder (default: this one)"
    )
    parser.add_argument(
        "--python",
        metavar="INTERPRETER",
        help="an interpreter or a virtual environment (default: PROJECT/.venv, $VIRTUAL_ENV, or "
        "the running one)",
    )
    parser.add_argument("--url", help="the database (default: DATABASE_URL, or that in .env)")
    parser.add_argument(
        "--timeout", type=seconds, default=5.0, help="seconds for the database (default: 5)"
    )
    parser.add_argument("--json", action="store_true", help="answer in JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    project = Path(arguments.project)
    if not project.is_dir():
        parser.error(f"there is no folder {project}")
    try:
        interpreter = find_interpreter(project, arguments.python)
        report = examine(project, interpreter, find_url(project, arguments.url), arguments.timeout)
    except InterpreterError as error:
        if arguments.python:
            parser.error(str(error))
        print(f"doctor.py: {error}", file=sys.stderr)
        return 1
    except ProbeError as error:
        print(f"doctor.py: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps({**asdict(report), "exit_code": report.exit_code}, indent=2))
    else:
        print("\n".join(describe(report)))
    return report.exit_code


if __name__ == "__main__":
    sys.exit(run(main))
