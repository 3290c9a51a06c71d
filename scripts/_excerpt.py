"""Cut the code of some names out of a Python file."""

import ast
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from _syntax import BLOCKS, defined_names, definitions

ADDRESS_FORMS = "file, file::Name, file::Name,Other or file::Class.method"
OMITTED = "    # …"


class SyncError(Exception):
    """A block cannot be written; says what is wrong, how to mend it and what there is instead."""

    def __init__(self, what: str, fix: str, choices: Iterable[str] = ()) -> None:
        super().__init__(what, fix, tuple(choices))


@dataclass
class Source:
    """A Python file, seen as the names that it defines."""

    path: str
    text: str

    def __post_init__(self) -> None:
        self.lines = self.text.split("\n")
        self.body = ast.parse(self.text).body
        self.names = definitions(self.body)

    def lines_of(self, node: ast.stmt) -> tuple[int, int]:
        """First and last line, with the decorators and the comment directly above."""
        decorators = node.decorator_list if isinstance(node, BLOCKS) else []
        start = min([node.lineno, *(decorator.lineno for decorator in decorators)])
        while start > 1 and self.lines[start - 2].startswith(" " * node.col_offset + "#"):
            start -= 1
        return start, node.end_lineno or node.lineno

    def cut(self, node: ast.stmt) -> str:
        start, end = self.lines_of(node)
        return "\n".join(self.lines[start - 1 : end])


def join(
    source: Source, nodes: Iterable[ast.stmt], cut: Callable[[ast.stmt], str], apart: int
) -> str:
    """What is adjacent in the file stays so; the rest stands `apart` blank lines apart."""
    code, last_line = "", 0
    for node in nodes:
        start, end = source.lines_of(node)
        if code:
            code += "\n" if start == last_line + 1 else "\n" * (1 + apart)
        code += cut(node)
        last_line = end
    return code


def excerpt(source: Source, names: Sequence[str]) -> str:
    """The code of the names in the order of the file, without imports."""
    members: dict[str, list[str]] = {}
    for name in names:
        top, _, member = name.partition(".")
        if top not in source.names:
            fix = "address a name that the file has"
            raise SyncError(f"{source.path} has no `{top}`", fix, source.names)
        members.setdefault(top, []).append(member)
    nodes = [node for node in source.body if members.keys() & set(defined_names(node))]

    def cut(node: ast.stmt) -> str:
        wanted = [member for name in defined_names(node) for member in members.get(name, [])]
        return source.cut(node) if "" in wanted else excerpt_of_class(source, node, wanted)

    apart = 2 if any(isinstance(node, BLOCKS) for node in nodes) else 1
    return join(source, nodes, cut, apart)


def excerpt_of_class(source: Source, node: ast.stmt, names: Sequence[str]) -> str:
    """The head of a class and some of its members, with a mark for what is left out."""
    if not isinstance(node, ast.ClassDef):
        what = f"`{defined_names(node)[0]}` in {source.path} is no class"
        raise SyncError(what, f"use {ADDRESS_FORMS}")
    known = definitions(node.body)
    for name in names:
        if name not in known:
            what = f"`{node.name}` in {source.path} has no `{name}`"
            raise SyncError(what, "address a name that the class has", known)
    members = [member for member in node.body if set(names) & set(defined_names(member))]
    start, body_start = source.lines_of(node)[0], source.lines_of(node.body[0])[0]
    head = "\n".join(source.lines[start - 1 : body_start - 1]).rstrip()
    mark = "" if len(members) == len(node.body) else f"{OMITTED}\n\n"
    return f"{head}\n{mark}{join(source, members, source.cut, apart=1)}"
