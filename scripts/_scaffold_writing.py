"""Write files into a folder: never outside it, and all of them or none."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from _scaffold_names import UsageError, sentence


@dataclass(frozen=True)
class Change:
    """`action` is create, overwrite or unchanged; `path` is relative to the destination."""

    path: str
    action: str


def destination(text: str) -> Path:
    """Return the folder to write into; a link that leads to a folder stands for it.

    Raises:
        UsageError: it is, or lies below, something that is no folder.
    """
    path = Path(text).absolute()
    if path.is_symlink() and not path.exists():
        raise UsageError(f"{text} is a link that leads nowhere: remove it or name another folder")
    path = path.resolve()
    for there in (path, *path.parents):
        if there.exists() and not there.is_dir():
            raise UsageError(f"{there} is a file: name a folder that is empty or does not exist")
    return path


def check_empty(dest: Path) -> None:
    """Raises:
    UsageError: the folder has anything in it.
    """
    if present := sorted(p.name for p in dest.iterdir()) if dest.is_dir() else []:
        raise UsageError(
            f"{dest} is not empty, it has {sentence(present)}: name an empty folder, or "
            "add --force to overwrite the files that the scaffold writes, and no others"
        )


def planned_changes(dest: Path, files: Mapping[str, str]) -> list[Change]:
    """Return what would happen to each file.

    Raises:
        UsageError: a link would be followed, or a folder replaced.
    """
    if obstacles := sorted({o for name in files for o in _obstacles(dest, name)}):
        raise UsageError(f"{dest} has {', '.join(obstacles)} in the way: move away what is there")
    return [Change(name, _action(dest / name, text)) for name, text in files.items()]


def _obstacles(dest: Path, name: str) -> Iterator[str]:
    """Yield what would make writing `name` leave the folder, or is of the wrong kind."""
    path = PurePosixPath(name)
    for part in (path, *path.parents[:-1]):
        found = dest / part
        if found.is_symlink():
            yield f"{part} (a link)"
        elif part == path and found.is_dir():
            yield f"{part} (a folder)"
        elif part != path and found.exists() and not found.is_dir():
            yield f"{part} (a file)"


def _action(path: Path, text: str) -> str:
    if not path.exists():
        return "create"
    return "unchanged" if path.read_bytes() == text.encode() else "overwrite"


def write_files(dest: Path, files: Mapping[str, str]) -> None:
    """Write all files or, whatever happens meanwhile, none.

    They are written beside the destination (inside, where it exists) and then moved.
    """
    with ExitStack() as undo:
        home = dest if dest.is_dir() else dest.parent
        _make_folders(home, undo)
        staging = Path(tempfile.mkdtemp(prefix=".scaffold-", dir=home))
        undo.callback(shutil.rmtree, staging, ignore_errors=True)
        for name, text in files.items():
            path = staging / "new" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        if home == dest:
            for name in files:
                _move(staging, name, dest, undo)
        else:
            (staging / "new").rename(dest)
        undo.pop_all()
    shutil.rmtree(staging)


def _move(staging: Path, name: str, dest: Path, undo: ExitStack) -> None:
    old, new, target = staging / "old" / name, staging / "new" / name, dest / name
    _make_folders(target.parent, undo)
    if target.exists():
        old.parent.mkdir(parents=True, exist_ok=True)
        undo.callback(_put_back, old, target)
        target.rename(old)
    else:
        undo.callback(target.unlink, missing_ok=True)
    new.rename(target)


def _put_back(old: Path, target: Path) -> None:
    if old.exists():
        old.replace(target)


def _make_folders(folder: Path, undo: ExitStack) -> None:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        undo.callback(_remove_if_empty, path)
        path.mkdir()


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
