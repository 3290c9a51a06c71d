# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""Show the documentation of a name or a topic, for the versions that a project has installed."""

import argparse
import difflib
import json
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urlsplit

from _command import Parser, seconds
from _command import run as run_command
from _docs_fetch import FetchError, fetch, moved_to, section_text
from _docs_pages import ALIASES, TOPICS, Page, Topic, official
from _interpreter import Interpreter, InterpreterError, ProbeError, ask, find_interpreter
from _markdown import Document

ROOT = Path(__file__).resolve().parent.parent
PROBE = Path(__file__).resolve().parent / "_docs_probe.py"
PROBE_SECONDS = 120
MAX_LINES = 60
MAX_PARAGRAPHS = 3
MAX_DOC_LINES = 25

# A name of an earlier row is meant, where libraries of several have it.
RANKS = (("sqlmodel",), ("sqlalchemy", "alembic", "fastapi", "pydantic", "pydantic_settings"))
LABELS = {
    "alembic": "Alembic",
    "asyncio": "Python",
    "contextlib": "Python",
    "contextvars": "Python",
    "fastapi": "FastAPI",
    "sqlalchemy": "SQLAlchemy",
    "sqlmodel": "SQLModel",
}
EPILOG = """\
examples:
  python scripts/docs.py selectinload
  python scripts/docs.py AsyncSession.stream_scalars --fetch
  python scripts/docs.py --topic upsert

What is printed comes from the installed libraries and from this bundle. Only --fetch uses the
network, to read the section of the official page.

exit codes: 0 found, 1 unknown or ambiguous name, 2 wrong usage, 3 the page could not be read
"""


def label(entry: Mapping[str, Any]) -> str:
    library = entry["library"]
    return f"{LABELS.get(library, library)} {entry['version'] or '(version unknown)'}"


# One name


