"""The reader's project as a whole: which name is what, across its modules."""

import ast
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from _lint_source import Function, Source, attribute, decorators, is_function, keyword
from _lint_versions import Requirement, Versions
from _syntax import dotted

ValueT = TypeVar("ValueT")
COLLECTIONS = {"list", "List", "set", "Set", "Sequence", "dict", "Dict", "frozenset"}
WRAPPERS = {"Mapped", "ClassVar", "Final", "Required", "NotRequired"}
SQLMODEL_ROOTS = {"sqlmodel.SQLModel", "sqlmodel.main.SQLModel"}
PYDANTIC_ROOTS = {"pydantic.BaseModel", "pydantic.main.BaseModel"}
SCHEME = re.compile(r"\b(sqlite|postgres(?:ql)?|mysql|mariadb)(?:\+(\w+))?://")
DRIVERS = {
    "aiosqlite": "sqlite",
    "asyncpg": "postgresql",
    "aiomysql": "mysql",
    "asyncmy": "mysql",
}
MAX_DEPTH = 12


class Type(NamedTuple):
    """What an annotation says: `Annotated[list["Jar"] | None, ...]` is an optional collection."""

    name: str
    optional: bool = False
    collection: bool = False
    details: tuple[ast.expr, ...] = ()
    arguments: tuple[ast.expr, ...] = ()


class Member(NamedTuple):
    """A field or a relationship of a class; `call` is what stands on the right of it."""

    name: str
    node: ast.stmt
    type: Type
    call: ast.Call | None
    value: ast.expr | None
    owner: "Class"

    def option(self, name: str) -> ast.expr | None:
        calls = [self.call, *self.type.details]
        found = (keyword(call, name) for call in calls if isinstance(call, ast.Call))
        return next((value for value in found if value is not None), None)

    def says(self, name: str) -> bool:
        value = self.option(name)
        return isinstance(value, ast.Constant) and value.value is True

    def text_option(self, name: str) -> str:
        value = self.option(name)
        is_text = isinstance(value, ast.Constant) and isinstance(value.value, str)
        return str(value.value) if is_text and isinstance(value, ast.Constant) else ""

    @property
    def opaque(self) -> bool:
        """Whether some of its options cannot be seen."""
        return self.call is not None and any(item.arg is None for item in self.call.keywords)

    @property
    def loads_itself(self) -> bool | None:
        """Whether a relationship comes with its object; None when that cannot be seen."""
        given = self.option("sa_relationship_kwargs")
        if self.option("sa_relationship") is not None or self.opaque:
            return None
        if given is None:
            return False
        if not isinstance(given, ast.Dict):
            return None
        for key, value in zip(given.keys, given.values, strict=True):
            if key is None:
                return None
            if isinstance(key, ast.Constant) and key.value == "lazy":
                return None if not isinstance(value, ast.Constant) else value.value not in {
                    "select", True
                }  # fmt: skip
        return False


