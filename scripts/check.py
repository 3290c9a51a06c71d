# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""Check that everything in this bundle that must agree, agrees."""

import argparse
import ast
import gc
import io
import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache, cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote

import sync

ROOT = Path(__file__).resolve().parent.parent
EPILOG = """\
examples:
  python scripts/check.py              every check that --list names, under a second
  python scripts/check.py --outside    also the validators of others, on a staged export

exit codes: 0 all agree, 1 problems found, 2 wrong usage
"""

NAME = "async-sqlmodel"
KEYS = ("name", "description", "license", "compatibility", "metadata", "allowed-tools")
# Downhill: a topic imports from itself and from those before it.
TOPICS = (
    "database_setup",
    "models",
    "relationships",
    "async_operations",
    "servicebase",
    "fastapi_integration",
    "migrations",
    "production_patterns",
    "best_practices",
)
# Pages that gather what other pages prove: they have no snippets and choose their headings.
UNMIRRORED = ("references/troubleshooting.md", "references/versions.md")
FRAME = ("Contents", "Decide", "Databases", "Mistakes")

MAX_DESCRIPTION = 400
MAX_SKILL = 12_000
MAX_SKILL_LINES = 500
MAX_PAGE = 10_000
MAX_PAGES = 90_000
MAX_LINES_WITHOUT_CONTENTS = 300
MAX_FILE_BYTES = 200_000
# Where there is no git to ask, these folders are no part of the bundle.
LEFT_OUT = re.compile(r"\.git|\.venv.*|build|__pycache__|\..*_cache|\.hypothesis")
# Shorter pieces of a quoted text say too little to search for.
MIN_PIECE = 12
TIMEOUT = 120


class Note(NamedTuple):
    """What a check says: where, what, and the edit or command that mends it."""

    path: str
    line: int
    what: str
    fix: str


class Finding(NamedTuple):
    path: str
    line: int
    rule: str
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.what}\n    fix: {self.fix}"


# --- the bundle, as the checks see it ---


class Heading(NamedTuple):
    line: int
    level: int
    text: str
    slug: str

    @property
    def name(self) -> str:
        """The Python name that belongs to the heading."""
        return self.slug.replace("-", "_")


HEADING = re.compile(r"(#{1,6}) +(.+?)(?: +#+)? *")
CODE_SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
LINK = re.compile(r"\]\(\s*<?([^()\s<>]+(?:\([^()\s]*\))?)>?(?:\s+[\"'][^)]*)?\)")
LINK_DEFINITION = re.compile(r" {0,3}\[[^]]+\]: +<?([^\s>]+)")
HTML_ANCHOR = re.compile(r"<a +(?:id|name)=\"([^\"]+)\"")


def slug_of(heading: str) -> str:
    """The anchor that GitHub gives to a heading."""
    visible = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", visible.lower()).strip().replace(" ", "-")


class Document:
    """A markdown file: its headings, links and prose."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lines = text.splitlines()
        self.fences = sync.read_fences(text)
        self.outside = list(sync.lines_outside_fences(text))

    @cached_property
    def headings(self) -> list[Heading]:
        found: list[Heading] = []
        for line, text in self.outside:
            if match := HEADING.fullmatch(text):
                slug = slug_of(match[2])
                same = sum(slug_of(heading.text) == slug for heading in found)
                unique = f"{slug}-{same}" if same else slug
                found.append(Heading(line, len(match[1]), match[2], unique))
        return found

    @cached_property
    def anchors(self) -> set[str]:
        return {heading.slug for heading in self.headings} | set(HTML_ANCHOR.findall(self.text))

    @cached_property
    def links(self) -> list[tuple[int, str]]:
        found = []
        for line, text in self.outside:
            prose = CODE_SPAN.sub("", text)
            targets = LINK.findall(prose) + LINK_DEFINITION.findall(prose)
            found += [(line, target) for target in targets]
        return found

    def section(self, heading: Heading) -> str:
        """The text below a heading, up to the next one of its level or above."""
        below = (h for h in self.headings if h.line > heading.line and h.level <= heading.level)
        end = next((h.line - 1 for h in below), len(self.lines))
        return "\n".join(self.lines[heading.line : end])


def clean_environment() -> dict[str, str]:
    """Git hooks export GIT_DIR and others, which would lead git to another repository."""
    return {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}


def files_in_git(root: Path) -> list[str]:
    """Files that are tracked, or would be with the next `git add`; none outside a checkout."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(
            command, cwd=root, env=clean_environment(), capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    # A tracked file may be deleted but not yet staged; a broken link still counts.
    return [path for path in {*listed.split("\0")} - {""} if os.path.lexists(root / path)]


def files_on_disk(root: Path) -> list[str]:
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not LEFT_OUT.fullmatch(name)]
        here = Path(folder)
        links = [name for name in folders if (here / name).is_symlink()]
        found += [(here / name).relative_to(root).as_posix() for name in names + links]
    return found


