"""Checks of SKILL.md as the specification reads it: front matter, version and sizes."""

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

from _bundle import NAME, Bundle, Note

KEYS = ("name", "description", "license", "compatibility", "metadata", "allowed-tools")
MAX_DESCRIPTION = 400
MAX_SKILL = 12_000
MAX_SKILL_LINES = 500
MAX_PAGE = 10_000
MAX_INDEX = 14_000  # of error texts: searched, not read
MAX_PAGES = 105_000


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
    for key, wanted in (("name", NAME), ("license", "MIT")):
        value = values.get(key, missing)
        if value.text != wanted:
            fix = f"write `{key}: {wanted}`"
            yield Note("SKILL.md", value.line, f"the {key} is another", fix)
    description = values.get("description", missing)
    if len(description.text) > MAX_DESCRIPTION:
        what = f"the description has {len(description.text)} characters"
        yield Note("SKILL.md", description.line, what, f"shorten it to {MAX_DESCRIPTION}")
    if "Use when" not in description.text:
        what = "the description does not say when the skill is of use"
        yield Note("SKILL.md", description.line, what, 'add a sentence "Use when ..."')
    version = values.get("metadata.version", missing)
    if not version.quoted:
        what = "metadata.version is no quoted text"
        yield Note("SKILL.md", version.line, what, 'write `version: "1.2.3"` below `metadata:`')


CHANGELOG_VERSION = re.compile(r"^## \[?v?(\d[\w.+-]*)", re.MULTILINE)
JSON_VERSION = re.compile(r'"version"\s*:\s*"([^"]*)"')
TOML_VERSION = re.compile(r'^version *= *"([^"]*)"', re.MULTILINE)


def stated_versions(bundle: Bundle) -> Iterator[tuple[str, int, str]]:
    """Path, line and version of all that states the version beside SKILL.md."""

    def stated(path: str, pattern: re.Pattern[str]) -> list[tuple[str, int, str]]:
        return [(path, line, match[1]) for line, match in bundle.search(pattern, path)]

    # The changelog tells the versions from the newest on, and only [project] opens with its own.
    yield from stated("CHANGELOG.md", CHANGELOG_VERSION)[:1] or [("CHANGELOG.md", 1, "none")]
    yield from stated("pyproject.toml", TOML_VERSION)[:1]
    for path in bundle.files:
        if re.fullmatch(r"\.claude-plugin/[^/]+\.json", path):
            yield from stated(path, JSON_VERSION)


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


def max_size(page: str) -> int:
    return MAX_INDEX if page == "references/troubleshooting.md" else MAX_PAGE


def budgets(bundle: Bundle) -> Iterator[Note]:
    """SKILL.md and the pages keep to their sizes."""
    skill = bundle.text("SKILL.md")
    pages = {path: len(bundle.text(path)) for path in bundle.pages}
    sizes = [
        ("SKILL.md", len(skill), MAX_SKILL, "characters"),
        ("SKILL.md", skill.count("\n"), MAX_SKILL_LINES, "lines"),
        ("references", sum(pages.values()), MAX_PAGES, "characters in all pages"),
        *((path, size, max_size(path), "characters") for path, size in pages.items()),
    ]
    for path, size, limit, unit in sizes:
        if size > limit:
            fix = f"take out {size - limit}: show a shorter symbol, say things once"
            yield Note(path, 1, f"{size} {unit}, {limit} are allowed", fix)
