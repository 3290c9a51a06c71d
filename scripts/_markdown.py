"""Markdown as far as the bundle's tools read it: fences, headings, anchors and links."""

import re
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple


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
        self.fences = read_fences(text)
        self.outside = list(lines_outside_fences(text))

    @cached_property
    def headings(self) -> list[Heading]:
        found: list[Heading] = []
        seen: Counter[str] = Counter()
        for line, text in self.outside:
            if match := HEADING.fullmatch(text):
                slug = slug_of(match[2])
                unique = f"{slug}-{seen[slug]}" if slug in seen else slug
                seen[slug] += 1
                found.append(Heading(line, len(match[1]), match[2], unique))
        return found

    @cached_property
    def sections(self) -> list[Heading]:
        return [heading for heading in self.headings if heading.level == 2]

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
