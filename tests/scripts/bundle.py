"""A small bundle in which everything agrees, for tests to break in one place."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import sync

TEST = "def test_it_works():\n    assert True\n"

FILES = {
    "SKILL.md": """\
---
name: async-sqlmodel
description: "Async data layers with SQLModel. Use when code opens sessions: 'MissingGreenlet'."
license: MIT
metadata:
  version: "1.2.3"
---
# Async SQLModel

| you are about to | read |
| --- | --- |
| choose a key | [models](references/models.md) |
| load related rows | [relationships](references/relationships.md) |
| look up an error | [troubleshooting](references/troubleshooting.md) |

Call `session.exec(...)`, and run `python scripts/lint.py --help` first.
""",
    "README.md": """\
# async-sqlmodel

Read [SKILL.md](SKILL.md) and the [changelog](CHANGELOG.md). A block is written like this:

````text
```python snippets/relationships/eager_loading.py::shelves_with_jars
```
````
""",
    "CHANGELOG.md": "# Changelog\n\n## Unreleased\n\n## 1.2.3\n\nJars.\n\n## 1.2.2\n\nShelves.\n",
    "LICENSE": "MIT\n",
    "Makefile": "check:\n\tpython scripts/lint.py\n",
    "pyproject.toml": """\
[project]
name = "async-sqlmodel"
version = "1.2.3"

[tool.async-sqlmodel]
servers = ["SQLite 3.40", "MariaDB 10.11"]
""",
    ".claude-plugin/plugin.json": """\
{
  "name": "async-sqlmodel",
  "version": "1.2.3",
  "description": "Async data layers"
}
""",
    "requirements/latest.txt": """\
# The newest.
sqlmodel==0.0.50
SQLAlchemy[asyncio]==2.1.9
-r test.txt
""",
    "requirements/floor.txt": "sqlmodel==0.0.24\nsqlalchemy==2.0.38  # the oldest\n",
    "requirements/test.txt": 'pytest==9.2.0\ntzdata==2026.6; sys_platform == "win32"\n',
    "references/models.md": """\
# Models

Read when a table needs a key.
Skip when rows belong to rows, read [relationships](relationships.md#eager-loading) instead.
Verified with

## Decide

Give each row one column of its own.

## Keys

```python snippets/models/keys.py::Jar
```

## Databases

They agree.

## Mistakes

### Key in the head

**Symptom** `KeyError: …`

**Cause** It is not in the table.

**Fix** Use [a key](#keys).
""",
    "references/relationships.md": """\
# Relationships

Read when rows belong to rows.
Skip when they do not, read [models](models.md) instead.
Verified with

## Decide

Load what you read.

## Eager loading

See [the file](../snippets/relationships/eager_loading.py).

```python snippets/relationships/eager_loading.py::shelves_with_jars
```

## Databases

| behaviour | SQLite |
| --- | --- |

## Mistakes

### Lazy load after close

**Symptom** `sqlalchemy.orm.exc.DetachedInstanceError: Parent instance <Shelf at 0x7f> is not
bound to a Session; lazy load operation … cannot proceed`, seen after `await shelf.jars()`:

```text
StatementError: (sqlalchemy.exc.MissingGreenlet) greenlet_spawn has not been called;
can't call await_() here.
```

**Cause** The session is gone.

**Fix** Use [eager loading](#eager-loading).
""",
    "references/troubleshooting.md": """\
# Troubleshooting

Read when there is an error.

## Lock errors

No pattern has this name.
""",
    "snippets/__init__.py": "",
    "snippets/models/__init__.py": "",
    "snippets/models/keys.py": '''\
"""Give a row its key."""

from sqlmodel import Field, SQLModel

MAX_LENGTH = 20


class Jar(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    label: str = Field(max_length=MAX_LENGTH)
''',
    "snippets/models/mistakes.py": '''\
"""Wrong keys."""


def key_in_the_head() -> int:
    return _table()["key"]


def _table() -> dict[str, int]:
    return {}
''',
    "snippets/relationships/__init__.py": "",
    "snippets/relationships/_columns.py": "LABEL = 20\n",
    "snippets/relationships/eager_loading.py": '''\
"""Load a shelf together with its jars."""

from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.models.keys import Jar
from snippets.relationships._columns import LABEL


class Shelf(SQLModel, table=True):
    __tablename__ = "shelves"

    label: str = Field(primary_key=True, max_length=LABEL)


async def shelves_with_jars(session: AsyncSession) -> list[tuple[Shelf, Jar]]:
    return list((await session.exec(select(Shelf, Jar))).all())
''',
    "snippets/relationships/mistakes.py": '''\
"""Relationships that are read too late."""


async def lazy_load_after_close() -> None:
    raise RuntimeError
''',
    "scripts/lint.py": '"""Find mistakes."""\n',
    "tests/models/test_keys.py": TEST,
    "tests/models/test_mistakes.py": """\
from snippets.models import mistakes


def test_the_key_is_missing():
    mistakes.key_in_the_head()
""",
    "tests/relationships/test_columns.py": TEST,
    "tests/relationships/test_eager_loading.py": TEST,
    "tests/relationships/test_mistakes.py": '''\
"""What is said here proves nothing: no such table."""

from snippets.relationships.mistakes import lazy_load_after_close

DETACHED = "Parent instance .* is not bound to a Session; lazy load operation of .* cannot proceed"
GREENLET = (
    r"greenlet_spawn has not been called; "
    r"can't call await_\\(\\) here"
)


def test_jars_are_out_of_reach():
    lazy_load_after_close(DETACHED, GREENLET)
''',
    "tests/scripts/test_lint.py": TEST,
}


class Tree:
    """Files below a folder, to be changed by a test."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, path: str) -> str:
        return (self.root / path).read_text(encoding="utf-8")

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def append(self, path: str, text: str) -> None:
        self.write(path, self.read(path) + text)

    def replace(self, path: str, old: str, new: str) -> None:
        text = self.read(path)
        assert text.count(old) == 1, f"{path} has {text.count(old)} times {old!r}"
        self.write(path, text.replace(old, new))

    def remove(self, path: str) -> None:
        (self.root / path).unlink()


@cache
def rendered() -> dict[str, str]:
    """The files, with the blocks of the pages filled in."""
    with TemporaryDirectory() as folder:
        tree = Tree(Path(folder))
        for path, text in FILES.items():
            tree.write(path, text)
        return FILES | {page.path: page.text for page in sync.render_pages(tree.root)}


def build(root: Path) -> Tree:
    tree = Tree(root)
    for path, text in rendered().items():
        tree.write(path, text)
    return tree
