"""Each check finds its problem, and nothing but its problem."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import _bundle
import _checks_skill
import check
import pytest

from tests.scripts import bundle

# Written apart, because the checks read this file too.
BARE_CALL = "exec" + "("
HOME = "/ho" + "me/somebody/"

RELATIONSHIPS = "references/relationships.md"
EAGER = "snippets/relationships/eager_loading.py"
WRONG = "snippets/relationships/mistakes.py"


@pytest.fixture
def tree(tmp_path: Path) -> bundle.Tree:
    return bundle.build(tmp_path)


def findings(tree: bundle.Tree) -> list[check.Finding]:
    return check.run_checks(check.Bundle(tree.root))


def found(tree: bundle.Tree) -> list[tuple[str, str]]:
    """Rule and path of each finding."""
    return [(finding.rule, finding.path) for finding in findings(tree)]


def only(tree: bundle.Tree) -> check.Finding:
    (finding,) = findings(tree)
    return finding


def test_a_bundle_in_which_all_agrees_has_no_finding(tree: bundle.Tree) -> None:
    assert findings(tree) == []


def test_all_findings_are_collected_in_the_order_of_the_files(tree: bundle.Tree) -> None:
    tree.write("requirements/test.txt", "pytest\n")
    tree.write("uv.lock", "")
    tree.replace("SKILL.md", "license: MIT", "license: GPL")

    assert found(tree) == [
        ("front-matter", "SKILL.md"),
        ("requirements-plain", "requirements/test.txt"),
        ("clean-tree", "uv.lock"),
    ]
    assert all(finding.fix for finding in findings(tree))


def test_a_missing_file_stops_no_check(tmp_path: Path) -> None:
    rules = {rule for rule, _ in found(bundle.Tree(tmp_path))}

    assert rules == {"front-matter"}


# parses


def test_a_file_that_is_not_python_is_found(tree: bundle.Tree) -> None:
    tree.append("scripts/lint.py", "A = (\n")

    assert only(tree)[:3] == ("scripts/lint.py", 2, "parses")


# front-matter


@pytest.mark.parametrize(
    ("old", "new", "line", "what"),
    [
        ("---\nname", "name", 1, "the front matter between two lines of --- is missing"),
        ("license: MIT", "license: MIT\nauthor: me", 5, "the specification has no key `author`"),
        ("name: async-sqlmodel", "name: sqlmodel", 2, "the name is another"),
        ("license: MIT", "license: GPL", 4, "the license is another"),
        ("Async data layers", "Layers " * 60, 3, "the description has 48"),
        ("Use when", "Useful if", 3, "the description does not say when the skill is of use"),
        ('"1.2.3"', "1.2.3", 6, "metadata.version is no quoted text"),
        ("  version:", "  release:", 1, "metadata.version is no quoted text"),
        ("license: MIT", "license: MIT\n\n", 5, "only `key: value` and one map"),
        ("license: MIT", "license: MIT\n  - a", 5, "only `key: value` and one map"),
        ("license: MIT", "license: MIT\n  a: b", 5, "only `key: value` and one map"),
        ("license: MIT", "license: MIT\ncompatibility:", 5, "`compatibility` is no text"),
        ("license: MIT", "license: MIT\nlicense: MIT", 5, "`license` is there twice"),
        ("license: MIT", "license: MIT\ncompatibility: >-", 5, "the value of `compatibility` is"),
        ("license: MIT", "license: MIT\nallowed-tools: [a]", 5, "the value of `allowed-tools` is"),
        ("license: MIT", "license: MIT\ncompatibility: a: b", 5, "the value of `compatibility` is"),
        ("license: MIT", "license: MIT\ncompatibility: a #b", 5, "the value of `compatibility` is"),
        ("license: MIT", "license: MIT\ncompatibility: 'a'b'", 5, "the value of `compatibility`"),
        ("license: MIT", 'license: MIT\ncompatibility: "a"b"', 5, "the value of `compatibility`"),
    ],
)
def test_front_matter_of_another_shape_is_found(
    tree: bundle.Tree, old: str, new: str, line: int, what: str
) -> None:
    tree.replace("SKILL.md", old, new)

    notes = [f for f in findings(tree) if f.rule == "front-matter" and f.line == line]

    assert notes
    assert notes[0].what.startswith(what)
    assert {rule for rule, _ in found(tree)} == {"front-matter"}


@pytest.mark.parametrize("quoted", ["'1.2.3'", '"1.2.3"'])
@pytest.mark.parametrize(
    "line", ["compatibility: Python 3.11, see https://x.org/a#b", "allowed-tools: Bash(make *)"]
)
def test_plain_and_quoted_values_are_read(tree: bundle.Tree, quoted: str, line: str) -> None:
    tree.replace("SKILL.md", '"1.2.3"', quoted)
    tree.replace("SKILL.md", "license: MIT", f"license: MIT\n{line}")

    assert findings(tree) == []


def test_quotes_inside_quoted_values_are_read() -> None:
    assert _checks_skill.read_scalar("'it''s'") == "it's"
    assert _checks_skill.read_scalar(r'"say \"hi\""') == 'say "hi"'


# versions-agree


@pytest.mark.parametrize(
    ("path", "line"),
    [("CHANGELOG.md", 5), (".claude-plugin/plugin.json", 3), ("pyproject.toml", 3)],
)
def test_another_version_is_found(tree: bundle.Tree, path: str, line: int) -> None:
    tree.replace(path, "1.2.3", "1.3.0")

    assert only(tree)[:3] == (path, line, "versions-agree")


def test_a_changelog_without_a_version_is_found(tree: bundle.Tree) -> None:
    tree.write("CHANGELOG.md", "# Changelog\n")

    assert found(tree) == [("versions-agree", "CHANGELOG.md")]


@pytest.mark.parametrize("heading", ["## [1.2.3] - 2026-11-22", "## v1.2.3", "## 1.2.3 (today)"])
def test_common_version_headings_are_read(tree: bundle.Tree, heading: str) -> None:
    tree.replace("CHANGELOG.md", "## 1.2.3", heading)
    tree.remove(".claude-plugin/plugin.json")

    assert findings(tree) == []


# budgets


def test_a_skill_of_too_many_characters_is_found(tree: bundle.Tree) -> None:
    tree.append("SKILL.md", "word " * 2_400)

    assert found(tree) == [("budgets", "SKILL.md")]


def test_a_skill_of_too_many_lines_is_found(tree: bundle.Tree) -> None:
    tree.append("SKILL.md", "\n" * 500)

    assert found(tree) == [("budgets", "SKILL.md")]


@pytest.mark.parametrize(("page", "words"), [("versions", 2_000), ("troubleshooting", 2_800)])
def test_a_page_of_too_many_characters_is_found(tree: bundle.Tree, page: str, words: int) -> None:
    path = f"references/{page}.md"
    tree.write(path, "# Page\n\nRead when it fits.\n\n" + "word " * (words - 20))
    tree.append("SKILL.md", f"\n[page]({path})\n")
    assert found(tree) == []

    tree.append(path, "word " * 20)

    assert found(tree) == [("budgets", path)]


def test_pages_that_are_too_large_together_are_found(
    tree: bundle.Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_checks_skill, "MAX_PAGES", 500)

    assert found(tree) == [("budgets", "references")]


# pages-routed


@pytest.mark.parametrize("mention", ["`references/models.md`", "[keys](references/models.md#keys)"])
def test_a_page_that_the_skill_does_not_link_is_found(tree: bundle.Tree, mention: str) -> None:
    tree.replace("SKILL.md", "[models](references/models.md)", mention)

    assert only(tree).rule == "pages-routed"
    assert only(tree).path == "SKILL.md"
    assert "references/models.md" in only(tree).what


# links


@pytest.mark.parametrize(
    ("link", "what"),
    [
        ("[a](keys.md)", "`keys.md` leads nowhere"),
        ("[a](Models.md)", "`Models.md` leads nowhere"),
        ("![a](picture.png)", "`picture.png` leads nowhere"),
        ("[a]: keys.md", "`keys.md` leads nowhere"),
        ("[a](../../outside.md)", "`../../outside.md` leads nowhere"),
        ("[a](models.md#jar)", "references/models.md has no heading `#jar`"),
        ("[a](#eager-Loading)", "references/relationships.md has no heading `#eager-Loading`"),
        ("[a](/etc/hosts)", "`/etc/hosts` is a local path"),
        ("[a](file:///etc/hosts)", "`file:///etc/hosts` is a local path"),
        ("[a](../LICENSE)", "`../LICENSE` leads out of reach"),
        ("[a](../tests/models/test_keys.py)", "`../tests/models/test_keys.py` leads out of reach"),
        ("[a](../scripts/lint.py#L1)", "scripts/lint.py has no heading `#L1`"),
    ],
)
def test_a_link_that_leads_nowhere_is_found(tree: bundle.Tree, link: str, what: str) -> None:
    tree.append(RELATIONSHIPS, f"\n{link}\n")

    assert only(tree)[0] == RELATIONSHIPS
    assert only(tree).rule == "links"
    assert only(tree).what == what


def test_a_link_in_other_letters_is_told_the_right_ones(tree: bundle.Tree) -> None:
    tree.append("README.md", "\n[a](skill.MD)\n")

    assert only(tree).fix == "write SKILL.md, in its letter case"


@pytest.mark.parametrize(
    "text",
    [
        "[a](https://example.org/missing) and [b](mailto:me@example.org)",
        "`[a](missing.md)` and ``b` [a](missing.md)``",
        "```text\n[a](missing.md)\n```",
        '[a](models.md "Models") and [b](<models.md#keys>) and [c](../SKILL.md)',
        "[`a[0]`](models.md#keys) and [scripts](../scripts/) and [d](models%2Emd)",
        '<a id="own"></a> [a](#own)',
        "## ServiceBase & `.exec()`, *twice*\n\n[a](#servicebase--exec-twice)",
        "### Twice\n\nOnce.\n\n### Twice\n\n[a](#twice) [b](#twice-1)",
        "### A [linked](models.md) name\n\n[a](#a-linked-name)",
        "### snake_case stays\n\n[a](#snake_case-stays)",
    ],
)
def test_a_link_that_leads_somewhere_is_no_problem(tree: bundle.Tree, text: str) -> None:
    tree.append("references/troubleshooting.md", f"\n{text}\n")

    assert findings(tree) == []


# script-mentions


@pytest.mark.parametrize("path", ["README.md", "SKILL.md", "Makefile", "references/models.md"])
def test_a_script_that_is_not_there_is_found(tree: bundle.Tree, path: str) -> None:
    tree.append(path, "\nRun `python scripts/mend.py`.\n")

    assert found(tree) == [("script-mentions", path)]


def test_the_tests_of_a_script_and_other_projects_are_no_mention(tree: bundle.Tree) -> None:
    tree.append("README.md", "\n`tests/scripts/test_mend.py`, `app/scripts/mend.py`\n")

    assert findings(tree) == []


# contents-list


def test_a_long_page_without_contents_is_found(tree: bundle.Tree) -> None:
    tree.append("references/troubleshooting.md", "\n" * 300)

    assert found(tree) == [("contents-list", "references/troubleshooting.md")]


def test_a_long_page_with_contents_is_no_problem(tree: bundle.Tree) -> None:
    contents = "- [Lock errors](#lock-errors)\n\n## Lock errors\n"
    tree.replace("references/troubleshooting.md", "## Lock errors\n", contents + "\n" * 300)

    assert findings(tree) == []


# page-structure


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# Relationships\n", "Relationships\n"),
        ("Read when rows", "Read this when rows"),
        ("Skip when they", "Skip if they"),
        ("Verified with ", "Tested with "),
        ("## Decide\n", "## Decide\n\nRead when …\n\n## Decide\n"),
        ("## Decide\n\n", ""),
        ("## Databases\n", "### Databases\n"),
        ("## Databases\n", "## Databases\n\n## Decide\n"),
    ],
)
def test_a_page_of_another_shape_is_found(tree: bundle.Tree, old: str, new: str) -> None:
    tree.replace(RELATIONSHIPS, old, new)

    assert ("page-structure", RELATIONSHIPS) in found(tree)


def test_a_page_may_have_contents(tree: bundle.Tree) -> None:
    tree.replace(RELATIONSHIPS, "## Decide\n", "## Contents\n\n- [Decide](#decide)\n\n## Decide\n")

    assert findings(tree) == []


def test_a_page_without_snippets_still_says_when_to_read_it(tree: bundle.Tree) -> None:
    tree.replace("references/troubleshooting.md", "Read when", "For when")

    assert found(tree) == [("page-structure", "references/troubleshooting.md")]


# empty-sections


@pytest.mark.parametrize("path", ["references/troubleshooting.md", "SKILL.md", "README.md"])
@pytest.mark.parametrize(
    "text",
    [
        "### Locks",
        "### Locks\n\n \n",
        "### Locks\n\n<!-- to be\nwritten -->\n",
        "### Locks\n### Other locks\n\nText.\n",
        "#### In short\n\n### Locks\n\n#### More\n\n###### Last\n\n### Empty",
    ],
)
def test_an_empty_section_is_found(tree: bundle.Tree, path: str, text: str) -> None:
    tree.append(path, f"\nSee it there.\n\n{text}\n")

    assert only(tree).rule == "empty-sections"


def test_what_follows_an_empty_section_is_not_its_text(tree: bundle.Tree) -> None:
    tree.replace("references/models.md", "Give each row one column of its own.\n\n", "")

    assert only(tree)[:3] == ("references/models.md", 7, "empty-sections")
    assert only(tree).what == "`Decide` is an empty section"


@pytest.mark.parametrize(
    "text",
    [
        "### Locks\n\nText.",
        "### Locks\n\n#### Of rows\n\nText.",
        "### Locks\n\n```sh\n## a comment\n## another\n```",
        "### Locks\n\n| a |\n| --- |",
        "#### A level that no list of contents has",
    ],
)
def test_a_section_that_says_something_is_no_problem(tree: bundle.Tree, text: str) -> None:
    tree.append("references/troubleshooting.md", f"\n{text}\n")

    assert findings(tree) == []


# mirrored-trees, empty-test-files


def test_a_heading_without_a_module_is_found(tree: bundle.Tree) -> None:
    tree.replace(RELATIONSHIPS, "## Databases\n", "## Many to many\n\nBoth.\n\n## Databases\n")

    assert found(tree) == [("mirrored-trees", RELATIONSHIPS)]
    assert "snippets/relationships/many_to_many.py" in only(tree).what


def test_a_module_without_a_heading_and_a_test_is_found(tree: bundle.Tree) -> None:
    tree.write("snippets/models/mixins.py", "")

    assert [finding.what for finding in findings(tree)] == [
        "no heading has the name of this module",
        "this module has no test file",
    ]
    assert {finding[:3] for finding in findings(tree)} == {
        ("snippets/models/mixins.py", 1, "mirrored-trees")
    }


def test_a_test_without_a_module_is_found(tree: bundle.Tree) -> None:
    tree.write("tests/models/test_mixins.py", bundle.TEST)

    assert found(tree) == [("mirrored-trees", "tests/models/test_mixins.py")]


def test_a_script_without_a_test_is_found(tree: bundle.Tree) -> None:
    tree.write("scripts/mend.py", "")

    assert found(tree) == [("mirrored-trees", "scripts/mend.py")]


def test_a_test_of_no_script_is_found(tree: bundle.Tree) -> None:
    tree.write("tests/scripts/test_mend.py", bundle.TEST)

    assert found(tree) == [("mirrored-trees", "tests/scripts/test_mend.py")]


def test_a_topic_without_a_page_is_found(tree: bundle.Tree) -> None:
    tree.write("snippets/migrations/__init__.py", "")

    assert found(tree) == [("mirrored-trees", "references/migrations.md")]


def test_a_topic_without_a_package_is_found(tree: bundle.Tree) -> None:
    tree.remove("snippets/models/__init__.py")

    assert found(tree) == [("mirrored-trees", "snippets/models/__init__.py")]


def test_private_modules_packages_and_helpers_of_tests_need_no_mirror(tree: bundle.Tree) -> None:
    tree.write("snippets/models/_private.py", "")
    tree.write("tests/models/test__private.py", bundle.TEST)
    tree.write("tests/models/helpers.py", "")
    tree.write("tests/scripts/conftest.py", "")
    tree.write("scripts/_shared.py", "")
    tree.write("tests/test_demo.py", bundle.TEST)
    tree.write("snippets/models/mixins/__init__.py", "")
    tree.write("snippets/models/mixins/inside.py", "")
    tree.write("tests/models/test_mixins.py", bundle.TEST)
    tree.replace("references/models.md", "## Databases\n", "## Mixins\n\nShared.\n\n## Databases\n")

    assert findings(tree) == []


@pytest.mark.parametrize("path", ["tests/models/test_keys.py", "tests/deep/down/test_keys.py"])
@pytest.mark.parametrize(
    "code",
    [
        "",
        '"""Later."""\n',
        "# def test_it(): ...\n",
        "def check_it(): ...\n",
        "def outer():\n    def test_inside(): ...\n",
        "class Jar:\n    def test_it(self): ...\n",
        "class TestJar:\n    def it_works(self): ...\n",
    ],
)
def test_a_test_file_without_a_test_is_found(tree: bundle.Tree, path: str, code: str) -> None:
    tree.write(path, code)

    assert only(tree)[:3] == (path, 1, "empty-test-files")


@pytest.mark.parametrize(
    "code",
    [
        "def test_it(): ...\n",
        "async def test_it(): ...\n",
        "class TestJar:\n    def test_it(self): ...\n",
        "class TestJar:\n    async def test_it(self): ...\n",
    ],
)
def test_a_test_file_with_one_test_is_no_problem(tree: bundle.Tree, code: str) -> None:
    tree.write("tests/models/test_keys.py", code)

    assert findings(tree) == []


def test_what_helps_tests_needs_none(tree: bundle.Tree) -> None:
    tree.write("tests/conftest.py", "")
    tree.write("tests/models/tables.py", "")
    tree.write("snippets/models/_test_data.py", "")

    assert findings(tree) == []


# blocks-in-sync, blocks-addressed


def test_a_stale_block_is_found(tree: bundle.Tree) -> None:
    tree.replace(EAGER, ").all())", ").unique().all())")

    assert only(tree)[:3] == (RELATIONSHIPS, 15, "blocks-in-sync")
    assert only(tree).fix == "make sync"


def test_an_address_that_leads_nowhere_is_told_what_there_is(tree: bundle.Tree) -> None:
    tree.replace(RELATIONSHIPS, "::shelves_with_jars", "::shelves")

    assert only(tree).rule == "blocks-in-sync"
    assert only(tree).fix.endswith(": Shelf, shelves_with_jars")


@pytest.mark.parametrize("path", ["SKILL.md", "README.md", "references/models.md"])
@pytest.mark.parametrize("fence", ["```python", "~~~py", "> ```python3", "  ```pycon"])
def test_a_python_block_without_an_address_is_found(
    tree: bundle.Tree, path: str, fence: str
) -> None:
    margin, marker, _ = re.split("(```|~~~)", fence)
    tree.append(path, f"\n{fence}\nA = 1\n{margin}{marker}\n")

    assert found(tree) == [("blocks-addressed", path)]


@pytest.mark.parametrize("language", ["", "bash", "toml", "text", "sql"])
def test_blocks_of_other_languages_are_free(tree: bundle.Tree, language: str) -> None:
    tree.append("SKILL.md", f"\n```{language}\nls\n```\n")

    assert findings(tree) == []


# mistakes


def test_a_mistake_without_a_function_is_found(tree: bundle.Tree) -> None:
    text = "\n### Forgotten await\n\n**Symptom** None.\n**Cause** Haste.\n**Fix** Wait.\n"
    tree.append(RELATIONSHIPS, text)

    assert found(tree) == [("mistakes", RELATIONSHIPS)]
    assert only(tree).what == f"{WRONG} has no function `forgotten_await`"


def test_a_mistake_without_a_heading_and_a_test_is_found(tree: bundle.Tree) -> None:
    tree.append(WRONG, "\n\ndef forgotten_await() -> None: ...\n")

    assert found(tree) == [("mistakes", WRONG), ("mistakes", WRONG)]
    assert {finding.line for finding in findings(tree)} == {8}


def test_a_mistake_that_no_test_calls_is_found(tree: bundle.Tree) -> None:
    tree.replace("tests/models/test_mistakes.py", "mistakes.key_in_the_head()", "pass")

    assert found(tree) == [("mistakes", "snippets/models/mistakes.py")]


@pytest.mark.parametrize("label", ["Symptom", "Cause", "Fix"])
def test_a_mistake_that_is_not_told_in_full_is_found(tree: bundle.Tree, label: str) -> None:
    tree.replace("references/models.md", f"**{label}**", label)

    assert found(tree) == [("mistakes", "references/models.md")]
    assert only(tree).what == f"`Key in the head` has no {label}"


def test_a_topic_may_have_no_mistakes_yet(tree: bundle.Tree) -> None:
    tree.write("snippets/servicebase/__init__.py", "")
    text = "Read when a.\nSkip when b.\nVerified with\n"
    text += "".join(f"\n## {name}\n\nNone.\n" for name in ("Decide", "Databases", "Mistakes"))
    tree.write("references/servicebase.md", f"# ServiceBase\n\n{text}")
    tree.append("SKILL.md", "[ServiceBase](references/servicebase.md)\n")

    assert found(tree) == [("blocks-in-sync", "references/servicebase.md")]


# symptoms-tested


@pytest.mark.parametrize(
    ("symptom", "piece"),
    [
        ("`no such table: shelf`", "no such table: shelf"),
        ("`sqlite3.OperationalError: no such table: shelf`", "no such table: shelf"),
        ('`(pymysql.err.DataError) (1406, "Data too long …")`', '(1406, "Data too long'),
        ("\n```text\nValueError: the jar is\nempty once again\n```\n", "empty once again"),
        ("``the `jar` is empty``", "the `jar` is empty"),
        ("`await_() is not possible here`", "await_() is not possible here"),
    ],
)
def test_a_quoted_text_that_no_test_expects_is_found(
    tree: bundle.Tree, symptom: str, piece: str
) -> None:
    tree.replace("references/models.md", "`KeyError: …`", symptom)

    last = findings(tree)[-1]

    assert last.rule == "symptoms-tested"
    assert last.path == "references/models.md"
    assert f"`{piece}`" in last.what


@pytest.mark.parametrize(
    "symptom",
    [
        "`KeyError: 'key'`, or `jar.fruit`, `jar.fruit()` and `dict[str, int]`",
        "`await session.exec(select(Jar), params={})` and `async with session.begin():`",
        "`select(Jar).where(Jar.id == 1)` and `for jar in shelf.jars:`",
        "`key  lost\nin the jar`, `StatementError: (builtins.KeyError) key … in the jar`",
        "`sqlalchemy.exc.InvalidRequestError: <Jar at 0x7f> has lost the lid` twice",
        "```python\nnot an error text at all\n```",
        "`it took (20) tries`",
        "`it is a very long line of words that goes on`",
        "in words: no such table: shelf.",
    ],
)
def test_a_quoted_text_that_a_test_expects_is_no_problem(tree: bundle.Tree, symptom: str) -> None:
    tree.replace("references/models.md", "`KeyError: …`", symptom)
    tree.append(
        "tests/models/test_mistakes.py",
        'A = "key lost" " in the jar"\n'
        'B = f"{A} has lost the lid"\n'
        'C = r"it took \\(20\\) tries"\n'
        'D = "it is a very long line of words" + " that goes on"\n',
    )

    assert [f for f in findings(tree) if f.rule == "symptoms-tested"] == []


def test_a_docstring_of_a_test_proves_no_symptom(tree: bundle.Tree) -> None:
    tree.replace(RELATIONSHIPS, "**Symptom** `", "**Symptom** `no such table` `")

    assert found(tree) == [("symptoms-tested", RELATIONSHIPS)]


# import-direction


@pytest.mark.parametrize(
    "line",
    [
        "from snippets.relationships.eager_loading import Shelf",
        "from snippets import relationships",
        "import snippets.servicebase.service",
        "from snippets.nowhere import nothing",
        "from snippets.models.mistakes import key_in_the_head",
        "from snippets.models import mistakes",
        "from .keys import Jar",
        "from tests.models import test_keys",
        "import app.main",
        "def f():\n    from snippets.migrations import naming",
    ],
)
def test_an_import_from_a_later_topic_is_found(tree: bundle.Tree, line: str) -> None:
    tree.write("snippets/models/_private.py", f"{line}\n")

    assert found(tree) == [("import-direction", "snippets/models/_private.py")]


def test_a_topic_outside_the_order_is_found(tree: bundle.Tree) -> None:
    tree.write("snippets/cellar/__init__.py", "")

    assert ("import-direction", "snippets/cellar") in found(tree)


def test_imports_from_earlier_topics_and_packages_are_no_problem(tree: bundle.Tree) -> None:
    lines = "import applets\nimport testsuite\nfrom snippets.relationships import eager_loading\n"
    lines += (
        "from snippets.models.keys import Jar\nfrom snippets.relationships.mistakes_ import A\n"
    )
    tree.write("snippets/relationships/_private.py", lines)

    assert findings(tree) == []


# unique-nouns


@pytest.mark.parametrize(
    "code",
    [
        "class Jar(SQLModel, table=True): ...",
        "def f():\n    class Jar(SQLModel, table=True): ...",
        'class Other(SQLModel, table=True):\n    __tablename__ = "jar"',
        'class Other(SQLModel, table=True):\n    __tablename__: str = "shelves"',
        "class Shelves(SQLModel, table=True): ...",
    ],
)
def test_a_noun_with_two_homes_is_found(tree: bundle.Tree, code: str) -> None:
    tree.write("snippets/relationships/_private.py", f"from sqlmodel import SQLModel\n{code}\n")

    (finding,) = findings(tree)

    assert finding.rule == "unique-nouns"
    assert "snippets/" in finding.what


def test_classes_without_a_table_may_share_a_noun(tree: bundle.Tree) -> None:
    code = "class Jar: ...\nclass Shelf(SQLModel): ...\nclass A(SQLModel, table=False): ...\n"
    tree.write("snippets/relationships/_private.py", code)
    tree.write("tests/models/helpers.py", "class Jar(SQLModel, table=True): ...\n")

    assert findings(tree) == []


# no-future-annotations


def test_postponed_annotations_beside_a_relationship_are_found(tree: bundle.Tree) -> None:
    code = "from __future__ import annotations\nfrom sqlmodel import Relationship\n"
    tree.write("snippets/models/_private.py", code)

    assert only(tree)[:3] == ("snippets/models/_private.py", 1, "no-future-annotations")


@pytest.mark.parametrize(
    "code",
    [
        "from __future__ import annotations\nfrom sqlmodel import Field\n",
        "from sqlmodel import Relationship\n",
    ],
)
def test_either_of_the_two_alone_is_no_problem(tree: bundle.Tree, code: str) -> None:
    tree.write("snippets/models/_private.py", code)

    assert findings(tree) == []


# bare-exec, dynamic-execution


@pytest.mark.parametrize("path", ["SKILL.md", "README.md", "CHANGELOG.md", "references/models.md"])
@pytest.mark.parametrize("before", ["", "a ", "`", "```text\n", "("])
def test_a_bare_exec_call_is_found(tree: bundle.Tree, path: str, before: str) -> None:
    after = "\n```" if "\n" in before else "`" if before == "`" else ""
    tree.append(path, f"\n{before}{BARE_CALL}select(Jar)){after}\n")

    assert found(tree) == [("bare-exec", path)]


@pytest.mark.parametrize("call", ["session.exec(a)", "`.exec()`", "pg_exec(a)", "exec is a word"])
def test_the_method_exec_is_no_problem(tree: bundle.Tree, call: str) -> None:
    tree.append("SKILL.md", f"\n{call}\n")

    assert findings(tree) == []


@pytest.mark.parametrize(
    "code",
    [
        f"{BARE_CALL}'1')",
        "a = ev" + "al('1')",
        f"# calls {BARE_CALL})",
        "compile('1', 'name', 'exec')",
        "import builtins\nbuiltins.compile('1', 'name', mode='eval')",
        "import subprocess\nsubprocess.run([f'{a}'])",
        "from subprocess import Popen\nPopen(['ls'], cwd=f'{a}')",
        "import subprocess\nsubprocess.check_output(shell([f'{a}']))",
    ],
)
@pytest.mark.parametrize("path", ["scripts/lint.py", "tests/models/helpers.py", "templates/a/b.py"])
def test_dynamic_execution_is_found(tree: bundle.Tree, path: str, code: str) -> None:
    tree.write(path, f"{code}\n")

    assert found(tree) == [("dynamic-execution", path)]


@pytest.mark.parametrize(
    "code",
    [
        "import ast\nast.literal_eval('1')",
        "session.exec(a)",
        "async def exec(self): ...",
        "import re\nre.compile('exec')",
        "statement.compile(dialect, mode='exec')",
        "compile(source, options)",
        "import subprocess\nname = f'{a}'\nsubprocess.run([name])",
        "from anyio import run\nrun(f'{a}')",
        "import asyncio\nasyncio.create_subprocess_exec(a)",
    ],
)
def test_what_only_looks_dynamic_is_no_problem(tree: bundle.Tree, code: str) -> None:
    tree.write("scripts/lint.py", f"{code}\n")

    assert findings(tree) == []


# no-engine-at-import


@pytest.mark.parametrize(
    "code",
    [
        "engine = create_async_engine('sqlite://')",
        "engine = sqlalchemy.create_engine('sqlite://')",
        "URL = os.environ['URL']",
        "URL = os.getenv('URL')",
        "from os import environ\nURL = environ.get('URL')",
        "class A:\n    url = os.environ['URL']",
        "def f(url=os.getenv('URL')): ...",
        "@cached(os.getenv('URL'))\ndef f(): ...",
        "if True:\n    asyncio.run(f())",
        "if __name__ == '__main__':\n    asyncio.run(f())",
    ],
)
def test_what_a_snippet_does_at_import_is_found(tree: bundle.Tree, code: str) -> None:
    tree.write("snippets/models/_private.py", f"{code}\n")

    assert found(tree) == [("no-engine-at-import", "snippets/models/_private.py")]


@pytest.mark.parametrize(
    "code",
    [
        "def f():\n    return create_async_engine(os.environ['URL'])",
        "async def f():\n    asyncio.run(g())",
        "f = lambda: os.getenv('URL')",
        "from sqlalchemy import create_engine\nMAKERS = {'sync': create_engine}",
        "class A:\n    def f(self):\n        return os.environ",
        "from os import environ",
        "task.run()",
    ],
)
def test_what_happens_in_functions_is_no_problem(tree: bundle.Tree, code: str) -> None:
    tree.write("snippets/models/_private.py", f"{code}\n")

    assert findings(tree) == []


def test_other_code_may_do_so_at_import(tree: bundle.Tree) -> None:
    tree.write("templates/a/main.py", "import os\nURL = os.environ['URL']\n")

    assert findings(tree) == []


# requirements-plain


@pytest.mark.parametrize(
    "line",
    [
        "pytest",
        "pytest>=9",
        "pytest==9.*",
        "--index-url https://example.org/simple",
        "--extra-index-url=https://example.org/simple",
        "-e .",
        "pytest @ https://example.org/pytest.whl",
        "https://example.org/pytest.whl",
        "# from https://example.org/simple",
        "-r ../other.txt",
        "-r missing.txt",
        "pytest==9.2.0 --hash=sha256:00",
    ],
)
def test_a_requirement_that_is_no_plain_pin_is_found(tree: bundle.Tree, line: str) -> None:
    tree.append("requirements/test.txt", f"{line}\n")

    assert only(tree)[:3] == ("requirements/test.txt", 3, "requirements-plain")


@pytest.mark.parametrize("line", ["", "# words", "psycopg[binary,pool]==3.3.9  # why", "a==1!2+b"])
def test_plain_pins_are_no_problem(tree: bundle.Tree, line: str) -> None:
    tree.append("requirements/test.txt", f"{line}\n")

    assert findings(tree) == []


# clean-tree, local-paths


@pytest.mark.parametrize(
    "path",
    [
        "uv.lock",
        "AGENTS.md",
        "docs/CLAUDE.md",
        "skills/other/SKILL.md",
        "releases/bundle.zip",
        "bundle.tar.gz",
        "async-sqlmodel.skill",
    ],
)
def test_a_file_that_does_not_belong_is_found(tree: bundle.Tree, path: str) -> None:
    tree.write(path, "")

    assert found(tree) == [("clean-tree", path)]
    assert only(tree).fix == f"git rm {path}"


def test_a_large_file_is_found(tree: bundle.Tree) -> None:
    tree.write("evals/answers.json", "0" * 200_001)

    assert found(tree) == [("clean-tree", "evals/answers.json")]


@pytest.mark.parametrize("target", ["SKILL.md", "snippets", "nowhere"])
def test_a_symbolic_link_is_found(tree: bundle.Tree, target: str) -> None:
    (tree.root / "link").symlink_to(tree.root / target)

    assert found(tree) == [("clean-tree", "link")]


@pytest.mark.parametrize(
    "text",
    [
        f"see {HOME}notes",
        f'"sqlite+aiosqlite:///{HOME}app.db"',
        "cd /ro" + "ot/app",
        "open /Us" + "ers/me/app",
        f"file://{HOME}notes",
    ],
)
def test_a_path_of_one_machine_is_found(tree: bundle.Tree, text: str) -> None:
    tree.append("Makefile", f"{text}\n")

    assert found(tree) == [("local-paths", "Makefile")]


def test_the_place_of_the_bundle_itself_is_found(tree: bundle.Tree) -> None:
    tree.append("README.md", f"\n`cd {tree.root}/scripts`\n")

    assert found(tree) == [("local-paths", "README.md")]


@pytest.mark.parametrize(
    "text", ["https://example.org/home/me/", "src/root/app", "~/app", "/home/", "$HOME/root/a"]
)
def test_paths_that_only_look_local_are_no_problem(tree: bundle.Tree, text: str) -> None:
    tree.append("Makefile", f"{text}\n")

    assert findings(tree) == []


# Which files belong to the bundle


def git(tree: bundle.Tree, *arguments: str) -> None:
    command = ["git", *arguments]
    environment = _bundle.clean_environment()
    subprocess.run(command, cwd=tree.root, env=environment, check=True, capture_output=True)


def test_in_a_checkout_ignored_files_are_left_out_and_new_ones_are_not(tree: bundle.Tree) -> None:
    git(tree, "init")
    tree.write(".gitignore", "*.zip\n")
    tree.write("ignored.zip", "")
    tree.write("deleted.py", "")
    git(tree, "add", "deleted.py")
    tree.remove("deleted.py")

    assert findings(tree) == []

    tree.write("uv.lock", "")
    assert found(tree) == [("clean-tree", "uv.lock")]


def test_an_environment_that_lies_elsewhere_is_no_part_of_the_bundle(tree: bundle.Tree) -> None:
    git(tree, "init")
    tree.write(".gitignore", (check.ROOT / ".gitignore").read_text(encoding="utf-8"))
    (tree.root / ".venv").symlink_to(tree.root / "snippets")

    assert findings(tree) == []


def test_without_a_checkout_what_tools_leave_behind_is_left_out(tree: bundle.Tree) -> None:
    for folder in (".venv", ".venv-floor", "build", ".mypy_cache", "scripts/__pycache__"):
        tree.write(f"{folder}/CLAUDE.md", "")

    assert findings(tree) == []


def test_a_hook_does_not_lead_git_to_another_repository(
    tree: bundle.Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tree, "init")
    tree.write(".gitignore", "*.zip\n")
    tree.write("ignored.zip", "")
    monkeypatch.setenv("GIT_DIR", "nowhere")

    assert findings(tree) == []


# The command


def run(tree: bundle.Tree, *options: str) -> int:
    return check.main(["--root", str(tree.root), *options])


def test_findings_are_printed_with_their_fix_and_counted(
    tree: bundle.Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    tree.write("uv.lock", "")
    files = len(check.Bundle(tree.root).files)

    assert run(tree) == 1

    assert capsys.readouterr().out == (
        "uv.lock:1: clean-tree: this file does not belong here: it records registry addresses\n"
        "    fix: git rm uv.lock\n"
        f"1 problem in 1 file ({files} checked)\n"
    )


def test_nothing_to_do_is_said_in_one_line(
    tree: bundle.Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tree) == 0
    assert capsys.readouterr().out.startswith("no problems (")


def test_machines_get_json(tree: bundle.Tree, capsys: pytest.CaptureFixture[str]) -> None:
    tree.write("uv.lock", "")

    assert run(tree, "--json") == 1

    said = json.loads(capsys.readouterr().out)
    assert said["findings"] == [
        {
            "path": "uv.lock",
            "line": 1,
            "rule": "clean-tree",
            "what": "this file does not belong here: it records registry addresses",
            "fix": "git rm uv.lock",
        }
    ]
    assert said["files"] > 0


def test_every_check_is_listed_with_what_it_promises(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["--list"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*check.CHECKS, *check.OUTSIDE]
    assert all(line.endswith(".") for line in lines)


def test_a_folder_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        check.main(["--root", str(tmp_path / "nowhere")])

    assert stopped.value.code == 2


def test_the_script_runs_from_anywhere(tree: bundle.Tree) -> None:
    command = [sys.executable, check.__file__, "--root", str(tree.root)]

    ended = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stdout + ended.stderr


# Validators of others


def has(name: str) -> bool:
    return shutil.which(name, path=str(Path(sys.executable).parent)) is not None


needs_validators = pytest.mark.skipif(
    not (has("agentskills") and has("agnix")), reason="requirements/quality.txt is not installed"
)


def outside(tree: bundle.Tree) -> list[check.Finding]:
    return check.run_outside(check.Bundle(tree.root))


@needs_validators
def test_the_valid_bundle_satisfies_the_validators(
    tree: bundle.Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tree, "--outside") == 0, capsys.readouterr().out


@needs_validators
def test_what_agentskills_refuses_is_found(tree: bundle.Tree) -> None:
    tree.replace("SKILL.md", "license: MIT", "licence: MIT")

    (finding,) = outside(tree)

    assert finding.rule == "outside-agentskills"
    assert "licence" in finding.what


@needs_validators
def test_what_agnix_refuses_is_found_in_its_place(tree: bundle.Tree) -> None:
    tree.append("SKILL.md", "\n[more](references/missing.md)\n")

    finding = next(f for f in outside(tree) if f.rule == "outside-agnix")

    assert (finding.path, finding.line) == ("SKILL.md", 18)
    assert "references/missing.md" in finding.what
    assert finding.fix


@needs_validators
def test_a_link_to_what_releases_leave_out_is_found(tree: bundle.Tree) -> None:
    tree.write(".gitattributes", "CHANGELOG.md export-ignore\n")
    tree.append("SKILL.md", "\n[changes](CHANGELOG.md)\n")

    assert findings(tree) == []
    assert ("outside-links", "SKILL.md") in {(f.rule, f.path) for f in outside(tree)}


@needs_validators
def test_a_link_that_is_wrong_everywhere_is_not_told_twice(tree: bundle.Tree) -> None:
    tree.append(RELATIONSHIPS, "\n[a](missing.md)\n")

    assert found(tree) == [("links", RELATIONSHIPS)]
    assert outside(tree) == []


def test_the_export_holds_files_as_they_are_now_but_no_ignored_ones(
    tree: bundle.Tree, tmp_path_factory: pytest.TempPathFactory
) -> None:
    git(tree, "init")
    tree.write(".gitignore", "notes\n")
    tree.write("notes", "")
    tree.write(".gitattributes", "tests export-ignore\n")
    git(tree, "add", "SKILL.md")
    tree.append("SKILL.md", "Changed.\n")

    export = check.stage(check.Bundle(tree.root), tmp_path_factory.mktemp("export"))

    assert export.name == "async-sqlmodel"
    assert (export / "SKILL.md").read_text(encoding="utf-8") == tree.read("SKILL.md")
    assert (export / "snippets/models/keys.py").is_file()
    assert not (export / "tests").exists()
    assert not (export / "notes").exists()


def test_the_index_of_the_checkout_is_not_touched(
    tree: bundle.Tree, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tree, "init")
    monkeypatch.setenv("GIT_INDEX_FILE", str(tree.root / ".git/index"))

    check.stage(check.Bundle(tree.root), tmp_path_factory.mktemp("export"))

    assert not (tree.root / ".git/index").exists()


def test_a_validator_that_is_not_installed_is_a_finding(
    tree: bundle.Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin/python"))

    assert [(f.rule, f.what) for f in outside(tree)] == [
        ("outside-agentskills", "agentskills is not installed"),
        ("outside-agnix", "agnix is not installed"),
    ]


def test_a_validator_that_breaks_is_a_finding(
    tree: bundle.Tree, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = bundle.Tree(tmp_path_factory.mktemp("tools"))
    tools.write("agentskills", "#!/bin/sh\nexit 3\n")
    tools.write("agnix", "#!/bin/sh\necho out of order\n")
    for name in ("agentskills", "agnix"):
        (tools.root / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tools.root / "python"))

    assert [(f.rule, f.what) for f in outside(tree)] == [
        ("outside-agentskills", "it ended with 3"),
        ("outside-agnix", "out of order"),
    ]


def test_an_export_that_fails_is_a_finding(
    tree: bundle.Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")

    assert [f.rule for f in outside(tree)] == ["outside-export"]
