"""Checks that what the documents link and name is there."""

import posixpath
import re
from collections.abc import Iterator
from urllib.parse import unquote

from _bundle import Bundle, Note


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
    return complaint_about_anchor(bundle, goal, anchor) if anchor else None


def complaint_about_anchor(bundle: Bundle, path: str, anchor: str) -> tuple[str, str] | None:
    what = f"{path} has no heading `#{anchor}`"
    if not path.endswith(".md"):
        return what, "link to the file, without `#`"
    if anchor in bundle.document(path).anchors:
        return None
    known = ", ".join(heading.slug for heading in bundle.document(path).headings)
    return what, f"link to one of: {known}"


def links(bundle: Bundle) -> Iterator[Note]:
    """Links lead to files and headings that are there, in their own letter case."""
    for path in bundle.documents:
        for line, target in bundle.document(path).links:
            if re.match(r"(?:https?|mailto):", target):
                continue
            if complaint := complaint_about_link(bundle, path, target):
                yield Note(path, line, *complaint)


SCRIPT_MENTION = re.compile(r"(?<![\w/.-])scripts/\w+\.py\b")


def script_mentions(bundle: Bundle) -> Iterator[Note]:
    """Scripts that the documents and the Makefile name exist."""
    for path in [*bundle.documents, "Makefile"]:
        for line, match in bundle.search(SCRIPT_MENTION, path):
            if match[0] not in bundle.entries:
                there = ", ".join(bundle.python("scripts"))
                yield Note(path, line, f"there is no {match[0]}", f"name one of: {there}")
