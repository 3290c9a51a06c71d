import json
import os
import re
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path

import _scaffold_app
import _scaffold_imports
import _scaffold_names
import pytest
import scaffold
from sqlalchemy import URL

from snippets.database_setup.urls import with_password
from tests.scripts.generated import contents, lints, refusal, run, succeeded, type_checks

CHOICES = [c for size in range(4) for c in combinations(scaffold.PARTS, size)]
NAMES_OF_KEYS = """
import {first}
from app.models import metadata
print(*sorted(table.primary_key.name for table in metadata.tables.values()))
"""
LONGEST = "a_package_name_of_exactly_forty_letters_"


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A generated application with the defaults."""
    assert scaffold.main(["app", str(tmp_path / "app")]) == 0
    return tmp_path / "app"


# What is written works


@pytest.mark.parametrize("database", scaffold.DATABASES)
@pytest.mark.parametrize("package", ["app", "x", LONGEST])
def test_the_application_satisfies_the_linter_and_the_formatter(
    tmp_path: Path, package: str, database: str
) -> None:
    scaffold.scaffold_app(tmp_path, package, database)

    lints(tmp_path)


def test_the_application_satisfies_strict_types(tmp_path: Path) -> None:
    scaffold.scaffold_app(tmp_path, LONGEST, "sqlite")

    type_checks(tmp_path, tmp_path)


async def test_the_tests_of_the_application_pass(tmp_path: Path, database_url: URL) -> None:
    scaffold.scaffold_app(tmp_path, "pantry", "sqlite")

    text = with_password(database_url)
    output = succeeded(tmp_path, "pytest", "-q", "-p", "no:cacheprovider", TEST_DATABASE_URL=text)

    assert "47 passed" in output


def test_the_tests_of_the_application_need_no_database(app: Path) -> None:
    output = succeeded(app, "pytest", "-q", "-p", "no:cacheprovider", "-k", "listed or agree")

    assert "2 passed" in output


async def test_the_tests_of_the_application_refuse_a_database_that_is_in_use(
    app: Path, database_url: URL
) -> None:
    text = with_password(database_url)
    succeeded(app, "alembic", "upgrade", "head", DATABASE_URL=text)

    refused = run(app, "pytest", "-q", "-p", "no:cacheprovider", TEST_DATABASE_URL=text)

    assert refused.returncode == 1
    assert "must name an empty database; it has hero" in refused.stdout + refused.stderr
    succeeded(app, "alembic", "check", DATABASE_URL=text)


async def test_migrations_run_from_the_command_line(app: Path, database_url: URL) -> None:
    settings = {"DATABASE_URL": with_password(database_url)}

    succeeded(app, "alembic", "upgrade", "head", **settings)
    checked = succeeded(app, "alembic", "check", **settings)
    offline = succeeded(app, "alembic", "upgrade", "head", "--sql", **settings)
    succeeded(app, "alembic", "downgrade", "base", **settings)

    assert "No new upgrade operations detected" in checked
    assert "CREATE TABLE hero" in offline
    assert "CONSTRAINT uq_hero_name UNIQUE (name)" in offline


async def test_a_generated_migration_needs_no_editing(app: Path, database_url: URL) -> None:
    settings = {"DATABASE_URL": with_password(database_url)}
    succeeded(app, "alembic", "upgrade", "head", **settings)
    models = app / "app" / "models.py"
    column = "    retired_at: datetime | None = Field(default=None, sa_type=UTCTimestamp)\n"
    motto = "    motto: str | None = Field(default=None, max_length=40, unique=True)\n"
    anchor = "    created_at: datetime ="
    models.write_text(models.read_text().replace(anchor, column + motto + anchor))

    assert run(app, "alembic", "check", **settings).returncode != 0
    succeeded(app, "alembic", "revision", "--autogenerate", "-m", "retire", **settings)
    succeeded(app, "ruff", "format", "migrations", "--no-cache")
    succeeded(app, "ruff", "check", "--fix", "migrations", "--no-cache")
    succeeded(app, "ruff", "format", "--check", "migrations", "--no-cache")
    succeeded(app, "mypy", "--cache-dir", os.devnull)
    succeeded(app, "alembic", "upgrade", "head", **settings)

    succeeded(app, "alembic", "check", **settings)
    succeeded(app, "alembic", "downgrade", "base", **settings)
    (written,) = (app / "migrations" / "versions").glob("*_retire.py")
    assert "sa.String(length=40)" in written.read_text()
    assert "sqlmodel" not in written.read_text()
    assert "app.model_parts" not in written.read_text()


def test_percent_signs_in_url_and_folder_do_no_harm(tmp_path: Path) -> None:
    folder = tmp_path / "50% off %(here)s"
    scaffold.scaffold_app(folder, "app", "sqlite")
    (tmp_path / "a%b").mkdir()
    url = URL.create("sqlite+aiosqlite", database=str(tmp_path / "a%b" / "x.db"))

    succeeded(folder, "alembic", "upgrade", "head", DATABASE_URL=with_password(url))

    assert (tmp_path / "a%b" / "x.db").stat().st_size > 0


def test_a_migration_that_replaces_a_table_keeps_the_rows_that_refer_to_it(app: Path) -> None:
    settings = {"DATABASE_URL": "sqlite:///app.db"}
    body = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "{number}", "{before}"

def upgrade() -> None:
    {upgrade}

def downgrade() -> None: ...
"""
    child = (
        'op.execute("CREATE TABLE cape (id INTEGER PRIMARY KEY, '
        'hero_id INTEGER REFERENCES hero (id) ON DELETE CASCADE)"); '
        "op.execute(\"INSERT INTO hero (id, name, created_at) VALUES (1, 'Ada', '2026-01-01')\"); "
        'op.execute("INSERT INTO cape VALUES (7, 1)")'
    )
    replace = (
        'with op.batch_alter_table("hero", recreate="always") as batch:\n'
        '        batch.add_column(sa.Column("rank", sa.Integer()))'
    )
    versions = app / "migrations" / "versions"
    (versions / "0002.py").write_text(body.format(number="0002", before="0001", upgrade=child))
    (versions / "0003.py").write_text(body.format(number="0003", before="0002", upgrade=replace))

    succeeded(app, "alembic", "upgrade", "head", **settings)

    connection = sqlite3.connect(app / "app.db")
    assert connection.execute("SELECT id, hero_id FROM cape").fetchall() == [(7, 1)]
    connection.close()


