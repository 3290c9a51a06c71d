"""Virtual environments for tests: what the running one has, but for some packages or versions."""

import sysconfig
import venv
from collections.abc import Mapping
from pathlib import Path

from _versions import normal


def name_of(entry: Path) -> str:
    """The distribution that an entry of site-packages belongs to, as far as its name says."""
    return normal(entry.name.removesuffix(".dist-info").split("-")[0].removesuffix(".py"))


def make_environment(
    folder: Path, *, without: tuple[str, ...] = (), versions: Mapping[str, str] | None = None
) -> Path:
    """Make a virtual environment and return its interpreter.

    Its packages are links to those of the running interpreter, except for those it is to be
    `without`. For those in `versions` only what the metadata says is changed, not the code.
    """
    venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
    (site,) = (folder / "lib").glob("python*/site-packages")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        is_metadata = entry.suffix == ".dist-info"
        leave = name_of(entry) in without or (is_metadata and name_of(entry) in (versions or {}))
        if entry.suffix != ".pth" and entry.name != "__pycache__" and not leave:
            (site / entry.name).symlink_to(entry)
    for name, version in (versions or {}).items():
        metadata = site / f"{name.replace('-', '_')}-{version}.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return folder / "bin" / "python"
