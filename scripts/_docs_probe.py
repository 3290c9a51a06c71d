"""Run by the interpreter of a project: find a public name, and what its source says of it.

A request comes as JSON on stdin, the answer goes as JSON to stdout. Only modules of the libraries
that the bundle is about are imported, and of those only the ones whose text has the name.
"""

import difflib
import functools
import importlib
import inspect
import json
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, get_args, get_origin

# Where public names live, in the order in which a short name is looked for.
NAMESPACES = (
    "sqlmodel", "sqlmodel.ext.asyncio.session", "sqlalchemy", "sqlalchemy.orm",
    "sqlalchemy.ext.asyncio", "sqlalchemy.exc", "sqlalchemy.orm.exc", "sqlalchemy.event",
    "sqlalchemy.pool", "sqlalchemy.ext.hybrid", "sqlalchemy.ext.mutable",
    "sqlalchemy.ext.associationproxy", "sqlalchemy.orm.attributes",
    "sqlalchemy.engine", "sqlalchemy.types", "sqlalchemy.dialects.postgresql",
    "sqlalchemy.dialects.mysql", "sqlalchemy.dialects.sqlite", "fastapi", "fastapi.responses",
    "fastapi.exceptions", "fastapi.testclient", "pydantic", "pydantic_settings", "alembic.op",
    "alembic.context", "alembic.command", "alembic.config", "alembic.script",
    "alembic.runtime.migration", "alembic.autogenerate", "alembic.operations", "asyncpg",
    "aiosqlite", "aiomysql", "asyncmy", "psycopg", "httpx", "pytest_asyncio", "asyncio",
    "contextlib", "contextvars",
)  # fmt: skip
# An object with attributes of its own making; what is known by name is here.
FUNCTIONS = "sqlalchemy.sql.functions"
LIBRARIES = {name.partition(".")[0] for name in NAMESPACES}
STANDARD = {"asyncio", "contextlib", "contextvars"}
OWN_ONLY = "sqlmodel.ext.asyncio.session"  # a module, not a package: the rest is imported there
MAX_TEXT = 200_000

Answer = dict[str, Any]


class UnknownNameError(Exception):
    pass


@functools.cache
def source_of(name: str) -> Path | None:
    """The file of a module, without importing anything."""
    path: list[str] | None = None
    for depth, _ in enumerate(name.split("."), 1):
        spec = PathFinder.find_spec(".".join(name.split(".")[:depth]), path)
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or ())
    return Path(spec.origin) if spec and spec.origin else None


def may_have(namespace: str, name: str, depth: int = 3) -> bool:
    """Whether a module, or one that it takes everything from, has the word in its text."""
    file = source_of(namespace)
    if file is None or file.suffix != ".py":
        return False
    texts = [f.read_text("utf-8") for f in (file, file.with_suffix(".pyi")) if f.exists()]
    if any(re.search(rf"\b{re.escape(name)}\b", text) for text in texts):
        return True
    package = namespace if file.name == "__init__.py" else namespace.rpartition(".")[0]
    starred = {star for text in texts for star in STAR.findall(text)}
    return depth > 0 and any(
        may_have(f"{package}{star}" if star.startswith(".") else star, name, depth - 1)
        for star in starred
    )


STAR = re.compile(r"^from (\.?\w[\w.]*) import \*", re.MULTILINE)


def member(holder: Any, name: str) -> Any:
    """An attribute; None without it, or where a library refuses to give what it has moved away."""
    try:
        return getattr(holder, name)
    except Exception:  # noqa: BLE001
        return None


def load(namespace: str) -> ModuleType | None:
    try:
        return importlib.import_module(namespace)
    except Exception:  # noqa: BLE001  (an optional part of a library may lack what it needs)
        return None


def public_names(module: ModuleType) -> list[str]:
    listed = set(getattr(module, "__all__", ()))
    names = [*listed, *(n for n in dir(module) if not n.startswith("_"))]
    return sorted({n for n in names if is_public(module, n, member(module, n), listed)})


def is_public(module: ModuleType, name: str, found: Any, listed: "set[str]") -> bool:
    """Whether a module means to offer it, rather than needing it itself."""
    if found is None or inspect.ismodule(found) or name.startswith("_"):
        return False
    if module.__name__ == OWN_ONLY:
        return bool(getattr(found, "__module__", None) == OWN_ONLY)
    library = module.__name__.partition(".")[0]
    foreign = home(found) in sys.stdlib_module_names and library not in STANDARD
    return name in listed or not foreign or home(found) == "sqlite3"


