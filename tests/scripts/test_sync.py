"""Blocks are complete, follow their source, and are written all or not at all."""

import builtins
import runpy
import symtable
from pathlib import Path

import _imports
import pytest
import sync

from tests.scripts import bundle

SHELVES = '''\
"""A module with everything that a block may need."""

import asyncio
import json as codec
import os.path
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import Enum as Choice
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar, cast, overload

from pantry.names import Label

if TYPE_CHECKING:
    from decimal import Decimal

    from pantry.prices import Price

# How many jars stand on a shelf.
WIDTH = 12
HEIGHT: int = 3

DEPTH = 4
T = TypeVar("T", bound="Shelf")

# This comment stands alone.


# A fruit
# in two lines.
class Fruit(Choice):
    PLUM = "plum"


@dataclass
class Shelf:
    """Where jars stand."""

    label: Label
    date: date
    jars: list["Jar"] = field(default_factory=list)

    # Counted again each time.
    @property
    def count(self) -> int:
        return len(self.jars)

    async def settle(self) -> None:
        """Wait."""
        await asyncio.sleep(0)

    def has_room(self) -> bool:
        return self.count < WIDTH


class Jar:
    fruit = Fruit.PLUM


def top(shelf: Shelf, session: object) -> Shelf:
    return shelf


def session() -> None: ...


def encode(jars: "Sequence[Jar]", mode: Literal["date", "asyncio"]) -> str:
    def inner() -> Iterator[str]:
        yield from (codec.dumps(mode) for _ in range(HEIGHT))

    return "".join(inner())


def price(amount: "Decimal", unit: Annotated["Price", "asyncio"]) -> "Decimal":
    return amount


def folder(path: str) -> str:
    return os.path.join(path, cast("Shelf", path).label)


@overload
def same(value: int) -> int: ...
@overload
def same(value: str) -> str: ...
def same(value: int | str) -> int | str:
    return value


def told(words: "any words") -> None: ...


def lost() -> None:
    return unknown_helper()
'''

WIDE = """\
from pantry.names import (
    Label,
    a_name_that_is_long_enough_to_fill_a_line,
    another_name_that_is_long_enough_to_fill_a_line,
)


def all_names() -> list[object]:
    return [
        another_name_that_is_long_enough_to_fill_a_line,
        a_name_that_is_long_enough_to_fill_a_line,
        Label,
    ]


def one_name() -> object:
    return Label
"""

NAMES = """\
class Label(str): ...


a_name_that_is_long_enough_to_fill_a_line = 1
another_name_that_is_long_enough_to_fill_a_line = 2
"""


@pytest.fixture
def tree(tmp_path: Path) -> bundle.Tree:
    tree = bundle.build(tmp_path)
    tree.write("pantry/shelves.py", SHELVES)
    tree.write("pantry/wide.py", WIDE)
    tree.write("pantry/names.py", NAMES)
    return tree


def render(tree: bundle.Tree, names: str) -> str:
    return sync.render_address(tree.root, f"pantry/shelves.py::{names}")


def page_with(tree: bundle.Tree, address: str, language: str = "python") -> str:
    """A bundle with one more page, that shows the address; the page's path."""
    tree.write("references/extra.md", f"# Extra\n\n```{language} {address}\n```\n")
    return "references/extra.md"


def run(tree: bundle.Tree, *options: str) -> int:
    return sync.main(["--root", str(tree.root), *options])


def unbound_names(code: str) -> set[str]:
    """Names that the code reads and neither binds nor finds among the builtins."""
    top = symtable.symtable(code, "block", "exec")
    bound = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()}
    read: set[str] = set()
    tables = [top]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        names = (s for s in table.get_symbols() if s.is_referenced() and not s.is_local())
        read |= {s.get_name() for s in names if s.is_global()}
    return read - bound - set(dir(builtins))


# Addresses


