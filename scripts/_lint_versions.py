"""Which versions the project runs on: its interpreter, its lock or pins, else the newest."""

import json
import re
import subprocess
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

Version = tuple[int, ...]
ASK = (
    "import importlib.metadata as m, json;"
    "print(json.dumps({d.metadata['Name']: d.version for d in m.distributions()}))"
)
REQUIREMENT = re.compile(r"^\s*([A-Za-z0-9][\w.-]*)\s*(\[[^]]*\])?\s*([^;#]*)")
# `await session.exec(...)` and the rest of the manner came with these; the newest has them all.
NEWEST: Version = (9999,)


class Requirement(NamedTuple):
    name: str
    extras: frozenset[str]
    limits: str
    path: Path
    line: int


class InterpreterError(Exception):
    """The interpreter of `--python` does not answer."""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def as_version(text: str) -> Version:
    match = re.match(r"\d+(?:\.\d+)*", text.strip())
    return tuple(int(part) for part in match[0].split(".")) if match else ()


class Versions:
    """`known` by package; what is not known counts as the newest."""

    def __init__(self, known: dict[str, Version], source: str, *, complete: bool = False) -> None:
        self.known = known
        self.source = source
        self.complete = complete

    def at_least(self, package: str, *version: int) -> bool:
        return self.known.get(package, NEWEST) >= version

    def has(self, package: str) -> bool | None:
        """Whether a package is there; None when that is not known."""
        if package in self.known:
            return True
        return False if self.complete else None


def of_interpreter(python: str) -> Versions:
    try:
        answer = subprocess.run(
            [python, "-c", ASK], capture_output=True, text=True, timeout=60, check=True
        ).stdout
        listed: dict[str, str] = json.loads(answer)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise InterpreterError(f"{python} does not tell its packages: {error}") from error
    known = {normal(name): as_version(version) for name, version in listed.items() if name}
    return Versions(known, f"the interpreter {python}", complete=True)


def of_environment(folder: Path) -> Versions | None:
    """Read a virtual environment without running anything in it."""
    known: dict[str, Version] = {}
    for pattern in ("lib/python*/site-packages", "Lib/site-packages"):
        for site in folder.glob(pattern):
            for info in site.glob("*.dist-info"):
                name, _, version = info.name.removesuffix(".dist-info").rpartition("-")
                known[normal(name)] = as_version(version)
    return Versions(known, str(folder), complete=True) if known else None


def project_root(path: Path) -> Path:
    """The nearest folder above that looks like a project."""
    start = path if path.is_dir() else path.parent
    for folder in (start, *start.parents):
        if any((folder / mark).exists() for mark in ("pyproject.toml", ".git", ".venv", "uv.lock")):
            return folder
    return start


def requirements_of(root: Path) -> list[Requirement]:
    files = [*root.glob("requirements*.txt"), *root.glob("requirements/*.txt")]
    found = [item for file in sorted(files) for item in _from_text(file)]
    return found + list(_from_pyproject(root / "pyproject.toml"))


def _from_text(path: Path) -> Iterator[Requirement]:
    for line, text in enumerate(_lines(path), 1):
        if not text.lstrip().startswith(("#", "-")):
            yield from _parsed(text, path, line)


def _parsed(text: str, path: Path, line: int) -> Iterator[Requirement]:
    if match := REQUIREMENT.match(text):
        extras = frozenset(part.strip() for part in (match[2] or "").strip("[]").split(","))
        yield Requirement(normal(match[1]), extras, match[3].strip().strip("()"), path, line)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _from_pyproject(path: Path) -> Iterator[Requirement]:
    settings = read_toml(path)
    project = settings.get("project", {})
    listed = [*project.get("dependencies", [])]
    groups = [*project.get("optional-dependencies", {}).values()]
    groups += settings.get("dependency-groups", {}).values()
    listed += [item for group in groups for item in group if isinstance(item, str)]
    lines = _lines(path)
    for text in listed:
        line = next((n for n, there in enumerate(lines, 1) if str(text) in there), 1)
        yield from _parsed(str(text), path, line)
    for name, text in _of_poetry(settings.get("tool", {}).get("poetry", {})):
        line = next((n for n, there in enumerate(lines, 1) if there.startswith(name)), 1)
        yield from _parsed(text, path, line)


def _of_poetry(poetry: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and requirements; a version alone is exact there."""
    tables = [poetry.get("dependencies", {}), poetry.get("dev-dependencies", {})]
    tables += [group.get("dependencies", {}) for group in poetry.get("group", {}).values()]
    for name, value in (item for table in tables for item in table.items()):
        several = value if isinstance(value, list) else [value]
        options = [one if isinstance(one, dict) else {"version": one} for one in several]
        extras = ",".join(extra for one in options for extra in one.get("extras", []))
        limits = str(options[0].get("version", "")) if len(options) == 1 else ""
        exact = "==" if limits[:1].isdigit() else ""
        yield name, f"{name}[{extras}] {exact}{limits}"


def of_requirements(root: Path, requirements: Iterable[Requirement]) -> Versions | None:
    known: dict[str, Version] = {}
    for name in ("uv.lock", "poetry.lock", "pdm.lock"):
        for package in read_toml(root / name).get("package", []):
            known.setdefault(normal(package["name"]), as_version(package.get("version", "")))
        if known:
            return Versions(known, str(root / name), complete=True)
    for item in requirements:
        if (newest := _newest(item.limits)) is not None:
            known.setdefault(item.name, newest)
    return Versions(known, f"the requirements in {root}") if known else None


LIMIT = re.compile(r"(===?|~=|<=?|\^)\s*(\d+(?:\.\d+)*)(\.\*)?")


def _newest(limits: str) -> Version | None:
    """The newest version that limits such as `>=2.0,<2.1` or `~=2.0.36` allow; None for any."""
    found: list[Version] = []
    for operator, text, star in LIMIT.findall(limits):
        version = as_version(text)
        if operator == "<":
            found.append(_just_below(version))
        elif operator == "~=":
            found.append((*version[:-1], 9999))
        elif operator == "^":
            # Poetry's: up to the next change of the first number that is not 0.
            fixed = next((n for n, part in enumerate(version, 1) if part), len(version))
            found.append((*version[:fixed], 9999))
        else:
            found.append((*version, 9999) if star else version)
    return min(found, default=None)


def _just_below(limit: Version) -> Version:
    *head, last = limit or (0,)
    return (*head, last - 1, 9999) if last else (*(_just_below(tuple(head)) if head else (0,)),)


def find_versions(root: Path, python: str | None, requirements: list[Requirement]) -> Versions:
    """Raises:
    InterpreterError: `python` cannot be asked.
    """
    if python is not None:
        return of_interpreter(python)
    return (
        of_environment(root / ".venv")
        or of_environment(root / "venv")
        or of_requirements(root, requirements)
        or Versions({}, "the newest versions (no environment, no pins found)")
    )