async def test_a_migration_that_fails_leaves_nothing_behind_on_sqlite(app: Path) -> None:
    failing = """
from alembic import op

revision, down_revision = "0002", "0001"

def upgrade() -> None:
    op.execute("CREATE TABLE half (id INTEGER)")
    op.execute("CREATE nonsense")
"""
    (app / "migrations" / "versions" / "0002.py").write_text(failing)

    failed = run(app, "alembic", "upgrade", "head", DATABASE_URL="sqlite:///app.db")

    assert failed.returncode == 1
    connection = sqlite3.connect(app / "app.db")
    tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    connection.close()
    assert sorted(tables) == [("alembic_version",), ("hero",)]


# Parts


@pytest.mark.parametrize("parts", CHOICES, ids="-".join)
def test_each_choice_of_parts_satisfies_linter_and_types(
    tmp_path: Path, parts: tuple[str, ...]
) -> None:
    scaffold.scaffold_app(tmp_path, "pantry", "postgresql", parts)

    lints(tmp_path)
    type_checks(tmp_path, tmp_path)
    assert (tmp_path / "migrations").exists() == ("migrations" in parts)
    assert (tmp_path / "tests").exists() == ("tests" in parts)
    assert (tmp_path / "pantry" / "api").exists() == ("api" in parts)


@pytest.mark.parametrize("parts", [c for c in CHOICES if "tests" in c], ids="-".join)
async def test_the_tests_of_each_choice_of_parts_pass(
    tmp_path: Path, parts: tuple[str, ...], database_url: URL
) -> None:
    scaffold.scaffold_app(tmp_path, "pantry", "sqlite", parts)

    text = with_password(database_url)
    output = succeeded(tmp_path, "pytest", "-q", "-p", "no:cacheprovider", TEST_DATABASE_URL=text)

    expected = 5 + 41 * ("api" in parts) + ("migrations" in parts)
    assert f"{expected} passed" in output