def test_a_function_comes_with_the_imports_it_uses(tree: bundle.Tree) -> None:
    assert sync.render_address(tree.root, "pantry/wide.py::one_name") == (
        "from pantry.names import Label\n\n\ndef one_name() -> object:\n    return Label"
    )


def test_a_class_comes_with_decorators_and_the_comment_above(tree: bundle.Tree) -> None:
    assert render(tree, "Fruit") == (
        "from enum import Enum as Choice\n\n\n"
        '# A fruit\n# in two lines.\nclass Fruit(Choice):\n    PLUM = "plum"'
    )


@pytest.mark.parametrize(
    ("names", "code"),
    [
        ("WIDTH", "# How many jars stand on a shelf.\nWIDTH = 12"),
        ("HEIGHT", "HEIGHT: int = 3"),
        ("HEIGHT,WIDTH", "# How many jars stand on a shelf.\nWIDTH = 12\nHEIGHT: int = 3"),
        ("HEIGHT, DEPTH", "HEIGHT: int = 3\n\nDEPTH = 4"),
    ],
)
def test_constants_keep_their_comment_and_their_distance(
    tree: bundle.Tree, names: str, code: str
) -> None:
    assert render(tree, names) == code


def test_several_names_stand_in_the_order_of_the_file(tree: bundle.Tree) -> None:
    block = render(tree, "Jar,Fruit")

    assert block.index("class Fruit") < block.index("class Jar")
    assert '    PLUM = "plum"\n\n\nclass Jar:' in block


def test_an_overloaded_function_is_shown_whole(tree: bundle.Tree) -> None:
    assert render(tree, "same").splitlines() == [
        "from typing import overload",
        "",
        "",
        "@overload",
        "def same(value: int) -> int: ...",
        "@overload",
        "def same(value: str) -> str: ...",
        "def same(value: int | str) -> int | str:",
        "    return value",
    ]


def test_a_method_stands_below_the_head_of_its_class(tree: bundle.Tree) -> None:
    assert render(tree, "Shelf.settle").splitlines() == [
        "import asyncio",
        "from dataclasses import dataclass",
        "",
        "",
        "@dataclass",
        "class Shelf:",
        "    # …",
        "",
        "    async def settle(self) -> None:",
        '        """Wait."""',
        "        await asyncio.sleep(0)",
    ]


def test_several_methods_share_the_head_of_their_class(tree: bundle.Tree) -> None:
    block = render(tree, "Shelf.has_room,Shelf.count")

    assert block.count("class Shelf:") == 1
    assert "    # …\n\n    # Counted again each time.\n    @property\n    def count(" in block
    assert "        return len(self.jars)\n\n    def has_room(" in block


def test_a_class_and_a_method_of_another_stand_together(tree: bundle.Tree) -> None:
    block = render(tree, "Jar,Shelf.settle,Fruit")

    assert "asyncio.sleep(0)\n\n\nclass Jar:" in block
    assert "from pantry.shelves" not in block


def test_a_class_of_one_member_is_shown_without_the_mark(tree: bundle.Tree) -> None:
    assert render(tree, "Jar.fruit").endswith("class Jar:\n    fruit = Fruit.PLUM")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("pantry/wide.py", WIDE),
        ("pantry/alembic.ini", "[alembic]\nscript_location = %(here)s\n"),
        ("pantry/script.py.mako", "revision = ${repr(up_revision)}\n"),
    ],
)
def test_a_whole_file_is_shown_as_it_is(tree: bundle.Tree, path: str, text: str) -> None:
    tree.write(path, text)

    assert sync.render_address(tree.root, path) == text.rstrip("\n")


# Imports


def test_a_neighbour_is_imported_from_its_module_among_its_family(tree: bundle.Tree) -> None:
    block = render(tree, "Shelf")

    assert block.startswith(
        "import asyncio\n"
        "from dataclasses import dataclass, field\n"
        "from datetime import date\n"
        "\n"
        "from pantry.names import Label\n"
        "from pantry.shelves import WIDTH, Jar\n"
        "\n"
        "\n"
        "@dataclass\n"
    )


