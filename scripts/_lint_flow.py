"""What a function does with the database: its sessions, its statements, the objects it loads."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

from _lint_index import Class, Project
from _lint_source import (
    COMPREHENSIONS,
    Function,
    Scope,
    Source,
    arguments,
    attribute,
    decorators,
    is_constant,
    is_function,
    keyword,
    position,
    receiver,
    unpacks,
)
from _syntax import dotted

SQLMODEL_SESSIONS = {
    "sqlmodel.ext.asyncio.session.AsyncSession",
    "sqlmodel.ext.asyncio.AsyncSession",
}
SQLALCHEMY_SESSIONS = {
    "sqlalchemy.ext.asyncio.AsyncSession",
    "sqlalchemy.ext.asyncio.session.AsyncSession",
}
SESSIONS = SQLMODEL_SESSIONS | SQLALCHEMY_SESSIONS
FACTORIES = {
    "sqlalchemy.ext.asyncio.async_sessionmaker",
    "sqlalchemy.ext.asyncio.session.async_sessionmaker",
    "sqlalchemy.orm.sessionmaker",
    "sqlalchemy.orm.session.sessionmaker",
}
YIELDING = {"AsyncIterator", "AsyncGenerator", "AsyncContextManager", "AbstractAsyncContextManager"}
USUAL_NAMES = {"session", "db", "db_session", "async_session"}
# Methods that go to the database; `get` and `scalar` count only on a known session.
QUERIES = {
    "exec", "execute", "scalars", "scalar", "get", "get_one", "refresh", "merge", "flush",
    "stream", "stream_scalars", "delete",
}  # fmt: skip
TELLING = {
    "exec", "execute", "scalars", "scalar", "flush", "commit", "rollback", "refresh", "add",
    "add_all", "begin_nested",
}  # fmt: skip
ENDS = {"commit", "rollback", "close", "reset"}
LOADERS = {
    "selectinload", "joinedload", "subqueryload", "immediateload", "contains_eager",
}  # fmt: skip
QUIET_OPTIONS = {
    "defer", "undefer", "load_only", "raiseload", "lazyload", "with_loader_criteria", "defaultload",
    "noload", "undefer_group", "with_expression",
}  # fmt: skip
MANY = {"all", "fetchall", "partitions", "unique", "scalars", "mappings", "tuples"}
ONE = {"one", "one_or_none", "first", "scalar_one", "scalar_one_or_none", "scalar"}
STATEMENTS = {"select", "delete", "update", "insert"}


@dataclass(frozen=True)
class SessionInfo:
    """`kept` says whether objects stay readable after a commit, where that can be seen."""

    name: str
    kind: str = ""  # sqlmodel, sqlalchemy, or not known
    kept: bool | None = None
    factory: str = ""
    node: ast.AST | None = None


@dataclass
class Statement:
    """A query as it is put together, also over several assignments."""

    kind: str = ""
    home: str = ""  # sqlmodel or sqlalchemy
    call: ast.Call | None = None
    entities: list[ast.expr] = field(default_factory=list)
    methods: dict[str, list[ast.Call]] = field(default_factory=dict)
    opaque: bool = False

    def has(self, *names: str) -> bool:
        return any(name in self.methods for name in names)


@dataclass(frozen=True)
class Load:
    """What a name holds from here on. `loaded` is None where that cannot be seen."""

    name: str
    at: tuple[int, int]
    model: Class
    many: bool
    loaded: frozenset[str] | None
    session: str
    kind: str  # query, get, new, parameter, service
    node: ast.AST


class Flow:
    """The facts of one function, or of a module's own statements."""

    def __init__(self, project: Project, source: Source, scope: Scope) -> None:
        self.project = project
        self.source = source
        self.scope = scope
        self.nodes = source.own(scope)
        self.calls = source.own_calls(scope)
        self._loads: dict[str, list[Load]] = {}

    # Sessions

    @cached_property
    def sessions(self) -> dict[str, SessionInfo]:
        found: dict[str, SessionInfo] = {}
        for outer in reversed(self.source.enclosing_functions(self.scope)):
            found |= flow_of(self.project, self.source, outer).own_sessions
        return found | self.own_sessions

    @cached_property
    def own_sessions(self) -> dict[str, SessionInfo]:
        found: dict[str, SessionInfo] = {}
        if is_function(self.scope):
            for argument in arguments(self.scope):
                if info := self._from_parameter(argument):
                    found[info.name] = info
            found |= self._from_class(self.scope)
        for node in self.nodes:
            for name, value in bindings(node):
                if info := self.session_from(value, name):
                    found[name] = info
        return found

    def _from_parameter(self, argument: ast.arg) -> SessionInfo | None:
        name = self.project.type_of(self.source, argument.annotation).name
        if name in SESSIONS:
            return SessionInfo(argument.arg, kind_of(name), node=argument)
        is_untyped = argument.annotation is None and self._acts_as_session(argument.arg)
        if is_untyped:
            return SessionInfo(argument.arg, node=argument)
        return None

    def _from_class(self, function: Function) -> dict[str, SessionInfo]:
        """`self.session`, where the class says so or takes it in its constructor."""
        node = self.source.class_of(function)
        owner = self.project.class_at(self.source, node.name, function) if node else None
        found: dict[str, SessionInfo] = {}
        for item in owner.lineage if owner else []:
            for member in item.own_members:
                if member.type.name in SESSIONS:
                    name = f"self.{member.name}"
                    found[name] = SessionInfo(name, kind_of(member.type.name))
            for method in item.node.body:
                if is_function(method) and method.name == "__init__":
                    found |= self._from_constructor(item.source, method)
        return found

    def _from_constructor(self, source: Source, method: Function) -> dict[str, SessionInfo]:
        types = {
            argument.arg: self.project.type_of(source, argument.annotation).name
            for argument in arguments(method)
        }
        found = {}
        for node in source.own(method):
            match node:
                case ast.Assign(targets=[ast.Attribute() as target], value=ast.Name(id=name)) if (
                    types.get(name) in SESSIONS
                ):
                    found[dotted(target)] = SessionInfo(dotted(target), kind_of(types[name]))
        return found

    def session_from(self, value: ast.expr, name: str) -> SessionInfo | None:
        """What `value` makes, if it makes a session: `factory()`, `AsyncSession(engine)`."""
        if not isinstance(value, ast.Call):
            return None
        made = self.project.resolve(self.source, value.func)
        if made in SESSIONS:
            kept = (
                None if unpacks(value) else is_constant(keyword(value, "expire_on_commit"), False)
            )
            return SessionInfo(name, kind_of(made), kept, dotted(value.func), value)
        called = dotted(value.func).removesuffix(".begin")
        if factory := self.factory(called, value):
            return replace(factory, name=name, node=value)
        target = self.project.function_at(self.source, value.func, value) or self._method(value)
        if target and (kind := self._yielded(*target)):
            return SessionInfo(name, kind, None, called, value)
        if called != name and self._acts_as_session(name):
            return SessionInfo(name, "", None, called, value)
        return None

    def _acts_as_session(self, name: str) -> bool:
        """Whether a name of unknown type is that of a session, and is used like one."""
        if name.rpartition(".")[2] not in USUAL_NAMES:
            return False
        return any(receiver(c) == name and attribute(c) in TELLING for c in self.calls)

    def _yielded(self, source: Source, function: Function) -> str:
        """The kind of session that a context manager of the project yields."""
        if not any("contextmanager" in name for name, _ in decorators(function)):
            return ""
        returns = function.returns
        if isinstance(returns, ast.Subscript) and attribute(returns.value) in YIELDING:
            inner = returns.slice.elts[0] if isinstance(returns.slice, ast.Tuple) else returns.slice
            name = self.project.type_of(source, inner).name
            return kind_of(name) if name in SESSIONS else ""
        return ""

    def _method(self, call: ast.Call) -> tuple[Source, Function] | None:
        """The method that is called, where the class of its object can be seen."""
        owner = call.func.value if isinstance(call.func, ast.Attribute) else None
        item = self._class_of(owner) if owner is not None and dotted(owner) else None
        for part in item.lineage if item is not None else []:
            for node in part.node.body:
                if is_function(node) and node.name == attribute(call):
                    return part.source, node
        return None

    def _class_of(self, node: ast.expr) -> Class | None:
        """The class of an object: of a parameter, of `self` and what it keeps, of the module's."""
        head, dot, rest = dotted(node).partition(".")
        for scope in [self.scope, *self.source.enclosing_functions(self.scope)]:
            if not is_function(scope):
                continue
            home = self.source.class_of(scope)
            if head == "self" and home is not None:
                item = self.project.class_at(self.source, home.name, scope)
                return _kept_in(item, rest) if item is not None and dot else item
            taken = [argument for argument in arguments(scope) if argument.arg == head]
            if taken:
                return None if dot else _class_named(self.project, self.source, taken[0])
            if head in flow_of(self.project, self.source, scope).assigned:
                return None
        found = self.project.definition(self.source, node)
        made = getattr(found[1], "value", None) if found is not None else None
        if found is None or not isinstance(made, ast.Call):
            return None
        return self.project.class_at(found[0], made.func)

    def factory(self, name: str, at: ast.AST) -> SessionInfo | None:
        """The maker of sessions that a name means, with what it makes."""
        if not name:
            return None
        for outer in self.source.enclosing_functions(at):
            for argument in arguments(outer):
                if argument.arg == name and argument.annotation is not None:
                    return self._factory_type(argument.annotation)
            for _, value in flow_of(self.project, self.source, outer).assigned.get(name, []):
                if isinstance(value, ast.Call):
                    return self.factory_call(self.source, value)
        found = self.project.definition(self.source, ast.parse(name, mode="eval").body)
        made: ast.expr | None = getattr(found[1], "value", None) if found else None
        return self.factory_call(found[0], made) if found and isinstance(made, ast.Call) else None

    def _factory_type(self, annotation: ast.expr) -> SessionInfo | None:
        kind = self.project.type_of(self.source, annotation)
        if kind.name not in FACTORIES:
            return None
        made = self.project.type_of(self.source, kind.arguments[0]).name if kind.arguments else ""
        return SessionInfo("", kind_of(made), None, "factory")

    def factory_call(self, source: Source, call: ast.Call) -> SessionInfo | None:
        made = self.project.resolve(source, call.func)
        if made not in FACTORIES:
            target = self.project.function_at(source, call.func, call)
            annotation = target[1].returns if target else None
            return (
                Flow(self.project, target[0], target[1])._factory_type(annotation)
                if target and annotation
                else None
            )
        given = keyword(call, "class_")
        kind = kind_of(self.project.resolve(source, given)) if given is not None else "sqlalchemy"
        kept = None if unpacks(call) else is_constant(keyword(call, "expire_on_commit"), False)
        return SessionInfo("", kind, kept, "factory", call)

    def session_of(self, call: ast.AST) -> SessionInfo | None:
        """The session on which a method is called."""
        return self.sessions.get(receiver(call))

    def sessions_in(self, node: ast.AST) -> set[str]:
        """Sessions that an expression uses, also through services and functions inside this one."""
        found = {name for part in ast.walk(node) if (name := dotted(part)) in self.sessions}
        for name in {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}:
            found |= self.carriers.get(name, set())
        return found

    @cached_property
    def carriers(self) -> dict[str, set[str]]:
        """Objects made with a session, and inner functions that use one from outside."""
        found: dict[str, set[str]] = {}
        for node in self.nodes:
            if is_function(node):
                inner = flow_of(self.project, self.source, node)
                names = {name for part in inner.nodes if (name := dotted(part)) in self.sessions}
                own = {argument.arg for argument in arguments(node)} | inner.assigned.keys()
                found[node.name] = names - own
            for name, value in bindings(node):
                if isinstance(value, ast.Call) and attribute(value)[:1].isupper():
                    found[name] = {dotted(arg) for arg in value.args} & self.sessions.keys()
        return found

    def rebound(self, name: str, after: ast.AST, before: ast.AST) -> bool:
        """Whether a name gets another value between two places."""
        places = (at for at, _ in self.assigned.get(name, []))
        return any(position(after) < at < position(before) for at in places)

    def session_calls(self, *methods: str) -> Iterator[tuple[ast.Call, SessionInfo]]:
        for call in self.calls:
            if (not methods or attribute(call) in methods) and (info := self.session_of(call)):
                yield call, info

    # Names

    @cached_property
    def words(self) -> set[object]:
        """All names, attributes, keywords and constants of the function."""
        found: set[object] = set()
        for node in self.nodes:
            match node:
                case ast.Name(id=name) | ast.Attribute(attr=name) | ast.keyword(arg=str(name)):
                    found.add(name)
                case ast.Constant(value=str(text)):
                    found.add(text)
        return found

    @cached_property
    def assigned(self) -> dict[str, list[tuple[tuple[int, int], ast.expr]]]:
        found: dict[str, list[tuple[tuple[int, int], ast.expr]]] = {}
        for node in self.nodes:
            for name, value in bindings(node):
                found.setdefault(name, []).append((position(node), value))
        return found

    def values(self, name: str, before: ast.AST) -> list[ast.expr]:
        """All that a name may hold at a place: what was assigned to it above."""
        here = [
            value
            for at, value in self.assigned.get(name, [])
            if at < position(before) and not spans(value, before)
        ]
        if here:
            return here
        for outer in self.source.enclosing_functions(self.scope):
            if found := flow_of(self.project, self.source, outer).assigned.get(name):
                return [value for _, value in found]
        if is_function(self.scope) and name in {a.arg for a in arguments(self.scope)}:
            return []
        top_value = self.source.top_value(name)
        return [top_value] if top_value is not None else []

    # Statements

    def statement(self, node: ast.expr, depth: int = 0) -> Statement | None:
        """The query that an expression is, through the names that stand for its parts."""
        found = Statement()
        while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if self._starts(node, found):
                return found
            found.methods.setdefault(node.func.attr, []).append(node)
            node = node.func.value
        if isinstance(node, ast.Call) and self._starts(node, found):
            return found
        if isinstance(node, ast.Name) and depth < 6:
            return self._merged(node, found, depth)
        return None

    def _starts(self, call: ast.Call, found: Statement) -> bool:
        name = self.project.resolve(self.source, call.func)
        home, _, kind = name.rpartition(".")
        root = home.partition(".")[0]
        if kind not in STATEMENTS or root not in {"sqlmodel", "sqlalchemy"}:
            return False
        found.kind, found.home, found.call, found.entities = kind, root, call, [*call.args]
        found.opaque = found.opaque or any(isinstance(arg, ast.Starred) for arg in call.args)
        return True

    def _merged(self, node: ast.Name, found: Statement, depth: int) -> Statement | None:
        read = [self.statement(value, depth + 1) for value in self.values(node.id, node)]
        parts = [part for part in read if part is not None]
        started = [part for part in parts if part.kind]
        if not started:
            return None
        first = started[0]
        methods: dict[str, list[ast.Call]] = {}
        for part in (*parts, found):
            for name, calls in part.methods.items():
                methods.setdefault(name, []).extend(
                    c for c in calls if c not in methods.get(name, [])
                )
        opaque = None in read or any(part.opaque for part in (*parts, found))
        return replace(first, methods=methods, opaque=opaque)

    def model(self, statement: Statement) -> Class | None:
        """The one table whose objects a SELECT gives."""
        if len(statement.entities) != 1 or statement.kind != "select":
            return None
        return self.project.table_at(self.source, statement.entities[0])

    def options(self, statement: Statement) -> list[ast.expr]:
        return [arg for call in statement.methods.get("options", []) for arg in call.args]

    def loaded(self, options: list[ast.expr]) -> frozenset[str] | None:
        """Names of the relationships that loader options load on the queried class."""
        found: set[str] = set()
        for option in options:
            names = self._option(option)
            if names is None:
                return None
            found |= names
        return frozenset(found)

    def _option(self, node: ast.expr, depth: int = 0) -> set[str] | None:
        calls = []
        inner: ast.expr = node
        while isinstance(inner, ast.Call):
            calls.append(inner)
            inner = inner.func.value if isinstance(inner.func, ast.Attribute) else ast.Constant("")
        if not calls:
            values = self.values(node.id, node) if isinstance(node, ast.Name) and depth < 4 else []
            return self._option(values[-1], depth + 1) if values else None
        first = calls[-1]
        if attribute(first) in QUIET_OPTIONS:
            return set()
        if attribute(first) not in LOADERS or not first.args:
            return None
        target = first.args[0]
        if (
            isinstance(target, ast.Call)
            and target.args
            and attribute(target) not in {"of_type", "and_"}
        ):
            target = target.args[0]  # col(...), cast-like helpers
        elif isinstance(target, ast.Call) and isinstance(target.func, ast.Attribute):
            target = target.func.value
        return {target.attr} if isinstance(target, ast.Attribute) else None

    # Objects

    @cached_property
    def loads(self) -> dict[str, list[Load]]:
        found: dict[str, list[Load]] = {}
        self._loads = found
        if is_function(self.scope):
            for argument in arguments(self.scope):
                kind = self.project.type_of(self.source, argument.annotation)
                model = self.project.table_at(self.source, kind.name) if kind.name else None
                if model is not None:
                    self._add(
                        Load(
                            argument.arg,
                            (0, 0),
                            model,
                            kind.collection,
                            None,
                            "",
                            "parameter",
                            argument,
                        )
                    )
        for node in self.nodes:
            for name, value in bindings(node):
                if made := self.load(value):
                    self._add(replace(made, name=name, at=position(node), node=node))
                elif name in found and not isinstance(node, ast.withitem):
                    found[name].append(
                        replace(found[name][-1], at=position(node), loaded=None, kind="other")
                    )
            self._from_loop(node)
        return found

    def _add(self, load: Load) -> None:
        self._loads.setdefault(load.name, []).append(load)

    def _from_loop(self, node: ast.AST) -> None:
        if isinstance(node, ast.For | ast.AsyncFor):
            turns = [(node.target, node.iter, position(node))]
        elif isinstance(node, COMPREHENSIONS):
            # The names of a comprehension are used before the place where they are bound.
            turns = [(part.target, part.iter, position(node)) for part in node.generators]
        else:
            return
        for target, iterable, at in turns:
            made = self.load(iterable)
            if made is not None and made.many and isinstance(target, ast.Name):
                self._add(replace(made, name=target.id, at=at, many=False, node=node))

    def load(self, value: ast.expr, depth: int = 0) -> Load | None:
        """What an expression gives, where that is objects of a table."""
        match value:
            case ast.Await(value=inner) if depth < 8:
                return self.load(inner, depth + 1)
            case ast.NamedExpr(value=inner) if depth < 8:
                return self.load(inner, depth + 1)
            case ast.Name(id=name):
                known = self._loads.get(name)
                return known[-1] if known and known[-1].kind != "other" else None
            case ast.Subscript(value=inner, slice=index) if depth < 8:
                made = self.load(inner, depth + 1)
                is_slice = isinstance(index, ast.Slice)
                return replace(made, many=is_slice) if made and made.many else None
            case ast.Call():
                return self._from_call(value, depth)
        return None

    def _from_call(self, call: ast.Call, depth: int) -> Load | None:
        if isinstance(call.func, ast.Name):
            return self._from_name(call, depth)
        if info := self.session_of(call):
            return self._from_session(call, info)
        name = attribute(call)
        if name in {"get", "find", "list"} and (service := self.service_of(call)):
            loaded = frozenset[str]() if keyword(call, "load") is None else None
            model, many = service.served, name == "list"
            return Load("", (0, 0), model, many, loaded, "", "service", call) if model else None
        if isinstance(call.func, ast.Attribute) and name in MANY | ONE:
            made = self.load(call.func.value, depth + 1)
            return replace(made, many=name in MANY) if made and made.many else None
        return None

    def _from_name(self, call: ast.Call, depth: int) -> Load | None:
        """What `list(...)` and the like of objects give, and the constructor of a table."""
        if attribute(call) in {"list", "sorted", "tuple", "reversed"} and call.args:
            made = self.load(call.args[0], depth + 1)
            return made if made and made.many else None
        model = self.project.table_at(self.source, call.func)
        return Load("", (0, 0), model, False, frozenset(), "", "new", call) if model else None

    def service_of(self, call: ast.Call) -> Class | None:
        """The service on which a method is called: `Heroes(session)`, or a name that holds one."""
        owner = call.func.value if isinstance(call.func, ast.Attribute) else None
        if isinstance(owner, ast.Name):
            values = self.values(owner.id, owner)
            if values:
                owner = values[-1]
            else:
                return self._service_parameter(owner.id)
        if not isinstance(owner, ast.Call):
            return None
        found = self.project.class_at(self.source, owner.func, call)
        return found if found and found.is_service else None

    def _service_parameter(self, name: str) -> Class | None:
        for scope in [self.scope, *self.source.enclosing_functions(self.scope)]:
            for argument in arguments(scope) if is_function(scope) else []:
                if argument.arg == name and argument.annotation is not None:
                    kind = self.project.type_of(self.source, argument.annotation).name
                    found = self.project.class_at(self.source, kind) if kind else None
                    return found if found and found.is_service else None
        return None

    def _from_session(self, call: ast.Call, info: SessionInfo) -> Load | None:
        name = attribute(call)
        if name in {"get", "get_one"} and call.args:
            model = self.project.table_at(self.source, call.args[0])
            given = keyword(call, "options")
            options = [*given.elts] if isinstance(given, ast.List | ast.Tuple) else []
            known = given is None or isinstance(given, ast.List | ast.Tuple)
            loaded = self.loaded(options) if known and not unpacks(call) else None
            return Load("", (0, 0), model, False, loaded, info.name, "get", call) if model else None
        if name in {"exec", "scalars", "scalar", "stream_scalars", "execute"} and call.args:
            statement = self.statement(call.args[0])
            model = self.model(statement) if statement else None
            if statement is None or model is None:
                return None
            loaded = None if statement.opaque else self.loaded(self.options(statement))
            return Load("", (0, 0), model, name != "scalar", loaded, info.name, "query", call)
        return None

    def holds(self, name: str, at: ast.AST) -> Load | None:
        """The load that a name holds at a place."""
        here = position(at)
        before = [load for load in self.loads.get(name, []) if load.at <= here]
        return before[-1] if before and before[-1].kind != "other" else None


