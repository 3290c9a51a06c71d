# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""Write code into the pages: each block comes from the address in its opening fence."""

import argparse
import ast
import builtins
import re
import symtable
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from operator import itemgetter
from pathlib import Path, PurePosixPath
from textwrap import indent
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
EPILOG = """\
examples:
  python scripts/sync.py            write every block and the "Verified with" lines
  python scripts/sync.py --check    change nothing, list what is stale

exit codes: 0 pages and code agree, 1 a block is stale or cannot be written, 2 wrong usage
"""
ADDRESS_FORMS = "file, file::Name, file::Name,Other or file::Class.method"
VERIFIED = "Verified with"
OMITTED = "    # …"
LINE_LENGTH = 100
BLOCKS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
ALWAYS_THERE = {*dir(builtins), "__file__"}
# Leading folders that are no part of a module's name: scripts/lint.py, templates/app/app/main.py.
FOLDERS_ABOVE_MODULES = {"scripts": 1, "templates": 2}


class SyncError(Exception):
    """A block cannot be written; says what is wrong, how to mend it and what there is instead."""

    def __init__(self, what: str, fix: str, choices: Iterable[str] = ()) -> None:
        super().__init__(what, fix, tuple(choices))


class Problem(NamedTuple):
    path: str
    line: int
    what: str
    fix: str
    choices: tuple[str, ...] = ()

    def __str__(self) -> str:
        has = f"\n    it has: {', '.join(self.choices)}" if self.choices else ""
        return f"{self.path}:{self.line}: {self.what}{has}\n    fix: {self.fix}"


# --- fences ---


class Fence(NamedTuple):
    """A fenced block; `start` and `end` are the line numbers of its two fence lines."""

    start: int
    end: int
    indent: str
    marker: str
    language: str
    address: str
    lines: list[str]
    closed: bool


OPENING = re.compile(r"(?P<indent>[ >]*)(?P<marker>`{3,}|~{3,})(?P<info>[^`]*)")


def is_closing(line: str, marker: str) -> bool:
    bare = line.strip(" >\t")
    return len(bare) >= len(marker) and set(bare) == {marker[0]}


def read_fences(text: str) -> list[Fence]:
    fences: list[Fence] = []
    lines = text.split("\n")
    end = 0
    for start, line in enumerate(lines, 1):
        opening = OPENING.fullmatch(line)
        if start <= end or not opening:
            continue
        margin, marker, info = opening.group("indent", "marker", "info")
        after = enumerate(lines[start:], start + 1)
        end = next((number for number, line in after if is_closing(line, marker)), 0)
        closed, end = end > 0, end or len(lines) + 1
        language, _, address = info.strip().partition(" ")
        body = [line.removeprefix(margin) for line in lines[start : end - 1]]
        fences.append(Fence(start, end, margin, marker, language, address.strip(), body, closed))
    return fences


def lines_outside_fences(text: str) -> Iterator[tuple[int, str]]:
    inside = {number for fence in read_fences(text) for number in range(fence.start, fence.end + 1)}
    return ((n, line) for n, line in enumerate(text.split("\n"), 1) if n not in inside)


# --- source files ---


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


@dataclass
class Source:
    """A Python file, seen as the names that it defines and imports."""

    path: str
    text: str

    def __post_init__(self) -> None:
        self.lines = self.text.split("\n")
        self.body = ast.parse(self.text).body
        self.names = definitions(self.body)

    @cached_property
    def imports(self) -> list[Import]:
        found = list(self.imports_among(self.body))
        for node in self.body:
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                found += [item._replace(guarded=True) for item in self.imports_among(node.body)]
        return found

    def imports_among(self, body: Sequence[ast.stmt]) -> Iterator[Import]:
        group, last_line = 0, 0
        for node in body:
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            if any(not line.strip() for line in self.lines[last_line : node.lineno - 1]):
                group += 1
            last_line = node.end_lineno or node.lineno
            for alias in node.names:
                module, name = alias.name, ""
                if isinstance(node, ast.ImportFrom):
                    module, name = "." * node.level + (node.module or ""), alias.name
                yield Import(group, node.lineno, module, name, alias.asname or "")

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


