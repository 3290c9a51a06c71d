"""Imports: what a snippet needs, under which name it goes, and what must be installed for it."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from _scaffold_example import without_example
from _scaffold_names import (
    ROOT,
    SNIPPETS,
    SUBPACKAGES,
    TemplateError,
    origin_of,
    place_of,
    snippet_file,
)

TEMPLATE_PACKAGE = "app"
LINE_LENGTH = 100

# What to install for an import, where that is no requirement of the bundle itself.
REQUIREMENTS = {
    "cachetools": "cachetools>=8.0",
    "httpx": "httpx>=0.28",
    "opentelemetry": "opentelemetry-api>=1.30",
    "prometheus_client": "prometheus-client>=0.21",
    "psycopg": "psycopg[binary]>=3.2",
    "pytest": "pytest>=9.2",
    "pytest_asyncio": "pytest-asyncio>=1.5",
    "redis": "redis>=6.4",
    "starlette": "starlette>=0.41",
    "structlog": "structlog>=24.4",
    "tenacity": "tenacity>=9.0",
    "uvicorn": "uvicorn>=0.30",
}
# A library that brings another along.
BROUGHT_BY = {
    "pydantic": {"sqlmodel", "fastapi", "pydantic-settings"},
    "sqlmodel": set[str](),
    "starlette": {"fastapi"},
    "opentelemetry-api": {"opentelemetry-sdk", "opentelemetry-distro"},
    # SQLAlchemy comes with SQLModel, but greenlet does not.
    "sqlalchemy": {
        "greenlet", "sqlmodel[asyncio]", "sqlalchemy[asyncio]", "sqlalchemy[aiosqlite]",
        "sqlalchemy[postgresql-asyncpg]", "sqlalchemy[aiomysql]", "sqlalchemy[asyncmy]",
    },
}  # fmt: skip


# Modules


def needed_modules(sources: Iterable[str], package: str) -> list[str]:
    """Return the modules that come from snippets and are imported, by whatever distance."""
    subpackages = {place_of(topic, "")[0] for topic in SUBPACKAGES}
    needed: set[str] = set()
    todo = list(sources)
    while todo:
        for module in imported_modules(todo.pop()):
            rest = module.removeprefix(f"{package}.").split(".")
            if module in needed or not module.startswith(f"{package}."):
                continue
            if rest[0] in subpackages and _is_module(rest):
                needed.add(module)
                todo.append(copied_text(snippet_path(module, package), package))
    return sorted(needed)


def _is_module(parts: Sequence[str]) -> bool:
    """Whether these are subpackage and module: a third part is a module only in a package."""
    if len(parts) < 3:
        return len(parts) == 2
    topic, module = origin_of(parts[0], ".".join(parts[1:]))
    return snippet_file(topic, module).is_file()


def imported_modules(source: str) -> set[str]:
    """Return what is imported from, and each name in it, which may be a module as well."""
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a text template
        return set()
    nodes = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module]
    names = {f"{node.module}.{alias.name}" for node in nodes for alias in node.names}
    return {node.module for node in nodes if node.module} | names


def module_file(module: str, package: str) -> str:
    """Return the path of a copied module, from the folder that the package is in."""
    is_package = snippet_path(module, package).name == "__init__.py"
    return module.replace(".", "/") + ("/__init__.py" if is_package else ".py")


def snippet_path(module: str, package: str) -> Path:
    """Return the snippet that `<package>.<subpackage>.<pattern>` is a copy of."""
    subpackage, pattern = module.removeprefix(f"{package}.").split(".", maxsplit=1)
    path = snippet_file(*origin_of(subpackage, pattern))
    if not path.is_file():
        raise TemplateError(f"a template imports {module}, but {path.relative_to(ROOT)} is missing")
    return path


# Renaming


def copied_text(path: Path, package: str) -> str:
    """Return a snippet as it is in an application: its imports renamed, its example left out."""
    return rename_imports(without_example(path.read_text(encoding="utf-8")), package)


def rename_imports(source: str, package: str) -> str:
    """Return the source with its imports of snippets and of the template's package renamed."""
    lines = source.splitlines(keepends=True)
    nodes = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Import | ast.ImportFrom)]
    renamed = False
    for node in sorted(nodes, key=lambda n: n.lineno, reverse=True):
        if isinstance(node, ast.Import):
            _refuse_plain_import(node)
        elif node.module and (new := renamed_module(node.module, package)) != node.module:
            start, end = node.lineno - 1, node.end_lineno or node.lineno
            lines[start:end] = _renamed_import(lines[start:end], node, new)
            renamed = True
    text = "".join(lines)
    return _sorted_imports(text, package) if renamed else text


