"""What these tests share: the files as a host would serve them, homes, commands."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from _bundle import NAME, Bundle
from _outside import stage

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 300
AUTHOR = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")


class Published(NamedTuple):
    """The working tree as it is now, as the two things that people get it from."""

    url: str
    release: Path


class Home(NamedTuple):
    """A user's home; nothing of the real one is seen or written."""

    folder: Path
    variables: dict[str, str]

    @property
    def work(self) -> Path:
        return self.folder / "work"

    def run(self, *command: str | Path, ends_with: int = 0) -> str:
        """Run a command in the folder of work and return what it printed."""
        ended = subprocess.run(
            command,
            cwd=self.work,
            env=self.variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        said = ended.stdout + ended.stderr
        assert ended.returncode == ends_with, f"{command} ended with {ended.returncode}:\n{said}"
        return said

    def shell(self, line: str) -> str:
        return self.run("sh", "-c", line)


def publish(folder: Path) -> Published:
    """Commit the working tree to a repository of its own and make a release of it."""
    release = stage(Bundle(ROOT), folder)
    repository = folder / "git"

    def git(*arguments: str) -> str:
        command = ["git", "--git-dir", str(repository), *AUTHOR, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    commit = git("commit-tree", git("write-tree"), "-m", "The files as they are.")
    git("update-ref", "HEAD", commit)
    return Published(repository.as_uri(), release)


def make_home(folder: Path, *paths: Path, **variables: str) -> Home:
    for name in ("work", "tmp"):
        (folder / name).mkdir(parents=True)
    path = os.pathsep.join([*map(str, paths), os.environ["PATH"]])
    own = {"HOME": str(folder), "TMPDIR": str(folder / "tmp"), "PATH": path}
    return Home(folder, own | variables)


def contents(skill: Path) -> dict[str, bytes]:
    """The files of an installed skill by path; the history of a clone is none of them."""
    return {
        path.relative_to(skill).as_posix(): path.read_bytes()
        for path in skill.rglob("*")
        if path.is_file() and not {".git", "__pycache__"} & {*path.relative_to(skill).parts}
    }


def bare_python() -> list[str]:
    """An interpreter with its standard library alone; -I would hide a script's neighbours too."""
    return [sys._base_executable, "-E", "-s", "-S"]


def install_lines(start: str) -> list[str]:
    """The commands of README.md's installation that begin so, without their comments."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = re.split(r"^## ", text.partition("\n## Install")[2], flags=re.MULTILINE)[0]
    block = section.partition("```sh\n")[2].partition("```")[0]
    lines = [re.split(r"\s+#", line)[0] for line in block.splitlines()]
    return [line for line in lines if line.startswith(start)]


__all__ = [
    "NAME",
    "Home",
    "Published",
    "bare_python",
    "contents",
    "install_lines",
    "make_home",
    "publish",
]
