"""The files of a new application: the template's, and the snippets that they import."""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from _scaffold_api import called, classes_of
from _scaffold_imports import (
    REQUIREMENTS,
    TEMPLATE_PACKAGE,
    bundle_project,
    bundle_ranges,
    copied_text,
    module_file,
    needed_modules,
    rename_imports,
    snippet_path,
)
from _scaffold_names import ROOT, SNIPPETS, UsageError, check_package

TEMPLATE = ROOT / "templates" / "app"
TEMPLATE_SUFFIXES = {".in", ".mako", ".py"}
ALEMBIC_INI = SNIPPETS / "migrations" / "script_directory" / "alembic.ini"

PARTS = {
    "api": "FastAPI: routes, errors as problems, a session per request",
    "migrations": "Alembic, async, with a first migration",
    "tests": "pytest on SQLite, or on the database of TEST_DATABASE_URL",
}
# Files and folders of the template that are not always wanted: `-api` is for lack of it.
WANTED = {
    "app/__main__.py": {"-api"},
    "app/create_tables.py": {"-migrations"},
    "app/hero_routes.py": {"api"},
    "app/main.py": {"api"},
    "app/settings.py": {"api"},
    "app/statement_counter.py": {"api"},
    "migrations": {"migrations"},
    "tests": {"tests"},
    "tests/api": {"api"},
    "tests/conftest.py": {"migrations"},
    "tests/conftest_without_migrations.py": {"-migrations"},
    "tests/test_migrations.py": {"migrations"},
}
# What the code of the user will call, by the module that has it.
CALLED = {
    "database.settings": ("engine_from_settings",),
    "database.session": ("session_factory", "session_scope"),
    "database.sqlite_pragmas": ("begin_immediate",),
    "operations.errors": ("classify", "is_retryable"),
    "services.service": ("ServiceBase",),
    "services.filters": ("all_of", "any_of", "not_"),
    "api.dependencies": ("FactoryDep", "SessionDep", "provided"),
    "api.query_model": ("cursor_query", "offset_query"),
    "api.error_handlers": ("documented", "problem"),
    "model_parts.bodies": ("may_be_left_out",),
}
RENAMED = {
    "env.example": ".env.example",  # no hidden files in the bundle
    "gitignore": ".gitignore",
    "tests/conftest_without_migrations.py": "tests/conftest.py",
}


@dataclass(frozen=True)
class Database:
    label: str
    url: str
    test_url: str


DATABASES = {
    "sqlite": Database("SQLite", "sqlite+aiosqlite:///app.db", "sqlite+aiosqlite:///test.db"),
    "postgresql": Database(
        "PostgreSQL",
        "postgresql+asyncpg://user:password@localhost:5432/app",
        "postgresql+asyncpg://user:password@localhost:5432/app_test",
    ),
    "mysql": Database(
        "MySQL or MariaDB",
        "mysql+aiomysql://user:password@localhost:3306/app",
        "mysql+aiomysql://user:password@localhost:3306/app_test",
    ),
}


def chosen_databases(text: str) -> list[str]:
    """Return the databases in `postgresql,sqlite`; the first one's URL is the application's.

    Raises:
        UsageError: one is none of ours.
    """
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in DATABASES:
            hint = {"postgres": "postgresql", "pg": "postgresql", "mariadb": "mysql"}.get(name)
            raise UsageError(
                f"unknown database {name!r}: use {hint or ', '.join(DATABASES)} with --database"
            )
    return names


def chosen_parts(text: str) -> list[str]:
    """Return the parts in `api,tests`, in their usual order; `none` is none of them.

    Raises:
        UsageError: there is no such part.
    """
    words = {word.strip() for word in text.split(",")} - {"none"}
    if unknown := sorted(words - PARTS.keys()):
        names = ", ".join(map(repr, unknown))
        raise UsageError(f"unknown part {names}: use some of {','.join(PARTS)}, or none, --with")
    return [part for part in PARTS if part in words]


def app_files(package: str, database: str, parts: Collection[str] = tuple(PARTS)) -> dict[str, str]:
    """Return the application as path -> text, in the order of the paths.

    Raises:
        UsageError: the package or a database can't be used.
    """
    check_package(package)
    files: dict[str, str] = {}
    values = placeholders(package, chosen_databases(database), parts)
    for path in template_paths(TEMPLATE):
        name = path.relative_to(TEMPLATE).as_posix()
        if not is_wanted(name, parts):
            continue
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".py":
            text = rename_imports(text, package)
        elif path.suffix == ".in":
            name, text = name.removesuffix(".in"), fill(text, values, parts)
        files[_renamed_path(name, package)] = text
    if "migrations" in parts:
        files["alembic.ini"] = ALEMBIC_INI.read_text(encoding="utf-8")
    return dict(sorted((files | copied_modules(files.values(), package)).items()))


def copied_modules(sources: Iterable[str], package: str) -> dict[str, str]:
    """Return the modules that the sources import, as path -> text, and their packages."""
    files: dict[str, str] = {}
    for module in needed_modules(sources, package):
        path = module_file(module, package)
        files[path] = copied_text(snippet_path(module, package), package)
        files.setdefault(f"{PurePosixPath(path).parent}/__init__.py", "")
    return files


def template_paths(folder: Path) -> list[Path]:
    """Return the files of a template, without what tools leave behind."""
    found = (p for p in folder.rglob("*") if p.is_file() and p.suffix in TEMPLATE_SUFFIXES)
    return sorted(p for p in found if not any(part.endswith("cache") for part in p.parts))