SERVE = """
import asyncio
from httpx import ASGITransport, AsyncClient
from pantry.main import create_app

async def main():
    app = create_app()
    async with app.router.lifespan_context(app):
        async with AsyncClient(transport=ASGITransport(app=app), base_url="http://x") as client:
            answer = await client.post("/heroes", json={"name": "Ada"})
            print(answer.status_code, (await client.get("/heroes")).json()["items"][0]["name"])

asyncio.run(main())
"""


@pytest.mark.parametrize("parts", CHOICES, ids="-".join)
async def test_each_choice_of_parts_runs(
    tmp_path: Path, parts: tuple[str, ...], database_url: URL
) -> None:
    settings = {"DATABASE_URL": with_password(database_url)}
    report = scaffold.scaffold_app(tmp_path, "pantry", "sqlite", parts)
    command = next(c for c in report.next if "alembic" in c or "create_tables" in c)
    module = command.removeprefix(".venv/bin/python -m ").removeprefix(".venv/bin/")

    succeeded(tmp_path, *module.split(), **settings)
    program = ["-c", SERVE] if "api" in parts else ["pantry", "Ada", "foresight"]
    output = succeeded(tmp_path, *program, **settings)

    assert output == ("201 Ada\n" if "api" in parts else "Ada\n")


@pytest.mark.parametrize(
    ("parts", "absent"),
    [
        (["migrations", "tests"], {"fastapi", "uvicorn", "httpx", "starlette"}),
        (["api", "tests"], {"alembic"}),
        (["api", "migrations"], {"pytest", "httpx", "aiosqlite"}),
        ([], {"fastapi", "alembic", "pytest"}),
    ],
)
def test_what_a_part_needs_comes_with_it_alone(parts: list[str], absent: set[str]) -> None:
    files = scaffold.app_files("shop", "mysql", parts)

    project = tomllib.loads(files["pyproject.toml"])["project"]
    listed = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {_scaffold_imports.distribution(item) for item in listed}
    imported = _scaffold_imports.libraries(t for n, t in files.items() if n.endswith(".py"))
    assert not names & absent
    assert not imported & absent
    assert imported - {"shop", "tests"} <= names | {"starlette", "pydantic_settings"}
    assert ("API_COUNT_STATEMENTS" in files[".env.example"]) == ("api" in parts)
    for part, word in (("api", "uvicorn"), ("migrations", "alembic upgrade"), ("tests", "pytest")):
        assert (word in files["README.md"]) == (part in parts)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("api,migrations,tests", ["api", "migrations", "tests"]),
        ("tests, api", ["api", "tests"]),
        ("none", []),
    ],
)
def test_parts_are_named_in_any_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, parts: list[str]
) -> None:
    assert scaffold.main(["app", str(tmp_path / "new"), "--with", text, "--json"]) == 0

    assert json.loads(capsys.readouterr().out)["parts"] == parts


# What is written


def as_snippet(text: str) -> list[str]:
    """Return the lines of a copy with the bundle's names in its imports, in no order."""
    for (topic, module), place in _scaffold_names.PUBLISHED.items():
        text = text.replace(f"from app.{'.'.join(place)} ", f"from snippets.{topic}.{module} ")
    for topic, subpackage in _scaffold_names.SUBPACKAGES.items():
        text = text.replace(f"from app.{subpackage}", f"from snippets.{topic}")
    return sorted(text.splitlines())


USED_TOPICS = [
    "async_operations", "database_setup", "fastapi_integration", "migrations", "models",
    "servicebase",
]  # fmt: skip


@pytest.mark.parametrize("topic", USED_TOPICS)
def test_only_imports_differ_from_the_snippets(topic: str) -> None:
    files = scaffold.app_files("app", "sqlite")
    folder = f"app/{_scaffold_names.SUBPACKAGES[topic]}/"
    copies = [name for name in files if name.startswith(folder) and files[name]]

    assert copies
    for name in copies:
        place = (folder.split("/")[1], Path(name).stem)
        original = _scaffold_names.snippet_file(*_scaffold_names.origin_of(*place))
        assert as_snippet(files[name]) == sorted(original.read_text().splitlines())


