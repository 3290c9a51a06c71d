# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""Write a complete small application with a tested async data layer into a folder."""

import argparse
import ast
import json
import keyword
import re
import shlex
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = ROOT / "templates" / "app"
TEMPLATE_PACKAGE = "app"
TEMPLATE_SUFFIXES = {".in", ".ini", ".mako", ".py"}
LINE_LENGTH = 100

# Which topic of the snippets becomes which package of the application.
SUBPACKAGES = {
    "async_operations": "operations",
    "database_setup": "database",
    "fastapi_integration": "api",
    "models": "column_types",
    "servicebase": "services",
}

# The folders of the application, and what it imports: a package of such a name would hide them.
TAKEN_NAMES = {"migrations", "snippets", "tests", "test"}
DEPENDENCIES = {
    "aiomysql", "aiosqlite", "alembic", "anyio", "asyncmy", "asyncpg", "fastapi", "greenlet",
    "h11", "httpx", "mako", "psycopg", "pydantic", "pydantic_core", "pydantic_settings", "pymysql",
    "pytest", "pytest_asyncio", "setuptools", "sqlalchemy", "sqlmodel", "starlette", "uvicorn",
}  # fmt: skip

DEV_DEPENDENCIES = (
    "httpx>=0.28",
    "mypy>=2.4",
    "pytest>=9.2",
    "pytest-asyncio>=1.5",
    "ruff>=0.17",
)

EPILOG = """\
examples:
  python scripts/scaffold.py app ../shop --package shop --database postgresql
  python scripts/scaffold.py app ../shop --dry-run

exit codes: 0 written (or would be), 1 the files could not be written, 2 wrong usage
"""


class UsageError(Exception):
    """What was asked for can't be done; the message is one line that says what to do."""


class TemplateError(Exception):
    """The bundle contradicts itself."""


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


@dataclass(frozen=True)
class Change:
    """`action` is create, overwrite or unchanged; `path` is relative to the destination."""

    path: str
    action: str


# Names


