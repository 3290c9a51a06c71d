"""Add a pattern to a project: what is copied, what it would clash with, what is left to do."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from _scaffold_api import api_lines, constant, notes
from _scaffold_app import copied_modules
from _scaffold_clashes import clashes, refuse
from _scaffold_code import Found, Module, as_modules, existing, metadata_owners, tables
from _scaffold_example import example_line, example_names
from _scaffold_imports import (
    copied_text,
    libraries,
    missing_requirements,
    rename_imports,
)
from _scaffold_names import (
    COMPANIONS,
    REAL_TABLES,
    ROOT,
    SNIPPETS,
    check_pattern,
    explanations,
    origin_of,
    place_of,
    snippet_file,
)
from _scaffold_project import Project, detect
from _scaffold_writing import Change, planned_changes, write_files
from _syntax import defined_names, definitions

SCRIPT_DIRECTORY = "script_directory"


@dataclass(frozen=True)
class Example:
    """Tables that only show something, and the names in the same file that are about them."""

    path: str
    tables: list[str]
    used_by: list[str]


@dataclass(frozen=True)
class Addition:
    """What `add` did; its fields are the keys of --json."""

    dest: str
    package: str
    patterns: list[str]
    dry_run: bool
    files: list[Change]
    existing: list[Found]
    examples: list[Example]
    left_out: list[str]
    install: list[str]
    imports: list[str]
    api: list[str]
    notes: list[str]
    next: list[str]
    read: list[str]


def add_patterns(
    dest: Path,
    names: Sequence[str],
    package: str | None = None,
    *,
    force: bool = False,
    keep: bool = False,
    dry_run: bool = False,
) -> Addition:
    """Copy patterns and what they import into the project.

    Raises:
        UsageError: nothing was written, because what is asked for can't be done.
        OSError: nothing was written, because the system refused.
    """
    chosen = list(dict.fromkeys(check_pattern(name) for name in names))
    project = detect(dest, package)
    parts = {f"{topic}/{name}": pattern_files(project, topic, name) for topic, name in chosen}
    files = dict(sorted(item for part in parts.values() for item in part.items()))
    changes = planned_changes(dest, files)
    kept = {c.path for c in changes if c.action == "overwrite"} if keep else set[str]()
    changes = [Change(c.path, "keep") if c.path in kept else c for c in changes]
    refuse(list(clashes(project, files, changes, force=force)))
    todo = {c.path: files[c.path] for c in changes if c.action in {"create", "overwrite"}}
    if todo and not dry_run:
        write_files(dest, todo)
    own = [with_companions(topic, name, project.package) for topic, name in chosen]
    own_files = {path: text for part in own for path, text in part.items()}
    shown = [part for name, part in parts.items() if name not in REAL_TABLES]
    places = [explanations(topic, name) for topic, name in chosen]
    said = [line for place in dict.fromkeys(chain(*places)) for line in notes(place)]
    return Addition(
        dest=str(dest),
        package=project.package,
        patterns=list(parts),
        dry_run=dry_run,
        files=changes,
        existing=to_be_used(project, files),
        examples=examples({p: t for part in shown for p, t in part.items()}, project.package),
        left_out=[line for topic, name in chosen for line in left_out(topic, name)],
        install=missing_requirements(_libraries(project, files), project.requirements),
        imports=import_lines(project, own_files, said),
        api=api_lines(own_files, files, said),
        notes=said,
        next=[line for topic, name in chosen for line in next_steps(topic, name)],
        read=[first for first, *_ in places],
    )


def _libraries(project: Project, files: Mapping[str, str]) -> set[str]:
    sources = [text for path, text in files.items() if path.endswith(".py")]
    own = {module.name.split(".")[0] for module in project.modules}
    return libraries(sources) - own - {project.top}


# Files


def pattern_files(project: Project, topic: str, pattern: str) -> dict[str, str]:
    """Return what is copied, as path from the project's root -> text, in their order."""
    if pattern == SCRIPT_DIRECTORY:
        files = script_directory(project)
    else:
        own = with_companions(topic, pattern, project.package)
        files = {project.path(path): text for path, text in own.items()}
    copied = copied_modules(files.values(), project.package)
    files |= {project.path(path): text for path, text in copied.items()}
    files |= dict.fromkeys(_new_packages(project, files), "")
    return {path: text for path, text in sorted(files.items()) if text or _is_new(project, path)}


def _is_new(project: Project, path: str) -> bool:
    """Whether a file is missing or empty: who has something in an `__init__.py` keeps it."""
    there = project.root / path
    return not there.is_file() or not there.stat().st_size


def own_modules(topic: str, pattern: str, package: str) -> dict[str, str]:
    """Return the module of a pattern, or all of them where it is a package, without `source`."""
    first = snippet_file(topic, pattern)
    if pattern == SCRIPT_DIRECTORY:
        return {}
    paths = sorted(first.parent.rglob("*.py")) if first.name == "__init__.py" else [first]
    files = {}
    for path in paths:
        inside = path.relative_to(SNIPPETS / topic).with_suffix("").as_posix().replace("/", ".")
        place = "/".join(place_of(topic, inside)).replace(".", "/")
        text = copied_text(path, package)
        files[f"{package.replace('.', '/')}/{place}.py"] = text
    return files


def with_companions(topic: str, pattern: str, package: str) -> dict[str, str]:
    """Return the modules of a pattern, and of those that it is of no use without."""
    origins = (pattern, *COMPANIONS.get(f"{topic}/{pattern}", ()))
    return {k: v for name in origins for k, v in own_modules(topic, name, package).items()}


