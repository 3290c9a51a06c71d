"""Why a pattern can't be added to a project: each reason, with what to do about it."""

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence

from _scaffold_code import as_modules, tables
from _scaffold_imports import imported_modules
from _scaffold_names import UsageError
from _scaffold_project import Project
from _scaffold_writing import Change
from _syntax import definitions


def refuse(problems: Sequence[str]) -> None:
    """Raises:
    UsageError: there is a problem.
    """
    if problems:
        several = [f"\n  {line}" for line in problems]
        raise UsageError("refused:" + ("".join(several) if several[1:] else f" {problems[0]}"))


def clashes(
    project: Project, files: Mapping[str, str], changes: Iterable[Change], *, force: bool
) -> Iterator[str]:
    """Yield every reason for which the files can't be added."""
    actions = {change.path: change.action for change in changes}
    yield from _hidden(project, files)
    yield from _defined_twice(project, files)
    if actions.get("alembic.ini") == "create" and (place := _alembic_of(project)):
        yield f"{place}: the project has Alembic; add migrations/environment, and call it there"
    for path, action in actions.items():
        if action == "overwrite" and not force:
            yield f"{path}: has other contents; --force overwrites it, --keep leaves it as it is"
        if action == "keep":
            yield from _not_there(project, path, files, actions)


def _hidden(project: Project, files: Mapping[str, str]) -> Iterator[str]:
    """Yield modules beside a package of the same name: only the package can be imported."""
    folders = {path.rpartition("/")[0] for path in files if path.endswith("/__init__.py")}
    for folder in sorted(folders):
        if (project.root / f"{folder}.py").exists():
            yield (
                f"{folder}.py: a folder {folder}/ would hide it; "
                f"name another place, such as --package {project.top}.data"
            )
    for path in files:
        package = path.removesuffix(".py")
        if path.endswith(".py") and (project.root / package / "__init__.py").exists():
            yield f"{package}/: this package would hide {path}; rename it"


def _defined_twice(project: Project, files: Mapping[str, str]) -> Iterator[str]:
    new = tables(as_modules(files))
    classes, names = {t.name: t for t in new}, {t.table: t for t in new}
    for there in tables(module for module in project.modules if module.path not in files):
        if clash := names.get(there.table) or classes.get(there.name):
            what = "table" if clash.table == there.table else "class"
            name = there.table if what == "table" else there.name
            yield (
                f"{there.path}:{there.line}: the {what} {name} is defined here, and in the "
                f"example {clash.path}; rename it here, or copy the functions by hand"
            )


def _alembic_of(project: Project) -> str | None:
    for path in ("alembic.ini", "alembic/env.py", "migrations/env.py", "src/alembic/env.py"):
        if (project.root / path).exists():
            return path
    return None


def _not_there(
    project: Project, path: str, files: Mapping[str, str], actions: Mapping[str, str]
) -> Iterator[str]:
    """Yield what others import from a file that is kept, and that it does not have."""
    try:
        body = ast.parse((project.root / path).read_bytes()).body
    except (SyntaxError, ValueError):
        body = []
    imports = [item for item in body if isinstance(item, ast.ImportFrom | ast.Import)]
    has = {*definitions(body), *(a.asname or a.name for item in imports for a in item.names)}
    module = project.module(path)
    for other, text in files.items():
        if actions.get(other) == "keep" or not other.endswith(".py"):
            continue
        wanted = {name for name in imported_modules(text) if name.startswith(f"{module}.")}
        if missing := sorted({name.removeprefix(f"{module}.") for name in wanted} - has):
            yield f"{path}: has no {', '.join(missing)}, which {other} imports"