def renamed_module(module: str, package: str) -> str:
    first, *rest = module.split(".")
    if first == TEMPLATE_PACKAGE:
        return ".".join([package, *rest])
    if first != "snippets":
        return module
    topic, *pattern = rest or [""]
    if topic not in SUBPACKAGES and not (SNIPPETS / topic).is_dir():
        raise TemplateError(f"{module} is imported, but the application has no such part")
    if not pattern:
        return f"{package}.{place_of(topic, '')[0]}"
    return ".".join([package, *place_of(topic, ".".join(pattern))])


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


def _sorted_imports(source: str, package: str) -> str:
    """Order the imports from the package anew: its parts have other names than the topics."""
    lines = source.splitlines(keepends=True)
    for run in _runs_of_imports(ast.parse(source), package):
        start, end = run[0].lineno - 1, _end(run[-1])
        ordered = sorted(run, key=lambda node: node.module or "")
        lines[start:end] = [line for n in ordered for line in lines[n.lineno - 1 : _end(n)]]
    return "".join(lines)


def _runs_of_imports(tree: ast.Module, package: str) -> Iterator[list[ast.ImportFrom]]:
    """Yield imports from the package that follow each other line on line."""
    root = package.split(".", maxsplit=1)[0]
    run: list[ast.ImportFrom] = []
    for node in ast.walk(tree):  # one block after the other
        if not isinstance(node, ast.ImportFrom) or (node.module or "").split(".")[0] != root:
            continue
        if run and node.lineno != _end(run[-1]) + 1:
            yield run
            run = []
        run.append(node)
    if run:
        yield run


def _end(node: ast.stmt) -> int:
    return node.end_lineno or node.lineno


# Requirements


def libraries(sources: Iterable[str]) -> set[str]:
    """Return the top names of what is imported and is neither Python's nor the bundle's own.

    An import inside a function is for those who have the library: a driver, for example.
    """
    found: set[str] = set()
    for node in (node for source in sources for node in _run_at_import(ast.parse(source).body)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found - sys.stdlib_module_names - {TEMPLATE_PACKAGE, "snippets"}


def _run_at_import(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    for node in body:
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _run_at_import(ast.iter_child_nodes(node))


@cache
def bundle_project() -> dict[str, Any]:
    """Return what the bundle's own pyproject.toml says."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def bundle_ranges() -> dict[str, list[str]]:
    """Return the requirements that the bundle supports, by what they are for."""
    ranges: dict[str, list[str]] = bundle_project()["tool"]["async-sqlmodel"]["ranges"]
    return ranges


def bundle_requirements() -> dict[str, str]:
    """Return the same by the names of their distributions."""
    return {distribution(item): item for items in bundle_ranges().values() for item in items}


def requirement_for(library: str) -> str:
    """Return what to install, so that the name can be imported."""
    name = library.replace("_", "-")
    return bundle_requirements().get(name) or REQUIREMENTS.get(library, name)


def distribution(requirement: str) -> str:
    """Return the normalized name in a requirement, without extras and versions."""
    name = re.match(r"\s*([A-Za-z0-9][\w.-]*)", requirement)
    return re.sub(r"[-_.]+", "-", name[1]).lower() if name else ""


def with_extras(requirement: str) -> Iterator[str]:
    """Yield `name`, and `name[extra]` for each extra."""
    name = distribution(requirement)
    yield name
    if extras := re.match(r"[^\[;]*\[([^\]]*)\]", requirement):
        yield from (f"{name}[{extra.strip().lower()}]" for extra in extras[1].split(","))


def missing_requirements(libraries: Iterable[str], present: Iterable[str]) -> list[str]:
    """Return what to install beside the requirements that a project has."""
    there = {name for requirement in present for name in with_extras(requirement)}
    needed = {requirement_for(library) for library in libraries}
    return sorted(item for item in needed if not _is_satisfied(distribution(item), there))


def _is_satisfied(name: str, there: set[str]) -> bool:
    if name == "sqlalchemy":
        return bool(BROUGHT_BY[name] & there)
    return bool(({name} | BROUGHT_BY.get(name, set())) & there)
