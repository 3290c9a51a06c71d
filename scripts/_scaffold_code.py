"""What a project's code defines: engines, sessions, base classes and tables, by syntax tree."""

import ast
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from _syntax import defined_names, dotted

# Folders without models and sessions of the application, at any depth.
SKIPPED = {
    "alembic", "build", "dist", "env", "migrations", "node_modules", "site-packages", "test",
    "tests", "venv", "versions", "__pycache__",
}  # fmt: skip
MAX_BYTES = 1_000_000

MAKERS = {"create_async_engine": "engine", "async_sessionmaker": "session factory"}
SESSION_DEPENDENCIES = {
    "SessionDep",
    "get_async_session",
    "get_db",
    "get_db_session",
    "get_session",
}


@dataclass(frozen=True)
class Found:
    """Something that the project defines; `name` is what to import, with its module."""

    kind: str
    name: str
    path: str
    line: int


@dataclass(frozen=True)
class Table:
    name: str
    table: str
    path: str
    line: int


@dataclass(frozen=True)
class Module:
    """A file of the project, parsed; `name` is how it is imported."""

    name: str
    path: str
    tree: ast.Module


def parsed_modules(root: Path, source: str) -> Iterator[Module]:
    """Yield what can be parsed of the project's Python files, tests and migrations left out."""
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        hidden = {name for name in folders if name.startswith(".") or name.endswith(".egg-info")}
        folders[:] = sorted({*folders} - hidden - SKIPPED)
        for path in sorted(here / name for name in names if name.endswith(".py")):
            if (tree := _parsed(path)) is not None:
                relative = path.relative_to(root).as_posix()
                inside = relative.removeprefix(f"{source}/") if source else relative
                name = inside.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
                yield Module(name, relative, tree)


def _parsed(path: Path) -> ast.Module | None:
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_BYTES:
            return None
        with warnings.catch_warnings():
            # Of an escape such as "\\d" the project's own tools may warn.
            warnings.simplefilter("ignore")
            return ast.parse(path.read_bytes())
    # What is nested too deeply to parse, data mostly, defines no engine.
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def existing(modules: Iterable[Module]) -> list[Found]:
    """Return the engines, session factories, session dependencies and base classes."""
    listed = list(modules)
    found = [
        Found(kind, f"{module.name}.{name}", module.path, node.lineno)
        for module in listed
        for node in module.tree.body
        for name in defined_names(node)
        for kind in _kinds(node, name)
    ]
    return found + list(_bases(listed))


def _kinds(node: ast.stmt, name: str) -> Iterator[str]:
    if name in SESSION_DEPENDENCIES:
        yield "session dependency"
    calls = (part for part in ast.walk(node) if isinstance(part, ast.Call))
    made = {dotted(call.func).rpartition(".")[2] for call in calls}
    yield from (kind for maker, kind in MAKERS.items() if maker in made)


def _bases(modules: Sequence[Module]) -> Iterator[Found]:
    """Yield the classes from which tables inherit, or could."""
    classes = [(module, node) for module in modules for node in _classes(module.tree)]
    inherited = {_last(base) for _, node in classes if is_table(node) for base in node.bases}
    for module, node in classes:
        known = {_last(base) for base in node.bases}
        is_base = "SQLModel" in known and not is_table(node) and node.name in inherited
        if is_base or has_metadata(node):
            yield Found("base class", f"{module.name}.{node.name}", module.path, node.lineno)


def metadata_owners(modules: Iterable[Module]) -> list[tuple[str, str]]:
    """Return the classes that have a metadata of their own, as pairs of module and name."""
    classes = ((module, node) for module in modules for node in _classes(module.tree))
    return [(module.name, node.name) for module, node in classes if has_metadata(node)]


def has_metadata(node: ast.ClassDef) -> bool:
    """Whether the class, and what inherits from it, is not in `SQLModel.metadata`."""
    known = {_last(base) for base in node.bases}
    if known & {"DeclarativeBase", "DeclarativeBaseNoMeta"}:
        return True
    return "SQLModel" in known and any("metadata" in defined_names(item) for item in node.body)


def tables(modules: Iterable[Module]) -> list[Table]:
    return [
        Table(node.name, table_name(node), module.path, node.lineno)
        for module in modules
        for node in _classes(module.tree)
        if is_table(node)
    ]


def _classes(tree: ast.Module) -> Iterator[ast.ClassDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))


def is_table(node: ast.ClassDef) -> bool:
    """Whether it is mapped: with `table=True`, or SQLAlchemy's way with `__tablename__`."""
    for keyword in node.keywords:
        if keyword.arg == "table" and isinstance(keyword.value, ast.Constant):
            return keyword.value.value is True
    bases = {_last(base) for base in node.bases}
    return bool(_own_table_name(node)) and bool(bases) and "SQLModel" not in bases


def table_name(node: ast.ClassDef) -> str:
    return _own_table_name(node) or node.name.lower()


def _own_table_name(node: ast.ClassDef) -> str:
    for item in node.body:
        if "__tablename__" in defined_names(item) and isinstance(item, ast.Assign | ast.AnnAssign):
            value = item.value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                return value.value
    return ""


def _last(node: ast.expr) -> str:
    base = node.value if isinstance(node, ast.Subscript) else node
    return dotted(base).rpartition(".")[2]


def as_modules(files: Mapping[str, str]) -> list[Module]:
    python = {path: text for path, text in files.items() if path.endswith(".py")}
    return [Module("", path, ast.parse(text)) for path, text in python.items()]
