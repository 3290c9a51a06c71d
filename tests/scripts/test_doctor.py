import ast
import json
import os
import re
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import _versions
import doctor
import psycopg
import pytest
from _interpreter import Interpreter, ProbeError, ProbeTimeoutError, ask, find_interpreter
from _markdown import Document
from psycopg import sql
from sqlalchemy import URL

from tests.scripts.interpreters import make_environment
from tests.scripts.old_server import old_mariadb

ROOT = Path(doctor.__file__).resolve().parent.parent
SETS = {".venv": "latest", ".venv-sa20": "sa20", ".venv-floor": "floor"}
SIBLINGS = [path for name in SETS if (path := ROOT / name / "bin" / "python").exists()]
PYTHONS = sorted({Path(sys.executable), *SIBLINGS})
PASSWORD = "n3ver-pr1nted"
DRIVERS = ("postgresql+asyncpg", "postgresql+psycopg", "mysql+aiomysql")


@pytest.fixture(autouse=True)
def _no_url_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)


class Examination:
    """What the script said, and how it ended."""

    def __init__(self, code: int, report: dict[str, Any]) -> None:
        self.code = code
        self.report = report

    def texts(self, level: str, about: str = "") -> list[str]:
        found = [f for f in self.report["findings"] if f["level"] == level]
        return [f["what"] for f in found if f["about"] == about or not about]

    @property
    def problem(self) -> dict[str, str]:
        (found,) = (f for f in self.report["findings"] if f["level"] == "problem")
        return dict(found)


class Examine:
    def __init__(self, capsys: pytest.CaptureFixture[str], project: Path) -> None:
        self.capsys = capsys
        self.project = project

    def __call__(
        self, url: str | URL | None = None, python: Path | str = sys.executable, *more: str
    ) -> Examination:
        if isinstance(url, URL):
            url = url.render_as_string(hide_password=False)
        arguments = [str(self.project), "--python", str(python), "--json", *more]
        code = doctor.main(arguments + (["--url", url] if url else []))
        report = json.loads(self.capsys.readouterr().out)
        assert report["exit_code"] == code
        return Examination(code, report)


@pytest.fixture
def examine(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Examine:
    (tmp_path / "project").mkdir()
    return Examine(capsys, tmp_path / "project")


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port where nobody listens, nor can begin to: it is taken."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])


@contextmanager
def silent_server() -> Iterator[socket.socket]:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def make_database(path: Path, *, journal: str = "delete") -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode={journal}")
        connection.execute("CREATE TABLE jar (id INTEGER)")
        connection.commit()
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def sqlite_url(path: Path, **query: str) -> URL:
    return URL.create("sqlite+aiosqlite", database=str(path), query=query)


# Interpreters


@pytest.mark.parametrize("python", PYTHONS, ids=lambda path: path.parts[-3])
def test_each_interpreter_is_seen_with_its_own_versions(examine: Examine, python: Path) -> None:
    code = "import importlib.metadata as m; print(m.version('sqlmodel'), m.version('sqlalchemy'))"
    command = [python, "-c", code]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    seen = examine(python=python)

    assert [seen.report["packages"][n] for n in ("sqlmodel", "sqlalchemy")] == told
    assert seen.code == 0, seen.texts("problem")
    assert seen.report["python"]["path"] == str(python)


def test_the_line_for_people_names_interpreter_and_versions(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code = doctor.main([str(tmp_path), "--python", sys.executable])

    out = capsys.readouterr().out
    assert code == 0
    assert f"ok      Python {sys.version.split()[0]} at {sys.executable} (--python)" in out
    assert re.search(r"^ok      SQLModel [\d.]+, SQLAlchemy [\d.]+, green", out, re.MULTILINE)
    assert re.search(r"^0 problems, \d+ notes?$", out, re.MULTILINE)


def test_the_environment_of_the_project_goes_before_the_active_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = make_environment(tmp_path / ".venv")
    active = make_environment(tmp_path / "active")
    monkeypatch.setenv("VIRTUAL_ENV", str(active.parents[1]))

    assert find_interpreter(tmp_path) == Interpreter(str(own), "the project's .venv")
    shutil.rmtree(tmp_path / ".venv")
    assert find_interpreter(tmp_path) == Interpreter(str(active), "$VIRTUAL_ENV")
    monkeypatch.delenv("VIRTUAL_ENV")
    assert find_interpreter(tmp_path).path == sys.executable


def test_a_virtual_environment_may_be_named_instead_of_its_interpreter(tmp_path: Path) -> None:
    python = make_environment(tmp_path / "env")

    assert find_interpreter(tmp_path, str(tmp_path / "env")).path == str(python)


def test_an_environment_whose_interpreter_has_gone_is_a_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python = make_environment(tmp_path / ".venv")
    for link in python.parent.glob("python*"):
        link.unlink()

    code = doctor.main([str(tmp_path)])

    assert code == 1
    assert "has no interpreter: make it anew" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["/no/such/folder"], ["--python", "/no/such/python"], ["--timeout", "0"], ["--nonsense"]],
)
def test_wrong_usage_is_one_line_and_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        doctor.main(arguments)

    printed = capsys.readouterr()
    assert stop.value.code == 2
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1