# --- excerpts ---


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

    return join(
        source, nodes, cut, apart=2 if any(isinstance(node, BLOCKS) for node in nodes) else 1
    )


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


# --- imports that an excerpt needs ---


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
    wanted = (certain | perhaps | quoted_names(tree)) - own
    dotted = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}

    def is_needed(item: Import) -> bool:
        if "." in item.module and not item.name and not item.alias:
            return item.module in dotted
        return item.module == "__future__" or item.bound in wanted

    if any(item.guarded and is_needed(item) for item in source.imports):
        wanted.add("TYPE_CHECKING")
    needed = [item for item in source.imports if is_needed(item)]
    bound = {item.bound for item in needed}
    neighbours = (wanted - bound) & set(source.names)
    missing = certain - own - bound - neighbours - ALWAYS_THERE
    if missing:
        what = f"{source.path} neither defines nor imports at its top: {', '.join(sorted(missing))}"
        raise SyncError(what, f"import it at the top of {source.path}")
    return needed + [import_of_neighbour(name, source) for name in neighbours]


def import_of_neighbour(name: str, source: Source) -> Import:
    """Import a name from its module, in the file's own group for that package if there is one."""
    path = PurePosixPath(source.path.removesuffix(".py").removesuffix("/__init__"))
    parts = path.parts[FOLDERS_ABOVE_MODULES.get(path.parts[0], 0) :]
    module = ".".join(parts)
    above = [item for item in source.imports if not item.guarded]
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


def render_python(source: Source, names: Sequence[str]) -> str:
    """A complete block: the imports that it uses, then the code."""
    code = excerpt(source, names)
    imports = imports_for(code, source)
    parts = [render_imports(item for item in imports if not item.guarded)]
    if guarded := render_imports(item for item in imports if item.guarded):
        parts.append("if TYPE_CHECKING:\n" + indent(guarded, "    "))
    head = "\n\n".join(filter(None, parts))
    blank_lines = 2 if isinstance(ast.parse(code).body[0], BLOCKS) else 1
    return head + "\n" * (1 + blank_lines) + code if head else code


# --- addresses ---


def has_exact_path(root: Path, relative: str) -> bool:
    """Whether the path exists with exactly these letters, also where the disk ignores case."""
    folder = root
    for part in PurePosixPath(relative).parts:
        if not folder.is_dir() or all(part != child.name for child in folder.iterdir()):
            return False
        folder /= part
    return True


def read_addressed(root: Path, path: str) -> str:
    if path.startswith("/") or ".." in path.split("/"):
        raise SyncError(f"`{path}` leaves the bundle", "write the path from the bundle's root")
    if not has_exact_path(root, path) or not (root / path).is_file():
        folder = (root / path).parent
        files = sorted(folder.glob("[!_.]*.*")) if folder.is_dir() else []
        fix = "address a file that is there, in its own letter case"
        raise SyncError(f"there is no file `{path}`", fix, [file.name for file in files])
    return (root / path).read_text(encoding="utf-8")


@cache
def parse_source(path: str, text: str) -> Source:
    try:
        return Source(path, text)
    except SyntaxError as error:
        raise SyncError(f"{path}:{error.lineno}: {error.msg}", f"mend {path}") from error


def render_address(root: Path, address: str) -> str:
    """What belongs between the two lines of the fence."""
    path, separator, listed = address.partition("::")
    names = [name.strip() for name in listed.split(",")]
    if separator and not all(re.fullmatch(r"\w+(\.\w+)?", name) for name in names):
        raise SyncError(f"`{address}` is no address", f"use {ADDRESS_FORMS}")
    text = read_addressed(root, path)
    if not separator:
        return text.rstrip("\n")
    if not path.endswith(".py"):
        raise SyncError(f"`{path}` is not Python and has no names", f"address it as `{path}`")
    return render_python(parse_source(path, text), names)


# --- versions ---


def pinned_version(root: Path, path: str, package: str) -> str:
    pin = re.compile(rf"^{package}(?:\[[^]]*\])?==([^\s;#]+)", re.MULTILINE | re.IGNORECASE)
    if found := pin.search(read_addressed(root, path)):
        return found[1]
    raise SyncError(f"{path} does not pin {package}", f"add `{package}==...` to {path}")


