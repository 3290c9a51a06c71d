"""Checks that each mistake is told in full, and that tests show what a page says of it."""

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache

from _bundle import Bundle, Note, as_heading, page_of, topic_of
from _mistakes import SYMPTOM, mistake_headings, quoted_texts
from _syntax import names_in, string_of


def public_functions(tree: ast.Module) -> dict[str, int]:
    functions = (n for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    return {node.name: node.lineno for node in functions if not node.name.startswith("_")}


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
            told = bundle.document(page).section(heading)
            for label in ("Symptom", "Cause", "Fix"):
                if not re.search(rf"\*\*{label}[.:]?\*\*", told):
                    fix = f"add a line that begins with **{label}**"
                    yield Note(page, heading.line, f"`{heading.text}` has no {label}", fix)


# Shorter pieces of a quoted text say too little to search for.
MIN_PIECE = 12
# What lies between the words to search for. Classes of errors differ by driver, so tests name them
# as classes; what stands in <...> is the look of an object.
SEAM = re.compile(
    r"\.\.\.|…|\n|<[^<>\n]*>:?|\(?\b[\w.]*(?:Error|Exception|Warning|MissingGreenlet)\b\)?:?"
)


def searchable_pieces(mistake: str) -> list[str]:
    """The parts of all texts that a mistake's symptom quotes, without what varies in them."""
    quoted = [text for symptom in SYMPTOM.findall(mistake) for text in quoted_texts(symptom)]
    pieces = [" ".join(piece.split()).strip(" .,:;") for q in quoted for piece in SEAM.split(q)]
    return [piece for piece in pieces if len(piece) >= MIN_PIECE]


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
