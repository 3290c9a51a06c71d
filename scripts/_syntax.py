"""What syntax trees say: the names that code defines, imports and uses, and its strings."""

import ast
from collections.abc import Iterable, Iterator, Sequence

BLOCKS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def defined_names(node: ast.stmt) -> list[str]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return [node.name]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
        case ast.Assign(targets=targets):
            parts = (part for target in targets for part in ast.walk(target))
            return [part.id for part in parts if isinstance(part, ast.Name)]
    return []


def definitions(body: Sequence[ast.stmt]) -> list[str]:
    return list(dict.fromkeys(name for node in body for name in defined_names(node)))


def dotted(node: ast.AST) -> str:
    """`a.b.c` for such an expression, else nothing."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (head := dotted(node.value)):
        return f"{head}.{node.attr}"
    return ""


def names_in(nodes: Iterable[ast.AST]) -> set[str]:
    """Names that the code imports or uses."""
    found = set()
    for node in nodes:
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name):
                found.add(name)
    return found


def string_of(node: ast.AST) -> str:
    """The text of a string expression, also one put together; formatted values become a gap."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(string_of(part) or "\0" for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return string_of(left) + string_of(right)
    return ""


def imported_modules(nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
