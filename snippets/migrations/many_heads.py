"""Bring branches together, and many old revisions into one."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from alembic import command
from alembic.config import Config
from alembic.script import Script, ScriptDirectory


class ManyHeadsError(RuntimeError):
    """Two revisions follow the same one; `upgrade head` does not know which is meant."""


def single_head(config: Config) -> str:
    """Return the newest revision.

    Raises:
        ManyHeadsError: there are several, or none.
    """
    heads = ScriptDirectory.from_config(config).get_heads()
    if len(heads) != 1:
        names = ", ".join(sorted(heads)) or "none"
        raise ManyHeadsError(f"expected one head, got {names}; run: alembic merge heads")
    return heads[0]


def merge_heads(config: Config, message: str = "merge") -> str:
    """Write an empty revision that follows all heads; return its id.

    It says that the order does not matter: where both branches changed one column, edit the second
    to follow the first instead.

    Raises:
        ManyHeadsError: there are fewer than two.
    """
    if len(ScriptDirectory.from_config(config).get_heads()) < 2:
        raise ManyHeadsError("there is nothing to merge")
    script = command.merge(config, "heads", message)
    return cast("Script", script).revision


def squash(config: Config, message: str = "baseline") -> Sequence[Path]:
    """Replace all revisions by one with the id of the newest; return the files it replaced.

    So a database that is up to date notices nothing, and needs no stamp. `config` must name an
    empty database, whose schema is compared with the models. What migrations did to rows, and what
    autogenerate does not see, must be added by hand.

    Raises:
        ManyHeadsError: merge first.
    """
    head = single_head(config)
    scripts = ScriptDirectory.from_config(config).walk_revisions()
    old = [Path(script.path) for script in scripts]
    kept = [path.rename(path.with_suffix(".squashed")) for path in old]
    try:
        command.revision(config, message, autogenerate=True, rev_id=head)
    except BaseException:
        for path in kept:
            path.rename(path.with_suffix(".py"))
        raise
    for path in kept:
        path.unlink()
    return old
