"""Checks of the pages: their frame, their blocks, and the trees that mirror them."""

import ast
import re
from collections.abc import Iterator

import sync
from _bundle import UNMIRRORED, Bundle, Note, as_heading, page_of, topic_of

FRAME = ("Decide", "Databases", "Mistakes")
# Sections that are written or generated without a module.
FREE_SECTIONS = {"Contents", "Review checklist", *FRAME}
MAX_LINES_WITHOUT_CONTENTS = 300


def contents_list(bundle: Bundle) -> Iterator[Note]:
    """A long page opens with a list of its sections."""
    for path in bundle.pages:
        page = bundle.document(path)
        targets = {target for _, target in page.links}
        sections = [section for section in page.sections if section.text != "Contents"]
        missing = [section.text for section in sections if f"#{section.slug}" not in targets]
        if len(page.lines) > MAX_LINES_WITHOUT_CONTENTS and missing:
            what = f"{len(page.lines)} lines, and no contents list for: {', '.join(missing)}"
            yield Note(path, 1, what, "add `## Contents` before `## Decide`, with links")


def page_structure(bundle: Bundle) -> Iterator[Note]:
    """A page opens with its title, when to read it and what it was verified with."""
    for path in bundle.pages:
        page = bundle.document(path)
        first = page.sections[0].line if page.sections else len(page.lines) + 1
        expected = ["# ", "Read when ", "Skip when ", sync.VERIFIED]
        if path in UNMIRRORED:
            expected = expected[:2]
        above = [text for line, text in page.outside if line < first]
        found = [start for text in above for start in expected if text.startswith(start)]
        if found != expected:
            fix = f"open the page with lines of: {', '.join(expected)}"
            yield Note(path, 1, "the opening lines are incomplete or in another order", fix)
        names = [section.text for section in page.sections if section.text != "Contents"]
        frame = [name for name in names if name in FRAME]
        is_framed = frame == names[:1] + names[-2:] == [*FRAME]
        if path not in UNMIRRORED and not is_framed:
            fix = "put `## Decide` first, `## Databases` and `## Mistakes` last"
            line = first if page.sections else 1
            yield Note(path, line, "the frame of sections is incomplete", fix)


COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)


def empty_sections(bundle: Bundle) -> Iterator[Note]:
    """Each section says something: a heading that nothing follows promises in vain."""
    # The changelog may be waiting for what comes next.
    for path in (path for path in bundle.documents if path != "CHANGELOG.md"):
        page = bundle.document(path)
        for heading in (heading for heading in page.headings if heading.level in {2, 3}):
            if not COMMENT.sub("", page.section(heading)).strip():
                fix = "write what it promises, or take the heading out"
                yield Note(path, heading.line, f"`{heading.text}` is an empty section", fix)


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
    sections = bundle.document(page).sections
    patterns = {section.name: section for section in sections if section.text not in FREE_SECTIONS}
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


TEST_FUNCTION = re.compile(r"^(?:async +)?def test", re.MULTILINE)


def empty_test_files(bundle: Bundle) -> Iterator[Note]:
    """Each test file has a test: without one it proves nothing, and no run says so."""
    for path in bundle.python("tests"):
        if path.rpartition("/")[2].startswith("test_") and not has_test(bundle, path):
            fix = "write a test, or take the file out"
            yield Note(path, 1, "this file has no test function", fix)


def has_test(bundle: Bundle, path: str) -> bool:
    # Parsing every file would take most of the second that all checks may take.
    if TEST_FUNCTION.search(bundle.text(path)):
        return True
    classes = [node for node in bundle.parsed(path)[0].body if isinstance(node, ast.ClassDef)]
    return any(
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test")
        for item in classes
        if item.name.startswith("Test")
        for node in item.body
    )


def blocks_in_sync(bundle: Bundle) -> Iterator[Note]:
    """Blocks with an address show what that address holds now."""
    for path, line, what, fix, choices in sync.problems(bundle.root):
        yield Note(path, line, what, fix + (f": {', '.join(choices)}" if choices else ""))


def blocks_addressed(bundle: Bundle) -> Iterator[Note]:
    """Python blocks carry the address of tested code."""
    for path in bundle.documents:
        for fence in bundle.document(path).fences:
            if fence.language in {"python", "py", "python3", "pycon"} and not fence.address:
                fix = "write ```python snippets/<topic>/<pattern>.py::<name>, then make sync"
                yield Note(path, fence.start, "this Python block shows untested code", fix)
