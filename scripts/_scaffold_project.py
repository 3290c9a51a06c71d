"""The project that something is added to: its package, its requirements, its modules."""

import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from _scaffold_code import SKIPPED, Module, parsed_modules
from _scaffold_imports import REQUIREMENTS, distribution
from _scaffold_names import UsageError, sentence, why_hidden

# What a project of plain modules gets, where nothing else is named.
NEW_PACKAGE = "data_layer"
# Beside the package of an application there may be these.
NO_PACKAGES = SKIPPED | {"doc", "docs", "examples", "notebooks", "scripts", "tools"}


@dataclass(frozen=True)
class Project:
    """`source` is the folder that the package is in, from the root: `src`, or nothing."""

    root: Path
    source: str
    package: str
    requirements: tuple[str, ...]

    @property
    def top(self) -> str:
        return self.package.split(".", maxsplit=1)[0]

    def path(self, name: str) -> str:
        """Return a path below the source folder as one from the root."""
        return f"{self.source}/{name}" if self.source else name

    def module(self, path: str) -> str:
        """Return how a file below the source folder is imported."""
        inside = path.removeprefix(f"{self.source}/") if self.source else path
        return inside.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @cached_property
    def modules(self) -> list[Module]:
        return list(parsed_modules(self.root, self.source))


# The package


def detect(root: Path, package: str | None = None) -> Project:
    """Return the project in a folder; one of plain modules gets a package.

    Raises:
        UsageError: there is no folder, or it has several packages and none was named.
    """
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}; begin with: scaffold.py app {root}")
    settings = read_settings(root)
    sources = source_folders(root, settings)
    if package is None:
        source, package = _only_package(root, sources, settings)
    else:
        source = _source_of(package, root, sources)
    project = Project(root, source, package, tuple(requirements(root, settings)))
    hidden = "would hide a library" if project.top in REQUIREMENTS else why_hidden(project.top)
    if hidden:
        raise UsageError(f"package {project.top!r} {hidden}: rename it")
    return project


def read_settings(root: Path) -> dict[str, Any]:
    path = root / "pyproject.toml"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from None


def source_folders(root: Path, settings: dict[str, Any]) -> list[str]:
    """Return where packages may lie, from the root; what is a package itself is none of them."""
    tool = settings.get("tool", {})
    found = tool.get("setuptools", {}).get("packages", {})
    places = list(found.get("find", {}).get("where", [])) if isinstance(found, dict) else []
    places += [item.get("from", "") for item in tool.get("poetry", {}).get("packages", [])]
    places += [tool.get("uv", {}).get("build-backend", {}).get("module-root", "")]
    wheel = tool.get("hatch", {}).get("build", {}).get("targets", {}).get("wheel", {})
    places += [path.rpartition("/")[0] for path in wheel.get("packages", [])]
    tidy = dict.fromkeys(place.strip("./") for place in [*filter(None, places), "src", ""])
    return [place for place in tidy if ".." not in place and not has_init(root / place)]


def _only_package(root: Path, sources: Sequence[str], settings: dict[str, Any]) -> tuple[str, str]:
    found = candidates(root, sources, has_init) or candidates(root, sources, has_python)
    if not found:
        return _source_of_new(root), NEW_PACKAGE
    own_name = distribution(settings.get("project", {}).get("name", "")).replace("-", "_")
    if own := [item for item in found if item[1] == own_name]:
        found = own
    if len(found) > 1:
        names = sentence((name for _, name in found), limit=10)
        raise UsageError(f"{root} has several packages: choose one of {names} with --package")
    return found[0]


def candidates(
    root: Path, sources: Sequence[str], suits: Callable[[Path], bool]
) -> list[tuple[str, str]]:
    """Return the packages as pairs of source folder and name."""
    found = []
    for source in sources:
        folder = root / source
        children = sorted(folder.iterdir()) if folder.is_dir() else []
        found += [(source, path.name) for path in children if _may_be_package(path) and suits(path)]
    return [(source, name) for source, name in found if name not in sources]


def _may_be_package(path: Path) -> bool:
    known = path.name not in NO_PACKAGES and path.name.isidentifier()
    return known and path.is_dir() and not path.is_symlink()


def has_init(path: Path) -> bool:
    return (path / "__init__.py").is_file()


def has_python(path: Path) -> bool:
    return any(path.glob("*.py"))


def _source_of(package: str, root: Path, sources: Sequence[str]) -> str:
    top, *rest = package.split(".")
    if not all(part.isidentifier() for part in (top, *rest)):
        raise UsageError(f"package {package!r} is no name for an import")
    for source in sources:
        if (root / source / top).is_dir():
            return source
    there = [name for _, name in candidates(root, sources, has_init)]
    if not there:
        return _source_of_new(root)
    raise UsageError(f"{root} has no package {top}: choose one of {sentence(there, 10)}")


def _source_of_new(root: Path) -> str:
    return "src" if (root / "src").is_dir() and not has_init(root / "src") else ""


# Requirements


def requirements(root: Path, settings: dict[str, Any]) -> Iterator[str]:
    """Yield all that the project requires, for whatever purpose."""
    project = settings.get("project", {})
    yield from project.get("dependencies", [])
    groups = [*project.get("optional-dependencies", {}).values()]
    groups += settings.get("dependency-groups", {}).values()
    yield from (item for group in groups for item in group if isinstance(item, str))
    yield from _of_poetry(settings.get("tool", {}).get("poetry", {}))
    files = [*root.glob("requirements*.txt"), *root.glob("requirements/*.txt")]
    for path in files:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        yield from (line for line in lines if line.strip() and line.strip()[0] not in "#-")


def _of_poetry(poetry: dict[str, Any]) -> Iterator[str]:
    tables = [poetry.get("dependencies", {}), poetry.get("dev-dependencies", {})]
    tables += [group.get("dependencies", {}) for group in poetry.get("group", {}).values()]
    for table in tables:
        for name, value in table.items():
            extras = value.get("extras", []) if isinstance(value, dict) else []
            yield f"{name}[{','.join(extras)}]" if extras else name
