"""Leave out of a copy what the bundle's file has only to show how it is used."""

import ast
import re
from collections.abc import Sequence

from _syntax import definitions

MARK = "# Example: scaffold.py leaves out what follows."


def without_example(source: str) -> str:
    """Return what is above the mark, without the imports that only the example needs."""
    kept, mark, _ = source.partition(f"\n{MARK}\n")
    return _without_unused_imports(kept.rstrip("\n") + "\n") if mark else source


def example_line(source: str) -> int:
    """Return the line of the mark; 0 where all of the file is copied."""
    lines = source.splitlines()
    return lines.index(MARK) + 1 if MARK in lines else 0


def example_names(source: str) -> list[str]:
    """Return what the example defines, tables and functions in their order."""
    first = example_line(source)
    body = [node for node in ast.parse(source).body if first and node.lineno > first]
    return [name for name in definitions(body) if not name.startswith("_")]


def _without_unused_imports(source: str) -> str:
    tree = ast.parse(source)
    used = _used_names(tree)
    lines = source.splitlines(keepends=True)
    for node in reversed(tree.body):
        if isinstance(node, ast.Import | ast.ImportFrom) and not _is_kept(node, lines):
            start, end = node.lineno - 1, node.end_lineno or node.lineno
            wanted = [a for a in node.names if (a.asname or a.name.split(".")[0]) in used]
            if not wanted:
                lines[_with_blank_line(lines, start, end) : end] = []
            elif len(wanted) < len(node.names):
                lines[start:end] = _with_names(lines[start:end], node, wanted)
    return "".join(lines)


def _used_names(tree: ast.Module) -> set[str]:
    """Return the names that the code uses, also in annotations that are texts, and exports."""
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for node in ast.walk(tree):
        match node:
            case ast.arg(annotation=part) | ast.AnnAssign(annotation=part):
                texts = [part]
            case ast.FunctionDef(returns=part) | ast.AsyncFunctionDef(returns=part):
                texts = [part]
            case ast.Assign(targets=[ast.Name(id="__all__")], value=part):
                texts = [part]
            case _:
                continue
        constants = (inner for text in texts if text for inner in ast.walk(text))
        for constant in constants:
            if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                used |= {*re.findall(r"\w+", constant.value)}
    return used


def _is_kept(node: ast.Import | ast.ImportFrom, lines: Sequence[str]) -> bool:
    """Whether the import is there for what it does, and not for its names alone."""
    first = node.names[0].name
    future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
    return future or first == "*" or "# noqa" in lines[node.lineno - 1]


def _with_blank_line(lines: Sequence[str], start: int, end: int) -> int:
    """Return where the removal begins: a group of imports goes with the blank line above it."""
    above, below = lines[start - 1 : start], lines[end : end + 1]
    alone = above == ["\n"] and below in (["\n"], [])
    return start - 1 if alone else start


def _with_names(
    lines: Sequence[str], node: ast.Import | ast.ImportFrom, wanted: Sequence[ast.alias]
) -> list[str]:
    """Return the import with some of its names, one a line where it was so."""
    gone = {alias.lineno for alias in node.names} - {alias.lineno for alias in wanted}
    one_a_line = lines[-1].strip() == ")" and node.lineno not in gone
    if one_a_line and len(gone) == len(node.names) - len(wanted):
        return [line for number, line in enumerate(lines, node.lineno) if number not in gone]
    _, comment, text = lines[-1].partition("  #")
    node.names = [*wanted]
    return [f"{ast.unparse(node)}{comment}{text}".rstrip("\n") + "\n"]
