import ast
import json
import re
from pathlib import Path

import _scaffold_add
import _scaffold_api
import _scaffold_example
import _scaffold_imports
import _scaffold_names
import pytest
import scaffold
from sqlalchemy import URL

from snippets.database_setup.urls import with_password
from tests.scripts.generated import (
    contents,
    lints,
    modules,
    refusal,
    refusals,
    succeeded,
    type_checks,
)

IMPORT_ALL = """
import importlib, sys
from sqlalchemy.orm import configure_mappers
for name in sys.argv[1:]:
    importlib.import_module(name)
configure_mappers()
"""

FOREIGN = {
    "pyproject.toml": """
[project]
name = "Book-Shop"
version = "1"
dependencies = ["SQLModel>=0.0.48", "fastapi"]
""",
    "src/book_shop/__init__.py": "",
    "src/book_shop/db.py": """
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

engine = create_async_engine("sqlite+aiosqlite:///shop.db")
Session = async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)


async def get_session():
    async with Session() as session:
        yield session
""",
    "src/book_shop/models.py": """
from typing import ClassVar

from sqlalchemy import MetaData
from sqlmodel import Field, SQLModel


class Base(SQLModel):
    metadata: ClassVar[MetaData] = MetaData()


class Order(Base, table=True):
    __tablename__ = "orders"
    id: int | None = Field(default=None, primary_key=True)
""",
    "src/book_shop/returns.py": """
from sqlmodel import Field

from book_shop.models import Base


class Return(Base, table=True):
    id: int | None = Field(default=None, primary_key=True)
""",
}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project that the scaffold has never seen: src layout, own base class, own sessions."""
    write(tmp_path / "shop", FOREIGN)
    return tmp_path / "shop"


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """An application of the scaffold."""
    scaffold.scaffold_app(tmp_path / "app", "app", "sqlite")
    return tmp_path / "app"


# What is added works


@pytest.mark.parametrize("topic", _scaffold_names.topics())
def test_every_pattern_of_a_topic_fits_into_an_application(tmp_path: Path, topic: str) -> None:
    # The application's own Alembic would be in the way of the pattern's.
    parts = ["api", "tests"] if topic == "migrations" else list(scaffold.PARTS)
    scaffold.scaffold_app(tmp_path, "a_rather_long_name", "sqlite", parts)

    for pattern in _scaffold_names.patterns(topic):
        scaffold.add_patterns(tmp_path, [f"{topic}/{pattern}"])

    names = [n for n in modules(tmp_path) if n.startswith("a_rather") and "__main__" not in n]
    succeeded(tmp_path, "-c", IMPORT_ALL, *names)
    lints(tmp_path)
    type_checks(tmp_path, tmp_path)
    assert not [
        p for p, text in contents(tmp_path / "a_rather_long_name").items() if "snippets" in text
    ]


@pytest.mark.parametrize("name", _scaffold_names.all_patterns())
def test_each_pattern_brings_all_that_it_imports_and_nothing_else(shop: Path, name: str) -> None:
    before = set(contents(shop))

    report = scaffold.add_patterns(shop, [name])

    written = {c.path for c in report.files}
    assert set(contents(shop)) == before | written
    assert {c.action for c in report.files} == {"create"}
    imported = imported_files(shop, written)
    assert {path for path in imported if not (shop / path).exists()} == set()
    topic, pattern = name.split("/")
    origins = (pattern, *_scaffold_names.COMPANIONS.get(name, ()))
    places = ["/".join(_scaffold_names.place_of(topic, origin)) for origin in origins]
    own = {f"src/book_shop/{place}.py" for place in places}
    code = {path for path in written if path.endswith(".py") and not path.endswith("__init__.py")}
    assert code - imported - {"migrations/env.py"} <= own


def imported_files(folder: Path, paths: set[str]) -> set[str]:
    """Return the files of the package that these files import."""
    found = set()
    trees = [ast.parse((folder / path).read_text()) for path in paths if path.endswith(".py")]
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("book_shop."):
            module = f"src/{node.module.replace('.', '/')}"
            if not (folder / module).is_dir():
                found.add(f"{module}.py")
            elif not (folder / module / "__init__.py").read_text():
                found |= {f"{module}/{alias.name}.py" for alias in node.names}
    return found


def test_the_service_comes_as_a_whole(shop: Path) -> None:
    scaffold.add_patterns(shop, ["servicebase/service"])

    there = {path.stem for path in (shop / "src" / "book_shop" / "services").glob("*.py")}
    topic = {path.stem for path in (scaffold.ROOT / "snippets" / "servicebase").glob("*.py")}
    assert topic - there == {"mistakes", "custom_services"}


async def test_the_folder_of_alembic_has_the_metadata_of_the_project(
    shop: Path, database_url: URL
) -> None:
    report = scaffold.add_patterns(shop, ["migrations/script_directory"])
    settings = {"DATABASE_URL": with_password(database_url)}

    succeeded(shop, "alembic", "revision", "--autogenerate", "-m", "first", **settings)
    succeeded(shop, "alembic", "upgrade", "head", **settings)
    checked = succeeded(shop, "alembic", "check", **settings)

    (revision,) = (shop / "migrations" / "versions").glob("*_first.py")
    assert "'orders'" in revision.read_text()
    assert "'return'" in revision.read_text()
    assert "No new upgrade operations" in checked
    assert "prepend_sys_path = src\n" in (shop / "alembic.ini").read_text()
    assert "alembic upgrade head" in report.next
    again = scaffold.add_patterns(shop, ["migrations/script_directory"])
    assert {change.action for change in again.files} == {"unchanged"}


def test_models_without_a_metadata_of_their_own_are_in_the_one_of_sqlmodel(tmp_path: Path) -> None:
    scaffold.scaffold_app(tmp_path, "shop", "sqlite", [])

    scaffold.add_patterns(tmp_path, ["migrations/script_directory"])

    env = (tmp_path / "migrations" / "env.py").read_text()
    assert "from sqlmodel import SQLModel\n\nimport shop.models  # noqa: F401" in env
    assert env.endswith("\nrun_migrations(SQLModel.metadata)\n")
    settings = {"DATABASE_URL": f"sqlite:///{tmp_path / 'shop.db'}"}
    succeeded(tmp_path, "alembic", "revision", "--autogenerate", "-m", "first", **settings)
    lints(tmp_path / "shop")


def test_alembic_without_any_model_gets_a_base_class_and_stays_the_same(tmp_path: Path) -> None:
    write(tmp_path, {"shop/__init__.py": ""})

    scaffold.add_patterns(tmp_path, ["migrations/script_directory"])
    scaffold.add_patterns(tmp_path, ["async_operations/locking"])  # tables that are only examples
    again = scaffold.add_patterns(tmp_path, ["migrations/script_directory"])

    env = (tmp_path / "migrations" / "env.py").read_text()
    assert "from shop.model_parts.constraints import AppModel" in env
    assert {change.action for change in again.files} == {"unchanged"}


# What is said


def test_the_answer_names_what_the_project_has_and_what_is_only_an_example(shop: Path) -> None:
    report = scaffold.add_patterns(shop, ["async_operations/locking"])

    found = {(f.kind, f.name, f.path, f.line) for f in report.existing}
    assert found == {
        ("engine", "book_shop.db.engine", "src/book_shop/db.py", 5),
        ("session factory", "book_shop.db.Session", "src/book_shop/db.py", 6),
        ("session dependency", "book_shop.db.get_session", "src/book_shop/db.py", 9),
        ("base class", "book_shop.models.Base", "src/book_shop/models.py", 8),
    }
    by_path = {example.path: example for example in report.examples}
    assert by_path.keys() == {
        "src/book_shop/operations/locking.py",
        "src/book_shop/operations/transactions.py",
    }
    locking = by_path["src/book_shop/operations/locking.py"]
    assert locking.tables == ["Blueprint"]
    assert "lock_accounts" in locking.used_by  # it is about a table of the other module
    assert "StaleBlueprintError" not in locking.used_by
    assert report.read == ["references/async-operations.md#locking"]
    (line,) = report.imports
    assert line.startswith(
        "from book_shop.operations.locking import lock_accounts, transfer_within_limit,"
    )


def test_no_engine_comes_with_a_pattern_that_needs_none(shop: Path) -> None:
    report = scaffold.add_patterns(shop, ["relationships/eager_loading"])

    assert [c.path for c in report.files] == [
        "src/book_shop/relationships/__init__.py",
        "src/book_shop/relationships/eager_loading.py",
        "src/book_shop/relationships/one_to_many.py",
    ]


def test_what_was_copied_before_is_named_where_the_project_has_nothing_else(
    app: Path, shop: Path
) -> None:
    for folder in (app, shop):
        scaffold.add_patterns(folder, ["database_setup/session"])

    in_app = scaffold.add_patterns(app, ["models/keys"]).existing
    in_shop = scaffold.add_patterns(shop, ["models/keys"]).existing

    factories = {f.name for f in in_app if f.kind == "session factory"}
    assert factories == {"app.database.session.session_factory"}
    factories = {f.name for f in in_shop if f.kind == "session factory"}
    assert factories == {"book_shop.db.Session"}


def test_tables_that_stay_as_they_are_need_a_migration(app: Path) -> None:
    for name in _scaffold_names.REAL_TABLES:
        report = scaffold.add_patterns(app, [name])

        assert report.examples == []
        assert "migration" in report.next[0]


def test_the_answer_is_for_people_unless_json_is_asked_for(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["add", "async-operations/locking", str(shop)]
    assert scaffold.main(command) == 0
    text = capsys.readouterr().out
    assert scaffold.main([*command, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)

    assert "\ncreated: src/book_shop/operations/: __init__.py isolation.py locking.py trans" in text
    assert "  session factory: book_shop.db.Session (src/book_shop/db.py:6)\n" in text
    assert "locking.py: tables Blueprint; written for them: lock_accounts" in text
    assert "\n  sqlalchemy[asyncio]>=2.0.38" in text
    assert "\nknow:\n  ## Locking\n  " in text
    assert text.endswith("\nthe whole page:\n  references/async-operations.md#locking\n")
    assert list(answer) == [
        "dest", "package", "patterns", "dry_run", "files", "existing", "examples",
        "left_out", "install",
        "imports", "api", "notes", "next", "read",
    ]  # fmt: skip
    assert {file["action"] for file in answer["files"]} == {"unchanged"}
    assert answer["existing"][0].keys() == {"kind", "name", "path", "line"}
    assert answer["examples"][0].keys() == {"path", "tables", "used_by"}


def test_an_example_stays_in_the_bundle(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scaffold.main(["add", "models/keys", str(shop)]) == 0

    printed = capsys.readouterr().out
    copied = (shop / "src/book_shop/model_parts/keys.py").read_text()
    source = (scaffold.ROOT / "snippets/models/keys.py").read_text().splitlines()
    where = re.search(r"\nleft out, .+:\n  snippets/models/keys\.py:(\d+): Warehouse, Par", printed)
    assert where
    assert source[int(where[1]) - 1] == _scaffold_example.MARK
    assert "def uuid7" in copied
    for gone in ("Warehouse", "SQLModel", "exact_text", _scaffold_example.MARK):
        assert gone not in copied
    assert not (shop / "src/book_shop/model_parts/columns.py").exists()  # the example needed it


IMPORTS = """\
import os
import sys as system

