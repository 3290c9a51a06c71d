"""What the pages say of mistakes, and two tables of it: to look an error up, to review by."""

import ast
import re
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from _bundle import UNMIRRORED
from _markdown import CODE_SPAN, Document, Heading, lines_outside_fences, read_fences


def mistake_headings(page: Document) -> Iterator[Heading]:
    section = ""
    for heading in page.headings:
        section = heading.text if heading.level == 2 else section
        if heading.level == 3 and section == "Mistakes":
            yield heading


SYMPTOM = re.compile(r"\*\*Symptom[.:]?\*\*(.*?)(?=\*\*(?:Cause|Fix)\b|\Z)", re.DOTALL)
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


def pages_with_mistakes(root: Path) -> Iterator[tuple[str, Document]]:
    """The name and the text of each page that has mistakes of its own."""
    for path in sorted((root / "references").glob("*.md")):
        if f"references/{path.name}" not in UNMIRRORED:
            yield path.name, Document(path.read_text(encoding="utf-8"))


def error_index(root: Path) -> list[str]:
    """Rows of error texts as printed, by alphabet, each with the mistakes that lead to it."""
    links: dict[str, list[str]] = {}
    for name, page in pages_with_mistakes(root):
        for heading in mistake_headings(page):
            symptoms = SYMPTOM.findall(page.section(heading))
            quoted = (text for symptom in symptoms for text in quoted_texts(symptom))
            for text in dict.fromkeys(quoted):
                links.setdefault(text, []).append(f"[{heading.text}]({name}#{heading.slug})")
    in_order = sorted(links, key=lambda text: (re.sub(r"\W", "", text).casefold(), text))
    return [f"| {as_code(text)} | {', '.join(links[text])} |" for text in in_order]


def as_code(text: str) -> str:
    """A code span in a cell of a table."""
    escaped = " ".join(text.split()).replace("|", "\\|")
    return f"`` {escaped} ``" if "`" in escaped else f"`{escaped}`"


def review_list(root: Path) -> list[str]:
    """Rows of all mistakes by their names, a page each."""
    rows = []
    for name, page in pages_with_mistakes(root):
        names = ", ".join(heading.text.lower() for heading in mistake_headings(page))
        if names:
            rows.append(f"| [{name.removesuffix('.md')}]({name}#mistakes) | {names} |")
    return rows