def test_what_an_interpreter_prints_at_its_start_does_not_spoil_the_answer(
    examine: Examine, tmp_path: Path
) -> None:
    python = make_environment(tmp_path / "env")
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    (site / "chatter.pth").write_text("import sys; print('hello'); print('there', file=sys.stderr)")

    assert examine(python=python).code == 0


def test_a_program_that_is_no_interpreter_is_said_to_have_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho broken installation >&2\nexit 3\n")
    program.chmod(0o755)

    code = doctor.main([str(tmp_path), "--python", str(program)])

    assert code == 1
    assert "failed, exit code 3: broken installation" in capsys.readouterr().err


def test_a_probe_that_never_ends_is_stopped_with_its_children(tmp_path: Path) -> None:
    probe = tmp_path / "probe.py"
    probe.write_text(
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"pathlib.Path({str(tmp_path / 'child')!r}).write_text(str(child.pid))\n"
        "time.sleep(600)\n"
    )
    python = Interpreter(sys.executable, "")

    # Seconds in which the probe must get as far as its child.
    with pytest.raises(ProbeTimeoutError, match="no answer within 8 seconds"):
        ask(python, probe, {}, tmp_path, 8)

    child = int((tmp_path / "child").read_text())
    for _ in range(300):  # killed, it still takes a moment to end
        if has_ended(child):
            break
        time.sleep(0.1)
    assert has_ended(child)


def has_ended(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] == "Z"
    except FileNotFoundError:
        return True


def test_a_probe_that_fails_says_why(tmp_path: Path) -> None:
    probe = tmp_path / "probe.py"
    probe.write_text("raise SystemExit('out of jars')")

    with pytest.raises(ProbeError, match="exit code 1: out of jars"):
        ask(Interpreter(sys.executable, ""), probe, {}, tmp_path, 60)


# What is missing, and what does not go together


def test_a_missing_greenlet_is_a_problem_with_its_remedy(examine: Examine, tmp_path: Path) -> None:
    python = make_environment(tmp_path / "env", without=("greenlet",))

    seen = examine(sqlite_url(make_database(tmp_path / "a.db")), python)

    assert seen.code == 1
    assert seen.problem["about"] == "greenlet"
    assert "greenlet is not installed" in seen.problem["what"]
    assert seen.problem["fix"] == f"{python} -m pip install 'sqlalchemy[asyncio]'"
    assert seen.problem["page"] == "references/database-setup.md#greenlet-left-to-luck"


def test_a_greenlet_that_cant_be_imported_is_a_problem(examine: Examine, tmp_path: Path) -> None:
    python = make_environment(tmp_path / "env", without=("greenlet",), versions={"greenlet": "3.5"})

    seen = examine(python=python)

    assert "greenlet can't be imported: No module named 'greenlet'" in seen.problem["what"]
    assert seen.problem["fix"].endswith("pip install --force-reinstall greenlet")


@pytest.mark.parametrize(
    ("drivername", "missing", "remedy"),
    [
        ("sqlite+aiosqlite", "aiosqlite", "'aiosqlite>=0.20'"),
        ("postgresql+asyncpg", "asyncpg", "'asyncpg>=0.30'"),
        ("postgresql+psycopg", "psycopg", "'psycopg[binary]'"),
        ("mysql+aiomysql", "aiomysql", "'aiomysql>=0.2'"),
    ],
)
def test_a_missing_driver_is_a_problem_with_its_remedy(
    examine: Examine, tmp_path: Path, drivername: str, missing: str, remedy: str
) -> None:
    python = make_environment(tmp_path / "env", without=(missing,))

    seen = examine(f"{drivername}://u:{PASSWORD}@127.0.0.1:1/app", python)

    assert seen.code == 1
    assert seen.problem["what"] == f"the URL needs {missing}, which is not installed"
    assert seen.problem["fix"] == f"{python} -m pip install {remedy}"


def test_a_driver_that_lacks_its_library_is_a_problem(examine: Examine, tmp_path: Path) -> None:
    python = make_environment(tmp_path / "env", without=("psycopg",))
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    (site / "psycopg.py").write_text("raise ImportError('no pq wrapper available.')")

    seen = examine("postgresql+psycopg://127.0.0.1:1/app", python)

    assert seen.code == 1
    assert seen.problem["what"] == "psycopg can't be imported: no pq wrapper available."