def is_wanted(name: str, parts: Collection[str]) -> bool:
    """Whether a file of the template is part of an application that has these parts."""
    path = PurePosixPath(name)
    wanted = (rule for p in (path, *path.parents) for rule in WANTED.get(str(p), ()))
    return all((rule.lstrip("-") in parts) != rule.startswith("-") for rule in wanted)


def _renamed_path(name: str, package: str) -> str:
    first, *rest = PurePosixPath(RENAMED.get(name, name)).parts
    return "/".join([package if first == TEMPLATE_PACKAGE else first, *rest])


def fill(text: str, values: Mapping[str, str], parts: Collection[str]) -> str:
    """Replace each `{{name}}`; keep what is between `{{#part}}` and `{{/part}}` for its part.

    `{{^part}}` begins what is for lack of the part. Lines with nothing else vanish.
    """

    def chosen(match: re.Match[str]) -> str:
        return match["body"] if (match["part"] in parts) == (match["sign"] == "#") else ""

    block = r"^\{\{(?P<sign>[#^])(?P<part>\w+)\}\}\n(?P<body>.*?)^\{\{/(?P=part)\}\}\n"
    while (shorter := re.sub(block, chosen, text, flags=re.MULTILINE | re.DOTALL)) != text:
        text = shorter
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], text)


def placeholders(package: str, databases: Sequence[str], parts: Collection[str]) -> dict[str, str]:
    needed, dev = requirements(databases, parts)
    chosen = DATABASES[databases[0]]
    bundle = bundle_project()
    folders = [package, *(part for part in ("migrations", "tests") if part in parts)]
    return {
        "package": package,
        "project": package.replace("_", "-").strip("-"),
        "database_name": ", ".join(DATABASES[name].label for name in databases),
        "url": chosen.url,
        "test_url": chosen.test_url,
        "dependencies": toml_items(needed),
        "dev_dependencies": toml_items(dev),
        "folders": json.dumps(folders),
        "untyped": json.dumps(untyped_modules(bundle)),
        "rules": toml_items(bundle["tool"]["ruff"]["lint"]["select"]),
    }


def requirements(databases: Iterable[str], parts: Collection[str]) -> tuple[list[str], list[str]]:
    """Return what the application needs, and what its developers need on top."""
    ranges = bundle_ranges()
    needed = [*ranges["core"], *(item for name in databases for item in ranges[name])]
    dev = ["mypy>=2.4", "ruff>=0.17"]
    if "api" in parts:
        needed += [*ranges["api"], REQUIREMENTS["uvicorn"]]
    if "migrations" in parts:
        needed += ranges["migrations"]
    if "tests" in parts:
        dev += [REQUIREMENTS["pytest"], REQUIREMENTS["pytest_asyncio"]]
        dev += [REQUIREMENTS["httpx"]] if "api" in parts else []
        # The tests run on a SQLite file when nothing else is asked for.
        dev += [item for item in ranges["sqlite"] if item not in needed]
    return needed, dev


def untyped_modules(bundle: Mapping[str, Any]) -> list[str]:
    """Return the libraries without types that the bundle's own checks pass over."""
    overrides = bundle["tool"]["mypy"]["overrides"]
    found = (o["module"] for o in overrides if o.get("ignore_missing_imports"))
    return sorted({module for modules in found for module in modules})


def toml_items(items: Iterable[str]) -> str:
    return "\n".join(f"    {json.dumps(item)}," for item in sorted(items))


# What to do next


def next_commands(package: str, database: str, parts: Collection[str]) -> Iterator[str]:
    """Yield what to run after the installation, in this order."""
    set_url = "" if database.startswith("sqlite") else "  # then set DATABASE_URL in .env"
    yield f"cp .env.example .env{set_url}"
    if "migrations" in parts:
        yield ".venv/bin/alembic upgrade head"
    else:
        yield f".venv/bin/python -m {package}.create_tables"
    if "tests" in parts:
        yield ".venv/bin/python -m pytest"
    if "api" in parts:
        yield f".venv/bin/uvicorn --factory {package}.main:create_app --reload"
    else:
        yield f".venv/bin/python -m {package} Ada foresight"


def call_lines(files: Mapping[str, str], package: str) -> Iterator[str]:
    """Yield what a further module will call, a line for each module that has some of it."""
    classes = classes_of(files)
    for name, names in CALLED.items():
        if text := files.get(f"{package}/{name.replace('.', '/')}.py"):
            yield f"{package}.{name}: {'; '.join(called(text, names, classes))}"


def table_steps(package: str, parts: Collection[str]) -> Iterator[str]:
    """Yield what a further table takes; README.md says the same at more length."""
    example = ["models", "heroes", *(["hero_routes", "main"] if "api" in parts else [])]
    yield f"the example, to be replaced: cat {package}/{{{','.join(example)}}}.py"
    yield f"{package}/models.py: the class with table=True, its Create and Update (and Public)"
    yield f"{package}/<plural>.py: a subclass of ServiceBase, as in heroes.py"
    if "api" in parts:
        yield f"{package}/<singular>_routes.py: a router, included in {package}/main.py"
    if "migrations" in parts:
        yield ".venv/bin/alembic revision --autogenerate -m 'what changes', read it, upgrade head"
    else:
        yield f".venv/bin/python -m {package}.create_tables"