def test_no_example_of_the_bundle_gets_into_the_application() -> None:
    files = scaffold.app_files("app", "sqlite")

    names = {Path(name).stem for name in files}
    assert {"engine", "session", "service", "cursor_pagination", "error_handlers"} <= names
    assert not names & {"mistakes", "create_tables", "custom_services", "_cinema", "crud_router"}
    tables = [n for n, text in files.items() if n.endswith(".py") and "table=True" in text]
    assert tables == ["app/models.py"]


@pytest.mark.parametrize("database", scaffold.DATABASES)
def test_nothing_points_back_to_the_bundle(database: str) -> None:
    files = scaffold.app_files("shop", database)

    for name, text in files.items():
        assert "snippets" not in text, name
        assert not re.search(r"\{\{\w+\}\}", text), name
        assert "from app" not in text, name
        assert "app/" not in name
        assert text == "" or text.endswith("\n"), name


def test_the_driver_follows_the_database() -> None:
    drivers = {"sqlite": "aiosqlite", "postgresql": "asyncpg", "mysql": "aiomysql"}

    for database, driver in drivers.items():
        files = scaffold.app_files("shop", database)
        project = tomllib.loads(files["pyproject.toml"])["project"]
        needed = {item.split(">")[0] for item in project["dependencies"]}
        assert needed & set(drivers.values()) == {driver}
        assert f"+{driver}://" in files[".env.example"]
        # The tests' default database is a SQLite file.
        dev = project["optional-dependencies"]["dev"]
        assert any("aiosqlite" in item for item in [*project["dependencies"], *dev])


def test_the_ranges_and_rules_are_those_of_the_bundle() -> None:
    bundle = tomllib.loads((scaffold.ROOT / "pyproject.toml").read_text())
    written = tomllib.loads(scaffold.app_files("shop", "sqlite")["pyproject.toml"])

    core = bundle["tool"]["async-sqlmodel"]["ranges"]["core"]
    assert set(core) <= set(written["project"]["dependencies"])
    assert "fastapi>=0.115" in written["project"]["dependencies"]
    rules = written["tool"]["ruff"]["lint"]
    assert rules["select"] == sorted(bundle["tool"]["ruff"]["lint"]["select"])
    assert rules["ignore"] == bundle["tool"]["ruff"]["lint"]["ignore"]


def test_the_loop_scopes_are_those_that_the_skill_asks_for() -> None:
    options = tomllib.loads(scaffold.app_files("app", "sqlite")["pyproject.toml"])["tool"]["pytest"]

    for name in ("asyncio_default_fixture_loop_scope", "asyncio_default_test_loop_scope"):
        assert options["ini_options"][name] == "function"
        assert f"{name} = function" in (scaffold.ROOT / "SKILL.md").read_text()


def test_the_same_bytes_are_written_each_time(tmp_path: Path) -> None:
    script = str(scaffold.ROOT / "scripts" / "scaffold.py")
    for seed in ("1", "2"):
        command = [sys.executable, script, "app", str(tmp_path / seed)]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)

    assert contents(tmp_path / "1") == contents(tmp_path / "2")


# Imports


def test_an_import_that_becomes_too_long_is_written_over_several_lines() -> None:
    source = "from snippets.database_setup.engine import engine_for, engine_from_settings as made\n"

    renamed = _scaffold_imports.rename_imports(source, LONGEST)

    assert renamed == (
        f"from {LONGEST}.database.engine import (\n"
        "    engine_for,\n"
        "    engine_from_settings as made,\n"
        ")\n"
    )


def test_imports_are_in_order_under_their_new_names() -> None:
    source = (
        "from snippets.async_operations.errors import classify\n"
        "from snippets.database_setup.session import (\n"
        "    session_scope,\n"
        ")\n"
        "from snippets.servicebase.service import ServiceBase\n"
        "\n"
        "\n"
        "def later() -> None:\n"
        "    from snippets.models.keys import b\n"
        "    from snippets.fastapi_integration._query_model import a\n"
    )

    renamed = _scaffold_imports.rename_imports(source, "shop")

    assert renamed == (
        "from shop.database.session import (\n"
        "    session_scope,\n"
        ")\n"
        "from shop.operations.errors import classify\n"
        "from shop.services.service import ServiceBase\n"
        "\n"
        "\n"
        "def later() -> None:\n"
        "    from shop.api.query_model import a\n"
        "    from shop.model_parts.keys import b\n"
    )