def test_without_any_driver_and_url_one_is_asked_for(examine: Examine, tmp_path: Path) -> None:
    drivers = ("aiosqlite", "asyncpg", "psycopg", "aiomysql", "asyncmy")
    python = make_environment(tmp_path / "env", without=drivers)

    seen = examine(python=python)

    assert seen.code == 1
    assert seen.problem["what"] == "no async driver is installed"


def test_an_environment_without_the_libraries_names_all_of_them(
    examine: Examine, tmp_path: Path
) -> None:
    python = make_environment(tmp_path / "env", without=("sqlmodel", "sqlalchemy", "fastapi"))

    seen = examine("sqlite+aiosqlite:///a.db", python)

    assert seen.code == 1
    assert seen.texts("problem") == ["SQLModel is not installed", "SQLAlchemy is not installed"]
    assert "not asked, for SQLAlchemy is missing" in seen.texts("note", "connection")[0]
    assert "needed only by the pages about it: FastAPI" in " ".join(seen.texts("note", "package"))


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("sqlmodel", "0.0.23"),
        ("sqlalchemy", "2.0.37"),
        ("sqlalchemy", "2.2.0"),
        ("fastapi", "0.114.2"),
        ("alembic", "1.13.3"),
        ("pydantic", "2.10.6"),
    ],
)
def test_a_version_outside_the_range_is_a_problem(
    examine: Examine, tmp_path: Path, name: str, version: str
) -> None:
    python = make_environment(tmp_path / "env", versions={name: version})

    seen = examine(python=python)

    expected = f"{_versions.NAMES.get(name, name)} {version} is not supported"
    assert seen.code == 1
    assert any(text.startswith(expected) for text in seen.texts("problem", "package"))


def test_the_oldest_supported_versions_are_no_problem(examine: Examine, tmp_path: Path) -> None:
    pins = (ROOT / "requirements" / "floor.txt").read_text()
    names = ("sqlmodel", "sqlalchemy", "fastapi", "alembic", "pydantic", "aiosqlite")
    floor = {n: re.search(rf"^{n}==(\S+)", pins, re.MULTILINE)[1] for n in names}
    python = make_environment(tmp_path / "env", versions=floor)

    assert examine(python=python).texts("problem") == []


@pytest.mark.parametrize(
    ("version", "level", "text"),
    [
        ("3.10.13", "problem", "Python 3.10.13 is too old: this bundle needs >=3.11"),
        ("3.14.0", "note", "Python 3.14.0 is newer than what this bundle ran on (3.13)"),
    ],
)
def test_a_python_outside_the_range_is_said(version: str, level: str, text: str) -> None:
    (finding,) = doctor.check_python(version)

    assert (finding.level, finding.what) == (level, text)


@pytest.mark.parametrize("version", ["3.11.0", "3.12.7", "3.13.14"])
def test_the_supported_pythons_need_no_word(version: str) -> None:
    assert list(doctor.check_python(version)) == []


def test_the_ranges_are_those_of_the_project_file() -> None:
    known = _versions.supported()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    ranges = project["tool"]["async-sqlmodel"]["ranges"]

    assert known.python == project["project"]["requires-python"]
    assert f"sqlmodel{known.required['sqlmodel']}" in ranges["core"]
    assert f"sqlalchemy[asyncio]{known.required['sqlalchemy']}" in ranges["core"]
    assert f"fastapi{known.optional['fastapi']}" in ranges["api"]


@pytest.mark.parametrize(
    ("versions", "what", "upgrade"),
    [
        (
            {"sqlalchemy": "2.1.0", "sqlmodel": "0.0.47"},
            "needs SQLModel 0.0.48",
            "sqlmodel>=0.0.48",
        ),
        ({"fastapi": "0.118.0"}, "answers before a `yield` dependency", "fastapi>=0.121"),
        ({"fastapi": "0.120.4"}, "answers before a `yield` dependency", "fastapi>=0.121"),
        (
            {"aiosqlite": "0.22.1", "sqlalchemy": "2.0.45", "sqlmodel": "0.0.27"},
            "never exits",
            "sqlalchemy[asyncio]>=2.0.46",
        ),
    ],
)
def test_versions_that_do_not_go_together_are_a_problem(
    examine: Examine, tmp_path: Path, versions: Mapping[str, str], what: str, upgrade: str
) -> None:
    python = make_environment(tmp_path / "env", versions=versions)

    seen = examine(python=python)

    (problem,) = (f for f in seen.report["findings"] if f["about"] == "combination"
                  and f["level"] == "problem")  # fmt: skip
    assert what in problem["what"]
    assert problem["fix"] == f"{python} -m pip install '{upgrade}'"
    assert seen.code == 1


