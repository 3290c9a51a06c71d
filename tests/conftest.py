"""The three databases: write a test once, it runs on each of them.

Ask for `database_url`, `engine` or `session`. A module's `TABLES` names the models whose tables its
tests need; whatever a test leaves behind is gone before the next one.
"""

import asyncio
import os
import platform
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Iterator
from importlib.metadata import version

import pytest
from packaging.version import Version
from servers import (
    KINDS,
    NAMES,
    Server,
    ServerUnavailableError,
    chosen_names,
    required_names,
)
from sqlalchemy import URL, Table
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

from snippets.database_setup.engine import engine_for
from snippets.database_setup.session import session_factory

LIBRARIES = (
    "sqlmodel", "sqlalchemy", "pydantic", "fastapi", "alembic", "aiosqlite", "asyncpg", "aiomysql",
)  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    try:
        required_names()
        chosen_names()
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    # End as for Ctrl-C, so that no server of ours is left behind.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    # Before that, SQLAlchemy itself left the connection of a cancelled task open (versions.md);
    # some later test would be blamed for it.
    if Version(version("sqlalchemy")) < Version("2.0.53"):
        config.addinivalue_line("filterwarnings", "ignore:unclosed:ResourceWarning")
    # aiosqlite drops the file of a cancelled connect without closing it; Python 3.13 says so, and
    # closes it at once.
    if sys.version_info >= (3, 13):
        config.addinivalue_line("filterwarnings", "ignore:unclosed database:ResourceWarning")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server" not in metafunc.fixturenames:
        return
    names = chosen_names()
    for mark in metafunc.definition.iter_markers():
        if mark.name in {"only_on", "not_on"}:
            if not mark.kwargs.get("reason") or not set(mark.args) <= set(NAMES):
                where = metafunc.definition.nodeid
                raise pytest.UsageError(f"{where}: {mark.name} takes {NAMES} and a reason")
            names = [n for n in names if (n in mark.args) == (mark.name == "only_on")]
    metafunc.parametrize("server", names, indirect=True)


@pytest.fixture(scope="session")
def running_servers() -> Iterator[dict[str, Server | ServerUnavailableError]]:
    started: dict[str, Server | ServerUnavailableError] = {}
    yield started
    for server in started.values():
        if isinstance(server, Server):
            server.close()


@pytest.fixture
def server(
    request: pytest.FixtureRequest,
    running_servers: dict[str, Server | ServerUnavailableError],
    record_property: Callable[[str, object], None],
) -> Iterator[Server]:
    """The parametrized server, with an empty database."""
    name: str = request.param
    if name not in running_servers:
        try:
            running_servers[name] = KINDS[name]()
        except ServerUnavailableError as error:
            running_servers[name] = error
    found = running_servers[name]
    if isinstance(found, ServerUnavailableError):
        if name in required_names():
            pytest.fail(f"{name} is required (REQUIRED_DATABASES) but missing: {found}")
        record_property("not run", f"{name}: {found}")
        pytest.skip(f"{name}: {found}")
    record_property("ran", found.version)
    yield found
    found.empty()


@pytest.fixture
def database_url(server: Server) -> URL:
    """The async URL of an empty database."""
    return server.url


@pytest.fixture
async def engine(request: pytest.FixtureRequest, database_url: URL) -> AsyncIterator[AsyncEngine]:
    """An engine on an empty database that has the tables named by the module's `TABLES`."""
    models = getattr(request.module, "TABLES", [])
    tables = [m if isinstance(m, Table) else m.__table__ for m in models]
    engine = engine_for(database_url, pool_timeout=60)  # no test waits for it in vain
    try:
        if tables:
            async with engine.begin() as connection:
                await connection.run_sync(
                    lambda sync: SQLModel.metadata.create_all(sync, tables=tables)
                )
        yield engine
    finally:
        await engine.dispose()


@pytest.fixture
def factory(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    return session_factory(engine)


@pytest.fixture
async def session(factory: async_sessionmaker[AsyncSession]) -> AsyncIterator[AsyncSession]:
    async with factory() as session:
        yield session


@pytest.fixture
def statements(engine: AsyncEngine) -> Iterator[StatementLog]:
    """What SQL the engine sends: `statements.clear()`, act, `assert statements.count == 2`."""
    with StatementLog(engine) as log:
        yield log


@pytest.fixture
async def put_clock_forward(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let seconds pass for the loop: what waits for a time of the loop is due at once.

    A test says so when all else has happened: on a busy machine a short limit is over before.
    """
    loop, ahead = asyncio.get_running_loop(), 0.0
    real_time = loop.time

    def put_forward(seconds: float) -> None:
        nonlocal ahead
        ahead += seconds

    monkeypatch.setattr(loop, "time", lambda: real_time() + ahead)
    return put_forward


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Compare what was acknowledged with what is stored, and note the figures for the summary."""

    def compare(
        fault: str, count: int, *, served: Iterable[Hashable], stored: Iterable[Hashable]
    ) -> None:
        acknowledged, found = Counter(served), Counter(stored)
        # What was never acknowledged may be there, but only once.
        doubled = +Counter({key: n - max(acknowledged[key], 1) for key, n in found.items()})
        assert (acknowledged - found, doubled) == ({}, {}), f"lost, doubled ({fault})"
        record_property("fault", (fault, count, acknowledged.total()))

    return compare


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say on what the suite really ran, so that a green run never means "one of three"."""
    passed: Counter[str] = Counter()
    missing: set[str] = set()
    for report in terminalreporter.getreports("passed"):
        passed.update(what for key, what in report.user_properties if key == "ran")
    for report in terminalreporter.getreports("skipped"):
        missing.update(what for key, what in report.user_properties if key == "not run")
    terminalreporter.section("what really ran")
    for server, count in sorted(passed.items()):
        terminalreporter.write_line(f"{server}: {count} tests passed")
    for what in sorted(missing):
        terminalreporter.write_line(f"did NOT run - {what}")
    for line in fault_lines(terminalreporter.getreports("passed")):
        terminalreporter.write_line(line)
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    terminalreporter.write_line(f"Python {platform.python_version()}, {libraries}")
    if not os.environ.get("REQUIRED_DATABASES"):
        terminalreporter.write_line("a missing database only skips: REQUIRED_DATABASES is not set")


def fault_lines(reports: Iterable[pytest.TestReport]) -> Iterator[str]:
    """What the fixture `tally` has noted, a line each kind of fault."""
    counts: Counter[str] = Counter()
    served: Counter[str] = Counter()
    for report in reports:
        for key, noted in report.user_properties:
            if key == "fault":
                fault, count, acknowledged = noted
                counts[fault] += count
                served[fault] += acknowledged
    for fault in sorted(counts):
        yield f"{fault}: {counts[fault]} times, {served[fault]} requests served, 0 lost, 0 doubled"