def test_text_that_only_looks_like_an_import_stays() -> None:
    source = '"""\nfrom snippets.database_setup.urls import async_url\n"""\n'

    assert _scaffold_imports.rename_imports(source, "shop") == source


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import snippets.database_setup.urls", "write `from snippets.database_setup.urls import"),
        ("import app", "write `from app import"),
        ("from snippets.gardening import x", "no such part"),
    ],
)
def test_an_import_that_cannot_be_renamed_is_refused(source: str, message: str) -> None:
    with pytest.raises(scaffold.TemplateError, match=message):
        _scaffold_imports.rename_imports(source, "shop")


def test_what_a_snippet_imports_comes_along_also_as_a_whole_module() -> None:
    needed = _scaffold_imports.needed_modules(
        ["from app.services.service import ServiceBase"], "app"
    )

    assert {"app.services.bulk", "app.services._aggregates", "app.operations.errors"} <= {*needed}


def test_a_template_that_imports_a_missing_snippet_is_refused() -> None:
    with pytest.raises(scaffold.TemplateError, match=r"database_setup/unwritten\.py is missing"):
        _scaffold_imports.needed_modules(["from app.database.unwritten import x"], "app")


# Where it is written


@pytest.mark.parametrize("where", ["new", "a/b/new", "empty", "link"])
def test_a_missing_or_empty_folder_is_filled(tmp_path: Path, where: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")

    assert scaffold.main(["app", str(tmp_path / where), "--package", "shop"]) == 0

    assert contents(tmp_path / where) == scaffold.app_files("shop", "sqlite")
    assert (tmp_path / where).stat().st_mode & 0o777 == 0o777 & ~_umask()


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def test_the_current_folder_can_be_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert scaffold.main(["app", "."]) == 0

    assert Path("pyproject.toml").is_file()


def test_a_folder_that_is_not_empty_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "abcdefg":
        (tmp_path / name).touch()

    line = refusal(capsys, "app", str(tmp_path))

    assert "is not empty, it has a, b, c, d, e and 2 more: name an empty folder" in line
    assert "--force" in line
    assert len(list(tmp_path.iterdir())) == 7


@pytest.mark.parametrize("where", ["file", "file/below", "nowhere"])
def test_what_is_no_folder_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")

    line = refusal(capsys, "app", str(tmp_path / where))

    assert "folder" in line
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "nowhere"]
    assert (tmp_path / "file").read_text() == "mine"