from a import (
    b,
    c as d,
    e,
)
from f import g, h
from i import j

from k import l
from m import n

print(system, d, h)


{mark}


print(os, b, e, g, j, l, n)
"""


def test_imports_that_only_the_example_needs_go_with_it() -> None:
    expected = """\
import sys as system

from a import (
    c as d,
)
from f import h

print(system, d, h)
"""
    source = IMPORTS.format(mark=_scaffold_example.MARK)

    assert _scaffold_example.without_example(source) == expected
    assert _scaffold_example.without_example(IMPORTS) == IMPORTS
    assert _scaffold_example.example_line(IMPORTS) == 0


KEPT = """\
from __future__ import annotations

import a, b
import loaded.for_its_effect  # noqa: F401
from c import *
from d import (Exported,
    Gone)
from e import (First, Second)  # and why
from f import Quoted, Text

__all__ = ["Exported"]


def f(x: "Quoted") -> "list[Text]":
    return [b, Second]


{mark}


print(a, Gone, First)
"""


def test_imports_that_are_used_in_other_ways_stay() -> None:
    expected = """\
from __future__ import annotations

import b
import loaded.for_its_effect  # noqa: F401
from c import *
from d import Exported
from e import Second  # and why
from f import Quoted, Text

__all__ = ["Exported"]


