"""One file of the reader's project: its syntax tree, its imports, and who stands inside whom."""

import ast
import re
import warnings
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeGuard, TypeVar

from _syntax import dotted

Function = ast.FunctionDef | ast.AsyncFunctionDef
Scope = ast.FunctionDef | ast.AsyncFunctionDef | ast.Module
NodeT = TypeVar("NodeT", bound=ast.AST)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
LOOPS = (ast.For, ast.AsyncFor, ast.While)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
TEST_FOLDERS = {"test", "tests", "testing"}


class Hit(NamedTuple):
    """What a rule says of a place; where `fix` or `path` is empty, the rule and the file say it."""

    line: int
    what: str
    fix: str = ""
    path: str = ""


def hit(node: ast.AST, what: str, fix: str = "") -> Hit:
    return Hit(getattr(node, "lineno", 1), what, fix)


def is_function(node: ast.AST | None) -> TypeGuard[Function]:
    return isinstance(node, FUNCTIONS)


class Source:
    """A parsed file. Nodes are visited once, in the order of the text, and kept by their class."""

    def __init__(self, path: Path, text: str, shown: str) -> None:
        self.path = path
        self.text = text
        self.shown = shown
        self.module = ".".join(module_parts(path))
        self.error: SyntaxError | None = None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError) as error:
            self.tree = ast.Module(body=[], type_ignores=[])
            self.error = error if isinstance(error, SyntaxError) else SyntaxError(str(error))
        self.parents: dict[ast.AST, ast.AST] = {}
        self._by_class: dict[type[ast.AST], list[ast.AST]] = defaultdict(list)
        self._own: dict[Scope, list[ast.AST]] = {}
        self._visit()

    def _visit(self) -> None:
        stack: list[ast.AST] = [self.tree]
        while stack:
            node = stack.pop()
            self._by_class[type(node)].append(node)
            children = [
                child
                for child in ast.iter_child_nodes(node)
                if not isinstance(child, ast.expr_context | ast.operator | ast.cmpop)
            ]
            for child in children:
                self.parents[child] = node
            stack.extend(reversed(children))

    def all(self, kind: type[NodeT]) -> list[NodeT]:
        return self._by_class[kind]  # type: ignore[return-value]

    @cached_property
    def functions(self) -> list[Function]:
        both: list[Function] = [*self.all(ast.FunctionDef), *self.all(ast.AsyncFunctionDef)]
        return sorted(both, key=lambda node: node.lineno)

    @cached_property
    def is_test(self) -> bool:
        name = self.path.name
        folders = set(self.path.parts[-4:-1])
        return (
            name.startswith("test_")
            or name.endswith("_test.py")
            or name == "conftest.py"
            or bool(folders & TEST_FOLDERS)
        )

    def mentions(self, *words: str) -> bool:
        """Whether one of the words stands in the text: what a rule asks before it looks closer."""
        return any(word in self.text for word in words)

    def ancestors(self, node: ast.AST) -> Iterator[ast.AST]:
        while parent := self.parents.get(node):
            yield parent
            node = parent

    def enclosing_functions(self, node: ast.AST) -> list[Function]:
        return [parent for parent in self.ancestors(node) if is_function(parent)]

    def function_of(self, node: ast.AST) -> Function | None:
        return next((p for p in self.ancestors(node) if is_function(p)), None)

    def scope_of(self, node: ast.AST) -> Scope:
        return self.function_of(node) or self.tree

    def class_of(self, node: ast.AST) -> ast.ClassDef | None:
        """The class whose body holds this function or statement."""
        parent = self.parents.get(node)
        return parent if isinstance(parent, ast.ClassDef) else None

    def inside(self, node: ast.AST, outer: ast.AST) -> bool:
        return any(parent is outer for parent in self.ancestors(node))

    def after(self, statement: ast.stmt) -> list[ast.AST]:
        """The statements that follow in the same block."""
        for body in bodies_of(next(self.ancestors(statement))):
            if statement in body:
                return body[body.index(statement) + 1 :]
        return []

    def own(self, scope: Scope) -> list[ast.AST]:
        """Nodes of a function in the order of the text, without those of functions inside it."""
        if scope not in self._own:
            found: list[ast.AST] = []
            pending: list[ast.AST] = [*reversed(scope.body)]
            while pending:
                node = pending.pop()
                found.append(node)
                if is_function(node):
                    continue
                pending.extend(reversed(list(ast.iter_child_nodes(node))))
            self._own[scope] = found
        return self._own[scope]

    def own_calls(self, scope: Scope) -> list[ast.Call]:
        return [node for node in self.own(scope) if isinstance(node, ast.Call)]

    def in_loop(self, node: ast.AST, within: ast.AST | None = None) -> bool:
        """Whether the node runs once per turn of a loop or a comprehension of its function."""
        child = node
        for parent in self.ancestors(node):
            if parent is within or is_function(parent):
                return False
            if isinstance(parent, LOOPS) and child not in header_of(parent):
                return True
            if isinstance(parent, COMPREHENSIONS) and child is not parent.generators[0]:
                return True
            child = parent
        return False

    def branches(self, node: ast.AST) -> set[tuple[ast.AST, str]]:
        """Which sides of conditions, loops and handlers have to run before a node does."""
        found: set[tuple[ast.AST, str]] = set()
        child = node
        for parent in self.ancestors(node):
            if is_function(parent):
                break
            if isinstance(parent, ast.If | ast.For | ast.AsyncFor | ast.While):
                sides = (name for name in ("body", "orelse") if child in getattr(parent, name))
                found |= {(parent, side) for side in sides}
            if isinstance(parent, ast.ExceptHandler | ast.match_case | ast.IfExp | ast.Lambda):
                found.add((parent, "body"))
            child = parent
        return found

    def precedes(self, first: ast.AST, second: ast.AST) -> bool:
        """Whether `first` has always run when `second` does."""
        return position(first) < position(second) and self.branches(first) <= self.branches(second)

    def leads_to(self, first: ast.AST, later: ast.AST) -> bool:
        """Whether what runs after `first` may reach `later`: no `return` between, no other side."""
        child = first
        for parent in self.ancestors(first):
            for body in bodies_of(parent):
                for node in body[body.index(child) + 1 :] if child in body else ():
                    if node is later or self.inside(later, node):
                        return True
                    if leaves(node):
                        return False
            child = parent
            if is_function(parent):
                break
        return False

    def awaited(self, node: ast.AST) -> bool:
        return isinstance(self.parents.get(node), ast.Await)

    @cached_property
    def imports(self) -> dict[str, str]:
        """What each imported name stands for, wherever in the file it is imported."""
        found: dict[str, str] = {}
        for plain in self.all(ast.Import):
            for alias in plain.names:
                bound = alias.asname or alias.name.partition(".")[0]
                found[bound] = alias.name if alias.asname else bound
        for node in self.all(ast.ImportFrom):
            base = self._absolute(node)
            for alias in node.names:
                found[alias.asname or alias.name] = f"{base}.{alias.name}"
        return found

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.module.split(".")
        keep = len(parts) - node.level + (self.path.name == "__init__.py")
        return ".".join([*parts[: max(keep, 0)], *([node.module] if node.module else [])])

    @cached_property
    def top(self) -> dict[str, ast.stmt]:
        """Statements that bind the names of the module; the last one counts."""
        found: dict[str, ast.stmt] = {}
        for node in self.tree.body:
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                    found[node.name] = node
                case ast.Assign(targets=targets):
                    found |= {t.id: node for t in targets if isinstance(t, ast.Name)}
                case ast.AnnAssign(target=ast.Name(id=name)):
                    found[name] = node
        return found

    def top_value(self, name: str) -> ast.expr | None:
        node = self.top.get(name)
        return node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None

    def qualified(self, node: ast.AST) -> str:
        """`sqlmodel.select` for `select`, as the imports have it; own names get the module's."""
        name = dotted(node)
        head, dot, rest = name.partition(".")
        if not head:
            return ""
        if head in self.imports:
            return self.imports[head] + dot + rest
        return f"{self.module}.{name}" if head in self.top else name