class Class:
    """A class of the project with what it inherits from other classes of the project."""

    def __init__(self, node: ast.ClassDef, source: Source, project: "Project") -> None:
        self.node = node
        self.source = source
        self.project = project
        self.name = node.name

    def __repr__(self) -> str:
        return f"Class({self.name})"

    @cached_property
    def base_names(self) -> list[str]:
        bases = (b.value if isinstance(b, ast.Subscript) else b for b in self.node.bases)
        return [self.project.resolve(self.source, base) for base in bases]

    @cached_property
    def bases(self) -> "list[Class]":
        found = []
        for base in self.node.bases:
            expression = base.value if isinstance(base, ast.Subscript) else base
            known = self.project.class_at(self.source, expression, self.node)
            if known is not None and known is not self:
                found.append(known)
        return found

    @cached_property
    def lineage(self) -> "list[Class]":
        """This class and all those of the project that it inherits from."""
        found: list[Class] = []
        pending: list[Class] = [self]
        while pending and len(found) < 40:
            item = pending.pop(0)
            if item not in found:
                found.append(item)
                pending += item.bases
        return found

    @cached_property
    def roots(self) -> set[str]:
        return {name for item in self.lineage for name in item.base_names}

    @property
    def is_sqlmodel(self) -> bool:
        return bool(self.roots & SQLMODEL_ROOTS)

    @property
    def is_table(self) -> bool:
        table = next((k.value for k in self.node.keywords if k.arg == "table"), None)
        return isinstance(table, ast.Constant) and table.value is True and self.is_sqlmodel

    @property
    def is_schema(self) -> bool:
        return not self.is_table and bool(self.roots & (SQLMODEL_ROOTS | PYDANTIC_ROOTS))

    @cached_property
    def own_members(self) -> list[Member]:
        found = []
        for node in self.node.body:
            match node:
                case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=value):
                    kind = self.project.type_of(self.source, annotation)
                    call = value if isinstance(value, ast.Call) else None
                    found.append(Member(name, node, kind, call, value, self))
        return found

    @cached_property
    def members(self) -> dict[str, Member]:
        found: dict[str, Member] = {}
        for item in reversed(self.lineage):
            found |= {member.name: member for member in item.own_members}
        return found

    @cached_property
    def relationships(self) -> dict[str, Member]:
        if not self.is_table:
            return {}
        return {n: m for n, m in self.members.items() if attribute_of_call(m) == "Relationship"}

    @cached_property
    def fields(self) -> dict[str, Member]:
        return {
            name: member
            for name, member in self.members.items()
            if attribute_of_call(member) != "Relationship"
            and "ClassVar" not in ast.dump(member.node)[:200]
            and not name.startswith("_")
        }

    def target(self, relationship: Member) -> "Class | None":
        return self.project.class_at(
            relationship.owner.source, relationship.type.name, relationship.owner.node
        )

    @cached_property
    def assigned(self) -> dict[str, ast.expr]:
        """Plain class attributes, such as `__table_args__` and `model_config`."""
        found: dict[str, ast.expr] = {}
        for item in reversed(self.lineage):
            for node in item.node.body:
                match node:
                    case ast.Assign(targets=[ast.Name(id=name)], value=value):
                        found[name] = value
                    case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                        found[name] = value
        return found

    @cached_property
    def methods(self) -> dict[str, Function]:
        found: dict[str, Function] = {}
        for item in reversed(self.lineage):
            found |= {node.name: node for node in item.node.body if is_function(node)}
        return found

    @cached_property
    def is_service(self) -> bool:
        return any(name.rpartition(".")[2] == "ServiceBase" for name in self.roots)

    @cached_property
    def served(self) -> "Class | None":
        """The table of a service: `class Heroes(ServiceBase[Hero, ...])`."""
        for item in self.lineage if self.is_service else []:
            for base in item.node.bases:
                if isinstance(base, ast.Subscript):
                    inner = base.slice
                    first = inner.elts[0] if isinstance(inner, ast.Tuple) and inner.elts else inner
                    if found := self.project.table_at(item.source, first, item.node):
                        return found
        return None

    def has_config(self, name: str) -> bool:
        config = self.assigned.get("model_config")
        return (
            config is not None
            and re.search(rf"\b{name}\b.{{0,4}}True", ast.unparse(config)) is not None
        )

    @cached_property
    def table_name(self) -> str:
        value = self.assigned.get("__tablename__")
        return str(value.value) if isinstance(value, ast.Constant) else self.name.lower()


def attribute_of_call(member: Member) -> str:
    return attribute(member.call) if member.call is not None else ""