def choose(candidates: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """Those that may be meant, and the names of those that are not."""
    ranked = [(_rank(entry), entry) for entry in candidates]
    best = min((rank for rank, _ in ranked), default=0)
    meant = [entry for rank, entry in ranked if rank == best]
    return meant, [entry["name"] for rank, entry in ranked if rank != best]


def _rank(entry: Mapping[str, Any]) -> int:
    library = entry["name"].partition(".")[0]
    return next((n for n, row in enumerate(RANKS) if library in row), len(RANKS))


ROLE = re.compile(r":[\w:]+:`([^`]+)`")


def plain_prose(text: str) -> str:
    """A docstring without the roles and directives that only a builder of documentation reads."""
    text = ROLE.sub(lambda found: f"`{visible(found[1])}`", text)
    text = re.sub(r"^\.\. (?:_[^:]+:|index::.*)$", "", text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def visible(role: str) -> str:
    """What a reader sees of `~package.name`, `_orm.Session.add`, `.Table` or `title <target>`."""
    title = re.sub(r"\s*<[^>]*>$", "", role)
    if title.startswith("~"):
        return title.rpartition(".")[2].lstrip("~")
    return re.sub(r"^_\w+\.", "", title).lstrip(".")


def first_paragraphs(text: str) -> tuple[str, int]:
    """The beginning of a docstring, and how many lines were left out."""
    paragraphs = re.split(r"\n\s*\n", text)
    kept = "\n\n".join(paragraphs[:MAX_PARAGRAPHS]).splitlines()[:MAX_DOC_LINES]
    return "\n".join(kept), len(text.splitlines()) - len(kept)


def describe(entry: Mapping[str, Any], page: Page | None, *, full: bool) -> Iterator[str]:
    """Yield the lines for people: first where to read on, for the end may be cut."""
    yield f"{entry['name']} ({entry['kind']}, {label(entry)})"
    if entry["file"]:
        line = f":{entry['line']}" if entry["line"] else ""
        yield f"source: {entry['file']}{line}"
    yield f"page:   {page_line(page)}"
    yield from (f"bundle: {section}" for section in sections_about(entry["name"]))
    if entry["signature"]:
        shown = f"{entry['name'].rpartition('.')[2]}{entry['signature']}"
        yield f"\n{textwrap.indent(shown, '    ')}"
    text = plain_prose(entry["doc"])
    kept, left = (text, 0) if full else first_paragraphs(text)
    yield f"\n{kept or '(no docstring)'}"
    if left > 0:
        yield f"... ({left} more lines with --full)"
    if full:
        for name, about in entry["parameters"].items():
            yield f"\n{name}:\n{textwrap.indent(about, '    ')}"
    if entry["members"]:
        yield textwrap.fill(f"has: {', '.join(entry['members'])}", 100, subsequent_indent="    ")


def page_line(page: Page | None) -> str:
    if page is None:
        return "none is known for this library"
    return page.url if page.versioned else f"{page.url} (of its newest version)"


def sections_about(name: str) -> list[str]:
    """Where this bundle speaks of a name."""
    last = name.rpartition(".")[2]
    found = [
        section
        for topic in TOPICS.values()
        if any(name == known or last == known.rpartition(".")[2] for known in topic.names)
        for section in topic.sections
        if "#" in section and section_exists(section)
    ]
    return [f"references/{section}" for section in dict.fromkeys(found)][:3]


# Topics


def headings_of(page: str) -> list[str]:
    """The anchors of the sections of a page of this bundle."""
    try:
        text = (ROOT / "references" / page).read_text(encoding="utf-8")
    except OSError:
        return []
    return [heading.slug for heading in Document(text).sections]


def section_exists(section: str) -> bool:
    page, _, anchor = section.partition("#")
    return (ROOT / "references" / page).is_file() and (not anchor or anchor in headings_of(page))


def find_topic(asked: str) -> tuple[str, Topic] | None:
    """A topic of the table, or any section of any page."""
    wanted = asked.lower().replace("_", "-").replace(" ", "-").removesuffix(".md")
    wanted = ALIASES.get(wanted, wanted)
    if wanted in TOPICS:
        return wanted, TOPICS[wanted]
    pages = [f"{name}.md" for name in TOPICS if (ROOT / "references" / f"{name}.md").is_file()]
    sections = [f"{page}#{wanted}" for page in pages if wanted in headings_of(page)]
    if wanted in {"decide", "databases", "mistakes"} or not sections:
        return None
    names = [name for s in sections for name in TOPICS[s.partition(".md")[0]].names]
    return wanted, Topic(tuple(sections), tuple(dict.fromkeys(names)))


def topic_names() -> list[str]:
    return sorted({*TOPICS, *ALIASES})


def describe_topic(name: str, topic: Topic, entries: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield f"topic {name}"
    for section in topic.sections:
        if section_exists(section):
            yield f"bundle: references/{section}"
    folder = topic.sections[0].partition(".md")[0].replace("-", "_")
    if (ROOT / "snippets" / folder).is_dir():
        yield f"code:   snippets/{folder}/"
    for entry in entries:
        yield f"{entry['name']} ({label(entry)}): {entry['page'] or 'no page is known'}"


# Reading a page


def fetched(page: Page | None, base_url: str | None, limit: float) -> str:
    """The section of a page, as text.

    Raises:
        FetchError: it could not be read.
    """
    if page is None:
        raise FetchError("no official page is known")
    anchor = urldefrag(page.url).fragment
    url = moved_to(page.url, base_url)
    text = section_text(fetch(url, limit), anchor)
    if text is None:
        raise FetchError(f"{urldefrag(url).url} has no section {anchor}")
    return text


def clipped(lines: Sequence[str], *, full: bool) -> Iterator[str]:
    """At most so many lines as one reads."""
    every = [line for text in lines for line in text.split("\n")]
    if full or len(every) <= MAX_LINES:
        yield from every
    else:
        yield from every[: MAX_LINES - 1]
        yield f"... ({len(every) - MAX_LINES + 1} more lines with --full)"


# Commands


def run_name(arguments: argparse.Namespace, interpreter: Interpreter) -> int:
    name = arguments.name
    answer = ask(interpreter, PROBE, {"names": [name]}, Path.cwd(), PROBE_SECONDS)
    found = answer[name]
    meant, others = choose(found["candidates"])
    result: dict[str, Any] = {"name": name, "candidates": meant, "also": others, "nearest": []}
    for entry in meant:
        page = official(entry, answer["versions"])
        entry["page"] = page and page.url
    if len(meant) != 1:
        result["nearest"] = found.get("nearest", [])
        _refuse(arguments, result, interpreter)
        return 1
    (entry,) = meant
    page = official(entry, answer["versions"])
    lines = list(describe(entry, page, full=arguments.full))
    if others:
        lines.insert(1, f"also:   {', '.join(others)}")
    code = 0
    if arguments.fetch:
        result["section"] = None
        try:
            result["section"] = fetched(page, arguments.base_url, arguments.timeout)
            lines += ["", f"from {page.url if page else ''}:", "", result["section"]]
        except FetchError as error:
            print(f"docs.py: the page was not read: {error}", file=sys.stderr)
            code = 3
    _print(arguments, result, lines)
    return code


def _refuse(
    arguments: argparse.Namespace, result: Mapping[str, Any], interpreter: Interpreter
) -> None:
    name, meant, nearest = result["name"], result["candidates"], result["nearest"]
    if meant:
        lines = [f"{name} is ambiguous; name one of these:"]
        for entry in meant:
            first = plain_prose(entry["doc"]).partition("\n")[0]
            lines.append(f"  {entry['name']} ({label(entry)})  {first}".rstrip())
    else:
        lines = [f"{name} is not known to the libraries of {interpreter.path}"]
        lines += [f"  nearest: {near}" for near in nearest]
    _print(arguments, result, lines)


def run_topic(arguments: argparse.Namespace, interpreter: Interpreter) -> int:
    found = find_topic(arguments.topic)
    if found is None:
        near = difflib.get_close_matches(arguments.topic.lower(), topic_names(), 5, 0.5)
        lines = [f"there is no topic {arguments.topic}"]
        lines += [f"  nearest: {name}" for name in near] or [f"  topics: {', '.join(TOPICS)}"]
        _print(arguments, {"topic": arguments.topic, "nearest": near}, lines)
        return 1
    name, topic = found
    answer = ask(interpreter, PROBE, {"names": list(topic.names)}, Path.cwd(), PROBE_SECONDS)
    entries = []
    for known in topic.names:
        meant, _ = choose(answer[known]["candidates"])
        for entry in meant[:1]:
            page = official(entry, answer["versions"])
            entries.append({**entry, "page": page and page.url})
    sections = [f"references/{s}" for s in topic.sections if section_exists(s)]
    kept = ("name", "kind", "library", "version", "page")
    result: dict[str, Any] = {
        "topic": name,
        "sections": sections,
        "names": [{key: entry[key] for key in kept} for entry in entries],
    }
    lines = list(describe_topic(name, topic, entries))
    code = 0
    if arguments.fetch and entries:
        page = Page(entries[0]["page"], versioned=True) if entries[0]["page"] else None
        try:
            result["section"] = fetched(page, arguments.base_url, arguments.timeout)
            lines += ["", f"from {entries[0]['page']}:", "", result["section"]]
        except FetchError as error:
            print(f"docs.py: the page was not read: {error}", file=sys.stderr)
            code = 3
    _print(arguments, result, lines)
    return code


def _print(arguments: argparse.Namespace, result: Mapping[str, Any], lines: Sequence[str]) -> None:
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        print("\n".join(clipped(lines, full=arguments.full)))


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="docs.py",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "name", metavar="NAME", nargs="?", help="such as selectinload, op.add_column"
    )
    parser.add_argument("--topic", help="a page of the bundle, or a section of one, such as upsert")
    parser.add_argument(
        "--python",
        metavar="INTERPRETER",
        help="an interpreter or a virtual environment (default: .venv, $VIRTUAL_ENV, or the "
        "running one)",
    )
    parser.add_argument("--fetch", action="store_true", help="read the official page too")
    parser.add_argument("--timeout", type=seconds, default=20.0, help="seconds for --fetch")
    parser.add_argument(
        "--base-url", metavar="URL", help="a mirror: the server to read official paths from"
    )
    parser.add_argument("--full", action="store_true", help=f"more than {MAX_LINES} lines")
    parser.add_argument("--json", action="store_true", help="answer in JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if (arguments.name is None) == (arguments.topic is None):
        parser.error(f"give a NAME or a --topic; topics are {', '.join(TOPICS)}")
    if arguments.name and not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", arguments.name):
        parser.error(f"{arguments.name!r} is no dotted name")
    if arguments.base_url and urlsplit(arguments.base_url).scheme not in {"http", "https"}:
        parser.error(f"--base-url {arguments.base_url}: write http:// or https://")
    try:
        interpreter = find_interpreter(Path.cwd(), arguments.python)
        run = run_name if arguments.name else run_topic
        return run(arguments, interpreter)
    except InterpreterError as error:
        parser.error(str(error))
    except ProbeError as error:
        print(f"docs.py: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(run_command(main))