def test_a_neighbour_gets_a_group_of_its_own_where_there_is_no_family(tree: bundle.Tree) -> None:
    tree.write("snippets/models/loner.py", "import os\n\nA = os.sep\n\n\nB = A + os.sep\n")

    assert sync.render_address(tree.root, "snippets/models/loner.py::B") == (
        "import os\n\nfrom snippets.models.loner import A\n\nB = A + os.sep"
    )


@pytest.mark.parametrize(
    ("path", "module"),
    [
        ("snippets/servicebase/__init__.py", "snippets.servicebase"),
        ("snippets/servicebase/_internal.py", "snippets.servicebase._internal"),
        ("templates/app/app/main.py", "app.main"),
        ("scripts/lint.py", "lint"),
    ],
)
def test_modules_have_the_name_by_which_they_are_imported(
    tree: bundle.Tree, path: str, module: str
) -> None:
    tree.write(path, "A = 1\nB = A\n")

    assert sync.render_address(tree.root, f"{path}::B") == f"from {module} import A\n\nB = A"


def test_strings_in_annotations_are_imported_but_literals_are_not(tree: bundle.Tree) -> None:
    assert render(tree, "encode").split("\n\n\n")[0] == (
        "import json as codec\n"
        "from collections.abc import Iterator, Sequence\n"
        "from typing import Literal\n"
        "\n"
        "from pantry.shelves import HEIGHT, Jar"
    )


def test_strings_in_casts_and_bounds_are_imported(tree: bundle.Tree) -> None:
    assert "from pantry.shelves import Shelf" in render(tree, "folder")
    assert "from pantry.shelves import Shelf" in render(tree, "T")


def test_a_guarded_import_stays_guarded(tree: bundle.Tree) -> None:
    assert render(tree, "price").split("\n\n\n")[0] == (
        "from typing import TYPE_CHECKING, Annotated\n"
        "\n"
        "if TYPE_CHECKING:\n"
        "    from decimal import Decimal\n"
        "\n"
        "    from pantry.prices import Price"
    )


def test_a_submodule_is_imported_only_when_it_is_used(tree: bundle.Tree) -> None:
    tree.write("pantry/tree.py", "import xml.dom\nimport xml.sax\n\nA = xml.dom.Node\n")

    assert sync.render_address(tree.root, "pantry/tree.py::A") == (
        "import xml.dom\n\nA = xml.dom.Node"
    )


def test_a_parameter_that_hides_a_name_of_the_module_is_not_imported(tree: bundle.Tree) -> None:
    assert "import session" not in render(tree, "top")


def test_a_field_that_hides_its_own_type_keeps_the_import(tree: bundle.Tree) -> None:
    assert "from datetime import date" in render(tree, "Shelf")


def test_a_future_import_goes_with_every_block(tree: bundle.Tree) -> None:
    tree.write(
        "pantry/late.py", "from __future__ import annotations\n\nimport os\n\nA = os\nB = 1\n"
    )

    assert sync.render_address(tree.root, "pantry/late.py::B") == (
        "from __future__ import annotations\n\nB = 1"
    )


def test_long_imports_are_wrapped_and_short_ones_are_not(tree: bundle.Tree) -> None:
    block = sync.render_address(tree.root, "pantry/wide.py::all_names")

    assert block.startswith(
        "from pantry.names import (\n"
        "    Label,\n"
        "    a_name_that_is_long_enough_to_fill_a_line,\n"
        "    another_name_that_is_long_enough_to_fill_a_line,\n"
        ")\n"
    )
    assert max(map(len, block.splitlines())) <= _imports.LINE_LENGTH