def _class_named(project: Project, source: Source, argument: ast.arg) -> Class | None:
    name = project.type_of(source, argument.annotation).name
    return project.class_at(source, name) if name else None


def _kept_in(item: Class, name: str) -> Class | None:
    """The class of `self.name`, as the class says it, or its constructor takes or makes it."""
    for part in item.lineage:
        for member in part.own_members:
            if member.name == name:
                return part.project.class_at(part.source, member.type.name)
        for method in part.node.body:
            if is_function(method) and method.name == "__init__":
                return _kept_by(part, method, name)
    return None


def _kept_by(item: Class, method: Function, name: str) -> Class | None:
    taken = {argument.arg: argument for argument in arguments(method)}
    for node in item.source.own(method):
        for bound, value in bindings(node):
            if bound != f"self.{name}":
                continue
            if isinstance(value, ast.Name) and value.id in taken:
                return _class_named(item.project, item.source, taken[value.id])
            return (
                item.project.class_at(item.source, value.func, method)
                if isinstance(value, ast.Call)
                else None
            )
    return None


def spans(outer: ast.expr, node: ast.AST) -> bool:
    """Whether a node stands inside an expression."""
    end = (outer.end_lineno or outer.lineno, outer.end_col_offset or 0)
    return position(outer) <= position(node) < end