def test_force_overwrites_its_own_files_alone_and_lists_them(
    app: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = contents(app)
    (app / "README.md").write_text("mine")
    (app / "app" / "models.py").unlink()
    (app / "app" / "notes.txt").write_text("mine too")
    capsys.readouterr()

    assert scaffold.main(["app", str(app), "--force"]) == 0

    printed = capsys.readouterr().out
    assert contents(app) == expected | {"app/notes.txt": "mine too"}
    assert printed.startswith(
        f"overwritten: README.md\nwrote 2 files, {len(expected) - 2} unchanged"
    )


def test_force_follows_no_link_and_replaces_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine.txt").write_text("mine")
    dest = tmp_path / "dest"
    dest.mkdir()
    (dest / "app").symlink_to(outside)
    (dest / "README.md").symlink_to(outside / "mine.txt")
    (dest / "alembic.ini").mkdir()
    (dest / "migrations").write_text("a file")

    line = refusal(capsys, "app", str(dest), "--force")

    named = "README.md (a link), alembic.ini (a folder), app (a link), migrations (a file)"
    assert named in line
    assert contents(outside) == {"mine.txt": "mine"}
    assert len(list(dest.iterdir())) == 4


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize(
    ("where", "method", "calls"),
    [
        ("a/new", "write_text", 9),
        ("a/new", "rename", 0),
        ("empty", "write_text", 0),
        ("empty", "rename", 5),
        ("forced", "write_text", 9),
        ("forced", "rename", 3),
        ("forced", "rename", 12),
    ],
)
def test_a_failure_leaves_everything_as_it_was(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    *,
    where: str,
    method: str,
    calls: int,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "forced" / "app").mkdir(parents=True)
    (tmp_path / "forced" / "alembic.ini").write_text("mine")
    (tmp_path / "forced" / "app" / "main.py").write_text("mine")
    before = contents(tmp_path), sorted(tmp_path.rglob("*"))

    code = 130 if isinstance(error, KeyboardInterrupt) else 1
    with failing_after(calls, method, error):
        line = refusal(capsys, "app", str(tmp_path / where), "--force", code=code)

    assert "nothing was written" in line
    assert (contents(tmp_path), sorted(tmp_path.rglob("*"))) == before


@contextmanager
def failing_after(calls: int, method: str, error: BaseException) -> Iterator[None]:
    """Let a method of `Path` work that many times, then raise."""
    original = getattr(Path, method)
    left = calls

    def limited(self: Path, *arguments: object, **options: object) -> object:
        nonlocal left
        left -= 1
        if left < 0:
            raise error
        return original(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, method, limited)
        yield


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scaffold.main(["app", str(tmp_path / "new"), "--dry-run"]) == 0

    printed = capsys.readouterr().out
    assert "would create: app/models.py\n" in printed
    assert f"would write {len(scaffold.app_files('app', 'sqlite'))} files" in printed
    assert list(tmp_path.iterdir()) == []


# How it answers


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--package", "my-shop"], "try my_shop"),
        (["--package", "MyShop"], "try myshop"),
        (["--package", "7up"], "a letter first"),
        (["--package", ""], "lower-case letters"),
        (["--package", "../out"], "try out"),
        (["--package", "naïve"], "lower-case letters"),
        (["--package", "x" * 41], "at most 40"),
        (["--package", "class"], "is a keyword of Python"),
        (["--package", "json"], "the standard library"),
        (["--package", "fastapi"], "a library that the application uses"),
        (["--package", "tests"], "another folder of the application"),
        (["--package", "migrations"], "another folder of the application"),
        (["--database", "oracle"], "use sqlite, postgresql, mysql"),
        (["--database", "postgres"], "use postgresql with"),
        (["--database", "mariadb"], "use mysql with"),
        (
            ["--with", "api,docs,web"],
            "unknown part 'docs', 'web': use some of api,migrations,tests",
        ),
        (["--with", ""], "unknown part ''"),
        (["--colour"], "unrecognized arguments: --colour"),
    ],
)
def test_wrong_usage_is_answered_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: Sequence[str], message: str
) -> None:
    line = refusal(capsys, "app", str(tmp_path / "new"), *arguments)

    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_a_command_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert "COMMAND" in refusal(capsys)