def verified_line(root: Path) -> str:
    """The line that says on which versions and servers the suites run."""
    settings = tomllib.loads(read_addressed(root, "pyproject.toml"))
    servers = settings.get("tool", {}).get("async-sqlmodel", {}).get("servers")
    if not servers:
        fix = 'add `servers = ["SQLite ..."]` to its table [tool.async-sqlmodel]'
        raise SyncError("pyproject.toml names no servers", fix)
    newest, oldest = (
        f"SQLModel {pinned_version(root, path, 'sqlmodel')}"
        f" + SQLAlchemy {pinned_version(root, path, 'sqlalchemy')}"
        for path in ("requirements/latest.txt", "requirements/floor.txt")
    )
    return f"{VERIFIED} {newest} down to {oldest}, on {', '.join(servers)}."


# --- pages ---


@dataclass
class Page:
    """A page as it should be, what was stale in it, and what keeps it from being written."""

    path: str
    text: str = ""
    stale: list[Problem] = field(default_factory=list)
    errors: list[Problem] = field(default_factory=list)


def page_paths(root: Path) -> list[str]:
    tops = [name for name in ("SKILL.md", "README.md") if (root / name).is_file()]
    return tops + sorted(f"references/{path.name}" for path in (root / "references").glob("*.md"))


def render_fence(root: Path, fence: Fence) -> list[str]:
    if not fence.closed:
        raise SyncError("the block is never closed", f"close it with {fence.marker}")
    lines = render_address(root, fence.address).split("\n")
    if any(is_closing(line, fence.marker) for line in lines):
        raise SyncError(f"the code has a line of {fence.marker}", "use longer fences round it")
    return [(fence.indent + line).rstrip() if not line else fence.indent + line for line in lines]


def render_page(root: Path, path: str) -> Page:
    text = (root / path).read_text(encoding="utf-8")
    page = Page(path)
    lines = text.split("\n")
    # What to replace: the line to report, the lines themselves, their name, where to get others.
    jobs: list[tuple[int, slice, str, Callable[[], list[str]]]] = []
    for fence in read_fences(text):
        if fence.address:
            inside = slice(fence.start, fence.end - 1)
            code = partial(render_fence, root, fence)
            jobs.append((fence.start, inside, f"the block of {fence.address}", code))
    for number, line in lines_outside_fences(text):
        if line.startswith(VERIFIED):
            itself = slice(number - 1, number)
            jobs.append((number, itself, f'"{VERIFIED}"', lambda: [verified_line(root)]))
    # From the end, so that the numbers of the lines above stay true.
    for number, place, what, render in sorted(jobs, key=itemgetter(0), reverse=True):
        try:
            fresh = render()
        except SyncError as error:
            page.errors.insert(0, Problem(path, number, *error.args))
            continue
        if fresh != lines[place]:
            page.stale.insert(0, Problem(path, number, f"{what} is stale", "make sync"))
            lines[place] = fresh
    page.text = "\n".join(lines)
    return page


def render_pages(root: Path) -> list[Page]:
    return [render_page(root, path) for path in page_paths(root)]


def problems(root: Path) -> list[Problem]:
    """Everything in which pages and code disagree."""
    return [problem for page in render_pages(root) for problem in [*page.errors, *page.stale]]


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="change nothing, list what is stale")
    parser.add_argument("--root", type=Path, default=ROOT, help="the bundle (default: this one)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if not args.root.is_dir():
        parser.error(f"there is no folder {args.root}")
    # Every page is rendered before the first is written: an error leaves all as they are.
    pages = render_pages(args.root)
    found = [problem for page in pages for problem in page.errors]
    if args.check:
        found += [problem for page in pages for problem in page.stale]
    for problem in sorted(found):
        print(problem)
    if args.check or found:
        print(f"{count(len(found), 'problem')} ({count(len(pages), 'page')} checked)")
        return 1 if found else 0
    changed = [page for page in pages if page.stale]
    for page in changed:
        (args.root / page.path).write_text(page.text, encoding="utf-8", newline="\n")
        print(f"wrote {page.path}")
    print(f"{len(changed)} of {count(len(pages), 'page')} changed", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
