"""Find and write the imports that an excerpt needs."""

import ast
import builtins
import symtable
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from textwrap import indent
from typing import NamedTuple

from _excerpt import Source, SyncError
from _syntax import definitions

LINE_LENGTH = 100
ALWAYS_THERE = {*dir(builtins), "__file__"}
# Leading folders that are no part of a module's name: scripts/lint.py, templates/app/app/main.py.
FOLDERS_ABOVE_MODULES = {"scripts": 1, "templates": 2}


class Import(NamedTuple):
    """One imported name. Sorted, imports stand in the order and the groups of their file."""

    group: int
    line: int
    module: str
    name: str = ""
    alias: str = ""
    guarded: bool = False

    @property
    def bound(self) -> str:
        return self.alias or self.name or self.module.partition(".")[0]


def imports_of(source: Source) -> list[Import]:
    """The imports at the top of a file, and those below `if TYPE_CHECKING:`."""
    found = list(imports_among(source.body, source.lines))
    for node in source.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            guarded = imports_among(node.body, source.lines)
            found += [item._replace(guarded=True) for item in guarded]
    return found


def imports_among(body: Sequence[ast.stmt], lines: Sequence[str]) -> Iterator[Import]:
    group, last_line = 0, 0
    for node in body:
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        if any(not line.strip() for line in lines[last_line : node.lineno - 1]):
            group += 1
        last_line = node.end_lineno or node.lineno
        for alias in node.names:
            module, name = alias.name, ""
            if isinstance(node, ast.ImportFrom):
                module, name = "." * node.level + (node.module or ""), alias.name
            yield Import(group, node.lineno, module, name, alias.asname or "")


def names_from_outside(table: symtable.SymbolTable) -> tuple[set[str], set[str]]:
    """Names that the code takes from outside, and names that it perhaps does.

    A class body falls back to the module even for a name that it also binds: `date: date`.
    """
    certain: set[str] = set()
    perhaps: set[str] = set()
    for symbol in table.get_symbols():
        # Python 3.11 calls the locals of a function named `top` global; they are local as well.
        if symbol.is_referenced() and symbol.is_global() and not symbol.is_local():
            certain.add(symbol.get_name())
        elif symbol.is_referenced() and table.get_type() == "class":
            perhaps.add(symbol.get_name())
    for child in table.get_children():
        inner = names_from_outside(child)
        certain |= inner[0]
        perhaps |= inner[1]
    return certain, perhaps


def names_in_quotes(annotation: ast.AST) -> set[str]:
    """Names in the strings of an annotation, but not in Literal or in Annotated's extras."""
    match annotation:
        case ast.Constant(value=str(text)):
            try:
                inner = ast.parse(text.strip(), mode="eval")
            except SyntaxError:
                return set()
            names = {node.id for node in ast.walk(inner) if isinstance(node, ast.Name)}
            return names | names_in_quotes(inner.body)
        case ast.Subscript(value=ast.Name("Literal") | ast.Attribute(attr="Literal")):
            return set()
        case ast.Subscript(
            value=ast.Name("Annotated") | ast.Attribute(attr="Annotated"),
            slice=ast.Tuple(elts=[first, *_]),
        ):
            return names_in_quotes(first)
    return {name for part in ast.iter_child_nodes(annotation) for name in names_in_quotes(part)}


def quoted_names(tree: ast.Module) -> set[str]:
    """Names that stand in quotes where Python expects a type."""
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case (
                ast.arg(annotation=ast.expr() as annotation)
                | ast.AnnAssign(annotation=annotation)
                | ast.FunctionDef(returns=ast.expr() as annotation)
                | ast.AsyncFunctionDef(returns=ast.expr() as annotation)
                | ast.Call(func=ast.Name("cast"), args=[annotation, *_])
                | ast.keyword(arg="bound", value=annotation)
            ):
                names |= names_in_quotes(annotation)
    return names


def imports_for(code: str, source: Source) -> list[Import]:
    """The imports that the code uses; neighbours from its own file come from their module."""
    tree = ast.parse(code)
    own = set(definitions(tree.body))
    certain, perhaps = names_from_outside(symtable.symtable(code, source.path, "exec"))
    imports = imports_of(source)
    wanted = (certain | perhaps | quoted_names(tree)) - own
    dotted = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}

    def is_needed(item: Import) -> bool:
        if "." in item.module and not item.name and not item.alias:
            return item.module in dotted
        return item.module == "__future__" or item.bound in wanted

    if any(item.guarded and is_needed(item) for item in imports):
        wanted.add("TYPE_CHECKING")
    needed = [item for item in imports if is_needed(item)]
    bound = {item.bound for item in needed}
    neighbours = (wanted - bound) & set(source.names)
    missing = certain - own - bound - neighbours - ALWAYS_THERE
    if missing:
        what = f"{source.path} neither defines nor imports at its top: {', '.join(sorted(missing))}"
        raise SyncError(what, f"import it at the top of {source.path}")
    above = [item for item in imports if not item.guarded]
    return needed + [import_of_neighbour(name, source.path, above) for name in neighbours]


def import_of_neighbour(name: str, home: str, above: Sequence[Import]) -> Import:
    """Import a name from its module, in the file's own group for that package if there is one."""
    path = PurePosixPath(home.removesuffix(".py").removesuffix("/__init__"))
    parts = path.parts[FOLDERS_ABOVE_MODULES.get(path.parts[0], 0) :]
    module = ".".join(parts)
    family = [item for item in above if item.module.split(".")[0] == parts[0]]
    smaller = [item for item in family if item.module < module] or family[:1]
    if smaller:
        return smaller[-1]._replace(module=module, name=name, alias="")
    return Import(max((item.group for item in above), default=0) + 1, 0, module, name)


def rank(name: str) -> tuple[int, str, str]:
    """Constants, classes, the rest: the order in which ruff sorts the names of one import."""
    is_constant = name.isupper() and len(name) > 1
    return 0 if is_constant else 1 if name[0].isupper() else 2, name.casefold(), name


def import_line(module: str, names: Iterable[str]) -> str:
    ordered = sorted(names, key=rank)
    line = f"from {module} import {', '.join(ordered)}"
    if len(line) <= LINE_LENGTH:
        return line
    return "\n".join([f"from {module} import (", *(f"    {name}," for name in ordered), ")"])


def render_imports(imports: Iterable[Import]) -> str:
    """Import lines, one per module, with a blank line between the groups of the file."""
    lines: dict[int, list[str]] = {}
    names: dict[tuple[int, str, str], list[str]] = {}
    for item in sorted(imports):
        alias = f" as {item.alias}" if item.alias else ""
        if item.name:
            # Names with an alias have lines of their own, below those of the module's other names.
            key = (item.group, item.module, item.name + alias if alias else "")
            names.setdefault(key, []).append(item.name + alias)
        else:
            lines.setdefault(item.group, []).append(f"import {item.module}{alias}")
    for (group, module, _), members in names.items():
        lines.setdefault(group, []).append(import_line(module, members))
    return "\n\n".join("\n".join(lines[group]) for group in sorted(lines))


def import_lines(code: str, source: Source) -> str:
    """What to put above an excerpt, so that it stands by itself."""
    needed = imports_for(code, source)
    parts = [render_imports(item for item in needed if not item.guarded)]
    if guarded := render_imports(item for item in needed if item.guarded):
        parts.append("if TYPE_CHECKING:\n" + indent(guarded, "    "))
    return "\n\n".join(filter(None, parts))
