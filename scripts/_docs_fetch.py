"""Read one section of a page of documentation over the network, within limits."""

import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from http.client import HTTPException, HTTPMessage
from typing import IO
from urllib.parse import urldefrag, urlsplit, urlunsplit

MAX_BYTES = 8_000_000
MAX_REDIRECTS = 5
# Hosts below these belong to different people.
SHARED_SUFFIXES = {"github.io", "readthedocs.io", "gitlab.io", "pages.dev", "co.uk"}


class FetchError(Exception):
    """The page could not be read; the message is one line."""


def moved_to(url: str, base_url: str | None) -> str:
    """The address to ask: the official one, or the same path on another server."""
    if not base_url:
        return url
    base, page = urlsplit(base_url), urlsplit(url)
    return urlunsplit((base.scheme, base.netloc, page.path, page.query, page.fragment))


def may_follow(target: str, origin: str) -> bool:
    """Whether a redirect stays with the owner, over https, or on the very same server."""
    new, old = urlsplit(target), urlsplit(origin)
    if (new.scheme, new.netloc) == (old.scheme, old.netloc):
        return True
    return new.scheme == "https" and owner(new.hostname) == owner(old.hostname)


def owner(host: str | None) -> str:
    labels = (host or "").lower().split(".")
    count = 3 if ".".join(labels[-2:]) in SHARED_SUFFIXES else 2
    return ".".join(labels[-count:])


class Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = MAX_REDIRECTS

    def __init__(self, origin: str) -> None:
        self.origin = origin

    def redirect_request(  # noqa: PLR0917  (the library calls it so)
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if not may_follow(newurl, self.origin):
            fp.close()
            raise FetchError(f"{self.origin} leads elsewhere, to {newurl}: not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(url: str, limit: float) -> str:
    """Return a page as text, after at most `limit` seconds.

    Raises:
        FetchError: no network, no such page, no text, too slow.
    """
    address = urldefrag(url).url
    if urlsplit(address).scheme not in {"http", "https"}:
        raise FetchError(f"{address} is no web address")
    result: list[str | FetchError] = []

    def work() -> None:
        try:
            result.append(_read(address, limit))
        except FetchError as error:
            result.append(error)
        except urllib.error.HTTPError as error:
            error.close()
            endless = "redirect" in str(error.msg).lower() and "infinite" in str(error.msg).lower()
            what = "it redirects without end" if endless else f"HTTP {error.code} {error.reason}"
            result.append(FetchError(f"{address}: {what}"))
        except (OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error) or type(error).__name__
            result.append(FetchError(f"{address} can't be reached ({reason}): is there a network?"))

    # A timeout of a socket counts anew with every byte; this one does not.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(limit)
    if not result:
        raise FetchError(f"{address} did not answer within {limit:g} seconds")
    if isinstance(result[0], FetchError):
        raise result[0]
    return result[0]


def _read(address: str, limit: float) -> str:
    opener = urllib.request.build_opener(Redirects(address))
    opener.addheaders = [("User-Agent", "async-sqlmodel-docs"), ("Accept", "text/html, text/plain")]
    with opener.open(address, timeout=limit) as response:
        kind = response.headers.get_content_type()
        if kind not in {"text/html", "text/plain", "application/xhtml+xml"}:
            raise FetchError(f"{address} is {kind}, not a page of text")
        data: bytes = response.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise FetchError(f"{address} has more than {MAX_BYTES // 1_000_000} MB: not read")
        charset = response.headers.get_content_charset() or "utf-8"
    try:
        return data.decode(charset, errors="replace")
    except LookupError:
        return data.decode(errors="replace")


# From HTML to text

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"}
SKIPPED = {"script", "style", "nav", "svg", "button", "form", "template", "noscript", "head"}
HEADINGS = {"h1": 1, "h2": 2, "h3": 3, "h4": 4, "h5": 5, "h6": 6}
MAIN = ("main", "article", "body")  # the best first
SELF_CLOSING = {"p", "li", "dt", "dd", "tr", "td", "th", "option"}
BLOCKS = {
    "address", "article", "aside", "blockquote", "body", "dd", "details", "div", "dl", "dt",
    "figure", "footer", "header", "hr", "html", "li", "main", "ol", "p", "pre", "section",
    "summary", "table", "tbody", "thead", "tr", "ul", *HEADINGS,
}  # fmt: skip


class Node:
    def __init__(self, tag: str, attributes: dict[str, str], parent: "Node | None") -> None:
        self.tag = tag
        self.attributes = attributes
        self.parent = parent
        self.children: list[Node | str] = []

    def walk(self) -> Iterator["Node"]:
        todo = [self]
        while todo:
            node = todo.pop()
            yield node
            todo += [child for child in reversed(node.children) if isinstance(child, Node)]

    def after(self) -> list["Node | str"]:
        """What follows it within its parent."""
        if self.parent is None:
            return []
        siblings = self.parent.children
        return siblings[siblings.index(self) + 1 :]


class Tree(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.root = self.current = Node("html", {}, None)
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == self.current.tag and tag in SELF_CLOSING and self.current.parent:
            self.current = self.current.parent
        node = Node(tag, {name: value or "" for name, value in attrs}, self.current)
        self.current.children.append(node)
        if tag not in VOID:
            self.current = node

    def handle_endtag(self, tag: str) -> None:
        node: Node | None = self.current
        while node is not None and node.tag != tag:
            node = node.parent
        if node is not None and node.parent is not None:
            self.current = node.parent

    def handle_data(self, data: str) -> None:
        self.current.children.append(data)


def section_text(html: str, anchor: str) -> str | None:
    """The section that an anchor names, as text; without an anchor, the main part of the page."""
    root = Tree(html).root
    if anchor:
        found = next((node for node in root.walk() if node.attributes.get("id") == anchor), None)
        return None if found is None else as_text(section(found))
    mains = [n for n in root.walk() if n.tag in MAIN or n.attributes.get("role") == "main"]
    mains.sort(key=lambda node: MAIN.index(node.tag) if node.tag in MAIN else 0)
    return as_text(mains[:1] or [root])


def section(node: Node) -> list[Node | str]:
    if node.tag in {"a", "span"} and node.parent and node.parent.tag in {*HEADINGS, "dt", "p"}:
        node = node.parent
    if node.tag == "dt":
        after = node.after()
        ends = [n for n, other in enumerate(after) if isinstance(other, Node) and other.tag == "dd"]
        return [node, *after[: ends[0] + 1]] if ends else [node]
    if level := HEADINGS.get(node.tag):
        found: list[Node | str] = [node]
        for other in node.after():
            if isinstance(other, Node) and HEADINGS.get(other.tag, 9) <= level:
                break
            found.append(other)
        return found
    return [node]


def as_text(nodes: Iterable[Node | str]) -> str:
    pieces: list[str] = []
    for node in nodes:
        _write(node, pieces)
    lines = [line.rstrip(" \t") for line in "".join(pieces).split("\n")]
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines))
    text = re.sub(r"\n\n(?=- )", "\n", text)
    return re.sub(r"\n (?=\S)", "\n", text).strip("\n ")


def _write(node: Node | str, pieces: list[str]) -> None:
    # No recursion: a broken page may be of any depth.
    todo: list[tuple[Node | str, bool, bool]] = [(node, False, False)]
    while todo:
        item, pre, ends = todo.pop()
        if isinstance(item, str):
            pieces.append(item if pre else re.sub(r"\s+", " ", item))
            continue
        if item.tag in SKIPPED or "headerlink" in item.attributes.get("class", ""):
            continue
        if ends:
            pieces.append("\n\n" if item.tag in {"p", "pre", *HEADINGS} else "\n")
            continue
        if item.tag == "br":
            pieces.append("\n")
        if item.tag in {"td", "th"}:
            pieces.append(" | ")
        if item.tag in BLOCKS:
            pieces.append("\n- " if item.tag == "li" else "\n")
            todo.append((item, pre, True))
        inside = pre or item.tag == "pre"
        todo += [(child, inside, False) for child in reversed(item.children)]
