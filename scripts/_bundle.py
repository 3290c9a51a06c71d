"""The files of the bundle, read at most once each, and notes on what is wrong in them."""

import ast
import os
import re
import subprocess
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from _markdown import Document

NAME = "async-sqlmodel"
# Pages that gather what other pages prove: they have no snippets and choose their headings.
UNMIRRORED = ("references/troubleshooting.md", "references/versions.md")
# Where there is no git to ask, these folders are no part of the bundle.
LEFT_OUT = re.compile(r"\.git|\.venv.*|build|__pycache__|\..*_cache|\.hypothesis")


class Note(NamedTuple):
    """What a check says: where, what, and the edit or command that mends it."""

    path: str
    line: int
    what: str
    fix: str


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

    def search(self, pattern: re.Pattern[str], path: str) -> Iterator[tuple[int, re.Match[str]]]:
        """The matches in a file, each with the line on which it begins."""
        text = self.text(path)
        return ((text.count("\n", 0, m.start()) + 1, m) for m in pattern.finditer(text))

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


def topic_of(path: str) -> str:
    """The topic that a page, a snippet or a test belongs to."""
    return path.split("/")[1].removesuffix(".md").replace("-", "_")


def as_heading(name: str) -> str:
    return name.replace("_", " ").capitalize()