def bodies_of(node: ast.AST) -> Iterator[list[ast.AST]]:
    """The blocks of a statement, each with what runs when it is through with it."""
    if isinstance(node, ast.Try):
        yield [*node.body, *node.orelse, *node.finalbody]
        yield from ([handler, *node.finalbody] for handler in node.handlers)
        return
    for name in ("body", "orelse"):
        block = getattr(node, name, None)
        if isinstance(block, list):
            yield block


def leaves(node: ast.AST) -> bool:
    """Whether a statement never runs on into what follows it."""
    match node:
        case ast.Return() | ast.Raise() | ast.Continue() | ast.Break():
            return True
        case ast.If(body=body, orelse=[_, *_] as orelse):
            return leaves(body[-1]) and leaves(orelse[-1])
        case ast.With(body=body) | ast.AsyncWith(body=body):
            return leaves(body[-1])
    return False


def header_of(loop: ast.AST) -> tuple[ast.AST, ...]:
    """The part of a loop that runs once."""
    return (loop.iter, loop.target) if isinstance(loop, ast.For | ast.AsyncFor) else ()


def module_parts(path: Path) -> list[str]:
    """The path as a dotted name, from as far up as parts are names."""
    parts = [*path.parts[:-1], path.stem]
    if parts[-1] == "__init__":
        parts.pop()
    kept: list[str] = []
    for part in reversed(parts):
        if not re.fullmatch(r"[A-Za-z_]\w*", part):
            break
        kept.insert(0, part)
    return kept


def position(node: ast.AST) -> tuple[int, int]:
    if isinstance(node, ast.withitem):
        node = node.context_expr
    return getattr(node, "lineno", 0), getattr(node, "col_offset", 0)


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((item.value for item in call.keywords if item.arg == name), None)


def unpacks(call: ast.Call) -> bool:
    """Whether a call has arguments that cannot be seen: `f(**options)`."""
    return any(item.arg is None for item in call.keywords)


def is_constant(node: ast.AST | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def attribute(node: ast.AST) -> str:
    """The last name of a call's function, or of an attribute."""
    if isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def receiver(call: ast.AST) -> str:
    """`session` of `session.exec(...)`, `self.session` of `self.session.exec(...)`."""
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
        return dotted(call.func.value)
    return ""


def names_used(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def arguments(function: Function) -> list[ast.arg]:
    spec = function.args
    return [*spec.posonlyargs, *spec.args, *spec.kwonlyargs]


def calls_in(node: ast.AST) -> Iterator[ast.Call]:
    return (part for part in ast.walk(node) if isinstance(part, ast.Call))


def text_of(node: ast.AST) -> str:
    """Source text of an expression on one line, short enough for a message."""
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def decorators(function: Function | ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
    """Dotted names of the decorators, with or without a call."""
    for node in function.decorator_list:
        yield dotted(node.func if isinstance(node, ast.Call) else node), node