def check_package(name: str) -> None:
    """Raises:
    UsageError: no module can, or should, have this name.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        words = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
        remedy = f"; try {words}" if re.fullmatch(r"[a-z][a-z0-9_]*", words) else ""
        raise UsageError(
            f"package {name!r}: use lower-case letters, digits and _, a letter first{remedy}"
        )
    if len(name) > 40:
        raise UsageError(f"package {name!r} has {len(name)} characters: use at most 40")
    if reason := _why_taken(name):
        raise UsageError(f"package {name!r} {reason}: choose another name, such as {name}_app")


def _why_taken(name: str) -> str | None:
    if keyword.iskeyword(name):
        return "is a keyword of Python"
    if name in sys.stdlib_module_names:
        return "would hide the module of the standard library"
    if name in DEPENDENCIES:
        return "would hide a library that the application uses"
    if name in TAKEN_NAMES:
        return "is the name of another folder of the application"
    return None


def check_database(name: str) -> None:
    """Raises:
    UsageError: none of ours.
    """
    if name not in DATABASES:
        hint = {"postgres": "postgresql", "pg": "postgresql", "mariadb": "mysql"}.get(name)
        raise UsageError(
            f"unknown database {name!r}: use {hint or ', '.join(DATABASES)} with --database"
        )


# Contents


def app_files(package: str, database: str) -> dict[str, str]:
    """Return the application as path -> text, in the order of the paths.

    Raises:
        UsageError: the package or the database can't be used.
    """
    check_package(package)
    check_database(database)
    files: dict[str, str] = {}
    values = placeholders(package, database)
    for path in template_paths(TEMPLATE):
        name = path.relative_to(TEMPLATE).as_posix()
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".py":
            text = rename_imports(text, package)
        elif path.suffix == ".in":
            name, text = name.removesuffix(".in"), fill(text, values)
        files[_renamed_path(name, package)] = text
    for module in needed_modules(files.values(), package):
        source = snippet_path(module, package)
        name = module.replace(".", "/") + ".py"
        files[name] = rename_imports(source.read_text(encoding="utf-8"), package)
    for subpackage in SUBPACKAGES.values():
        files[f"{package}/{subpackage}/__init__.py"] = ""
    return dict(sorted(files.items()))


def template_paths(folder: Path) -> list[Path]:
    """Return the files of a template, without what tools leave behind."""
    found = (p for p in folder.rglob("*") if p.is_file() and p.suffix in TEMPLATE_SUFFIXES)
    return sorted(p for p in found if not any(part.endswith("cache") for part in p.parts))


def _renamed_path(name: str, package: str) -> str:
    first, *rest = PurePosixPath(name).parts
    return "/".join([package if first == TEMPLATE_PACKAGE else first, *rest])


def needed_modules(sources: Iterable[str], package: str) -> list[str]:
    """Return the modules that come from snippets and are imported, by whatever distance."""
    prefixes = tuple(f"{package}.{name}." for name in SUBPACKAGES.values())
    needed: set[str] = set()
    todo = [source for source in sources if f"{package}." in source]
    while todo:
        for module in imported_modules(todo.pop()):
            if module.startswith(prefixes) and module.count(".") == 2 and module not in needed:
                needed.add(module)
                source = snippet_path(module, package).read_text(encoding="utf-8")
                todo.append(rename_imports(source, package))
    return sorted(needed)


def imported_modules(source: str) -> set[str]:
    """Return what is imported from, and each name in it, which may be a module as well."""
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a text template
        return set()
    nodes = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module]
    names = {f"{node.module}.{alias.name}" for node in nodes for alias in node.names}
    return {node.module for node in nodes if node.module} | names


def snippet_path(module: str, package: str) -> Path:
    """Return the snippet that `<package>.<subpackage>.<pattern>` is a copy of."""
    subpackage, pattern = module.removeprefix(f"{package}.").split(".")
    topic = next(topic for topic, name in SUBPACKAGES.items() if name == subpackage)
    path = ROOT / "snippets" / topic / f"{pattern}.py"
    if not path.is_file():
        raise TemplateError(f"a template imports {module}, but {path.relative_to(ROOT)} is missing")
    return path


def rename_imports(source: str, package: str) -> str:
    """Return the source with its imports of snippets and of the template's package renamed."""
    lines = source.splitlines(keepends=True)
    nodes = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Import | ast.ImportFrom)]
    for node in sorted(nodes, key=lambda n: n.lineno, reverse=True):
        if isinstance(node, ast.Import):
            _refuse_plain_import(node)
        elif node.module and (new := renamed_module(node.module, package)) != node.module:
            start, end = node.lineno - 1, node.end_lineno or node.lineno
            lines[start:end] = _renamed_import(lines[start:end], node, new)
    return "".join(lines)


def renamed_module(module: str, package: str) -> str:
    first, *rest = module.split(".")
    if first == TEMPLATE_PACKAGE:
        return ".".join([package, *rest])
    if first != "snippets":
        return module
    topic, *pattern = rest or [""]
    if topic not in SUBPACKAGES:
        raise TemplateError(f"{module} is imported, but the application has no such part")
    return ".".join([package, SUBPACKAGES[topic], *pattern])


def _refuse_plain_import(node: ast.Import) -> None:
    for alias in node.names:
        if alias.name.split(".")[0] in {TEMPLATE_PACKAGE, "snippets"}:
            raise TemplateError(f"write `from {alias.name} import ...`: that can be renamed")


def _renamed_import(lines: Sequence[str], node: ast.ImportFrom, module: str) -> list[str]:
    """Return the statement as the formatter would write it, one name a line if it is too long."""
    first = lines[0].replace(f"from {node.module} import", f"from {module} import", 1)
    if len(lines) > 1 or len(first.rstrip("\n")) <= LINE_LENGTH:
        return [first, *lines[1:]]
    indent = " " * node.col_offset
    names = [f"{a.name} as {a.asname}" if a.asname else a.name for a in node.names]
    body = [f"{indent}    {name},\n" for name in names]
    return [f"{indent}from {module} import (\n", *body, f"{indent})\n"]