def home(found: Any) -> str:
    """The library that an object comes from."""
    return str(getattr(found, "__module__", None) or "").partition(".")[0]


def heads(name: str) -> Iterator[tuple[str, Any]]:
    """Everything that a short name may mean: its public path, and the object."""
    for namespace in NAMESPACES:
        if namespace.rpartition(".")[2] == name and (module := load(namespace)):
            yield namespace, module
        elif may_have(namespace, name) and (module := load(namespace)):
            found = member(module, name)
            if is_public(module, name, found, set(getattr(module, "__all__", ()))):
                yield f"{namespace}.{name}", found


def by_path(name: str) -> tuple[str, Any, list[str]] | None:
    """The longest module at the beginning of a dotted name, and what comes after it."""
    parts = name.split(".")
    if parts[0] not in LIBRARIES:
        return None
    for end in range(len(parts), 0, -1):
        path = ".".join(parts[:end])
        if source_of(path) and (module := load(path)):
            return path, module, parts[end:]
    return None


def attribute(path: str, found: Any, rest: Iterable[str]) -> tuple[str, Any]:
    for part in rest:
        if path == "sqlalchemy.func":
            path, found = FUNCTIONS, importlib.import_module(FUNCTIONS)
        owner, found = found, member(found, part)
        if found is None:
            raise UnknownNameError(part, path, owner)
        path += f".{part}"
    return path, found


