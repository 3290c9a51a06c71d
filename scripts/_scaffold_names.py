"""Names: of packages, of databases, of patterns, and where in an application a pattern lives."""

import ast
import difflib
import keyword
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from _bundle import page_of

ROOT = Path(__file__).resolve().parent.parent
SNIPPETS = ROOT / "snippets"

# Which topic of the snippets becomes which package of the application.
SUBPACKAGES = {
    "async_operations": "operations",
    "best_practices": "practices",
    "database_setup": "database",
    "fastapi_integration": "api",
    "migrations": "migration_tools",  # migrations/ is Alembic's folder
    "models": "model_parts",  # models.py is where the application has its own
    "production_patterns": "production",
    "relationships": "relationships",
    "servicebase": "services",
}

# What is private to a topic of the bundle, and public in an application.
PUBLISHED = {
    ("fastapi_integration", "bodies"): ("model_parts", "bodies"),
    ("fastapi_integration", "_query_model"): ("api", "query_model"),
}

# No import leads from the pattern to these, and yet they are of no use without each other.
COMPANIONS = {"servicebase/service": ("filters", "query_parameters", "errors")}

# Patterns that are not explained under their own name alone.
SECTIONS = {
    "migrations/script_directory": ("environment", "autogenerate"),
    "servicebase/service": (
        "service", "filters", "sorting", "cursor_pagination", "eager_options", "bulk", "errors",
        "query_parameters",
    ),
}  # fmt: skip

# Patterns whose tables are no example: they stay as they are, and need a migration.
REAL_TABLES = {
    "async_operations/queue",
    "production_patterns/exactly_once",
    "production_patterns/outbox",
}

# The folders of the application, and what it imports: a package of such a name would hide them.
TAKEN_NAMES = {"migrations", "snippets", "tests", "test"}
DEPENDENCIES = {
    "aiomysql", "aiosqlite", "alembic", "anyio", "asyncmy", "asyncpg", "fastapi", "greenlet",
    "h11", "httpx", "mako", "psycopg", "pydantic", "pydantic_core", "pydantic_settings", "pymysql",
    "pytest", "pytest_asyncio", "setuptools", "sqlalchemy", "sqlmodel", "starlette", "uvicorn",
}  # fmt: skip


class UsageError(Exception):
    """What was asked for can't be done; the message is a line, and more below it if need be."""


class TemplateError(Exception):
    """The bundle contradicts itself."""


# Packages


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
    reason = why_hidden(name)
    if name in TAKEN_NAMES:
        reason = "is the name of another folder of the application"
    if reason:
        raise UsageError(f"package {name!r} {reason}: choose another name, such as {name}_app")


def why_hidden(name: str) -> str | None:
    """Return what a package of this name would hide."""
    if keyword.iskeyword(name):
        return "is a keyword of Python"
    if name in sys.stdlib_module_names:
        return "would hide the module of the standard library"
    if name in DEPENDENCIES:
        return "would hide a library that the application uses"
    return None


def place_of(topic: str, module: str) -> tuple[str, str]:
    """Return the subpackage of an application, and the module in it, for one of the snippets."""
    return PUBLISHED.get((topic, module), (SUBPACKAGES.get(topic, topic), module))


def origin_of(subpackage: str, module: str) -> tuple[str, str]:
    """Return topic and module of the snippet that lives at this place in an application."""
    for origin, place in PUBLISHED.items():
        if place == (subpackage, module):
            return origin
    topics = {place: topic for topic, place in SUBPACKAGES.items()}
    return topics.get(subpackage, subpackage), module


def snippet_file(topic: str, module: str) -> Path:
    """Return the file of a snippet, whether it is there or not; `module` may have dots."""
    path = SNIPPETS / topic / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


# Patterns


def topics() -> list[str]:
    return sorted(path.parent.name for path in SNIPPETS.glob("*/__init__.py"))


def patterns(topic: str) -> list[str]:
    """Return the names of what can be added from a topic: modules, packages and folders."""
    found = (p for p in (SNIPPETS / topic).iterdir() if p.is_dir() or p.suffix == ".py")
    return sorted(p.stem for p in found if not p.stem.startswith("_") and p.stem != "mistakes")


def all_patterns() -> list[str]:
    return [f"{topic}/{pattern}" for topic in topics() for pattern in patterns(topic)]


def check_pattern(name: str) -> tuple[str, str]:
    """Return topic and pattern.

    Raises:
        UsageError: there is no such pattern; the message has the nearest ones.
    """
    words = [word.replace("-", "_") for word in PurePosixPath(name.removesuffix(".py")).parts]
    topic, *rest = words[1:] if words[:1] == ["snippets"] else words or [""]
    if topic not in topics():
        raise UsageError(f"there is no pattern {name}: {_nearest(topic, rest)}")
    if not rest:
        raise UsageError(f"{name} is a topic: add {_choice(topic, patterns(topic))}")
    if rest == ["mistakes"]:
        page = page_of(topic)
        raise UsageError(f"{name} is wrong code, for tests of this bundle: read {page}#mistakes")
    if len(rest) > 1 or rest[0] not in patterns(topic):
        near = _near(rest[0], patterns(topic)) or patterns(topic)
        raise UsageError(f"there is no pattern {name}: use {_choice(topic, near)}")
    return topic, rest[0]


def _choice(topic: str, names: Sequence[str]) -> str:
    return f"{topic}/{names[0]}" if len(names) == 1 else f"{topic}/{{{','.join(names)}}}"


def _nearest(topic: str, rest: Sequence[str]) -> str:
    """Return what to say when there is no such topic: the word may be a pattern's."""
    if near := _near(topic, topics()):
        return f"use a topic of {', '.join(near)}"
    wanted = rest[-1] if rest else topic
    names = [name for name in all_patterns() if _near(wanted, [name.split("/")[1]])]
    return f"use {' or '.join(names)}" if names else f"use a topic of {', '.join(topics())}"


def _near(word: str, known: Sequence[str]) -> list[str]:
    """Return those that begin or end with the word, or else look like it."""
    parts = [name for name in known if len(word) > 2 and name.startswith(word)]
    parts += [name for name in known if len(word) > 2 and name.endswith(word)]
    return list(dict.fromkeys(parts)) or difflib.get_close_matches(word, known)


def explanations(topic: str, pattern: str) -> list[str]:
    """Return where the pattern is explained, as links into the bundle, the first one first."""
    sections = SECTIONS.get(f"{topic}/{pattern}", (pattern,))
    return [f"{page_of(topic)}#{section.replace('_', '-')}" for section in sections]


def summary(topic: str, pattern: str) -> str:
    """Return the first line of the pattern's docstring."""
    path = snippet_file(topic, pattern)
    if not path.is_file():
        path = path.parent / "env.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.split("\n", maxsplit=1)[0]


def sentence(names: Iterable[str], limit: int = 5) -> str:
    """Return the names with commas; of many only the first."""
    listed = list(names)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more