class Bundle:
    """The files that belong to the bundle, by path from its root, read at most once each."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.text = cache(self._text)
        self.parsed = cache(self._parsed)
        self.nodes = cache(self._nodes)
        self.document = cache(self._document)

    @cached_property
    def files(self) -> list[str]:
        return sorted(files_in_git(self.root) or files_on_disk(self.root))

    @cached_property
    def entries(self) -> set[str]:
        """Files and folders, in the letter case in which they are delivered."""
        folders = {str(parent) for path in self.files for parent in PurePosixPath(path).parents}
        return {*self.files, *folders}

    def _text(self, path: str) -> str:
        """The text of a file; of a missing or a binary one, nothing."""
        try:
            return (self.root / path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return ""

    def _parsed(self, path: str) -> tuple[ast.Module, SyntaxError | None]:
        try:
            return ast.parse(self.text(path)), None
        except SyntaxError as error:
            return ast.Module(body=[], type_ignores=[]), error

    def _nodes(self, path: str) -> list[ast.AST]:
        return list(ast.walk(self.parsed(path)[0]))

    def _document(self, path: str) -> Document:
        return Document(self.text(path))

    def python(self, *folders: str) -> list[str]:
        """Python files below the folders, or all of them."""
        roots = tuple(f"{folder}/" for folder in folders) or ("",)
        return [path for path in self.files if path.endswith(".py") and path.startswith(roots)]

    def stems(self, folder: str) -> set[str]:
        """Names of the modules directly in a folder; a package counts by its own name."""
        inside = [path.removeprefix(f"{folder}/") for path in self.python(folder)]
        inside = [path.removesuffix("/__init__.py") for path in inside if path != "__init__.py"]
        return {path.removesuffix(".py") for path in inside if "/" not in path}

    @cached_property
    def pages(self) -> list[str]:
        return [path for path in self.files if re.fullmatch(r"references/[^/]+\.md", path)]

    @cached_property
    def mirrored_pages(self) -> list[str]:
        return [path for path in self.pages if path not in UNMIRRORED]

    @cached_property
    def documents(self) -> list[str]:
        tops = ("SKILL.md", "README.md", "CHANGELOG.md")
        return [path for path in tops if path in self.files] + self.pages

    @cached_property
    def topics(self) -> list[str]:
        return sorted(
            {path.split("/")[1] for path in self.python("snippets") if path.count("/") > 1}
        )


def page_of(topic: str) -> str:
    return f"references/{topic.replace('_', '-')}.md"


def as_heading(name: str) -> str:
    return name.replace("_", " ").capitalize()


def topic_of(path: str) -> str:
    """The topic that a page, a snippet or a test belongs to."""
    return path.split("/")[1].removesuffix(".md").replace("-", "_")


def dotted(node: ast.AST) -> str:
    """`a.b.c` for such an expression, else nothing."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (head := dotted(node.value)):
        return f"{head}.{node.attr}"
    return ""