def test_imported_names_are_sorted_as_ruff_sorts_them(tree: bundle.Tree) -> None:
    tree.write(
        "pantry/log.py",
        "from pantry.names import or_\n"
        "from pantry.names import xor as either\n"
        "\n"
        "LogEntry = Logbook = LIMIT = entry = 1\n"
        "\n\n"
        "def use() -> object:\n"
        "    return or_, either, entry, LogEntry, Logbook, LIMIT\n",
    )

    assert sync.render_address(tree.root, "pantry/log.py::use").split("\n\n\n")[0] == (
        "from pantry.log import LIMIT, Logbook, LogEntry, entry\n"
        "from pantry.names import or_\n"
        "from pantry.names import xor as either"
    )


@pytest.mark.parametrize("name", sorted({*sync.Source("", SHELVES).names} - {"lost", "price"}))
def test_every_block_runs_by_itself(
    tree: bundle.Tree, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.syspath_prepend(tree.root)
    block = render(tree, name)
    tree.write("copied.py", block)

    assert name in runpy.run_path(str(tree.root / "copied.py"))
    assert unbound_names(block) == set()


# Addresses that lead nowhere


@pytest.mark.parametrize(
    ("address", "what", "choices"),
    [
        ("pantry/wide.py::no_name", "pantry/wide.py has no `no_name`", ("all_names", "one_name")),
        ("pantry/shelves.py::Jar.lid", "`Jar` in pantry/shelves.py has no `lid`", ("fruit",)),
        ("pantry/shelves.py::top.lid", "`top` in pantry/shelves.py is no class", ()),
        (
            "pantry/Wide.py",
            "there is no file `pantry/Wide.py`",
            ("names.py", "shelves.py", "wide.py"),
        ),
        ("cellar/wide.py", "there is no file `cellar/wide.py`", ()),
        ("../pantry/wide.py", "`../pantry/wide.py` leaves the bundle", ()),
        ("/etc/hosts", "`/etc/hosts` leaves the bundle", ()),
        ("pantry/wide.py::a.b.c", "`pantry/wide.py::a.b.c` is no address", ()),
        ("pantry/wide.py::", "`pantry/wide.py::` is no address", ()),
        ("pyproject.toml::project", "`pyproject.toml` is not Python and has no names", ()),
        (
            "pantry/shelves.py::lost",
            "pantry/shelves.py neither defines nor imports at its top: unknown_helper",
            (),
        ),
    ],
)
def test_a_wrong_address_says_what_there_is(
    tree: bundle.Tree, address: str, what: str, choices: tuple[str, ...]
) -> None:
    page = page_with(tree, address)

    (problem,) = sync.problems(tree.root)

    assert problem[:3] == (page, 3, what)
    assert problem.choices == choices
    assert problem.fix


def test_a_file_that_is_not_python_is_reported_with_its_line(tree: bundle.Tree) -> None:
    tree.write("pantry/broken.py", "A = 1\nB = (\n")
    page_with(tree, "pantry/broken.py::A")

    (problem,) = sync.problems(tree.root)

    assert problem.what.startswith("pantry/broken.py:2: ")


def test_the_message_lists_what_the_file_has(
    tree: bundle.Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    page_with(tree, "pantry/wide.py::no_name")

    assert run(tree, "--check") == 1

    assert capsys.readouterr().out == (
        "references/extra.md:3: pantry/wide.py has no `no_name`\n"
        "    it has: all_names, one_name\n"
        "    fix: address a name that the file has\n"
        "1 problem (6 pages checked)\n"
    )


# Fences


def test_a_block_in_a_list_keeps_its_indent(tree: bundle.Tree) -> None:
    tree.write("references/extra.md", "- so:\n\n  ```python pantry/wide.py::one_name\n  ```\n")

    assert run(tree) == 0

    assert tree.read("references/extra.md") == (
        "- so:\n\n"
        "  ```python pantry/wide.py::one_name\n"
        "  from pantry.names import Label\n\n\n"
        "  def one_name() -> object:\n"
        "      return Label\n"
        "  ```\n"
    )


def test_fences_without_an_address_and_fences_in_fences_are_left_alone(tree: bundle.Tree) -> None:
    text = "```bash\nls\n```\n\n````text\n```python no/such.py\n```\n````\n\n~~~\n```a b\n~~~\n"
    tree.write("references/extra.md", text)

    assert run(tree) == 0
    assert tree.read("references/extra.md") == text


def test_a_block_that_is_never_closed_is_reported(tree: bundle.Tree) -> None:
    tree.write("references/extra.md", "```python pantry/wide.py\n")

    (problem,) = sync.problems(tree.root)

    assert problem.what == "the block is never closed"


def test_code_that_would_close_its_block_needs_a_longer_fence(tree: bundle.Tree) -> None:
    tree.write("pantry/notes.txt", "```\n")
    page = page_with(tree, "pantry/notes.txt", "text")

    (problem,) = sync.problems(tree.root)
    assert problem.what == "the code has a line of ```"

    tree.write(page, "````text pantry/notes.txt\n````\n")
    assert run(tree) == 0
    assert tree.read(page) == "````text pantry/notes.txt\n```\n````\n"


# Writing


def test_a_stale_block_is_listed_and_left_as_it_is(
    tree: bundle.Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    tree.replace("snippets/models/keys.py", "MAX_LENGTH = 20", "MAX_LENGTH = 40")
    tree.replace("snippets/models/keys.py", "label: str", "title: str")
    before = tree.read("references/models.md")

    assert run(tree, "--check") == 1

    assert capsys.readouterr().out == (
        "references/models.md:13: the block of snippets/models/keys.py::Jar is stale\n"
        "    fix: make sync\n"
        "1 problem (5 pages checked)\n"
    )
    assert tree.read("references/models.md") == before


def test_writing_mends_what_the_check_lists_and_a_second_run_changes_nothing(
    tree: bundle.Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    tree.replace("snippets/models/keys.py", "label: str", "title: str")

    assert run(tree) == 0
    assert capsys.readouterr().out == "wrote references/models.md\n"
    assert "title: str" in tree.read("references/models.md")
    assert run(tree, "--check") == 0
    capsys.readouterr()

    assert run(tree) == 0
    assert capsys.readouterr().out == ""


def test_an_error_on_one_page_keeps_all_pages_as_they_are(
    tree: bundle.Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    tree.replace("snippets/models/keys.py", "label: str", "title: str")
    page_with(tree, "pantry/wide.py::no_name")
    pages = {path: tree.read(path) for path in sync.page_paths(tree.root)}

    assert run(tree) == 1

    assert {path: tree.read(path) for path in sync.page_paths(tree.root)} == pages
    assert "is stale" not in capsys.readouterr().out


def test_several_blocks_of_a_page_are_filled_in_their_places(tree: bundle.Tree) -> None:
    addresses = ["pantry/shelves.py::HEIGHT", "pantry/shelves.py::DEPTH"]
    blocks = [f"```python {address}\nold\nolder\n```\n" for address in addresses]
    tree.write("SKILL.md", "between\n".join(blocks))

    assert [problem.line for problem in sync.problems(tree.root)] == [1, 6]
    assert run(tree) == 0
    assert tree.read("SKILL.md") == (
        "```python pantry/shelves.py::HEIGHT\nHEIGHT: int = 3\n```\n"
        "between\n"
        "```python pantry/shelves.py::DEPTH\nDEPTH = 4\n```\n"
    )


# Versions


def test_the_verified_line_names_versions_and_servers(tree: bundle.Tree) -> None:
    assert tree.read("references/models.md").splitlines()[4] == (
        "Verified with SQLModel 0.0.50 + SQLAlchemy 2.1.9 down to SQLModel 0.0.24 + "
        "SQLAlchemy 2.0.38, on SQLite 3.40, MariaDB 10.11."
    )


def test_another_pin_makes_the_verified_line_stale(tree: bundle.Tree) -> None:
    tree.replace("requirements/latest.txt", "2.1.9", "2.1.10")

    assert {(problem.line, problem.what) for problem in sync.problems(tree.root)} == {
        (5, '"Verified with" is stale')
    }


@pytest.mark.parametrize(
    ("path", "old", "what"),
    [
        (
            "requirements/floor.txt",
            "sqlmodel==0.0.24",
            "requirements/floor.txt does not pin sqlmodel",
        ),
        ("pyproject.toml", "servers", "pyproject.toml names no servers"),
    ],
)
def test_what_the_verified_line_needs_is_asked_for(
    tree: bundle.Tree, path: str, old: str, what: str
) -> None:
    tree.replace(path, old, "other")

    assert {problem.what for problem in sync.problems(tree.root)} == {what}


# The command


def test_a_folder_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        sync.main(["--root", str(tmp_path / "nowhere")])

    assert stopped.value.code == 2


def test_help_shows_examples_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        sync.main(["--help"])

    assert stopped.value.code == 0
    assert "sync.py --check" in (said := capsys.readouterr().out)
    assert "exit codes" in said


# generated tables

INDEX = """\
# Troubleshooting

Read when an error is at hand.

| printed | mistake |
| --- | --- |
| old | row |

After it.

| page | look for |
| --- | --- |
"""


def table_rows(tree: bundle.Tree) -> list[str]:
    assert sync.main(["--root", str(tree.root)]) == 0
    text = tree.read("references/troubleshooting.md")
    return [line for line in text.split("\n") if line.startswith("| ") and "---" not in line]


def test_tables_gather_the_mistakes_of_all_pages(tree: bundle.Tree) -> None:
    tree.write("references/troubleshooting.md", INDEX)
    tree.replace("references/models.md", "`KeyError: …`", "`no key`, or `a b | c`")

    link = "[Lazy load after close](relationships.md#lazy-load-after-close)"
    assert table_rows(tree) == [
        "| printed | mistake |",
        "| `a b \\| c` | [Key in the head](models.md#key-in-the-head) |",
        "| `no key` | [Key in the head](models.md#key-in-the-head) |",
        (
            "| `sqlalchemy.orm.exc.DetachedInstanceError: Parent instance <Shelf at 0x7f> is"
            f" not bound to a Session; lazy load operation … cannot proceed` | {link} |"
        ),
        (
            "| `StatementError: (sqlalchemy.exc.MissingGreenlet) greenlet_spawn has not been"
            f" called; can't call await_() here.` | {link} |"
        ),
        "| page | look for |",
        "| [models](models.md#mistakes) | key in the head |",
        "| [relationships](relationships.md#mistakes) | lazy load after close |",
    ]


def test_a_stale_table_is_found_and_what_stands_round_it_stays(tree: bundle.Tree) -> None:
    tree.write("references/troubleshooting.md", INDEX)

    whats = [problem.what for problem in sync.problems(tree.root)]

    assert whats == [
        "the table | printed | mistake | is stale",
        "the table | page | look for | is stale",
    ]
    table_rows(tree)
    assert "\n\nAfter it.\n\n| page |" in tree.read("references/troubleshooting.md")
    assert "old | row" not in tree.read("references/troubleshooting.md")
    assert sync.problems(tree.root) == []


def test_a_text_that_several_mistakes_print_has_one_row(tree: bundle.Tree) -> None:
    tree.write("references/troubleshooting.md", INDEX)
    tree.replace("references/models.md", "`KeyError: …`", "`no such key`")
    tree.append(
        "references/relationships.md",
        "\n### Another\n\n**Symptom** `no such key`\n**Cause** C.\n**Fix** F.\n",
    )

    assert (
        "| `no such key` | [Key in the head](models.md#key-in-the-head),"
        " [Another](relationships.md#another) |"
    ) in table_rows(tree)
