# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""Write into the pages what comes from elsewhere: code, versions, and tables of mistakes."""

import argparse
import ast
import re
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from _excerpt import ADDRESS_FORMS, Source, SyncError, excerpt
from _imports import import_lines
from _markdown import Fence, is_closing, lines_outside_fences, read_fences
from _mistakes import error_index, review_list
from _syntax import BLOCKS

ROOT = Path(__file__).resolve().parent.parent
EPILOG = """\
examples:
  python scripts/sync.py            write every block, generated table and "Verified with" line
  python scripts/sync.py --check    change nothing, list what is stale

exit codes: 0 pages and code agree, 1 a block is stale or cannot be written, 2 wrong usage
"""
VERIFIED = "Verified with"
# The first line of a table whose rows are generated.
TABLES: dict[str, Callable[[Path], list[str]]] = {
    "| printed | mistake |": error_index,
    "| page | look for |": review_list,
}


class Problem(NamedTuple):
    path: str
    line: int
    what: str
    fix: str
    choices: tuple[str, ...] = ()

    def __str__(self) -> str:
        has = f"\n    it has: {', '.join(self.choices)}" if self.choices else ""
        return f"{self.path}:{self.line}: {self.what}{has}\n    fix: {self.fix}"


def render_python(source: Source, names: Sequence[str]) -> str:
    """A complete block: the imports that it uses, then the code."""
    code = excerpt(source, names)
    head = import_lines(code, source)
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
    return [fence.indent + line if line else fence.indent.rstrip() for line in lines]


class Part(NamedTuple):
    """Lines of a page that come from elsewhere: where they are, their name, how to get them."""

    line: int
    place: slice
    name: str
    render: Callable[[], list[str]]


def rows_below(lines: list[str], header: int) -> slice:
    """The place of a table's rows: below its header and the rule under that."""
    start = end = header + 1
    while end < len(lines) and lines[end].startswith("|"):
        end += 1
    return slice(start, end)


def generated_parts(root: Path, text: str) -> list[Part]:
    """Blocks with an address, generated tables, "Verified with" lines, in the order of the page."""
    parts = [
        Part(line, slice(line - 1, line), f'"{VERIFIED}"', lambda: [verified_line(root)])
        for line, words in lines_outside_fences(text)
        if words.startswith(VERIFIED)
    ]
    lines = text.split("\n")
    for line, words in lines_outside_fences(text):
        if table := TABLES.get(words):
            render = partial(table, root)
            parts.append(Part(line, rows_below(lines, line), f"the table {words}", render))
    for fence in read_fences(text):
        if fence.address:
            name, block = f"the block of {fence.address}", partial(render_fence, root, fence)
            parts.append(Part(fence.start, slice(fence.start, fence.end - 1), name, block))
    return sorted(parts, key=attrgetter("line"))


def render_page(root: Path, path: str) -> Page:
    text = (root / path).read_text(encoding="utf-8")
    page = Page(path)
    lines = text.split("\n")
    # From the end, so that the numbers of the lines above stay true.
    for line, place, name, render in reversed(generated_parts(root, text)):
        try:
            fresh = render()
        except SyncError as error:
            page.errors.insert(0, Problem(path, line, *error.args))
            continue
        if fresh != lines[place]:
            page.stale.insert(0, Problem(path, line, f"{name} is stale", "make sync"))
            lines[place] = fresh
    page.text = "\n".join(lines)
    return page


def render_pages(root: Path) -> list[Page]:
    return [render_page(root, path) for path in page_paths(root)]


def problems(root: Path) -> list[Problem]:
    """Everything in which pages and code disagree."""
    return [problem for page in render_pages(root) for problem in [*page.errors, *page.stale]]


# --- the command ---


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