def fill(text: str, values: Mapping[str, str]) -> str:
    """Replace each `{{name}}`."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], text)


def placeholders(package: str, database: str) -> dict[str, str]:
    bundle = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = bundle["project"]["optional-dependencies"]
    needed = [*bundle["project"]["dependencies"], *extras["api"], *extras["migrations"]]
    needed += ["uvicorn>=0.30", *extras[database]]
    # The tests run on a SQLite file when nothing else is asked for.
    dev = [*DEV_DEPENDENCIES, *(r for r in extras["sqlite"] if r not in needed)]
    chosen = DATABASES[database]
    return {
        "package": package,
        "project": package.replace("_", "-").strip("-"),
        "database_name": chosen.label,
        "url": chosen.url,
        "test_url": chosen.test_url,
        "dependencies": toml_items(needed),
        "dev_dependencies": toml_items(dev),
        "rules": toml_items(bundle["tool"]["ruff"]["lint"]["select"]),
    }


def toml_items(items: Iterable[str]) -> str:
    return "\n".join(f"    {json.dumps(item)}," for item in sorted(items))


# Writing


def destination(text: str) -> Path:
    """Return the folder to write into; a link that leads to a folder stands for it.

    Raises:
        UsageError: it is, or lies below, something that is no folder.
    """
    path = Path(text).absolute()
    if path.is_symlink() and not path.exists():
        raise UsageError(f"{text} is a link that leads nowhere: remove it or name another folder")
    path = path.resolve()
    for there in (path, *path.parents):
        if there.exists() and not there.is_dir():
            raise UsageError(f"{there} is a file: name a folder that is empty or does not exist")
    return path


def planned_changes(dest: Path, files: Mapping[str, str], *, force: bool) -> list[Change]:
    """Return what would happen to each file.

    Raises:
        UsageError: the folder is not empty and nothing forces, or a link would be followed.
    """
    present = sorted(p.name for p in dest.iterdir()) if dest.is_dir() else []
    if present and not force:
        more = f" and {len(present) - 5} more" if len(present) > 5 else ""
        raise UsageError(
            f"{dest} is not empty, it has {', '.join(present[:5])}{more}: name an empty folder, or "
            "add --force to overwrite the files that the scaffold writes, and no others"
        )
    if obstacles := sorted({o for name in files for o in _obstacles(dest, name)}):
        raise UsageError(f"{dest} has {', '.join(obstacles)} in the way: move away what is there")
    return [Change(name, _action(dest / name, text)) for name, text in files.items()]


def _obstacles(dest: Path, name: str) -> Iterator[str]:
    """Yield what would make writing `name` leave the folder, or is of the wrong kind."""
    path = PurePosixPath(name)
    for part in (path, *path.parents[:-1]):
        found = dest / part
        if found.is_symlink():
            yield f"{part} (a link)"
        elif part == path and found.is_dir():
            yield f"{part} (a folder)"
        elif part != path and found.exists() and not found.is_dir():
            yield f"{part} (a file)"


def _action(path: Path, text: str) -> str:
    if not path.exists():
        return "create"
    return "unchanged" if path.read_bytes() == text.encode() else "overwrite"


def write_files(dest: Path, files: Mapping[str, str]) -> None:
    """Write all files or, whatever happens meanwhile, none.

    They are written beside the destination (inside, where it exists) and then moved.
    """
    with ExitStack() as undo:
        home = dest if dest.is_dir() else dest.parent
        _make_folders(home, undo)
        staging = Path(tempfile.mkdtemp(prefix=".scaffold-", dir=home))
        undo.callback(shutil.rmtree, staging, ignore_errors=True)
        for name, text in files.items():
            path = staging / "new" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        if home == dest:
            for name in files:
                _move(staging, name, dest, undo)
        else:
            (staging / "new").rename(dest)
        undo.pop_all()
    shutil.rmtree(staging)


def _move(staging: Path, name: str, dest: Path, undo: ExitStack) -> None:
    old, new, target = staging / "old" / name, staging / "new" / name, dest / name
    _make_folders(target.parent, undo)
    if target.exists():
        old.parent.mkdir(parents=True, exist_ok=True)
        undo.callback(_put_back, old, target)
        target.rename(old)
    else:
        undo.callback(target.unlink, missing_ok=True)
    new.rename(target)


def _put_back(old: Path, target: Path) -> None:
    if old.exists():
        old.replace(target)


def _make_folders(folder: Path, undo: ExitStack) -> None:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        undo.callback(_remove_if_empty, path)
        path.mkdir()


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


# Commands


@dataclass(frozen=True)
class Report:
    """What `app` did; its fields are the keys of --json."""

    dest: str
    package: str
    database: str
    dry_run: bool
    files: list[Change]
    install: list[str]
    next: list[str]


def install_commands(dest: Path) -> list[str]:
    return [
        shlex.join(["cd", str(dest)]),
        "python3 -m venv .venv",
        ".venv/bin/pip install -e '.[dev]'",
    ]


def next_commands(package: str, database: str) -> list[str]:
    set_url = "" if database == "sqlite" else "  # then set DATABASE_URL in .env"
    return [
        f"cp .env.example .env{set_url}",
        ".venv/bin/alembic upgrade head",
        ".venv/bin/python -m pytest",
        f".venv/bin/uvicorn --factory {package}.main:create_app --reload",
    ]


def scaffold_app(
    dest: Path, package: str, database: str, *, force: bool = False, dry_run: bool = False
) -> Report:
    """Write the application.

    Raises:
        UsageError: nothing was written, because what is asked for can't be done.
        OSError: nothing was written, because the system refused.
    """
    files = app_files(package, database)
    changes = planned_changes(dest, files, force=force)
    todo = {change.path: files[change.path] for change in changes if change.action != "unchanged"}
    if todo and not dry_run:
        write_files(dest, todo)
    install, following = install_commands(dest), next_commands(package, database)
    return Report(str(dest), package, database, dry_run, changes, install, following)


def describe(report: Report) -> Iterator[str]:
    """Yield the lines for people."""
    by_action = {
        action: [change.path for change in report.files if change.action == action]
        for action in ("create", "overwrite", "unchanged")
    }
    if report.dry_run:
        yield from (f"would {c.action}: {c.path}" for c in report.files if c.action != "unchanged")
    else:
        yield from (f"overwritten: {path}" for path in by_action["overwrite"])
    verb = "would write" if report.dry_run else "wrote"
    count = len(by_action["create"]) + len(by_action["overwrite"])
    same = f", {len(by_action['unchanged'])} unchanged" if by_action["unchanged"] else ""
    yield f"{verb} {count} files{same}: {report.dest}"
    if not report.dry_run:
        yield from ("", "install:", *(f"  {line}" for line in report.install))
        yield from ("", "next:", *(f"  {line}" for line in report.next))


def run_app(arguments: argparse.Namespace) -> int:
    report = scaffold_app(
        destination(arguments.dest),
        arguments.package,
        arguments.database,
        force=arguments.force,
        dry_run=arguments.dry_run,
    )
    lines = [json.dumps(asdict(report), indent=2)] if arguments.json else describe(report)
    print("\n".join(lines))
    return 0


def run_list(arguments: argparse.Namespace) -> int:
    """Print what can be scaffolded."""
    files = list(app_files(TEMPLATE_PACKAGE, "sqlite"))
    if arguments.json:
        print(json.dumps({"app": {"databases": list(DATABASES), "files": files}}, indent=2))
    else:
        print(f"app: FastAPI, Alembic and tests on {', '.join(DATABASES)} ({len(files)} files)")
        print("\n".join(f"  {name}" for name in files))
    return 0


class Parser(argparse.ArgumentParser):
    """Answers wrong usage with one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="scaffold.py",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    app = commands.add_parser("app", help="a complete application", description=__doc__)
    app.add_argument("dest", metavar="DEST", help="a folder that is empty or does not exist")
    app.add_argument("--package", default="app", help="its Python package (default: app)")
    app.add_argument(
        "--database", default="sqlite", help=f"{', '.join(DATABASES)} (default: sqlite)"
    )
    app.add_argument("--dry-run", action="store_true", help="say what would be written")
    app.add_argument(
        "--force", action="store_true", help="overwrite the scaffold's own files, and list them"
    )
    app.add_argument("--json", action="store_true", help="answer in JSON")
    app.set_defaults(run=run_app)
    listing = commands.add_parser(
        "list", help="what can be scaffolded", description=run_list.__doc__
    )
    listing.add_argument("--json", action="store_true", help="answer in JSON")
    listing.set_defaults(run=run_list)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    try:
        run: int = arguments.run(arguments)
    except UsageError as error:
        print(f"scaffold.py: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"scaffold.py: nothing was written: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("scaffold.py: interrupted, nothing was written", file=sys.stderr)
        return 130
    return run


if __name__ == "__main__":
    sys.exit(main())