def kind_of(name: str) -> str:
    if name in SQLMODEL_SESSIONS:
        return "sqlmodel"
    return "sqlalchemy" if name in SQLALCHEMY_SESSIONS else ""


def bindings(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Names that a node binds, each with the expression that it binds to it."""
    match node:
        case ast.Assign(targets=targets, value=value):
            yield from ((dotted(t), value) for t in targets if dotted(t))
        case ast.AnnAssign(target=target, value=ast.expr() as value) if dotted(target):
            yield dotted(target), value
        case ast.NamedExpr(target=target, value=value):
            yield target.id, value
        case ast.withitem(context_expr=value, optional_vars=ast.expr() as target) if dotted(target):
            yield dotted(target), value


def flow_of(project: Project, source: Source, scope: Scope) -> Flow:
    """The facts of a function, gathered once."""
    known: dict[Scope, Flow] = project.__dict__.setdefault("flows", {})
    if scope not in known:
        known[scope] = Flow(project, source, scope)
    return known[scope]


def flows(project: Project, source: Source) -> Iterator[Flow]:
    return (flow_of(project, source, function) for function in source.functions)


def async_flows(project: Project, source: Source) -> Iterator[Flow]:
    return (flow for flow in flows(project, source) if isinstance(flow.scope, ast.AsyncFunctionDef))