def _new_packages(project: Project, files: Mapping[str, str]) -> Iterator[str]:
    """Yield the `__init__.py` that are missing between the project's package and the modules."""
    base = project.path(project.top)
    if not (project.root / base).exists():
        yield f"{base}/__init__.py"
    for path in files:
        parents = [p.as_posix() for p in Path(path).parents]
        for parent in (p for p in parents if p.startswith(f"{base}/")):
            if f"{parent}/__init__.py" not in files:
                yield f"{parent}/__init__.py"


def script_directory(project: Project) -> dict[str, str]:
    """Return Alembic's folder, whose env.py has the metadata of the project's models."""
    folder = SNIPPETS / "migrations" / SCRIPT_DIRECTORY
    ini = (folder / "alembic.ini").read_text(encoding="utf-8")
    if project.source:
        ini = ini.replace("prepend_sys_path = .", f"prepend_sys_path = {project.source}")
    env = rename_imports((folder / "env.py").read_text(encoding="utf-8"), project.package)
    return {
        "alembic.ini": ini,
        "migrations/env.py": environment(project, env),
        "migrations/script.py.mako": (folder / "script.py.mako").read_text(encoding="utf-8"),
    }


def environment(project: Project, text: str) -> str:
    """Put the project's models into env.py, in the place of the bundle's."""
    modules = [module for module in project.modules if not is_copy(project, module)]
    with_tables = {table.path for table in tables(modules)}
    names = sorted(module.name for module in modules if module.path in with_tables)
    owners = metadata_owners(modules)
    if not names and not owners:
        return text
    docstring, head, *_ = text.split("\n\n")
    imports = [line for line in head.splitlines() if "import run_migrations" in line]
    if owners:
        (module_name, base), before = owners[0], ""
        imports = sorted([*imports, f"from {module_name} import {base}"])
        names = [name for name in names if name != module_name]
    else:
        base, before = "SQLModel", "from sqlmodel import SQLModel\n\n"
    lines = "\n".join([*(f"import {name}  # noqa: F401 - has tables" for name in names), *imports])
    return f"{docstring}\n\n{before}{lines}\n\nrun_migrations({base}.metadata)\n"


def is_copy(project: Project, module: Module) -> bool:
    """Whether this is a file of the bundle, as it was copied."""
    name = module.name.removeprefix(f"{project.package}.")
    if "." not in name or name == module.name:
        return False
    path = snippet_file(*origin_of(*name.split(".", maxsplit=1)))
    if not path.is_file():
        return False
    text = copied_text(path, project.package)
    return (project.root / module.path).read_bytes() == text.encode()


# What is left to do


def examples(files: Mapping[str, str], package: str) -> list[Example]:
    """Return which tables are the example's, and what is written for them."""
    modules = as_modules(files)
    about = {table.name for table in tables(modules)}
    size = -1
    while len(about) != size:  # what uses what uses a table
        size = len(about)
        for module in modules:
            about |= {*_written_for(about & _visible(module, package), module)}
    found = []
    for module in modules:
        own = [table.name for table in tables([module])]
        names = _written_for(about & _visible(module, package), module)
        if used_by := [name for name in names if name not in own]:
            found.append(Example(module.path, own, used_by))
        elif own:
            found.append(Example(module.path, own, []))
    return found


def _visible(module: Module, package: str) -> set[str]:
    """Return the names that the module defines or imports from the package, nobody else's."""
    imports = (node for node in ast.walk(module.tree) if isinstance(node, ast.ImportFrom))
    own = (node for node in imports if (node.module or "").startswith(f"{package}."))
    return {*definitions(module.tree.body), *(alias.name for node in own for alias in node.names)}


def _written_for(known: set[str], module: Module) -> list[str]:
    """Return what the module defines with the help of these names."""
    names: list[str] = []
    for node in module.tree.body:
        used = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        names += defined_names(node) if used & known else []
    return list(dict.fromkeys(names))


def to_be_used(project: Project, files: Mapping[str, str]) -> list[Found]:
    """Return what the project has of its own, or else what was copied into it before."""
    copies = {module.path for module in project.modules if is_copy(project, module)}
    found = [item for item in existing(project.modules) if item.path not in files]
    own = {item.kind for item in found if item.path not in copies}
    return [item for item in found if item.path not in copies or item.kind not in own]


def left_out(topic: str, pattern: str) -> list[str]:
    """Return where the bundle has an example of the pattern that was not copied, and of what."""
    path = snippet_file(topic, pattern)
    source = path.read_text(encoding="utf-8") if path.is_file() else ""
    names = example_names(source)
    where = f"{path.relative_to(ROOT).as_posix()}:{example_line(source)}"
    return [f"{where}: {', '.join(names)}"] if names else []


def import_lines(project: Project, own: Mapping[str, str], said: Sequence[str]) -> list[str]:
    """Return how public functions and classes are imported, and what else the page names."""
    lines = []
    for path, text in own.items():
        if names := _public_names(ast.parse(text), said):
            module = project.module(project.path(path))
            lines.append(f"from {module} import {', '.join(names)}")
    return lines


def _public_names(tree: ast.Module, said: Sequence[str]) -> list[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    nodes = [node for node in tree.body if isinstance(node, kinds) or constant(node, said)]
    names = (name for node in nodes for name in defined_names(node))
    return [name for name in names if not name.startswith("_")]


def next_steps(topic: str, pattern: str) -> list[str]:
    if pattern == SCRIPT_DIRECTORY:
        return [
            "see that migrations/env.py imports every module that has tables",
            "set DATABASE_URL in the environment or in .env",
            "alembic revision --autogenerate -m 'first tables'",
            "alembic upgrade head",
        ]
    if f"{topic}/{pattern}" in REAL_TABLES:
        return ["import the module beside your models, and make the migration for its tables"]
    return []