class Project:
    """All files that are looked at, and what was found out about their project.

    It is `whole` unless it has files that nobody read: what is missing may be there.
    """

    def __init__(
        self,
        sources: list[Source],
        root: Path,
        versions: Versions,
        requirements: list[Requirement],
        *,
        whole: bool = True,
    ) -> None:
        self.sources = sources
        self.root = root
        self.whole = whole
        self.versions = versions
        self.requirements = requirements
        self._modules: dict[str, list[Source]] = defaultdict(list)
        self._resolved: dict[str, str] = {}
        self._mentioned: dict[tuple[bool, tuple[str, ...]], bool] = {}
        self._classes: dict[str, list[Class]] = defaultdict(list)
        self.classes: list[Class] = []
        for source in sources:
            parts = source.module.split(".")
            for start in range(len(parts)):
                self._modules[".".join(parts[start:])].append(source)
            for node in source.all(ast.ClassDef):
                item = Class(node, source, self)
                self.classes.append(item)
                self._classes[f"{source.module}.{node.name}"].append(item)

    # Names

    def module(self, name: str, near: Source) -> Source | None:
        """The file of a module; among several of that name the one nearest to who asks."""
        candidates = self._modules.get(name, [])
        if len(candidates) < 2:
            return candidates[0] if candidates else None
        return max(candidates, key=lambda item: shared_parts(item.path, near.path))

    def resolve(self, source: Source, node: ast.AST | str) -> str:
        """The full name of what an expression names, through all re-exports inside the project."""
        name = node if isinstance(node, str) else source.qualified(node)
        if not name:
            return ""
        if isinstance(node, str) and "." not in node:
            name = source.imports.get(node, f"{source.module}.{node}")
        if name not in self._resolved:
            self._resolved[name] = self._follow(name, source)
        return self._resolved[name]

    def _follow(self, name: str, source: Source) -> str:
        for _ in range(MAX_DEPTH):
            home, rest = self._split(name, source)
            if home is None or not rest:
                return name
            head, dot, tail = rest.partition(".")
            if head in home.top:
                return f"{home.module}.{rest}"
            if head not in home.imports:
                return name
            following = home.imports[head] + dot + tail
            if following == name:
                return name
            name, source = following, home
        return name

    def _split(self, name: str, near: Source) -> tuple[Source | None, str]:
        """The longest beginning of a name that is a module, and what is left of it."""
        parts = name.split(".")
        for cut in range(len(parts), 0, -1):
            if home := self.module(".".join(parts[:cut]), near):
                return home, ".".join(parts[cut:])
        return None, name

    def definition(self, source: Source, node: ast.AST | str) -> tuple[Source, ast.stmt] | None:
        """Where the project binds a name at the top of a module."""
        home, rest = self._split(self.resolve(source, node), source)
        found = home.top.get(rest) if home is not None else None
        return (home, found) if home is not None and found is not None else None

    def function_at(
        self, source: Source, node: ast.AST, at: ast.AST | None = None
    ) -> tuple[Source, Function] | None:
        """The function that a name means: one inside an enclosing function, or of a module."""
        if isinstance(node, ast.Name):
            for outer in source.enclosing_functions(at or node):
                for item in source.own(outer):
                    if is_function(item) and item.name == node.id:
                        return source, item
        found = self.definition(source, node)
        if found and is_function(found[1]):
            return found[0], found[1]
        return None

    def class_at(
        self, source: Source, node: ast.AST | str, at: ast.AST | None = None
    ) -> Class | None:
        """The class that a name means, from where it is used."""
        name = node if isinstance(node, str) else dotted(node)
        if not name:
            return None
        if "." not in name and name not in source.imports:
            local = self._classes.get(f"{source.module}.{name}", [])
            here = source.enclosing_functions(at) if at is not None else []
            for item in local:
                home = source.function_of(item.node)
                if home is None or home in here:
                    return item
            if local and at is None:
                return local[-1]
        candidates = self._classes.get(
            self.resolve(source, name if isinstance(node, str) else node), []
        )
        return candidates[-1] if candidates else None

    def table_at(
        self, source: Source, node: ast.AST | str, at: ast.AST | None = None
    ) -> Class | None:
        found = self.class_at(source, node, at or (node if isinstance(node, ast.AST) else None))
        return found if found is not None and found.is_table else None

    # Annotations

    def type_of(self, source: Source, node: ast.expr | None, depth: int = 0) -> Type:
        """Read an annotation, through Annotated, Optional, quotes and aliases of the project."""
        if node is None or depth > MAX_DEPTH:
            return Type("")
        match node:
            case ast.Constant(value=str(text)):
                return self.type_of(source, parsed(text), depth + 1)
            case ast.BinOp(op=ast.BitOr(), left=left, right=right):
                return self._union(source, [left, right], depth)
            case ast.Subscript(slice=ast.Tuple(elts=[])):
                return Type("")
            case ast.Subscript(value=value, slice=inner):
                return self._subscript(source, value, inner, depth)
        return self._plain(source, node, depth)

    def _union(self, source: Source, parts: list[ast.expr], depth: int) -> Type:
        real = [p for p in parts if not (isinstance(p, ast.Constant) and p.value is None)]
        first = self.type_of(source, real[0], depth + 1) if real else Type("None")
        if len(real) > 1:
            others = [self.type_of(source, part, depth + 1) for part in real[1:]]
            first = first._replace(
                name=first.name if all(o.name == first.name for o in others) else "union",
                optional=first.optional or any(o.optional for o in others),
            )
        return first._replace(optional=first.optional or len(real) < len(parts))

    def _subscript(self, source: Source, value: ast.expr, inner: ast.expr, depth: int) -> Type:
        head = attribute(value)
        parts = tuple(inner.elts) if isinstance(inner, ast.Tuple) else (inner,)
        if head == "Annotated":
            first = self.type_of(source, parts[0], depth + 1)
            return first._replace(details=(*first.details, *parts[1:]))
        if head == "Optional":
            return self._union(source, [*parts, ast.Constant(None)], depth)
        if head == "Union":
            return self._union(source, [*parts], depth)
        if head in WRAPPERS:
            return self.type_of(source, parts[0], depth + 1)
        if head in COLLECTIONS:
            first = self.type_of(source, parts[0], depth + 1)
            return Type(first.name, collection=True, arguments=parts)
        return self._plain(source, value, depth)._replace(arguments=parts)

    def _plain(self, source: Source, node: ast.expr, depth: int) -> Type:
        found = self.definition(source, node) if dotted(node) else None
        if found and isinstance(found[1], ast.Assign | ast.AnnAssign) and found[1].value:
            value = found[1].value
            if isinstance(value, ast.Subscript | ast.BinOp | ast.Name | ast.Attribute):
                return self.type_of(found[0], value, depth + 1)
        if found and type(found[1]).__name__ == "TypeAlias":
            return self.type_of(found[0], getattr(found[1], "value", None), depth + 1)
        return Type(
            self.resolve(source, node) if dotted(node) else "",
            collection=attribute(node) in COLLECTIONS,
        )

    # The project

    def once(self, name: str, make: Callable[[], ValueT]) -> ValueT:
        """What `make` finds out about the project, kept for all who ask by that name."""
        kept: dict[str, Any] = self.__dict__.setdefault("kept", {})
        if name not in kept:
            kept[name] = make()
        return cast("ValueT", kept[name])

    @cached_property
    def tables(self) -> list[Class]:
        return [item for item in self.classes if item.is_table]

    @cached_property
    def has_tests(self) -> bool:
        folders = [self.root / name for name in ("tests", "test")]
        return any(s.is_test for s in self.sources) or any(f.is_dir() for f in folders)

    def any_mentions(self, *words: str, tests: bool = True) -> bool:
        """Whether some file has one of the words; each question reads all of them only once."""
        key = (tests, words)
        if key not in self._mentioned:
            asked = (s for s in self.sources if tests or not s.is_test)
            self._mentioned[key] = any(s.mentions(*words) for s in asked)
        return self._mentioned[key]

    @cached_property
    def databases(self) -> set[str]:
        """Databases that URLs and required drivers speak of, outside of tests."""
        texts = [s.text for s in self.sources if not s.is_test]
        texts += [file.read_text("utf-8", "replace") for file in self.root.glob("*.ini")]
        texts += [
            file.read_text("utf-8", "replace") for file in self.root.glob(".env*") if file.is_file()
        ]
        found = {match[1] for text in texts for match in SCHEME.finditer(text)}
        found |= {DRIVERS[r.name] for r in self.requirements if r.name in DRIVERS}
        aliases = {"postgres": "postgresql", "mariadb": "mysql"}
        return {aliases.get(name, name) for name in found}

    @cached_property
    def drivers(self) -> set[str]:
        found = {m[2] for s in self.sources for m in SCHEME.finditer(s.text) if m[2]}
        return found | {r.name for r in self.requirements}

    @cached_property
    def routes(self) -> "list[Route]":
        return [route for source in self.sources for route in routes_in(source)]

    @cached_property
    def depends(self) -> list[tuple[Source, ast.Call]]:
        """Each `Depends(...)` of the project."""
        return [
            (source, call)
            for source in self.sources
            if source.mentions("Depends")
            for call in source.all(ast.Call)
            if attribute(call) in {"Depends", "Security"}
        ]

    @cached_property
    def dependencies(self) -> dict[Function, list[ast.Call]]:
        """Functions that some `Depends(...)` names, each with these calls."""
        found: dict[Function, list[ast.Call]] = defaultdict(list)
        for source, call in self.depends:
            for argument in call.args[:1]:
                if target := self.function_at(source, argument):
                    found[target[1]].append(call)
        return found


class Route(NamedTuple):
    """A function that answers requests, and the decorator that says so."""

    source: Source
    function: Function
    decorator: ast.Call
    method: str


METHODS = {"get", "post", "put", "patch", "delete", "head", "options", "api_route", "websocket"}


def routes_in(source: Source) -> Iterator[Route]:
    if not source.mentions("APIRouter", "FastAPI", "router", "app"):
        return
    for function in source.functions:
        for name, node in decorators(function):
            head, _, method = name.rpartition(".")
            if head and method in METHODS and isinstance(node, ast.Call) and has_path(node):
                yield Route(source, function, node, method)


def has_path(call: ast.Call) -> bool:
    path = call.args[0] if call.args else keyword(call, "path")
    return isinstance(path, ast.Constant | ast.JoinedStr)


def shared_parts(one: Path, other: Path) -> int:
    pairs = zip(one.parts, other.parts, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), len(one.parts))


def parsed(text: str) -> ast.expr | None:
    try:
        return ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        return None
