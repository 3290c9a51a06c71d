"""Checks that each mistake is told in full, and that tests show what a page says of it."""

import ast
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache

from _bundle import Bundle, Note, as_heading, page_of, topic_of
from _markdown import CODE_SPAN, Document, Heading, lines_outside_fences, read_fences
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


def mistake_headings(page: Document) -> Iterator[Heading]:
    section = ""
    for heading in page.headings:
        section = heading.text if heading.level == 2 else section
        if heading.level == 3 and section == "Mistakes":
            yield heading


# Shorter pieces of a quoted text say too little to search for.
MIN_PIECE = 12
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
    for fence in read_fences(symptom):
        if fence.language in {"", "text", "console", "pytb"}:
            yield "\n".join(fence.lines)
    prose = "\n".join(line for _, line in lines_outside_fences(symptom))
    for match in CODE_SPAN.finditer(prose):
        span = " ".join(match[2].split())
        if " " in span and not looks_like_code(span):
            yield span


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
