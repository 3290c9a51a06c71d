"""Checks for what scanners, installers and readers elsewhere should not meet in the bundle."""

import ast
import re
from collections.abc import Iterator

from _bundle import Bundle, Note
from _syntax import dotted, imported_modules, string_of

# Scanners read a bare call of this name as dynamic execution, in prose as in code.
BARE_EXEC = re.compile(r"(?<![.\w])exec\(")


def bare_exec(bundle: Bundle) -> Iterator[Note]:
    """Documents write `session.exec(...)` or `.exec()`, never the bare call."""
    for path in bundle.documents:
        for line, _ in bundle.search(BARE_EXEC, path):
            what = "a bare exec call reads as dynamic execution"
            yield Note(path, line, what, "write `session.exec` or `.exec`")


# A method of that name may be defined, as SQLModel's own session does.
DYNAMIC = re.compile(r"(?<![.\w])(?<!def )(?:eval|exec)\(")
PROCESSES = ("run", "Popen", "call", "check_call", "check_output")


def dynamic_execution(bundle: Bundle) -> Iterator[Note]:
    """Bundled Python runs no text as code and puts no f-string into a command."""
    for path in bundle.python():
        for line, _ in bundle.search(DYNAMIC, path):
            what = "text that runs as code, or reads so to scanners"
            fix = "call a function instead; in words, write `.exec`"
            yield Note(path, line, what, fix)
        # Parsing every file would take most of the second that all checks may take.
        text = bundle.text(path)
        if "compile(" in text or "subprocess" in text:
            yield from dynamic_calls(bundle, path)


def dynamic_calls(bundle: Bundle, path: str) -> Iterator[Note]:
    nodes = bundle.nodes(path)
    bare = any(name.startswith("subprocess.") for _, name in imported_modules(nodes))
    processes = {f"subprocess.{name}" for name in PROCESSES} | set(PROCESSES if bare else ())
    for node in (node for node in nodes if isinstance(node, ast.Call)):
        name = dotted(node.func)
        if name in {"compile", "builtins.compile"}:
            if {"exec", "eval", "single"} & {string_of(part) for part in ast.walk(node)}:
                fix = "use ast.parse to look at code, import to run it"
                yield Note(path, node.lineno, "text is compiled to code", fix)
        elif name in processes and any(isinstance(part, ast.JoinedStr) for part in ast.walk(node)):
            fix = "build the argument in a variable above the call"
            yield Note(path, node.lineno, f"an f-string inside {name}", fix)


PIN = re.compile(r"[\w.-]+(?:\[[\w,-]+\])?==[\w.!+]+(?: *;[^#]+)?(?: +#.*)?")


def requirements_plain(bundle: Bundle) -> Iterator[Note]:
    """Requirement files hold pins, includes and comments; no index, no address."""
    for path in bundle.files:
        if not re.fullmatch(r"requirements/.+\.txt", path):
            continue
        for number, line in enumerate(bundle.text(path).splitlines(), 1):
            entry = line.strip()
            include = re.fullmatch(r"-r +([\w.-]+)", entry)
            is_plain = not entry or entry.startswith("#") or PIN.fullmatch(entry)
            if "://" in entry or not (is_plain or include):
                what = f"`{entry}` is no plain pin"
                yield Note(path, number, what, "write `name==version` or `-r other.txt`")
            elif include and f"requirements/{include[1]}" not in bundle.entries:
                fix = "include a file that is there"
                yield Note(path, number, f"there is no requirements/{include[1]}", fix)


MAX_FILE_BYTES = 200_000
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".whl", ".skill")
FOREIGN = {
    "uv.lock": "it records registry addresses",
    "agents.md": "SKILL.md says it",
    "claude.md": "SKILL.md says it",
    "skill.md": "a bundle has one, at its root",
}


def clean_tree(bundle: Bundle) -> Iterator[Note]:
    """No links, archives, large files, lock files, or second copies of the instructions."""
    for path in bundle.files:
        file = bundle.root / path
        name = path.rpartition("/")[2].lower()
        reason = ""
        if file.is_symlink():
            reason = "installers break symbolic links"
        elif name.endswith(ARCHIVES):
            reason = "archives go stale unseen"
        elif name in FOREIGN and path != "SKILL.md":
            reason = FOREIGN[name]
        elif (size := file.stat().st_size) > MAX_FILE_BYTES:
            reason = f"{size} bytes are too many, {MAX_FILE_BYTES} are allowed"
        if reason:
            yield Note(path, 1, f"this file does not belong here: {reason}", f"git rm {path}")


LOCAL_PATH = re.compile(r"(?<![\w.~>})-])/(?:(?:home|Users)/[\w.-]+/|root/)")


def local_paths(bundle: Bundle) -> Iterator[Note]:
    """No file names a folder of somebody's machine."""
    pattern = LOCAL_PATH
    # A root of one name, as in containers (/app), could be part of any address.
    if len(bundle.root.parts) > 2:
        here = re.escape(str(bundle.root))
        pattern = re.compile(rf"{LOCAL_PATH.pattern}|(?<![\w.-]){here}(?![\w-])")
    for path in bundle.files:
        for line, match in bundle.search(pattern, path):
            what = f"`{match[0]}` is a path of one machine"
            yield Note(path, line, what, "write it relative to the bundle")