def distinct(candidates: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Each object once, under the path that its own library gives it."""
    kept: list[tuple[str, Any]] = []
    for path, found in candidates:
        same = next((n for n, (_, other) in enumerate(kept) if other is found), None)
        if same is None:
            kept.append((path, found))
        elif home(found) == path.partition(".")[0] != kept[same][0].partition(".")[0]:
            kept[same] = (path, found)
    return kept


def resolve(name: str) -> list[tuple[str, Any]]:
    """What a name may mean, the best first.

    Raises:
        UnknownNameError: nothing.
    """
    head, *rest = name.split(".")
    failure: UnknownNameError | None = None
    found = []
    if "." in name and (whole := by_path(name)):
        starts: Iterable[tuple[str, Any, list[str]]] = [whole]
    else:
        starts = ((path, start, rest) for path, start in distinct(heads(head)))
    for path, start, following in starts:
        try:
            found.append(attribute(path, start, following))
        except UnknownNameError as error:
            failure = failure or error
    if not found:
        raise failure or UnknownNameError(name, "", None)
    return distinct(found)


def nearest(error: UnknownNameError, name: str) -> list[str]:
    wanted, path, owner = error.args
    if path:
        near = difflib.get_close_matches(wanted, [n for n in dir(owner) if n[:1] != "_"], 6, 0.6)
        return [f"{path}.{n}" for n in near]
    wanted = name.rpartition(".")[2]
    known: dict[str, str] = {}
    for namespace in NAMESPACES:
        if module := load(namespace):
            for public in public_names(module):
                known.setdefault(public, f"{namespace}.{public}")
    lower = {public.lower(): path for public, path in known.items()}
    return [lower[n] for n in difflib.get_close_matches(wanted.lower(), lower, 6, 0.7)]


# What there is to say of an object


def plain(annotation: Any) -> str:
    """An annotation as it is written, without what Annotated adds to it."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return re.sub(r"\b(?:typing|typing_extensions|collections\.abc)\.", "", text_of(annotation))


def text_of(annotation: Any) -> str:
    if isinstance(annotation, str):
        return annotation
    text: str = inspect.formatannotation(annotation)
    return re.sub(r"ForwardRef\('([^']*)'\)", r"\1", text)


def parameter(found: inspect.Parameter) -> str:
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    text = next((s for kind, s in stars.items() if kind is found.kind), "") + found.name
    typed = found.annotation is not found.empty
    if typed:
        text += f": {plain(found.annotation)}"
    if found.default is not found.empty:
        default = re.sub(r" at 0x[0-9a-f]+", "", repr(found.default))
        default = default if len(default) <= 60 else "..."
        text += f" = {default}" if typed else f"={default}"
    return text


def signature(found: Any) -> str:
    """The signature, one parameter a line where one line is too short; empty without one."""
    try:
        signed = inspect.signature(found)
    except (TypeError, ValueError):
        return ""
    words: list[str] = []
    parameters = list(signed.parameters.values())
    if parameters and parameters[0].name in {"self", "cls"}:
        del parameters[0]
    kinds = [each.kind for each in parameters]
    for number, each in enumerate(parameters):
        if each.kind is each.KEYWORD_ONLY and not {each.KEYWORD_ONLY, each.VAR_POSITIONAL} & set(
            kinds[:number]
        ):
            words.append("*")
        words.append(parameter(each))
        if each.kind is each.POSITIONAL_ONLY and each.POSITIONAL_ONLY not in kinds[number + 1 :]:
            words.append("/")
    returned = signed.return_annotation
    arrow = f" -> {plain(returned)}" if returned is not signed.empty else ""
    line = f"({', '.join(words)}){arrow}"
    if len(line) <= 80:
        return line
    return "(\n" + "".join(f"    {word},\n" for word in words) + f"){arrow}"


def parameter_docs(found: Any) -> dict[str, str]:
    """What FastAPI writes beside its parameters instead of into docstrings."""
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return {}
    docs = {}
    for each in parameters:
        for extra in getattr(each.annotation, "__metadata__", ()):
            if isinstance(text := getattr(extra, "documentation", None), str):
                docs[each.name] = inspect.cleandoc(text)
    return docs


def unproxied(path: str, found: Any) -> Any:
    """The method behind a function of alembic.op and alembic.context."""
    for module, owner in (
        ("alembic.op", "alembic.operations.Operations"),
        ("alembic.context", "alembic.runtime.environment.EnvironmentContext"),
    ):
        if path.startswith(f"{module}.") and inspect.isfunction(found):
            holder, _, name = owner.rpartition(".")
            return getattr(getattr(load(holder), name), path.rpartition(".")[2], found)
    return found


def place(found: Any) -> tuple[str | None, int | None]:
    try:
        target: Any = found.fget if isinstance(found, property) else found
        unwrapped = inspect.unwrap(target)
        file = inspect.getsourcefile(unwrapped)
        line = None if inspect.ismodule(found) else inspect.getsourcelines(unwrapped)[1]
    except (TypeError, OSError):
        return None, None
    return file, line


def defined(path: str, found: Any) -> tuple[str, str]:
    """The module in which it is defined, and its name there, with that of its class."""
    if inspect.ismodule(found):
        return path, ""
    qualified = getattr(found, "__qualname__", None) or getattr(found, "__name__", "")
    if isinstance(found, property):
        qualified = getattr(found.fget, "__qualname__", "")
        found = found.fget
    module = getattr(found, "__module__", None) or path.rpartition(".")[0]
    return module, qualified or path.rpartition(".")[2]


def kind_of(found: Any) -> str:
    if inspect.ismodule(found):
        return "module"
    if inspect.isclass(found):
        return "class"
    if inspect.iscoroutinefunction(found):
        return "async function"
    return "function" if callable(found) else type(found).__name__


def described(path: str, found: Any) -> Answer:
    target = unproxied(path, found)
    file, line = place(target)
    library = path.partition(".")[0]
    module, qualified = defined(path, target)
    source = module.partition(".")[0]
    source = source if version_of(source) else library
    doc = inspect.getdoc(target) or ""
    kind = kind_of(target)
    return {
        "name": path,
        "kind": kind,
        "signature": "" if kind == "module" else signature(target),
        "doc": doc[:MAX_TEXT],
        "parameters": parameter_docs(target),
        "file": file,
        "line": line,
        "module": module,
        "qualified": qualified,
        "library": source,
        "version": version_of(source),
        "members": public_names(target) if inspect.ismodule(target) else [],
    }


@functools.cache
def version_of(library: str) -> str | None:
    if library in sys.stdlib_module_names:
        return ".".join(map(str, sys.version_info[:3]))
    for name in (library, library.replace("_", "-")):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def answer(request: Answer) -> Answer:
    versions = {name: version_of(name) for name in [*sorted(LIBRARIES - STANDARD), "asyncio"]}
    result: Answer = {"versions": {name: v for name, v in versions.items() if v}}
    for name in request["names"]:
        try:
            candidates = resolve(name)
        except UnknownNameError as error:
            result[name] = {"candidates": [], "nearest": nearest(error, name)}
        else:
            result[name] = {"candidates": [described(*each) for each in candidates]}
    return result


def main() -> None:
    # What libraries print must not spoil the answer, nor may this folder hide their modules.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    here = Path(__file__).resolve().parent
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != here]
    warnings.simplefilter("ignore")
    answers.write("\n" + json.dumps(answer(json.loads(sys.stdin.read()))))
    answers.close()


if __name__ == "__main__":
    main()