def f(x: "Quoted") -> "list[Text]":
    return [b, Second]
"""

    copied = _scaffold_example.without_example(KEPT.format(mark=_scaffold_example.MARK))

    assert copied == expected


def test_several_patterns_are_one_answer(shop: Path) -> None:
    names = ["production_patterns/exactly_once", "servicebase/service", "async_operations/locking"]
    single = [scaffold.add_patterns(shop, [name], dry_run=True) for name in names]

    both = scaffold.add_patterns(shop, [*names, names[0]])

    assert both.patterns == names
    assert {c.path for c in both.files} == {c.path for one in single for c in one.files}
    assert both.imports == [line for one in single for line in one.imports]
    assert both.notes == [line for one in single for line in one.notes]
    assert both.read == [place for one in single for place in one.read]
    assert both.next == single[0].next  # for the tables that are real
    tables = {table for example in both.examples for table in example.tables}
    assert "Blueprint" in tables
    assert "Receipt" not in tables


@pytest.mark.parametrize("name", _scaffold_names.all_patterns())
def test_what_the_page_says_of_a_pattern_is_part_of_the_answer(name: str) -> None:
    for place in _scaffold_names.explanations(*name.split("/")):
        lines = _scaffold_api.notes(place)

        assert lines[0].lower().replace(" ", "-") == f"##-{place.partition('#')[2]}"
        assert len(lines) > 1
        assert not [line for line in lines if line.startswith(("# ", "```python snippets"))]


def test_code_that_is_copied_is_not_shown_again() -> None:
    text = "\n".join(_scaffold_api.notes("references/servicebase.md#custom-services"))

    assert "class " not in text
    assert "```" not in text
    assert "seconds__gt=300" in "\n".join(_scaffold_api.notes("references/servicebase.md#filters"))


@pytest.mark.parametrize(
    ("names", "patterns", "dest"),
    [
        (["models/keys"], ["models/keys"], "."),
        (["models/keys", "shop"], ["models/keys"], "shop"),
        (["models/keys", "models-of-mine"], ["models/keys"], "models-of-mine"),
        (["models/keys", "models/keyz"], ["models/keys", "models/keyz"], "."),
        (["models/keys", "./models"], ["models/keys"], "./models"),
        (["servicebase/service", "async-operations/upsert", ".."],
         ["servicebase/service", "async-operations/upsert"], ".."),
        (["shop"], ["shop"], "."),
        (["models/keys", "async-operation/upsert"], ["models/keys", "async-operation/upsert"], "."),
        (["models/keys", "snippets/models/columns.py"],
         ["models/keys", "snippets/models/columns.py"], "."),
        (["models/keys", "../shop/of mine"], ["models/keys"], "../shop/of mine"),
    ],
)  # fmt: skip
def test_the_last_name_is_the_project_unless_a_topic_has_it(
    names: list[str], patterns: list[str], dest: str
) -> None:
    assert scaffold.patterns_and_destination(names) == (patterns, dest)


def test_the_current_folder_is_the_project(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop)

    assert scaffold.main(["add", "models/keys"]) == 0

    assert (shop / "src" / "book_shop" / "model_parts" / "keys.py").is_file()


# Requirements


@pytest.mark.parametrize(
    ("present", "missing"),
    [
        ([], ["pydantic>=2.11", "sqlalchemy[asyncio]>=2.0.38,<2.2", "sqlmodel>=0.0.24"]),
        (["sqlmodel", "SQLAlchemy>=2"], ["sqlalchemy[asyncio]>=2.0.38,<2.2"]),
        (["sqlmodel[asyncio]>=0.0.48"], []),
        (["SQLModel ; python_version > '3'", "sqlalchemy[postgresql_asyncpg, asyncio]==2.1.9"], []),
        (["sqlmodel", "greenlet"], []),
    ],
)
def test_only_what_is_missing_is_to_be_installed(present: list[str], missing: list[str]) -> None:
    libraries = {"sqlmodel", "sqlalchemy", "pydantic"}

    assert _scaffold_imports.missing_requirements(libraries, present) == missing


def test_a_library_that_is_no_requirement_of_the_bundle_has_a_range_or_its_own_name() -> None:
    needed = _scaffold_imports.missing_requirements({"tenacity", "some_library"}, [])

    assert needed == ["some-library", "tenacity>=9.0"]


def test_the_libraries_of_all_patterns_have_a_range() -> None:
    for path in (scaffold.ROOT / "snippets").rglob("*.py"):
        for library in _scaffold_imports.libraries([path.read_text()]):
            assert ">=" in _scaffold_imports.requirement_for(library), (path, library)


def test_a_library_that_only_a_function_imports_is_optional() -> None:
    source = (
        "import a\ndef f():\n    import b\nclass C:\n    import c\ntry:\n    import d\nfinally: ..."
    )

    assert _scaffold_imports.libraries([source]) == {"a", "c", "d"}


# Twice, or not at all


def test_a_second_run_changes_nothing(app: Path) -> None:
    scaffold.add_patterns(app, ["fastapi_integration/crud_router"])
    before = contents(app), {p: p.stat().st_mtime_ns for p in app.rglob("*")}

    report = scaffold.add_patterns(app, ["fastapi_integration/crud_router"])

    assert {change.action for change in report.files} == {"unchanged"}
    assert (contents(app), {p: p.stat().st_mtime_ns for p in app.rglob("*")}) == before


def test_a_dry_run_writes_nothing(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(shop), sorted(shop.rglob("*"))

    assert scaffold.main(["add", "models/keys", str(shop), "--dry-run"]) == 0

    printed = capsys.readouterr().out
    assert "would create: src/book_shop/model_parts/keys.py\n" in printed
    assert "would write 2 files" in printed
    assert (contents(shop), sorted(shop.rglob("*"))) == before


def test_an_init_file_with_contents_stays(shop: Path) -> None:
    write(shop, {"src/book_shop/model_parts/__init__.py": "NAME = 1\n"})

    scaffold.add_patterns(shop, ["models/keys"])

    assert (shop / "src/book_shop/model_parts/__init__.py").read_text() == "NAME = 1\n"


# Refusals


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("relationships/eager", "use relationships/eager_loading"),
        ("relationships/many-to-manny", "use relationships/{many_to_many,one_to_many}"),
        ("eager_loading", "use relationships/eager_loading"),
        ("relationship/eager_loading", "use a topic of relationships"),
        ("gardening/roses", "use a topic of async_operations, best_practices, database_setup,"),
        ("relationships/zzz", "use relationships/{association_object,cascades,"),
        ("relationships", "is a topic: add relationships/{association_object,cascades,"),
        ("relationships/mistakes", "is wrong code, for tests of this bundle: read references/rel"),
        ("servicebase/_reads", "there is no pattern servicebase/_reads"),
        ("servicebase/service/x", "there is no pattern servicebase/service/x"),
        ("../snippets/models/keys", "there is no pattern"),
        ("", "use a topic of"),
    ],
)
def test_a_pattern_that_does_not_exist_is_refused(
    shop: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    before = contents(shop)

    assert message in refusal(capsys, "add", name, str(shop))

    assert contents(shop) == before


@pytest.mark.parametrize("name", ["snippets/models/keys.py", "models/keys", "models/keys.py"])
def test_a_pattern_may_be_named_by_its_path(shop: Path, name: str) -> None:
    assert scaffold.add_patterns(shop, [name]).patterns == ["models/keys"]


def test_a_file_with_other_contents_is_refused_overwritten_or_kept(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scaffold.add_patterns(shop, ["async_operations/concurrency"])
    session = shop / "src" / "book_shop" / "database" / "session.py"
    original, changed = session.read_text(), session.read_text() + "MINE = 1\n"
    session.write_text(changed)
    command = ["add", "async_operations/isolation", str(shop)]
    before = contents(shop)

    line = refusal(capsys, *command)
    assert line.startswith(
        "scaffold.py: refused: src/book_shop/database/session.py: has other contents; --force "
    )
    assert contents(shop) == before

    assert scaffold.main([*command, "--keep"]) == 0
    assert "kept: src/book_shop/database/session.py\n" in capsys.readouterr().out
    assert session.read_text() == changed

    assert scaffold.main([*command, "--force"]) == 0
    assert "overwritten: src/book_shop/database/session.py\n" in capsys.readouterr().out
    assert session.read_text() == original


@pytest.mark.parametrize("text", ["session_scope = None\n", "syntax error"])
def test_a_file_that_lacks_what_is_imported_is_not_kept(
    shop: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    write(shop, {"src/book_shop/database/session.py": text})

    line = refusal(capsys, "add", "async_operations/concurrency", str(shop), "--keep")

    assert "session.py: has no run_to_end" in line
    assert "which src/book_shop/operations/concurrency.py imports" in line


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("class Konto(Base, table=True):\n    __tablename__ = 'account'", "the table account is"),
        ("class Account(Base, table=True):\n    __tablename__ = 'konto'", "the class Account is"),
        ("class Account(Base, table=True): ...", "the table account is"),
        ("class Konto(Declared):\n    __tablename__: str = 'account'", "the table account is"),
    ],
)
def test_a_table_that_the_project_has_is_not_defined_twice(
    shop: Path, capsys: pytest.CaptureFixture[str], code: str, message: str
) -> None:
    write(shop, {"src/book_shop/money/accounts.py": f"\n{code}\n"})
    before = contents(shop)

    line = refusal(capsys, "add", "async_operations/locking", str(shop), "--force")

    assert f"src/book_shop/money/accounts.py:2: {message} defined here, and in the example" in line
    assert "src/book_shop/operations/transactions.py" in line
    assert contents(shop) == before


@pytest.mark.parametrize(
    "files",
    [
        {"src/book_shop/schemas.py": "class Account(SQLModel): ..."},
        {"src/book_shop/schemas.py": "class Account(SQLModel, table=False): ..."},
        {"src/book_shop/broken.py": "class Account(SQLModel, table=True) ..."},
        {"tests/test_it.py": "class Account(SQLModel, table=True): ..."},
        {".venv/lib/x.py": "class Account(SQLModel, table=True): ..."},
    ],
)
def test_what_is_no_table_of_the_project_is_no_clash(shop: Path, files: dict[str, str]) -> None:
    write(shop, files)

    assert scaffold.add_patterns(shop, ["async_operations/locking"]).files


def test_a_module_is_not_hidden_by_a_new_folder_and_another_place_helps(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(shop, {"src/book_shop/database.py": "", "src/book_shop/operations.py": ""})

    lines = refusals(capsys, "add", "async_operations/concurrency", str(shop))
    report = scaffold.add_patterns(shop, ["async_operations/concurrency"], "book_shop.data")

    assert lines[0] == "scaffold.py: refused:"
    assert lines[1].startswith(
        "  src/book_shop/database.py: a folder src/book_shop/database/ would"
    )
    assert lines[1].endswith("such as --package book_shop.data")
    assert "src/book_shop/operations.py" in lines[2]
    assert [c.path for c in report.files] == [
        "src/book_shop/data/__init__.py",
        "src/book_shop/data/database/__init__.py",
        "src/book_shop/data/database/session.py",
        "src/book_shop/data/operations/__init__.py",
        "src/book_shop/data/operations/concurrency.py",
    ]
    succeeded(shop / "src", "-c", "import book_shop.data.operations.concurrency")


def test_a_package_does_not_hide_the_new_module(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(shop, {"src/book_shop/model_parts/keys/__init__.py": ""})

    line = refusal(capsys, "add", "models/keys", str(shop))

    assert "src/book_shop/model_parts/keys/: this package would hide" in line


@pytest.mark.parametrize("path", ["alembic.ini", "alembic/env.py", "migrations/env.py"])
def test_alembic_is_not_set_up_twice(
    shop: Path, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    write(shop, {path: "mine"})

    lines = refusals(capsys, "add", "migrations/script_directory", str(shop))

    assert any(f"{path}: " in line for line in lines)


def test_no_link_is_followed(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (shop / "src" / "book_shop" / "operations").symlink_to(outside)

    line = refusal(capsys, "add", "async_operations/concurrency", str(shop), "--force")

    assert "src/book_shop/operations (a link) in the way" in line
    assert list(outside.iterdir()) == []


def test_all_reasons_are_given_at_once(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(
        shop,
        {
            "src/book_shop/database.py": "",
            "src/book_shop/operations/locking.py": "mine",
            "src/book_shop/drawings.py": "class Blueprint(Base, table=True): ...",
        },
    )

    lines = refusals(capsys, "add", "async_operations/locking", str(shop))

    assert [re.split(r"[:\d]+", line.strip())[0] for line in lines[1:]] == [
        "src/book_shop/database.py",
        "src/book_shop/drawings.py",
        "src/book_shop/operations/locking.py",
    ]


def test_keep_and_force_exclude_each_other(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(capsys, "add", "models/keys", str(shop), "--keep", "--force")

    assert "not allowed with" in line


def test_a_failure_leaves_the_project_as_it_was(
    shop: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(shop), sorted(shop.rglob("*"))
    moves = iter([True, True])
    rename = Path.rename

    def twice(self: Path, target: Path) -> Path:
        if next(moves, False):
            return rename(self, target)
        raise OSError("disk full")

    monkeypatch.setattr(Path, "rename", twice)
    line = refusal(capsys, "add", "async_operations/locking", str(shop), code=1)

    assert line == "scaffold.py: nothing was written: disk full"
    assert (contents(shop), sorted(shop.rglob("*"))) == before


def test_names_of_others_are_no_examples() -> None:
    files = {
        "a.py": "class Label(SQLModel, table=True): ...\ndef f() -> Label: ...\n",
        "b.py": "from sqlalchemy import Label\ndef g() -> Label: ...\n",
        "c.py": "from shop.a import f\ndef h() -> None:\n    f()\n",
    }

    found = _scaffold_add.examples(files, "shop")

    assert [(e.path, e.tables, e.used_by) for e in found] == [
        ("a.py", ["Label"], ["f"]),
        ("c.py", [], ["h"]),
    ]


# A project of plain modules


def test_plain_modules_get_a_package_beside_them(tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text(
        "from sqlmodel import Field, SQLModel\n\n\n"
        "class Person(SQLModel, table=True):\n"
        "    id: int | None = Field(default=None, primary_key=True)\n"
    )

    report = scaffold.add_patterns(tmp_path, ["migrations/script_directory"])

    assert report.package == "data_layer"
    assert (tmp_path / "data_layer" / "__init__.py").is_file()
    assert "import models  # noqa: F401 - has tables" in (
        tmp_path / "migrations" / "env.py"
    ).read_text(encoding="utf-8")
    assert not [line for line in report.install if line.startswith("models")]
    succeeded(tmp_path, "-c", IMPORT_ALL, "data_layer.migration_tools.environment", "models")
    again = scaffold.add_patterns(tmp_path, ["migrations/script_directory"])
    assert {change.action for change in again.files} == {"unchanged"}