@pytest.mark.parametrize(
    "versions",
    [
        {"sqlalchemy": "2.1.0", "sqlmodel": "0.0.48"},
        {"fastapi": "0.117.1"},
        {"fastapi": "0.121.0"},
        {"aiosqlite": "0.22.1", "sqlalchemy": "2.0.46", "sqlmodel": "0.0.48"},
        {"aiosqlite": "0.21.0", "sqlalchemy": "2.0.38", "sqlmodel": "0.0.48"},
    ],
)
def test_neighbours_of_bad_combinations_are_no_problem(
    examine: Examine, tmp_path: Path, versions: Mapping[str, str]
) -> None:
    python = make_environment(tmp_path / "env", versions=versions)

    assert examine(python=python).texts("problem", "combination") == []


@pytest.mark.parametrize(("pymysql", "said"), [("1.2.3", True), ("1.2.2", False)])
def test_bytes_with_aiomysql_are_a_note_for_mysql_alone(
    examine: Examine, tmp_path: Path, pymysql: str, *, said: bool
) -> None:
    versions = {"aiomysql": "0.3.2", "pymysql": pymysql}
    python = make_environment(tmp_path / "env", versions=versions)

    for_mysql = examine("mysql+aiomysql://127.0.0.1:1/app", python)
    for_sqlite = examine(sqlite_url(tmp_path / "a.db"), python)

    assert any("`bytes` parameter" in t for t in for_mysql.texts("note", "combination")) == said
    assert for_sqlite.texts("note", "combination") == []


def test_what_a_package_says_that_it_needs_is_checked(examine: Examine, tmp_path: Path) -> None:
    python = make_environment(tmp_path / "env", versions={"pydantic-core": "2.1.0"})

    seen = examine(python=python)

    assert re.search(
        r"pydantic [\d.]+ needs pydantic-core ==[\d.]+, but 2.1.0", seen.problem["what"]
    )


@pytest.mark.parametrize(
    ("lock", "command"), [("uv.lock", "uv add"), ("poetry.lock", "poetry add"), ("", "pip install")]
)
def test_the_remedy_uses_the_tool_of_the_project(tmp_path: Path, lock: str, command: str) -> None:
    if lock:
        (tmp_path / lock).touch()

    assert f"{command} 'a>=1'" in doctor.Installer(tmp_path, "python")("a>=1")


# Differences between versions


def test_every_row_of_the_versions_page_is_known() -> None:
    text = (ROOT / "references" / "versions.md").read_text()
    rows = [line for line in text.splitlines() if re.search(r"\| [A-Za-z-]+ \d[\d.]* \|$", line)]

    assert len(rows) > 10
    assert len(_versions.differences()) == len(rows)


def test_every_page_that_is_named_exists_with_its_section() -> None:
    named = {row.page for row in _versions.differences()}
    named |= {known.page for known in _versions.COMBINATIONS}
    source = Path(doctor.__file__).read_text()
    named |= set(re.findall(r'page\("([^"]+)"\)', source))

    assert len(named) > 5
    for name in named:
        page, _, anchor = name.partition("#")
        document = Document((ROOT / "references" / page).read_text())
        assert not anchor or anchor in document.anchors, name


def test_only_the_differences_of_installed_versions_are_said(
    examine: Examine, tmp_path: Path
) -> None:
    new = make_environment(tmp_path / "new", versions={"sqlmodel": "0.0.48", "sqlalchemy": "2.1.0"})
    old = make_environment(
        tmp_path / "old",
        versions={"sqlmodel": "0.0.44", "sqlalchemy": "2.0.58"},
        without=("alembic",),
    )

    since = examine(python=new).texts("note", "difference")
    before = examine(python=old).texts("note", "difference")

    assert any(text.startswith("since SQLModel 0.0.45: ") for text in since)
    assert any(text.startswith("since SQLAlchemy 2.1: ") for text in since)
    assert any(text.startswith("before SQLModel 0.0.45: ") for text in before)
    assert not any(text.startswith("since SQLAlchemy 2.1: ") for text in before)
    assert not any("Alembic" in text for text in before)


def test_differences_of_other_databases_are_left_out(examine: Examine, tmp_path: Path) -> None:
    url = sqlite_url(make_database(tmp_path / "a.db"))

    everything = examine().texts("note", "difference")
    for_sqlite = examine(url).texts("note", "difference")

    assert any("MariaDB" in text for text in everything)
    assert not any("MariaDB" in text or "asyncpg" in text for text in for_sqlite)
    assert for_sqlite