def test_json_has_a_stable_shape(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["app", str(tmp_path / "new"), "--package", "shop", "--database", "mysql", "--json"]
    assert scaffold.main(command) == 0

    answer = json.loads(capsys.readouterr().out)

    assert list(answer) == [
        "dest", "package", "database", "parts", "dry_run", "files", "install", "next",
        "add_a_table", "call",
    ]  # fmt: skip
    assert answer["dest"] == str(tmp_path / "new")
    assert {"path": "shop/models.py", "action": "create"} in answer["files"]
    assert answer["install"][0] == f"cd {tmp_path / 'new'}"
    assert ".venv/bin/alembic upgrade head" in answer["next"]


def test_the_answer_says_what_to_do_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dest = tmp_path / "with space"
    assert scaffold.main(["app", str(dest), "--package", "shop", "--database", "postgresql"]) == 0

    printed = capsys.readouterr().out

    assert f"  cd '{dest}'\n" in printed
    assert "then set DATABASE_URL in .env\n" in printed
    assert "uvicorn --factory shop.main:create_app" in printed
    assert "cat shop/{models,heroes,hero_routes,main}.py\n  shop/models.py:" in printed
    assert "shop/<singular>_routes.py: a router, included in shop/main.py" in printed


def test_the_answer_says_what_to_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scaffold.main(["app", str(tmp_path / "shop"), "--package", "shop"]) == 0

    call = capsys.readouterr().out.partition("\ncall:\n")[2]

    assert "shop.database.settings: engine_from_settings(settings: Data" in call
    assert "async with session_scope(factory: async_sessionmaker[AsyncSession]) -> Async" in call
    assert "shop.services.service: ServiceBase: values_for_create" in call
    assert {"create_many", "cursor_page", "aggregate"} <= {*re.findall(r"\w+", call)}
    assert "shop.api.dependencies: FactoryDep; SessionDep; provided(service: type[" in call
    assert f"add servicebase/service {tmp_path / 'shop'} --dry-run\n" in call
    assert len(call) < 2500  # an agent pays for each word


def test_whatever_is_named_for_the_answer_is_there() -> None:
    files = scaffold.app_files("app", "sqlite")
    lines = list(_scaffold_app.call_lines(files, "app"))

    assert len(lines) == len(_scaffold_app.CALLED)
    for line, names in zip(lines, _scaffold_app.CALLED.values(), strict=True):
        assert {*names} <= {*re.findall(r"\w+", line)}
    without_api = list(_scaffold_app.call_lines(scaffold.app_files("app", "sqlite", []), "app"))
    assert not [line for line in without_api if line.startswith("app.api.")]


@pytest.mark.parametrize("first", ["app.production.exactly_once", "app.models"])
def test_constraints_have_names_in_whatever_order_modules_are_imported(
    app: Path, first: str
) -> None:
    assert scaffold.main(["add", "production_patterns/exactly_once", str(app)]) == 0
    models = app / "app" / "models.py"
    before = "from app.model_parts.bodies"
    text = models.read_text()
    assert text.count(before) == 1
    models.write_text(text.replace(before, f"import app.production.exactly_once\n{before}"))

    tables = succeeded(app, "-c", NAMES_OF_KEYS.format(first=first))

    assert tables.split() == ["pk_hero", "pk_receipt"]


def test_an_application_may_have_the_drivers_of_several_databases(tmp_path: Path) -> None:
    scaffold.scaffold_app(tmp_path / "shop", "shop", "postgresql,sqlite", ["migrations"])

    needed = tomllib.loads((tmp_path / "shop" / "pyproject.toml").read_text())["project"]
    assert {"aiosqlite>=0.20", "asyncpg>=0.30"} <= {*needed["dependencies"]}
    assert not [item for item in needed["dependencies"] if "aiomysql" in item]
    url = (tmp_path / "shop" / ".env.example").read_text()
    assert "DATABASE_URL=postgresql+asyncpg://" in url
    assert "on PostgreSQL, SQLite." in (tmp_path / "shop" / "README.md").read_text()
    with pytest.raises(scaffold.UsageError, match="unknown database 'mariadb': use mysql with"):
        scaffold.scaffold_app(tmp_path / "other", "shop", "sqlite,mariadb")
    assert not (tmp_path / "other").exists()


def test_the_list_names_parts_and_patterns(capsys: pytest.CaptureFixture[str]) -> None:
    assert scaffold.main(["list"]) == 0
    text = capsys.readouterr().out
    assert scaffold.main(["list", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)

    assert text.startswith(
        "app: a data layer on sqlite, postgresql, mysql; --with chooses from\n  api"
    )
    assert re.search(r"\n  relationships/eager_loading +Load related objects in the query", text)
    assert answer["app"]["databases"] == ["sqlite", "postgresql", "mysql"]
    assert [*answer["app"]["parts"]] == ["api", "migrations", "tests"]
    assert answer["app"]["files"] == list(scaffold.app_files("app", "sqlite"))
    by_name = {pattern["name"]: pattern for pattern in answer["patterns"]}
    assert by_name["migrations/script_directory"]["summary"].startswith("Alembic runs this file")
    assert by_name["models/soft_delete"]["read"] == "references/models.md#soft-delete"
    assert all(pattern["summary"] for pattern in answer["patterns"])
    assert not any("mistakes" in name or "/_" in name for name in by_name)


def test_who_reads_only_the_beginning_sees_no_error() -> None:
    command = [sys.executable, str(scaffold.ROOT / "scripts" / "scaffold.py"), "list"]
    reading, writing = os.pipe()
    os.close(reading)

    done = subprocess.run(
        command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    os.close(writing)

    assert (done.returncode, done.stderr) == (0, "")
