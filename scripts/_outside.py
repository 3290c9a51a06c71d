"""Validators of others, run on what a release would hold."""

import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from _bundle import NAME, Bundle, Note, clean_environment
from _checks_links import links

TIMEOUT = 120


def stage(bundle: Bundle, folder: Path) -> Path:
    """What `git archive` would release of the files as they are now, by the bundle's name."""

    def git(*arguments: str, given: str = "") -> bytes:
        # A repository of its own: the user's, if there is one, is not touched.
        place = ("git", "--git-dir", str(folder / "git"), "--work-tree", str(bundle.root))
        ended = subprocess.run(
            [*place, *arguments],
            cwd=bundle.root,
            env=clean_environment(),
            input=given.encode(),
            capture_output=True,
            check=False,
        )
        if ended.returncode:
            raise OSError(ended.stderr.decode(errors="replace").strip())
        return ended.stdout

    git("init", "--quiet")
    git("update-index", "--add", "-z", "--stdin", given="\0".join(bundle.files))
    tree = git("write-tree").decode().strip()
    archive = git("archive", "--format=zip", "--prefix", f"{NAME}/", tree)
    zipfile.ZipFile(io.BytesIO(archive)).extractall(folder)
    return folder / NAME


def run_validator(name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a tool of the environment that the interpreter belongs to."""
    program = shutil.which(name, path=str(Path(sys.executable).parent))
    if not program:
        raise FileNotFoundError(name)
    command = [program, *arguments]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )


def validate_with_agentskills(export: Path) -> Iterator[Note]:
    """The reference validator of the Agent Skills specification accepts the export."""
    ended = run_validator("agentskills", "validate", str(export), cwd=export)
    if ended.returncode:
        said = (ended.stdout + ended.stderr).strip().splitlines()
        reasons = [line.strip(" -") for line in said if line.startswith("  - ")] or said
        for reason in reasons or [f"it ended with {ended.returncode}"]:
            yield Note("SKILL.md", 1, reason, "edit what it names, then make check")


def validate_with_agnix(export: Path) -> Iterator[Note]:
    """agnix --strict finds no error and no warning in the export."""
    ended = run_validator("agnix", "--strict", "--format", "json", ".", cwd=export)
    try:
        diagnostics = json.loads(ended.stdout)["diagnostics"]
    except (ValueError, KeyError):
        said = (ended.stdout + ended.stderr).strip() or f"it ended with {ended.returncode}"
        yield Note("SKILL.md", 1, said, "edit what it names, then make check")
        return
    for found in diagnostics:
        if found["level"] != "info":
            what = f"{found['rule']} {found['message']}"
            fix = found.get("suggestion") or f"agnix explain {found['rule']}"
            yield Note(found["file"] or "SKILL.md", found["line"], what, fix)


def links_in_export(export: Path) -> Iterator[Note]:
    """What an installed skill reads links to nothing that releases leave out."""
    for note in links(Bundle(export)):
        if note.path == "SKILL.md" or note.path.startswith("references/"):
            yield note._replace(fix=f"{note.fix}; .gitattributes leaves files out of releases")


OUTSIDE: dict[str, Callable[[Path], Iterator[Note]]] = {
    "outside-agentskills": validate_with_agentskills,
    "outside-agnix": validate_with_agnix,
    "outside-links": links_in_export,
}