# URLs


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("postgresql+psycopg2://h/app", "write postgresql+asyncpg:// or postgresql+psycopg://"),
        ("postgres://h/app", "write postgresql+asyncpg:// or postgresql+psycopg://"),
        ("sqlite:///app.db", "write sqlite+aiosqlite://"),
        ("mysql://h/app", "write mysql+aiomysql:// or mysql+asyncmy://"),
        ("mysql+pymysql://h/app", "write mysql+aiomysql:// or mysql+asyncmy://"),
        ("mariadb://h/app", "write mariadb+aiomysql:// or mariadb+asyncmy://"),
        ("mongodb://h/app", "use one of sqlite, postgresql, mysql, mariadb"),
    ],
)
def test_a_url_without_an_async_driver_is_a_problem(
    examine: Examine, url: str, remedy: str
) -> None:
    seen = examine(url)

    assert seen.code == 1
    assert seen.problem["about"] == "url"
    assert seen.problem["fix"] == remedy


@pytest.mark.parametrize(
    "url",
    [
        "",
        "no url",
        f"u:{PASSWORD}@h/app",
        f"postgresql+asyncpg://u:{PASSWORD}@h:port/app",
        f"postgresql+asyncpg://u:{PASSWORD}@with-an-at@h/app",
    ],
)
def test_a_url_that_cant_be_parsed_is_a_problem_and_stays_secret(
    examine: Examine, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = doctor.main([str(examine.project), "--python", sys.executable, "--url", url])

    out = capsys.readouterr().out
    assert code == 1
    assert "problem" in out
    assert PASSWORD not in out
    assert "with-an-at" not in out


def test_an_option_that_the_driver_does_not_take_is_a_problem(examine: Examine) -> None:
    seen = examine("postgresql+asyncpg://u@127.0.0.1:1/app?sslmode=require")

    assert seen.code == 1
    assert "does not take an option" in seen.problem["what"]
    assert seen.problem["page"] == "references/database-setup.md#libpq-options-for-asyncpg"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql+asyncpg://u:p@h:5/app", "postgresql+asyncpg://u:***@h:5/app"),
        ("postgresql+asyncpg://u:p@q@h/app", "postgresql+asyncpg://u:***@h/app"),
        ("postgresql+asyncpg://u:p/q?r@h/app", "postgresql+asyncpg://u:***@h/app"),
        ("postgresql+asyncpg://u@h/app", "postgresql+asyncpg://u@h/app"),
        (
            "postgresql+asyncpg://h/app?password=p&ssl=x",
            "postgresql+asyncpg://h/app?password=...&ssl=...",
        ),
        ("postgresql+asyncpg://h/app?password=p@x", "postgresql+asyncpg://***@x"),
        ("sqlite+aiosqlite:////a/b.db", "sqlite+aiosqlite:////a/b.db"),
        ("p@ss", "(not shown: this is no database URL)"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert doctor.shown(url) == shown


def test_every_spelling_of_a_password_is_redacted() -> None:
    secrets = doctor.secrets_of("postgresql+asyncpg://u:a%2Fb@h/app?sslpassword=hidden")

    text = doctor.redacted("a/b and a%2Fb and hidden, not ab", secrets)

    assert text == "*** and *** and ***, not ab"


def test_the_url_comes_from_the_option_then_the_environment_then_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert doctor.find_url(tmp_path, None) is None
    (tmp_path / ".env").write_text("A=1\nexport DATABASE_URL='sqlite+aiosqlite:///file.db'\n")
    assert doctor.find_url(tmp_path, None) == ("sqlite+aiosqlite:///file.db", ".env")
    monkeypatch.setenv("DATABASE_URL", "sqlite+aiosqlite:///environment.db")
    found = ("sqlite+aiosqlite:///environment.db", "DATABASE_URL")
    assert doctor.find_url(tmp_path, None) == found
    assert doctor.find_url(tmp_path, "sqlite://") == ("sqlite://", "--url")


@pytest.mark.parametrize(
    ("line", "url"),
    [
        ("sqlite:///a.db # of this machine", "sqlite:///a.db"),
        ("'sqlite:///a.db'  # of this machine", "sqlite:///a.db"),
        ('"sqlite:///a b.db"', "sqlite:///a b.db"),
        ("  sqlite:///a.db  ", "sqlite:///a.db"),
        ("postgresql://u:p#w@h/a", "postgresql://u:p#w@h/a"),
        ("'postgresql://u:p #w@h/a'", "postgresql://u:p #w@h/a"),
        ("", None),
        ("''", None),
    ],
)
def test_the_file_is_read_as_others_read_it(tmp_path: Path, line: str, url: str | None) -> None:
    text = f"# ours\nDATABASE_URL={line}\nOTHER=1 # two\n"
    (tmp_path / ".env").write_text(text, encoding="utf-8-sig")

    assert doctor.find_url(tmp_path, None) == (url and (url, ".env"))


@pytest.mark.parametrize("drivername", DRIVERS)
@pytest.mark.parametrize("place", ["refused", "unknown host", "option"])
def test_a_password_is_never_printed(
    drivername: str, place: str, closed_port: int, tmp_path: Path
) -> None:
    host = {"unknown host": "no-such-host.invalid"}.get(place, f"127.0.0.1:{closed_port}")
    option = f"?passwort={PASSWORD}" if place == "option" else ""
    url = f"{drivername}://user:{PASSWORD}@{host}/app{option}"

    for more in ([], ["--json"]):
        command = [
            sys.executable,
            doctor.__file__,
            str(tmp_path),
            "--python",
            sys.executable,
            *more,
        ]
        done = subprocess.run(
            command,
            env={**os.environ, "DATABASE_URL": url},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode in {1, 3}, done.stdout + done.stderr
        assert PASSWORD not in done.stdout + done.stderr
        assert "user:***@" in done.stdout


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="reads /proc")
def test_no_list_of_processes_shows_the_password(tmp_path: Path) -> None:
    with silent_server() as listener:
        url = f"postgresql+asyncpg://u:{PASSWORD}@127.0.0.1:{listener.getsockname()[1]}/app"
        command = [sys.executable, doctor.__file__, str(tmp_path), "--python", sys.executable]
        process = subprocess.Popen(
            [*command, "--timeout", "60"],
            env={**os.environ, "DATABASE_URL": url},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            listener.settimeout(120)
            connection, _ = listener.accept()
            with connection:
                lines = []
                for path in Path("/proc").glob("[0-9]*/cmdline"):
                    try:
                        lines.append(path.read_bytes().replace(b"\0", b" ").decode())
                    except OSError:  # it has ended meanwhile
                        continue
        finally:
            # The probe leads a session of its own, and ends when its connection does.
            listener.close()
            process.kill()
            process.wait()

    assert any("_doctor_probe.py" in line for line in lines)
    assert not any(PASSWORD in line for line in lines)


# Databases


async def test_a_database_that_answers_is_all_right(
    database_url: URL, server: Any, examine: Examine
) -> None:
    if database_url.database and database_url.get_backend_name() == "sqlite":
        make_database(Path(database_url.database))

    for python in PYTHONS:
        seen = examine(database_url, python)

        assert seen.code == 0, seen.texts("problem")
        product, version = server.version.split()[:2]
        assert seen.report["server"] == {"product": product, "version": version, "read_only": False}
        assert f"{product} {version} answers" in seen.texts("ok", "server")


@pytest.mark.only_on("postgresql", reason="a second async driver of SQLAlchemy's own")
def test_a_database_answers_through_psycopg_too(database_url: URL, examine: Examine) -> None:
    seen = examine(database_url.set(drivername="postgresql+psycopg"))

    assert seen.code == 0
    assert seen.report["server"]["product"] == "PostgreSQL"


@pytest.mark.parametrize("drivername", DRIVERS)
def test_a_server_that_is_down_is_said_to_be_down(
    drivername: str, closed_port: int, examine: Examine
) -> None:
    for python in PYTHONS:
        seen = examine(f"{drivername}://u:{PASSWORD}@127.0.0.1:{closed_port}/app", python)

        assert seen.code == 3
        assert seen.problem["what"].startswith("nothing listens at this host and port")
        assert seen.report["server"] is None


@pytest.mark.parametrize("drivername", DRIVERS)
def test_a_server_that_hangs_is_left_in_time(drivername: str, examine: Examine) -> None:
    with silent_server() as listener:
        port = listener.getsockname()[1]

        seen = examine(
            f"{drivername}://u:{PASSWORD}@127.0.0.1:{port}/app", sys.executable, "--timeout", "1"
        )

    assert seen.code == 3
    assert seen.problem["what"].startswith("the database did not answer")


def test_a_driver_that_cant_be_interrupted_is_stopped(
    examine: Examine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = make_environment(tmp_path / "env", without=("aiosqlite",))
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    (site / "aiosqlite.py").write_text("import time\nwhile True:\n    time.sleep(1)\n")
    monkeypatch.setattr(doctor, "START_SECONDS", 20)

    seen = examine(sqlite_url(tmp_path / "a.db"), python, "--timeout", "1")

    assert seen.code == 3
    assert "could not be interrupted" in seen.problem["what"]


@pytest.mark.not_on("sqlite", reason="a missing file is no error there")
def test_a_missing_database_is_told_from_a_missing_server(
    database_url: URL, examine: Examine
) -> None:
    for python in PYTHONS:
        seen = examine(database_url.set(database="no_such_database"), python)

        assert seen.code == 3
        assert seen.problem["what"].startswith("the server has no such database")


@pytest.mark.only_on("mysql", reason="the PostgreSQL of the tests may trust everybody")
def test_a_refused_login_is_said_without_the_password(database_url: URL, examine: Examine) -> None:
    seen = examine(database_url.set(username="nobody_here", password=PASSWORD))

    assert seen.code == 3
    assert seen.problem["what"].startswith("the server refuses the login")
    assert PASSWORD not in json.dumps(seen.report)


@pytest.mark.only_on("postgresql", reason="a setting of its databases")
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_a_read_only_postgresql_is_a_problem_of_the_server(
    database_url: URL, examine: Examine, driver: str
) -> None:
    admin = database_url.set(drivername="postgresql").render_as_string(hide_password=False)
    name = sql.Identifier(str(database_url.database))
    change = sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name)
    undo = sql.SQL("ALTER DATABASE {} RESET default_transaction_read_only").format(name)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(change)
        try:
            seen = examine(database_url.set(drivername=f"postgresql+{driver}"))
        finally:
            connection.execute(undo)

    assert seen.code == 4
    assert "can't be written to: transaction_read_only is on" in seen.problem["what"]
    assert seen.report["server"]["read_only"] is True


@pytest.mark.parametrize("drivername", ["mysql+aiomysql", "mariadb+aiomysql"])
def test_a_server_that_says_it_is_old_is_a_problem(drivername: str, examine: Examine) -> None:
    with old_mariadb("10.3.39-MariaDB-log") as port:
        seen = examine(f"{drivername}://u:{PASSWORD}@127.0.0.1:{port}/app")

    assert seen.code == 4
    assert seen.problem["what"] == "MariaDB 10.3.39 is too old: it has no SKIP LOCKED"


def findings_about(product: str, version: str) -> list[tuple[str, str]]:
    answer = {"product": product, "version": version, "read_only": []}
    return [(f.level, f.what) for f in doctor.check_server(answer)][1:]


def test_versions_of_servers_are_judged_by_what_the_suites_ran_on() -> None:
    assert findings_about("PostgreSQL", "18.1") == []
    assert findings_about("PostgreSQL", "15.20") == []
    assert findings_about("PostgreSQL", "19.0") == []
    ((level, what),) = findings_about("PostgreSQL", "14.9")
    assert (level, what.partition(":")[0]) == (
        "note",
        "PostgreSQL 14.9 is older than what this bundle ran on",
    )
    assert findings_about("PostgreSQL", "9.4.26")[0][0] == "problem"
    assert findings_about("SQLite", "3.34.1")[0][0] == "problem"
    ((level, what),) = findings_about("MySQL", "8.4.0")
    assert (level, what.partition(";")[0]) == ("note", "this bundle did not run on MySQL")
    assert findings_about("CockroachDB", "24.1")[0][0] == "note"


# SQLite files


def test_a_missing_file_is_not_made(examine: Examine, tmp_path: Path) -> None:
    path = tmp_path / "project" / "app.db"

    seen = examine("sqlite+aiosqlite:///app.db")

    assert seen.code == 0
    assert f"{path} does not exist" in " ".join(seen.texts("note", "connection"))
    assert not path.exists()


def test_a_missing_folder_is_a_problem(examine: Examine, tmp_path: Path) -> None:
    seen = examine(sqlite_url(tmp_path / "none" / "app.db"))

    assert seen.code == 3
    assert seen.problem["fix"] == f"mkdir -p {tmp_path / 'none'}"
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_nothing_is_written_beside_or_into_a_file(
    examine: Examine, tmp_path: Path, journal: str
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    path = make_database(folder / "app.db", journal=journal)
    before, touched = contents(folder), path.stat().st_mtime_ns

    seen = examine(sqlite_url(path))

    assert seen.code == 0
    assert seen.report["server"]["product"] == "SQLite"
    assert contents(folder) == before
    assert path.stat().st_mtime_ns == touched


def test_a_file_in_use_is_left_as_it_is(examine: Examine, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    path = make_database(folder / "app.db", journal="wal")
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("INSERT INTO jar VALUES (1)")
        before = contents(folder)

        seen = examine(sqlite_url(path))

        assert seen.code == 0
        assert set(before) == {"app.db", "app.db-wal", "app.db-shm"}
        assert contents(folder) == before


def test_memory_is_a_database_too(examine: Examine) -> None:
    seen = examine("sqlite+aiosqlite:///:memory:")

    assert seen.code == 0
    assert seen.report["server"]["version"] == sqlite3.sqlite_version


@pytest.mark.parametrize("query", [{"mode": "ro"}, {"immutable": "1"}])
def test_a_url_that_opens_a_file_for_reading_is_read_only(
    examine: Examine, tmp_path: Path, query: dict[str, str]
) -> None:
    path = make_database(tmp_path / "app.db")
    url = URL.create("sqlite+aiosqlite", database=f"file:{path}", query={**query, "uri": "true"})

    seen = examine(url)

    assert seen.code == 4
    assert "can't be written to" in seen.problem["what"]


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_file_without_permission_to_write_is_read_only(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    path = make_database(folder / "app.db")
    prefix = []
    if os.geteuid() == 0:  # to whom permissions mean nothing, unless it gives that up
        if not shutil.which("setpriv"):
            pytest.skip("running as root, without setpriv")
        prefix = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    changed = path if what == "file" else folder
    changed.chmod(changed.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    command = [*prefix, sys.executable, doctor.__file__, str(tmp_path), "--python", sys.executable]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "DATABASE_URL": str(sqlite_url(path))},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        changed.chmod(0o755)

    assert done.returncode == 4, done.stdout + done.stderr
    assert f"can't be written to: {path}" in done.stdout


def test_a_file_that_is_no_database_is_a_problem(examine: Examine, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("jam" * 100)

    seen = examine(sqlite_url(path))

    assert seen.code == 3
    assert "is no SQLite database" in seen.problem["what"]


def test_a_file_that_another_holds_locked_is_said_to_be(examine: Examine, tmp_path: Path) -> None:
    path = make_database(tmp_path / "app.db")
    with closing(sqlite3.connect(path)) as holder:
        holder.execute("BEGIN EXCLUSIVE")

        seen = examine(sqlite_url(path), sys.executable, "--timeout", "4")

    assert seen.code == 3
    assert seen.problem["what"].startswith("another process holds a lock")


def test_foreign_keys_and_journal_are_no_defect_of_a_file(examine: Examine, tmp_path: Path) -> None:
    seen = examine(sqlite_url(make_database(tmp_path / "app.db")))

    said = " ".join(seen.texts("problem") + seen.texts("note", "server"))
    assert "foreign" not in said
    assert "WAL" not in said


# Shape


def test_the_json_has_a_stable_shape(examine: Examine, tmp_path: Path) -> None:
    report = examine(sqlite_url(make_database(tmp_path / "a.db"))).report

    assert list(report) == [
        "python", "packages", "url", "url_from", "server", "findings", "exit_code",
    ]  # fmt: skip
    assert list(report["python"]) == ["version", "path", "origin"]
    assert report["url_from"] == "--url"
    assert all(
        list(finding) == ["level", "about", "what", "fix", "page"] for finding in report["findings"]
    )
    assert {finding["level"] for finding in report["findings"]} <= {"ok", "note", "problem"}


def test_the_help_explains_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        doctor.main(["--help"])

    out = capsys.readouterr().out
    assert re.findall(r"^  (\d) ", out.partition("exit codes:")[2], re.MULTILINE) == list("01234")


def test_what_can_be_mended_goes_before_a_server_that_is_down() -> None:
    report = doctor.Report({})
    report.findings += [
        doctor.Finding("problem", "server", "old"),
        doctor.Finding("problem", "connection", "down"),
    ]
    assert report.exit_code == 3
    report.findings.append(doctor.Finding("problem", "greenlet", "missing"))
    assert report.exit_code == 1


@pytest.mark.parametrize(
    ("version", "ranges", "holds"),
    [
        ("2.1.0", ">=2.0.38,<2.2", True),
        ("2.2", ">=2.0.38,<2.2", False),
        ("2.1", "==2.1.0", True),
        ("2.1.0b1", ">=2.1", True),
        ("2.0.5", "==2.0.*", True),
        ("2.1.5", "!=2.0.*", True),
        ("1.4.5", "~=1.4.2", True),
        ("1.5.0", "~=1.4.2", False),
        ("0.118.0", ">=0.118,<0.121", True),
        ("10.11.19-MariaDB", ">=10.6", True),
    ],
)
def test_versions_are_compared_by_their_numbers(version: str, ranges: str, *, holds: bool) -> None:
    assert _versions.satisfies(version, ranges) is holds


def test_the_probe_runs_on_older_interpreters_to_say_so() -> None:
    """The newest syntax that it may use is that of Python 3.8."""
    source = doctor.PROBE.read_text()

    ast.parse(source, feature_version=(3, 8))