def line_at(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1


# --- the checks ---

Check = Callable[[Bundle], Iterator[Note]]
CHECKS: dict[str, Check] = {}


def check(function: Check) -> Check:
    CHECKS[function.__name__.replace("_", "-")] = function
    return function


@check
def parses(bundle: Bundle) -> Iterator[Note]:
    """The Python files that other checks read are Python."""
    for path in bundle.python("snippets", "scripts", "templates"):
        if error := bundle.parsed(path)[1]:
            yield Note(path, error.lineno or 1, error.msg, f"mend {path}")


class Value(NamedTuple):
    text: str
    line: int
    quoted: bool = False


FRONT_LINE = re.compile(r"(?P<indent> *)(?P<key>[\w-]+):(?: +(?P<value>\S.*?))? *")
# Anything that YAML would read as more than text is refused: `a: b`, `a #b`, lists, blocks, tags.
PLAIN = re.compile(r"(?![-?:,\[\]{}#&*!|>'\"%@`])(?:(?!: | #).)*(?<!:)")


def read_front_matter(text: str) -> tuple[dict[str, Value], list[tuple[int, str]]]:
    """The flat front matter by key (`metadata.version` for nested ones), and what is odd in it."""
    lines = text.split("\n")
    if lines[0] != "---" or "---" not in lines[1:]:
        return {}, [(1, "the front matter between two lines of --- is missing")]
    values: dict[str, Value] = {}
    odd: list[tuple[int, str]] = []
    parent = ""
    for number, line in enumerate(lines[1 : lines.index("---", 1)], 2):
        match = FRONT_LINE.fullmatch(line)
        if not match or (match["indent"] and not parent):
            odd.append((number, "only `key: value` and one map, `metadata:`, are read here"))
            continue
        raw = match["value"] or ""
        key = match["key"]
        if match["indent"]:
            key = f"{parent}.{key}"
        else:
            parent = "" if raw else key
        if parent not in {"", "metadata"}:
            odd.append((number, f"`{key}` is no text on one line"))
        if key in values:
            odd.append((number, f"`{key}` is there twice"))
        value = read_scalar(raw)
        if value is None:
            odd.append((number, f"the value of `{key}` is no plain or quoted text on one line"))
        values[key] = Value(raw if value is None else value, number, raw[:1] in {"'", '"'})
    return values, odd


def read_scalar(raw: str) -> str | None:
    if len(raw) > 1 and raw[0] == raw[-1] == "'":
        inner = raw[1:-1].replace("''", "")
        return None if "'" in inner else raw[1:-1].replace("''", "'")
    if raw.startswith('"'):
        try:
            return str(json.loads(raw))
        except ValueError:
            return None
    return raw if PLAIN.fullmatch(raw) else None


@check
def front_matter(bundle: Bundle) -> Iterator[Note]:
    """SKILL.md opens with the specification's keys, and values that fit this bundle."""
    values, odd = read_front_matter(bundle.text("SKILL.md"))
    for line, what in odd:
        yield Note("SKILL.md", line, what, "write `key: value` lines between two lines of ---")
    if not values:
        return
    for key, value in values.items():
        if key.split(".")[0] not in KEYS:
            what = f"the specification has no key `{key}`"
            yield Note("SKILL.md", value.line, what, f"use {', '.join(KEYS)}")
    missing = Value("", 1)
    name, license_ = values.get("name", missing), values.get("license", missing)
    description = values.get("description", missing)
    version = values.get("metadata.version", missing)
    if name.text != NAME:
        yield Note("SKILL.md", name.line, "the name is another", f"write `name: {NAME}`")
    if license_.text != "MIT":
        yield Note("SKILL.md", license_.line, "the license is another", "write `license: MIT`")
    if len(description.text) > MAX_DESCRIPTION:
        what = f"the description has {len(description.text)} characters"
        yield Note("SKILL.md", description.line, what, f"shorten it to {MAX_DESCRIPTION}")
    if "Use when" not in description.text:
        what = "the description does not say when the skill is of use"
        yield Note("SKILL.md", description.line, what, 'add a sentence "Use when ..."')
    if not version.quoted:
        what = "metadata.version is no quoted text"
        yield Note("SKILL.md", version.line, what, 'write `version: "1.2.3"` below `metadata:`')


CHANGELOG_VERSION = re.compile(r"^## \[?v?(\d[\w.+-]*)", re.MULTILINE)


def stated_versions(bundle: Bundle) -> Iterator[tuple[str, int, str]]:
    """Path, line and version of all that states the version beside SKILL.md."""
    changelog = bundle.text("CHANGELOG.md")
    newest = CHANGELOG_VERSION.search(changelog)
    line = line_at(changelog, newest.start()) if newest else 1
    yield "CHANGELOG.md", line, newest[1] if newest else "none"
    for path in bundle.files:
        if re.fullmatch(r"\.claude-plugin/[^/]+\.json", path):
            for match in re.finditer(r'"version"\s*:\s*"([^"]*)"', bundle.text(path)):
                yield path, line_at(bundle.text(path), match.start()), match[1]
    pyproject = bundle.text("pyproject.toml")
    if project := re.search(r'^version *= *"([^"]*)"', pyproject, re.MULTILINE):
        yield "pyproject.toml", line_at(pyproject, project.start()), project[1]


@check
def versions_agree(bundle: Bundle) -> Iterator[Note]:
    """SKILL.md, the newest entry of CHANGELOG.md, the plugin and pyproject.toml say one version."""
    values, _ = read_front_matter(bundle.text("SKILL.md"))
    if "metadata.version" not in values:
        return
    expected = values["metadata.version"].text
    for path, line, version in stated_versions(bundle):
        if version != expected:
            what = f"the version here is {version}, in SKILL.md it is {expected}"
            yield Note(path, line, what, f"write the same version in {path} and SKILL.md")


@check
def budgets(bundle: Bundle) -> Iterator[Note]:
    """SKILL.md and the pages keep to their sizes."""
    skill = bundle.text("SKILL.md")
    sizes = [("SKILL.md", len(skill), MAX_SKILL, "characters")]
    sizes += [("SKILL.md", skill.count("\n"), MAX_SKILL_LINES, "lines")]
    sizes += [(path, len(bundle.text(path)), MAX_PAGE, "characters") for path in bundle.pages]
    total = sum(len(bundle.text(path)) for path in bundle.pages)
    sizes += [("references", total, MAX_PAGES, "characters in all pages")]
    for path, size, limit, unit in sizes:
        if size > limit:
            fix = f"take out {size - limit}: show a shorter symbol, say things once"
            yield Note(path, 1, f"{size} {unit}, {limit} are allowed", fix)


@check
def pages_routed(bundle: Bundle) -> Iterator[Note]:
    """SKILL.md links to each page as a whole."""
    linked = {posixpath.normpath(target) for _, target in bundle.document("SKILL.md").links}
    for path in bundle.pages:
        if path not in linked:
            fix = f"add `[...]({path})` with the situation that calls for it"
            yield Note("SKILL.md", 1, f"no link without an anchor leads to {path}", fix)


# Pages are read far from the repository: tests and tools are not there.
WITHIN_REACH = ("references/", "snippets/", "scripts/", "templates/", "SKILL.md", "README.md")


def complaint_about_link(bundle: Bundle, path: str, target: str) -> tuple[str, str] | None:
    """What is wrong with a link to a file, and how to mend it."""
    place, _, anchor = unquote(target).partition("#")
    if re.match(r"/|[A-Za-z]:|~|file:", place):
        return f"`{target}` is a local path", "link relative to the file"
    goal = posixpath.normpath(posixpath.join(posixpath.dirname(path), place)) if place else path
    if goal not in bundle.entries:
        alike = [entry for entry in bundle.entries if entry.lower() == goal.lower()]
        fix = f"write {alike[0]}, in its letter case" if alike else "link to a file of the bundle"
        return f"`{target}` leads nowhere", fix
    if path.startswith("references/") and not f"{goal}/".startswith(WITHIN_REACH):
        return f"`{target}` leads out of reach", "link to pages, snippets and scripts only"
    target_is_page = goal.endswith(".md")
    if anchor and anchor not in (bundle.document(goal).anchors if target_is_page else set()):
        known = ", ".join(heading.slug for heading in bundle.document(goal).headings)
        fix = f"link to one of: {known}" if target_is_page else "link to the file, without `#`"
        return f"{goal} has no heading `#{anchor}`", fix
    return None


@check
def links(bundle: Bundle) -> Iterator[Note]:
    """Links lead to files and headings that are there, in their own letter case."""
    for path in bundle.documents:
        for line, target in bundle.document(path).links:
            if re.match(r"(?:https?|mailto):", target):
                continue
            if complaint := complaint_about_link(bundle, path, target):
                yield Note(path, line, *complaint)


SCRIPT_MENTION = re.compile(r"(?<![\w/.-])scripts/\w+\.py\b")


@check
def script_mentions(bundle: Bundle) -> Iterator[Note]:
    """Scripts that the documents and the Makefile name exist."""
    for path in [*bundle.documents, "Makefile"]:
        text = bundle.text(path)
        for match in SCRIPT_MENTION.finditer(text):
            if match[0] not in bundle.entries:
                there = ", ".join(bundle.python("scripts"))
                what = f"there is no {match[0]}"
                yield Note(path, line_at(text, match.start()), what, f"name one of: {there}")


@check
def contents_list(bundle: Bundle) -> Iterator[Note]:
    """A long page opens with a list of its sections."""
    for path in bundle.pages:
        page = bundle.document(path)
        targets = {target for _, target in page.links}
        sections = [h for h in page.headings if h.level == 2 and h.text != "Contents"]
        missing = [h.text for h in sections if f"#{h.slug}" not in targets]
        if len(page.lines) > MAX_LINES_WITHOUT_CONTENTS and missing:
            what = f"{len(page.lines)} lines, and no contents list for: {', '.join(missing)}"
            yield Note(path, 1, what, "add `## Contents` before `## Decide`, with links")


@check
def page_structure(bundle: Bundle) -> Iterator[Note]:
    """A page opens with its title, when to read it and what it was verified with."""
    for path in bundle.pages:
        page = bundle.document(path)
        sections = [heading for heading in page.headings if heading.level == 2]
        first = sections[0].line if sections else len(page.lines) + 1
        expected = ["# ", "Read when ", "Skip when ", sync.VERIFIED]
        if path in UNMIRRORED:
            expected = expected[:2]
        above = [text for line, text in page.outside if line < first]
        found = [start for text in above for start in expected if text.startswith(start)]
        if found != expected:
            fix = f"open the page with lines of: {', '.join(expected)}"
            yield Note(path, 1, "the opening lines are incomplete or in another order", fix)
        names = [heading.text for heading in sections if heading.text != "Contents"]
        frame = [names[0], *names[-2:]] if names else []
        is_framed = frame == [name for name in names if name in FRAME] == [*FRAME[1:]]
        if path not in UNMIRRORED and not is_framed:
            fix = "put `## Decide` first, `## Databases` and `## Mistakes` last"
            yield Note(path, first if sections else 1, "the frame of sections is incomplete", fix)


@check
def mirrored_trees(bundle: Bundle) -> Iterator[Note]:
    """Page headings, snippet modules and test files have the same names; scripts have tests."""
    topics = {topic_of(path) for path in bundle.mirrored_pages} | set(bundle.topics)
    for topic in sorted(topics):
        snippets, page = f"snippets/{topic}", page_of(topic)
        for path in (page, f"{snippets}/__init__.py"):
            if path not in bundle.entries:
                fix = f"add {path}, or take the topic out"
                yield Note(path, 1, f"the topic {topic} lacks this file", fix)
        if page in bundle.entries:
            yield from compare_with_page(bundle, snippets, page)
        yield from compare_with_tests(bundle, snippets, f"tests/{topic}")
    yield from compare_with_tests(bundle, "scripts", "tests/scripts")


def compare_with_page(bundle: Bundle, snippets: str, page: str) -> Iterator[Note]:
    modules = {name for name in bundle.stems(snippets) if not name.startswith("_")}
    sections = [heading for heading in bundle.document(page).headings if heading.level == 2]
    patterns = {heading.name: heading for heading in sections if heading.text not in FRAME}
    for name in sorted(patterns.keys() - modules):
        what = f"`{patterns[name].text}` has no {snippets}/{name}.py"
        yield Note(page, patterns[name].line, what, "name the heading after its module")
    for name in sorted(modules - patterns.keys() - {"mistakes"}):
        fix = f"add `## {as_heading(name)}` to {page}"
        yield Note(f"{snippets}/{name}.py", 1, "no heading has the name of this module", fix)


def compare_with_tests(bundle: Bundle, folder: str, tests: str) -> Iterator[Note]:
    modules = bundle.stems(folder)
    public = {name for name in modules if not name.startswith("_")}
    files = {name for name in bundle.stems(tests) if name.startswith("test_")}
    tested = {name.removeprefix("test_") for name in files}
    for name in sorted(public - tested):
        fix = f"add {tests}/test_{name}.py"
        yield Note(f"{folder}/{name}.py", 1, "this module has no test file", fix)
    # Private modules may be tested, with or without the underscore in the file's name.
    for name in sorted(tested - modules - {module.removeprefix("_") for module in modules}):
        what = f"there is no {folder}/{name}.py"
        yield Note(f"{tests}/test_{name}.py", 1, what, "name the file after the module it tests")


@check
def blocks_in_sync(bundle: Bundle) -> Iterator[Note]:
    """Blocks with an address show what that address holds now."""
    for path, line, what, fix, choices in sync.problems(bundle.root):
        yield Note(path, line, what, fix + (f": {', '.join(choices)}" if choices else ""))


@check
def blocks_addressed(bundle: Bundle) -> Iterator[Note]:
    """Python blocks carry the address of tested code."""
    for path in bundle.documents:
        for fence in bundle.document(path).fences:
            if fence.language in {"python", "py", "python3", "pycon"} and not fence.address:
                fix = "write ```python snippets/<topic>/<pattern>.py::<name>, then make sync"
                yield Note(path, fence.start, "this Python block shows untested code", fix)


def public_functions(tree: ast.Module) -> dict[str, int]:
    functions = (n for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    return {node.name: node.lineno for node in functions if not node.name.startswith("_")}


def names_in(nodes: Iterable[ast.AST]) -> set[str]:
    """Names that the code imports or uses."""
    found = set()
    for node in nodes:
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name):
                found.add(name)
    return found


@check
def mistakes(bundle: Bundle) -> Iterator[Note]:
    """Each mistake has a heading, a function, a test, and its symptom, cause and fix."""
    for topic in bundle.topics:
        page, module = page_of(topic), f"snippets/{topic}/mistakes.py"
        test = f"tests/{topic}/test_mistakes.py"
        functions = public_functions(bundle.parsed(module)[0])
        tested = names_in(bundle.nodes(test))
        sections = {section.name: section for section in mistake_headings(bundle.document(page))}
        for name in sorted(sections.keys() - functions.keys()):
            what = f"{module} has no function `{name}`"
            yield Note(page, sections[name].line, what, f"add `{name}` or rename the heading")
        for name, line in functions.items():
            if name not in sections and page in bundle.entries:
                fix = f"add `### {as_heading(name)}` below `## Mistakes`"
                yield Note(module, line, f"{page} has no mistake `{name}`", fix)
            if name not in tested:
                what = f"no test shows what `{name}` leads to"
                yield Note(module, line, what, f"call it in {test}")
        for heading in sections.values():
            text = bundle.document(page).section(heading)
            for label in ("Symptom", "Cause", "Fix"):
                if not re.search(rf"\*\*{label}[.:]?\*\*", text):
                    fix = f"add a line that begins with **{label}**"
                    yield Note(page, heading.line, f"`{heading.text}` has no {label}", fix)


def mistake_headings(page: Document) -> Iterator[Heading]:
    section = ""
    for heading in page.headings:
        section = heading.text if heading.level == 2 else section
        if heading.level == 3 and section == "Mistakes":
            yield heading


SYMPTOM = re.compile(r"\*\*Symptom[.:]?\*\*(.*?)(?=\*\*(?:Cause|Fix)\b|\Z)", re.DOTALL)
# What lies between the words to search for. Classes of errors differ by driver, so tests name them
# as classes; what stands in <...> is the look of an object.
SEAM = re.compile(
    r"\.\.\.|…|\n|<[^<>\n]*>:?|\(?\b[\w.]*(?:Error|Exception|Warning|MissingGreenlet)\b\)?:?"
)


# pymysql's `(pymysql.err.DataError) (1406, "Data too long")` would else pass for a call.
ERROR_CLASS = re.compile(r"\(?[\w.]+(?:Error|Exception|Warning)(?:\)|:) ")


def looks_like_code(text: str) -> bool:
    """Whether this is Python rather than a sentence: `select(Jar)`, `async with begin():`."""
    if ERROR_CLASS.match(text):
        return False
    for form in (text, f"{text} ..."):
        with warnings.catch_warnings(), suppress(SyntaxError):
            warnings.simplefilter("ignore")
            ast.parse(form)
            return bool(re.search(r"[()\[\]{}=.]", text))
    return False


def quoted_texts(symptom: str) -> Iterator[str]:
    """Error texts that a symptom quotes: text blocks, and code spans that are sentences."""
    for fence in sync.read_fences(symptom):
        if fence.language in {"", "text", "console", "pytb"}:
            yield "\n".join(fence.lines)
    prose = "\n".join(line for _, line in sync.lines_outside_fences(symptom))
    for match in CODE_SPAN.finditer(prose):
        span = " ".join(match[2].split())
        if " " in span and not looks_like_code(span):
            yield span


def searchable_pieces(mistake: str) -> list[str]:
    """The parts of all texts that a mistake's symptom quotes, without what varies in them."""
    quoted = [text for symptom in SYMPTOM.findall(mistake) for text in quoted_texts(symptom)]
    pieces = [" ".join(piece.split()).strip(" .,:;") for q in quoted for piece in SEAM.split(q)]
    return [piece for piece in pieces if len(piece) >= MIN_PIECE]


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


def expected_texts(nodes: Iterable[ast.AST]) -> str:
    """All strings of a test file but its docstrings, as they are and read as patterns."""
    strings: list[str] = []
    docstrings: set[int] = set()
    for node in nodes:
        if isinstance(node, ast.Expr):
            docstrings.add(id(node.value))
        elif id(node) not in docstrings and (text := string_of(node)):
            strings += [text, re.sub(r"\\(\W)", r"\1", text)]
    return "\n".join(" ".join(text.split()) for text in strings)


@check
def symptoms_tested(bundle: Bundle) -> Iterator[Note]:
    """Error texts that a symptom quotes stand in the tests of the topic."""
    texts = cache(lambda path: expected_texts(bundle.nodes(path)))
    for path in bundle.mirrored_pages:
        page, tests = bundle.document(path), f"tests/{topic_of(path)}"
        # Most are found in test_mistakes.py: reading that first spares parsing the others.
        files = sorted(bundle.python(tests), key=lambda file: "mistakes" not in file)
        for heading in mistake_headings(page):
            for piece in searchable_pieces(page.section(heading)):
                if not any(piece in texts(file) for file in files):
                    what = f"no test in {tests} expects the quoted text `{piece}`"
                    fix = "assert on it in test_mistakes.py, or write … for what varies"
                    yield Note(path, heading.line, what, fix)


def imported_modules(nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def complaint_about_import(topic: str, module: str) -> tuple[str, str] | None:
    package, _, rest = module.partition(".")
    if package in {"", "tests", "scripts", "app"}:
        return f"a snippet imports `{module}`", "import from `snippets.<topic>.<module>`"
    if package != "snippets":
        return None
    source = rest.split(".")[0]
    if source not in TOPICS:
        return f"`{module}` is no topic", f"import from one of: {', '.join(TOPICS)}"
    if TOPICS.index(source) > TOPICS.index(topic):
        return f"{topic} comes before {source}", f"move what it needs to {topic} or before"
    is_mistake = ".mistakes." in f"{module}."
    return ("wrong code is imported", "import what does it right") if is_mistake else None


@check
def import_direction(bundle: Bundle) -> Iterator[Note]:
    """Snippets import from their own topic or from those before it, never from a mistake."""
    for topic in bundle.topics:
        if topic not in TOPICS:
            fix = "add it to TOPICS in scripts/check.py, where it belongs in the order"
            yield Note(f"snippets/{topic}", 1, "this topic has no place in the order", fix)
            continue
        for path in bundle.python(f"snippets/{topic}"):
            found = {
                (line, complaint)
                for line, module in imported_modules(bundle.nodes(path))
                if (complaint := complaint_about_import(topic, module))
            }
            yield from (Note(path, line, *complaint) for line, complaint in sorted(found))


def table_classes(nodes: Iterable[ast.AST]) -> Iterator[ast.ClassDef]:
    for node in nodes:
        if isinstance(node, ast.ClassDef) and any(
            keyword.arg == "table" and ast.unparse(keyword.value) == "True"
            for keyword in node.keywords
        ):
            yield node


def table_name(node: ast.ClassDef) -> str:
    for member in node.body:
        if "__tablename__" in sync.defined_names(member) and isinstance(
            member, ast.Assign | ast.AnnAssign
        ):
            return string_of(member.value) if member.value else ""
    return node.name.lower()


@check
def unique_nouns(bundle: Bundle) -> Iterator[Note]:
    """A mapped class and its table are defined in one place of the snippets."""
    homes: dict[str, str] = {}
    for path in bundle.python("snippets"):
        for node in table_classes(bundle.nodes(path)):
            nouns = (f"the class {node.name}", f"the table {table_name(node)}")
            taken = [noun for noun in nouns if noun in homes]
            homes |= {noun: f"{path}:{node.lineno}" for noun in nouns if noun not in homes}
            if taken:
                what = f"{taken[0]} is defined in {homes[taken[0]]} already"
                yield Note(path, node.lineno, what, "choose another noun, or import that class")


@check
def no_future_annotations(bundle: Bundle) -> Iterator[Note]:
    """Modules with relationships do not postpone annotations, which breaks Relationship."""
    for path in bundle.python("snippets", "templates"):
        nodes = bundle.nodes(path)
        postponed = [line for line, name in imported_modules(nodes) if "__future__.ann" in name]
        if postponed and "Relationship" in names_in(nodes):
            fix = "take the import out, and quote the names that come later"
            yield Note(path, postponed[0], "postponed annotations break Relationship", fix)


# Scanners read a bare call of this name as dynamic execution, in prose as in code.
BARE_EXEC = re.compile(r"(?<![.\w])exec\(")


@check
def bare_exec(bundle: Bundle) -> Iterator[Note]:
    """Documents write `session.exec(...)` or `.exec()`, never the bare call."""
    for path in bundle.documents:
        for match in BARE_EXEC.finditer(text := bundle.text(path)):
            what = "a bare exec call reads as dynamic execution"
            yield Note(path, line_at(text, match.start()), what, "write `session.exec` or `.exec`")


# A method of that name may be defined, as SQLModel's own session does.
DYNAMIC = re.compile(r"(?<![.\w])(?<!def )(?:eval|exec)\(")
PROCESSES = ("run", "Popen", "call", "check_call", "check_output")


@check
def dynamic_execution(bundle: Bundle) -> Iterator[Note]:
    """Bundled Python runs no text as code and puts no f-string into a command."""
    for path in bundle.python():
        text = bundle.text(path)
        for match in DYNAMIC.finditer(text):
            what = "text that runs as code, or reads so to scanners"
            fix = "call a function instead; in words, write `.exec`"
            yield Note(path, line_at(text, match.start()), what, fix)
        # Parsing every file would take most of the second that all checks may take.
        if "compile(" in text or "subprocess" in text:
            yield from dynamic_calls(bundle, path)


def dynamic_calls(bundle: Bundle, path: str) -> Iterator[Note]:
    nodes = bundle.nodes(path)
    bare = any(name.startswith("subprocess.") for _, name in imported_modules(nodes))
    processes = {f"subprocess.{name}" for name in PROCESSES} | set(PROCESSES if bare else ())
    for node in (node for node in nodes if isinstance(node, ast.Call)):
        name = dotted(node.func)
        if name in {"compile", "builtins.compile"}:
            if {"exec", "eval", "single"} & {string_of(part) for part in ast.walk(node)}:
                fix = "use ast.parse to look at code, import to run it"
                yield Note(path, node.lineno, "text is compiled to code", fix)
        elif name in processes and any(isinstance(part, ast.JoinedStr) for part in ast.walk(node)):
            fix = "build the argument in a variable above the call"
            yield Note(path, node.lineno, f"an f-string inside {name}", fix)


def nodes_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """What runs when the module is imported: all but the bodies of functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Lambda):
            continue
        yield child
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            for part in (*child.decorator_list, child.args):
                yield from ast.walk(part)
        else:
            yield from nodes_at_import(child)


CALLS_AT_IMPORT = {
    "create_engine": "an engine is created",
    "create_async_engine": "an engine is created",
    "engine_from_config": "an engine is created",
    "async_engine_from_config": "an engine is created",
    "getenv": "the environment is read",
    "asyncio.run": "a loop is run",
}


@check
def no_engine_at_import(bundle: Bundle) -> Iterator[Note]:
    """Importing a snippet creates no engine, reads no environment and runs no loop."""
    for path in bundle.python("snippets"):
        for node in nodes_at_import(bundle.parsed(path)[0]):
            what = None
            if isinstance(node, ast.Call):
                name = dotted(node.func)
                what = CALLS_AT_IMPORT.get(name) or CALLS_AT_IMPORT.get(name.split(".")[-1])
            elif isinstance(node, ast.expr) and dotted(node) in {"os.environ", "environ"}:
                what = "the environment is read"
            if what and isinstance(node, ast.expr):
                fix = "do it in a function that is given what it needs"
                yield Note(path, node.lineno, f"{what} when the module is imported", fix)


PIN = re.compile(r"[\w.-]+(?:\[[\w,-]+\])?==[\w.!+]+(?: *;[^#]+)?(?: +#.*)?")


@check
def requirements_plain(bundle: Bundle) -> Iterator[Note]:
    """Requirement files hold pins, includes and comments; no index, no address."""
    for path in bundle.files:
        if not re.fullmatch(r"requirements/.+\.txt", path):
            continue
        for number, line in enumerate(bundle.text(path).splitlines(), 1):
            entry = line.strip()
            include = re.fullmatch(r"-r +([\w.-]+)", entry)
            is_plain = not entry or entry.startswith("#") or PIN.fullmatch(entry)
            if "://" in entry or not (is_plain or include):
                what = f"`{entry}` is no plain pin"
                yield Note(path, number, what, "write `name==version` or `-r other.txt`")
            elif include and f"requirements/{include[1]}" not in bundle.entries:
                fix = "include a file that is there"
                yield Note(path, number, f"there is no requirements/{include[1]}", fix)


ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".whl", ".skill")
FOREIGN = {"uv.lock": "it records registry addresses", "agents.md": "SKILL.md says it"}
FOREIGN |= {"claude.md": "SKILL.md says it", "skill.md": "a bundle has one, at its root"}


@check
def clean_tree(bundle: Bundle) -> Iterator[Note]:
    """No links, archives, large files, lock files, or second copies of the instructions."""
    for path in bundle.files:
        file = bundle.root / path
        name = path.rpartition("/")[2].lower()
        reason = ""
        if file.is_symlink():
            reason = "installers break symbolic links"
        elif name.endswith(ARCHIVES):
            reason = "archives go stale unseen"
        elif name in FOREIGN and path != "SKILL.md":
            reason = FOREIGN[name]
        elif (size := file.stat().st_size) > MAX_FILE_BYTES:
            reason = f"{size} bytes are too many, {MAX_FILE_BYTES} are allowed"
        if reason:
            yield Note(path, 1, f"this file does not belong here: {reason}", f"git rm {path}")


LOCAL_PATH = re.compile(r"(?<![\w.~>})-])/(?:(?:home|Users)/[\w.-]+/|root/)")


@check
def local_paths(bundle: Bundle) -> Iterator[Note]:
    """No file names a folder of somebody's machine."""
    pattern = LOCAL_PATH
    # A root of one name, as in containers (/app), could be part of any address.
    if len(bundle.root.parts) > 2:
        here = re.escape(str(bundle.root))
        pattern = re.compile(rf"{LOCAL_PATH.pattern}|(?<![\w.-]){here}(?![\w-])")
    for path in bundle.files:
        for match in pattern.finditer(text := bundle.text(path)):
            what = f"`{match[0]}` is a path of one machine"
            yield Note(path, line_at(text, match.start()), what, "write it relative to the bundle")


# --- validators of others, on what a release holds ---


def stage(bundle: Bundle, folder: Path) -> Path:
    """What `git archive` would release of the files as they are now, by the bundle's name."""

    def git(*arguments: str, given: str = "") -> bytes:
        # A repository of its own: the user's, if there is one, is not touched.
        place = ("git", "--git-dir", str(folder / "git"), "--work-tree", str(bundle.root))
        ended = subprocess.run(
            [*place, *arguments],
            cwd=bundle.root,
            env=clean_environment(),
            input=given.encode(),
            capture_output=True,
            check=False,
        )
        if ended.returncode:
            raise OSError(ended.stderr.decode(errors="replace").strip())
        return ended.stdout

    git("init", "--quiet")
    git("update-index", "--add", "-z", "--stdin", given="\0".join(bundle.files))
    tree = git("write-tree").decode().strip()
    archive = git("archive", "--format=zip", "--prefix", f"{NAME}/", tree)
    zipfile.ZipFile(io.BytesIO(archive)).extractall(folder)
    return folder / NAME


def run_validator(name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a tool of the environment that the interpreter belongs to."""
    program = shutil.which(name, path=str(Path(sys.executable).parent))
    if not program:
        raise FileNotFoundError(name)
    command = [program, *arguments]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )


def validate_with_agentskills(export: Path) -> Iterator[Note]:
    """The reference validator of the Agent Skills specification accepts the export."""
    ended = run_validator("agentskills", "validate", str(export), cwd=export)
    if ended.returncode:
        said = (ended.stdout + ended.stderr).strip().splitlines()
        reasons = [line.strip(" -") for line in said if line.startswith("  - ")] or said
        for reason in reasons or [f"it ended with {ended.returncode}"]:
            yield Note("SKILL.md", 1, reason, "edit what it names, then make check")


def validate_with_agnix(export: Path) -> Iterator[Note]:
    """agnix --strict finds no error and no warning in the export."""
    ended = run_validator("agnix", "--strict", "--format", "json", ".", cwd=export)
    try:
        diagnostics = json.loads(ended.stdout)["diagnostics"]
    except (ValueError, KeyError):
        said = (ended.stdout + ended.stderr).strip() or f"it ended with {ended.returncode}"
        yield Note("SKILL.md", 1, said, "edit what it names, then make check")
        return
    for found in diagnostics:
        if found["level"] != "info":
            what = f"{found['rule']} {found['message']}"
            fix = found.get("suggestion") or f"agnix explain {found['rule']}"
            yield Note(found["file"] or "SKILL.md", found["line"], what, fix)


def links_in_export(export: Path) -> Iterator[Note]:
    """What an installed skill reads links to nothing that releases leave out."""
    released = Bundle(export)
    for note in links(released):
        if note.path == "SKILL.md" or note.path.startswith("references/"):
            yield note._replace(fix=f"{note.fix}; .gitattributes leaves files out of releases")


OUTSIDE: dict[str, Callable[[Path], Iterator[Note]]] = {
    "outside-agentskills": validate_with_agentskills,
    "outside-agnix": validate_with_agnix,
    "outside-links": links_in_export,
}


# --- the command ---


def as_finding(rule: str, note: Note) -> Finding:
    return Finding(note.path, note.line, rule, note.what, note.fix)


def run_checks(bundle: Bundle) -> list[Finding]:
    """Everything that the checks find, in the order of the files."""
    return sorted(
        {as_finding(rule, n) for rule, function in CHECKS.items() for n in function(bundle)}
    )


def run_outside(bundle: Bundle) -> list[Finding]:
    """What other validators find in an export of the bundle."""
    found: list[Finding] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            export = stage(bundle, Path(folder))
        except OSError as error:
            note = Note(".", 1, f"the export failed: {error}", "install git, see what it says")
            return [as_finding("outside-export", note)]
        known = {note[:3] for note in links(bundle)}
        for rule, function in OUTSIDE.items():
            try:
                found += [as_finding(rule, n) for n in function(export) if n[:3] not in known]
            except FileNotFoundError as error:
                fix = "run by `make check`, which sets up .venv, or install requirements/latest.txt"
                note = Note("requirements/quality.txt", 1, f"{error} is not installed", fix)
                found.append(as_finding(rule, note))
            except subprocess.TimeoutExpired as error:
                note = Note(".", 1, str(error), "run it by hand to see what holds it")
                found.append(as_finding(rule, note))
    return found


def closing_line(findings: Sequence[Finding], files: int) -> str:
    if not findings:
        return f"no problems ({sync.count(files, 'file')} checked)"
    places = len({finding.path for finding in findings})
    problems = sync.count(len(findings), "problem")
    return f"{problems} in {sync.count(places, 'file')} ({files} checked)"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=ROOT, help="the bundle (default: this one)")
    parser.add_argument("--outside", action="store_true", help="also run agentskills and agnix")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--list", action="store_true", help="print the checks and stop")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.list:
        for rule, function in {**CHECKS, **OUTSIDE}.items():
            print(f"{rule:20} {function.__doc__}")
        return 0
    if not args.root.is_dir():
        parser.error(f"there is no folder {args.root}")
    bundle = Bundle(args.root.resolve())
    findings = run_checks(bundle)
    if args.outside:
        findings += run_outside(bundle)
    if args.json:
        listed = [finding._asdict() for finding in findings]
        print(json.dumps({"findings": listed, "files": len(bundle.files)}, indent=2))
    else:
        for finding in findings:
            print(finding)
        print(closing_line(findings, len(bundle.files)))
    return 1 if findings else 0


if __name__ == "__main__":
    # Syntax trees are many objects and no garbage: collecting would cost a fifth of the run.
    gc.disable()
    sys.exit(main())
