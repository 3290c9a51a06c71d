"""Each rule finds its mistake, and nothing but its mistake; the output is what tools expect."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import _lint_run
import lint
import pytest
import scaffold
from _bundle import Bundle
from _checks_mistakes import mistake_headings
from _lint_index import Project
from _lint_rules import META, RULES, Rule
from _lint_run import Finding, python_files, run
from _lint_source import Hit, Source
from _lint_unseen import ELSEWHERE, UNSEEN

from tests.scripts.lint_cases import all_cases, read_cases

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "lint.py"
CASES = all_cases()
# One mistake for the tests of what surrounds the rules: line 5.
WAITING = """\
import time


async def wait() -> None:
    time.sleep(1)
"""


def findings_of(root: Path, *rules: str) -> set[tuple[str, int]]:
    report = run([root], rules or list(RULES))
    return {(finding.path, finding.line) for finding in report.findings}


def told_of(root: Path, *rules: str) -> list[Finding]:
    return run([root], rules or list(RULES)).findings


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project; paths in findings are relative to it."""
    root = tmp_path.resolve()
    (root / "pyproject.toml").touch()
    monkeypatch.chdir(root)
    return root


def write(root: Path, path: str, text: str) -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def lint_it(*arguments: str) -> int:
    return lint.main(list(arguments))


def usage_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        lint.main(list(arguments))
    assert stopped.value.code == 2
    return capsys.readouterr().err


# Rules


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_finds_what_is_marked_and_nothing_else(
    rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = [case for case in CASES if case.rule == rule]
    found: dict[str, set[tuple[str, int]]] = {}
    for number, case in enumerate(cases):
        root = tmp_path.resolve() / str(number)
        case.write(root)
        monkeypatch.chdir(root)
        found[case.title] = findings_of(root, rule)

    assert found == {case.title: case.marked if case.found else set() for case in cases}


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_has_a_case_and_two_near_misses(rule: str) -> None:
    cases = [case for case in CASES if case.rule == rule]

    assert [case for case in cases if case.found]
    assert all(case.marked for case in cases if case.found)
    assert len([case for case in cases if not case.found]) >= 2
    assert len({case.title for case in cases}) == len(cases)


def test_no_case_is_about_a_rule_that_does_not_exist() -> None:
    assert {case.rule for case in CASES} <= RULES.keys()


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)
def test_each_rule_says_symptom_cause_and_fix(rule: Rule) -> None:
    assert all(rule.part(label) for label in ("Symptom", "Cause", "Fix"))
    assert rule.page.startswith("references/")


# The bundle itself


def headings() -> dict[str, str]:
    """The page of each mistake that has a heading."""
    bundle = Bundle(ROOT)
    return {
        heading.slug: page
        for page in bundle.mirrored_pages
        for heading in mistake_headings(bundle.document(page))
    }


# Without a heading so far; a rule that is named here must not have one.
UNTOLD: set[str] = set()


def test_each_mistake_of_a_page_has_a_rule_or_says_why_not() -> None:
    told = headings()

    assert RULES.keys() & UNSEEN.keys() == set()
    assert told.keys() - RULES.keys() - UNSEEN.keys() == set()
    assert RULES.keys() - told.keys() == UNTOLD
    assert UNSEEN.keys() - told.keys() == set()
    assert ELSEWHERE.keys() - RULES.keys() == set()
    assert {name: RULES[name].page for name in RULES if name in told} == {
        name: page for name, page in told.items() if name in RULES
    }


def wrong_functions() -> Iterator[tuple[str, str, int, int]]:
    """Path and name of each function with a mistake, with the lines that belong to it."""
    for path in sorted(ROOT.glob("snippets/*/mistakes.py")):
        begin = 1
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                end = node.end_lineno or node.lineno
                yield path.relative_to(ROOT).as_posix(), node.name, begin, end
                begin = end + 1  # a class below is part of what the next function shows


def test_snippets_are_clean_and_each_mistake_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    report = run([ROOT / "snippets"], list(RULES))

    clean = [str(f) for f in report.findings if not f.path.endswith("/mistakes.py")]
    assert clean == []
    places = {(f.path, f.rule): set[int]() for f in report.findings}
    for finding in report.findings:
        places[finding.path, finding.rule].add(finding.line)
    for path, function, begin, end in wrong_functions():
        rule = function.replace("_", "-")
        found = any(begin <= line <= end for line in places.get((path, rule), ()))
        assert found != (rule in UNSEEN or rule in ELSEWHERE), f"{path}: {function}"


def test_templates_are_clean() -> None:
    assert [str(f) for f in run([ROOT / "templates"], list(RULES)).findings] == []


@pytest.mark.parametrize("database", scaffold.DATABASES)
def test_a_scaffolded_application_is_clean(database: str, tmp_path: Path) -> None:
    app = tmp_path / "shop"
    arguments = ["app", str(app), "--package", "shop", "--database", database]
    assert scaffold.main(arguments) == 0

    report = run([app], list(RULES))

    assert [str(finding) for finding in report.findings] == []
    assert report.checked > 20


def test_it_runs_alone_outside_of_the_environment(project: Path) -> None:
    write(project, "app.py", WAITING)
    command = [sys.executable, "-E", "-S", str(SCRIPT), "app.py"]

    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=project)

    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.endswith("1 problem in 1 file (1 checked)\n")


# Files


def test_models_of_other_files_are_known_when_one_file_is_looked_at(project: Path) -> None:
    write(project, "shop/__init__.py", "")
    write(
        project,
        "shop/models.py",
        "from sqlmodel import Field, Relationship, SQLModel\n"
        "class Base(SQLModel): ...\n"
        "class Pen(Base, table=True):\n"
        "    id: int | None = Field(default=None, primary_key=True)\n"
        "    box_id: int = Field(foreign_key='box.id')\n"
        "class Box(Base, table=True):\n"
        "    id: int | None = Field(default=None, primary_key=True)\n"
        "    pens: list[Pen] = Relationship()\n",
    )
    write(project, "shop/tables.py", "from .models import Box as Crate\n")
    queries = write(
        project,
        "shop/queries/boxes.py",
        "from sqlmodel.ext.asyncio.session import AsyncSession\n"
        "from ..tables import Crate\n"
        "async def pens(session: AsyncSession):\n"
        "    box = await session.get_one(Crate, 1)\n"
        "    return box.pens\n",
    )

    assert findings_of(queries) == {("shop/queries/boxes.py", 5)}


def test_of_a_tree_too_large_to_read_nothing_is_called_missing(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = "from sqlmodel import Field, Relationship, SQLModel\n"
    key = "    id: int | None = Field(default=None, primary_key=True)\n"
    write(project, "trucks.py", f"{heads}class Truck(SQLModel, table=True):\n{key}")
    trailers = write(
        project,
        "trailers.py",
        f"{heads}class Trailer(SQLModel, table=True):\n{key}"
        "    trucks: list['Truck'] = Relationship()\n"
        "    sheds: list['Shed'] = Relationship()\n",
    )
    missing = ("trailers.py", 5)
    assert findings_of(trailers, "half-imported-models") == {missing}

    monkeypatch.setattr(_lint_run, "MAX_CONTEXT", 2)

    assert findings_of(trailers, "half-imported-models") == set()
    assert findings_of(project, "half-imported-models") == {missing}  # all of it was asked for


def test_a_file_that_does_not_parse_is_a_finding_and_the_rest_goes_on(project: Path) -> None:
    write(project, "broken.py", "def f(:\n")
    write(project, "latin.py", "# -*- coding: nothing -*-\n")
    write(project, "app.py", WAITING)

    report = run([project], list(RULES))

    found = [(f.path, f.rule) for f in report.findings]
    assert found == [
        ("app.py", "blocking-call"),
        ("broken.py", "syntax-error"),
        ("latin.py", "syntax-error"),
    ]


def test_a_codec_that_is_none_of_texts_does_not_stop_the_run(project: Path) -> None:
    write(project, "app.py", WAITING)
    write(project, "turned.py", "# coding: rot13\n")

    assert [f.rule for f in told_of(project)] == ["blocking-call", "syntax-error"]


def test_syntax_of_a_newer_python_is_not_called_wrong(project: Path) -> None:
    write(project, "app.py", "async def newer() -> None:\n    await = 1\n")

    (finding,) = told_of(project)

    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert f"run lint.py with the project's Python if it is newer than {running}" in finding.fix


def test_what_is_no_file_is_not_read(project: Path) -> None:
    write(project, "app.py", "")
    (project / ".#app.py").symlink_to("me@host.4711")
    (project / "folder.py").mkdir()
    os.mkfifo(project / "pipe.py")

    assert [file.name for file in python_files(project)] == ["app.py"]


def test_a_notebook_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(project, "book.ipynb", '{"cells": []}')

    assert "there is no Python file in book.ipynb" in usage_error(capsys, "book.ipynb")


def test_folders_of_others_are_left_out(project: Path) -> None:
    for folder in (".venv", ".tox", "node_modules", "build", "app/__pycache__"):
        write(project, f"{folder}/wrong.py", WAITING)
    write(project, "python/pyvenv.cfg", "")
    write(project, "python/wrong.py", WAITING)
    write(project, "app/fine.py", "")

    assert [file.name for file in python_files(project)] == ["fine.py"]


def test_many_lines_are_read(project: Path) -> None:
    source = (ROOT / "snippets/async_operations/errors.py").read_text(encoding="utf-8")
    for number in range(250):
        write(project, f"app/part_{number % 10}/module_{number}.py", source)

    report = run([project], list(RULES))

    assert source.count("\n") * 250 > 50_000
    assert (report.findings, report.checked) == ([], 250)


# Suppressions


def test_a_comment_with_a_reason_suppresses_on_its_line_and_on_the_next(project: Path) -> None:
    here = "    time.sleep(1)  # lint: ignore[blocking-call] a script, nothing else runs\n"
    above = "    # lint: ignore[blocking-call] the same\n    time.sleep(1)\n"
    write(project, "app.py", "import time\nasync def wait():\n" + here + above)

    assert findings_of(project) == set()


def test_a_comment_without_reason_suppresses_nothing(project: Path) -> None:
    comment = "  # lint: ignore[blocking-call]\n"
    write(project, "app.py", WAITING.rstrip() + comment)

    rules = [finding.rule for finding in run([project], list(RULES)).findings]

    assert rules == ["blocking-call", "suppression-without-reason"]


def test_comments_that_do_nothing_are_found(project: Path) -> None:
    lines = [
        "x = 1  # lint: ignore[lazy-load] once needed",
        "y = 2  # lint: ignore[no-such-rule] a typing error",
        "z = 3  # lint: ignore",
        "text = '# lint: ignore[lazy-load] no comment'",
    ]
    write(project, "app.py", "\n".join(lines) + "\n")

    found = [(f.line, f.rule) for f in run([project], list(RULES)).findings]

    expected = [(1, "unused-suppression"), (2, "unknown-suppression"), (3, "unknown-suppression")]
    assert found == expected


def test_a_rule_that_does_not_run_has_no_unused_comments(project: Path) -> None:
    write(project, "app.py", "x = 1  # lint: ignore[lazy-load] once needed\n")

    assert findings_of(project, "blocking-call") == set()


# Mends


def single_finding(root: Path, rule: str, code: str) -> Finding:
    """What the rule says of code with one mistake."""
    (case,) = read_cases(f"@@ {rule}\n++ it\n{code}\n")
    case.write(root)
    (finding,) = told_of(root, rule)
    return finding


@pytest.mark.parametrize(
    ("condition", "mend"),
    [
        ('like(f"{typed}%")', "`col(...).startswith(typed, autoescape=True)`"),
        ('ilike(typed + "%")', "`col(...).istartswith(typed, autoescape=True)`"),
        ('like(f"%{typed}%")', "`col(...).contains(typed, autoescape=True)`"),
        ('ilike("%" + typed + "%")', "`col(...).icontains(typed, autoescape=True)`"),
        ('like("%" + typed)', "`col(...).endswith(typed, autoescape=True)`"),
        ('ilike(f"%{typed}")', "`col(...).iendswith(typed, autoescape=True)`"),
        ('not_ilike(f"%{typed}%")', "`~col(...).icontains(typed, autoescape=True)`"),
        ('like(f"{typed} (%")', "`col(...).startswith(f'{typed} (', autoescape=True)`"),
        ('like(f"{typed!r}%")', "`col(...).startswith(f'{typed!r}', autoescape=True)`"),
        ('like("a" + typed + "%")', "`col(...).startswith(f'a{typed}', autoescape=True)`"),
        ('like(f"{typed}%x")', "escape `%` and `_` in what was typed"),
        ('like(f"a%{typed}%")', "escape `%` and `_` in what was typed"),
        ("contains(typed)", "`contains(typed, autoescape=True)`"),
    ],
)
def test_a_pattern_is_mended_by_the_operator_that_means_it(
    project: Path, condition: str, mend: str
) -> None:
    code = f"def find(typed: str):\n    return select(Team).where(col(Team.name).{condition})"

    assert single_finding(project, "pattern-from-user-text", code).fix.startswith(mend)


@pytest.mark.parametrize(
    ("body", "offered"),
    [
        ("        async with session.begin():\n            yield session", False),
        ("        yield session\n        await session.commit()", True),
    ],
)
def test_a_route_does_not_commit_inside_of_begin(project: Path, body: str, offered: bool) -> None:
    code = (
        "async def get_session(factory: async_sessionmaker[AsyncSession]):\n"
        f"    async with factory() as session:\n{body}\n"
        "Sessions = Annotated[AsyncSession, Depends(get_session)]"
    )

    finding = single_finding(project, "commit-after-the-answer", code)

    assert ("commit inside the route" in finding.fix) is offered
    assert 'scope="function"' in finding.fix


def test_a_scope_that_begins_is_followed(project: Path) -> None:
    code = (
        "@asynccontextmanager\n"
        "async def scope(factory: async_sessionmaker[AsyncSession]):\n"
        "    async with factory.begin() as session:\n        yield session\n"
        "async def get_session(factory: async_sessionmaker[AsyncSession]):\n"
        "    async with scope(factory) as session:\n        yield session\n"
        "Sessions = Annotated[AsyncSession, Depends(get_session)]"
    )

    assert "commit inside" not in single_finding(project, "commit-after-the-answer", code).fix


@pytest.mark.parametrize(
    ("names", "mend"),
    [("", "leave it out"), (', ["heroes"]', "load all at once in the query: `selectinload`")],
)
def test_a_plain_refresh_in_a_loop_is_mended_without_a_loader(
    project: Path, names: str, mend: str
) -> None:
    code = (
        "async def counts(session: AsyncSession, teams: list[Team]):\n"
        f"    for team in teams:\n        await session.refresh(team{names})"
    )

    finding = single_finding(project, "load-in-a-loop", code)

    assert finding.fix.startswith(mend)
    assert ("populate_existing=True" in finding.fix) is (names == "")


@pytest.mark.parametrize(
    ("call", "mend"),
    [
        ("scalars(select(Team))", "`session.exec(...)` gives scalars by itself"),
        ("scalar(select(Team))", "`(await session.exec(...)).first()`"),
        ("scalars(select(Team.id, Team.name))", "`(await session.exec(...)).scalars()`, which"),
        ("execute(select(Team.id, Team.name))", "`session.exec(...)`, which gives rows"),
        ('execute(text("SELECT 1"))', "`session.exec(...)`, which takes `text()` too"),
        ('scalar(text("SELECT 1"))', "`(await session.exec(...)).scalar()`, which takes"),
        ("execute(update(Team))", "`session.exec(...)`, which gives what `execute` did"),
        ("execute(delete(Team))", "`session.exec(...)`, which gives what `execute` did"),
        ("scalars(insert(Team).returning(Team))", "`(await session.exec(...)).scalars()`, which"),
        ("scalars(sa.select(Team))", "`(await session.exec(...)).scalars()`; of sqlmodel's"),
        ("execute(statement)", "`session.exec(...)`: scalars of sqlmodel's `select` of one thing"),
    ],
)
def test_exec_gives_scalars_only_of_a_select_of_one_thing(
    project: Path, call: str, mend: str
) -> None:
    code = f"async def run(session: AsyncSession, statement):\n    return await session.{call}"

    assert single_finding(project, "scalars-instead-of-exec", code).fix.startswith(mend)


def test_each_batch_has_its_own_table(project: Path) -> None:
    code = (
        ">> migrations/versions/0001.py\n"
        "def upgrade():\n"
        '    with op.batch_alter_table("first") as batch_op:\n'
        '        batch_op.alter_column("at", type_=sa.DateTime(timezone=True))\n'
        '    with op.batch_alter_table("second") as batch_op:\n'
        '        batch_op.alter_column("name", type_=sa.Text())'
    )

    assert "`first.at`" in single_finding(project, "zone-without-using", code).what


# Sessions


REGISTRY = """\
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
class Registry:
    def __init__(self, maker: async_sessionmaker[AsyncSession]):
        self.maker = maker
    @asynccontextmanager
    async def session(self) -> AsyncGenerator[AsyncSession, None]:
        async with self.maker() as session:
            yield session
    @asynccontextmanager
    async def files(self) -> AsyncGenerator[str, None]:
        yield "a"
class Child(Registry): ...
registry = Child(None)
"""


KEEPING = (
    "class A:\n  def __init__(self, db{}):\n    self.db = {}\n  async def drop(self, thing):\n"
)


@pytest.mark.parametrize(
    ("begin", "opened", "found"),
    [
        ("async def drop(thing):\n", "registry.session()", True),
        ("async def drop(db: Registry, thing):\n", "db.session()", True),
        ("class A(Registry):\n  async def drop(self, thing):\n", "self.session()", True),
        ("class A:\n  db: Child\n  async def drop(self, thing):\n", "self.db.session()", True),
        (KEEPING.format(": Child", "db"), "self.db.session()", True),
        (KEEPING.format("", "Registry(None)"), "self.db.session()", True),
        (KEEPING.format("", "db"), "self.db.session()", False),
        ("async def drop(db: Registry, thing):\n", "db.files()", False),
        ("async def drop(db, thing):\n", "db.session()", False),
        ("async def drop(registry, thing):\n", "registry.session()", False),
        ("async def drop(thing):\n    registry = other()\n", "registry.session()", False),
    ],
)
def test_a_session_is_known_that_a_method_of_an_object_yields(
    project: Path, begin: str, opened: str, found: bool
) -> None:
    (project / "registry.py").write_text(REGISTRY)
    head = "from registry import Child, Registry, registry\n"
    block = f"    async with {opened} as s:\n        s.delete(thing)\n"
    (project / "app.py").write_text(head + begin + block)

    rules = [finding.rule for finding in told_of(project, "missing-await")]

    assert rules == ["missing-await"] * found


def test_without_sqlmodel_nobody_wants_its_session(project: Path) -> None:
    text = (
        "from sqlalchemy.ext.asyncio import async_sessionmaker\n"
        "def make(engine):\n    return async_sessionmaker(engine, expire_on_commit=False)\n"
        "async def match(session):\n    return await session.exec('a')\n"
    )
    (project / "app.py").write_text(text)
    assert told_of(project, "session-class-left-out") == []

    (project / "models.py").write_text("from sqlmodel import SQLModel\n")
    assert len(told_of(project, "session-class-left-out")) == 1


# A rule that breaks


def test_an_annotation_without_anything_in_it_breaks_nothing(project: Path) -> None:
    code = (
        "from typing import Annotated\n"
        "from sqlmodel import Field, SQLModel\n"
        "class Pen(SQLModel, table=True):\n"
        "    id: int | None = Field(default=None, primary_key=True)\n"
        "    inks: list[()]\n"
        "    name: Annotated[()]\n"
    )
    (project / "app.py").write_text(code)

    assert told_of(project) == []


def broken_rule(_project: Project, source: Source) -> Iterator[Hit]:
    if source.path.name == "app.py":
        raise IndexError("list index out of range")
    yield from ()


def broken_survey(_project: Project) -> Iterator[Hit]:
    raise KeyError("name")
    yield


@pytest.fixture
def broken(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two files with a mistake each, and rules of which one breaks on the first."""
    (project / "app.py").write_text(WAITING + "x = 1  # lint: ignore[lazy-load] once needed\n")
    (project / "other.py").write_text(WAITING)
    (project / "pyproject.toml").touch()
    rules = {name: RULES[name] for name in ("lazy-load", "blocking-call")}
    rules["lazy-load"] = rules["lazy-load"]._replace(look=broken_rule)
    monkeypatch.setattr(_lint_run, "RULES", rules)
    return project


def test_a_rule_that_breaks_is_told_and_the_others_go_on(broken: Path) -> None:
    report = run([broken], ["lazy-load", "blocking-call"])

    found = [(finding.path, finding.rule) for finding in report.findings]
    assert found == [
        ("app.py", "rule-failed"),
        ("app.py", "blocking-call"),
        ("other.py", "blocking-call"),
    ]
    failed = report.findings[0]
    assert "the rule `lazy-load` broke here: IndexError: list index out of range" in failed.what
    assert "test_lint.py:" in failed.what
    assert "report" in failed.fix
    assert "--ignore lazy-load" in failed.fix


def test_a_survey_that_breaks_is_told(broken: Path) -> None:
    rule = Rule("greenlet-left-to-luck", "references/x.md", "", survey=broken_survey)
    _lint_run.RULES[rule.name] = rule

    (failed,) = (f for f in run([broken], [rule.name]).findings if f.rule == "rule-failed")

    assert "the rule `greenlet-left-to-luck` broke here: KeyError" in failed.what


def test_a_rule_that_breaks_is_no_success(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lint.main(["--select", "lazy-load", "--format", "sarif", "."]) == 1

    (result,) = json.loads(capsys.readouterr().out)["runs"][0]["results"]
    assert (result["ruleId"], result["level"]) == ("rule-failed", "error")
    assert "rule-failed" in META


# Speed


def test_a_word_is_looked_for_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        (project / f"file_{number}.py").write_text("x = 1\n")
    asked: list[tuple[str, ...]] = []
    mentions = Source.mentions

    def counted(source: Source, *words: str) -> bool:
        asked.append(words)
        return mentions(source, *words)

    monkeypatch.setattr(Source, "mentions", counted)

    def asks(project: Project, _source: Source) -> Iterator[Hit]:
        assert not project.any_mentions("nowhere", "at all")
        assert not project.any_mentions("nowhere", "at all", tests=False)
        yield from ()

    monkeypatch.setattr(_lint_run, "RULES", {"lazy-load": RULES["lazy-load"]._replace(look=asks)})
    run([project], ["lazy-load"])

    assert asked.count(("nowhere", "at all")) == 60


# Versions


def commit_after_yield(root: Path) -> None:
    case = next(c for c in CASES if c.rule == "commit-after-the-answer" and c.found)
    case.write(root)


@pytest.mark.parametrize(
    ("path", "text", "found"),
    [
        ("requirements.txt", "fastapi==0.117.1\n", False),
        ("requirements.txt", "fastapi==0.118.0\n", True),
        ("requirements/base.txt", "# pins\nfastapi == 0.100 ; python_version > '3'\n", False),
        ("requirements.txt", "fastapi>=0.100\n", True),
        ("requirements.txt", "fastapi<0.118\n", False),
        ("pyproject.toml", '[project]\ndependencies = ["fastapi[standard]<0.110"]\n', False),
        ("uv.lock", '[[package]]\nname = "fastapi"\nversion = "0.112.0"\n', False),
        (".venv/lib/python3.12/site-packages/fastapi-0.112.0.dist-info/METADATA", "", False),
        (".venv/lib/python3.12/site-packages/fastapi-0.165.0.dist-info/METADATA", "", True),
        ("requirements.txt", "fastapi==0.117.*\n", False),
        ("requirements.txt", "fastapi==0.118.*\n", True),
        ("requirements.txt", "fastapi~=0.117.0\n", False),
        ("requirements.txt", "fastapi~=0.117.0,>=0.117.1\n", False),
        ("requirements.txt", "fastapi~=0.117\n", True),
        ("requirements.txt", "fastapi!=0.110.0\n", True),
        ("pyproject.toml", '[tool.poetry.dependencies]\nfastapi = "^0.117.1"\n', False),
        ("pyproject.toml", '[tool.poetry.dependencies]\nfastapi = "^0.118"\n', True),
        (
            "pyproject.toml",
            '[tool.poetry.group.main.dependencies]\nfastapi = {version = "0.117.*"}\n',
            False,
        ),
        ("pyproject.toml", "not toml [", True),
    ],
)
def test_versions_come_from_the_environment_or_the_pins(
    project: Path, path: str, text: str, found: bool
) -> None:
    commit_after_yield(project)
    write(project, path, text)

    assert bool(findings_of(project, "commit-after-the-answer")) is found


def test_an_interpreter_is_asked_for_its_versions(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit_after_yield(project)
    write(project, "requirements.txt", "fastapi==0.100\n")

    code = lint_it("--python", sys.executable, "--verbose", "--select=commit-after-the-answer", ".")

    assert f"versions: the interpreter {sys.executable}" in capsys.readouterr().err
    assert code == 1 if lint_version("fastapi") >= (0, 118) else code == 0


def lint_version(package: str) -> tuple[int, ...]:
    import importlib.metadata

    return tuple(int(part) for part in importlib.metadata.version(package).split(".")[:2])


def test_an_interpreter_that_does_not_answer_is_wrong_usage(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "does not tell its packages" in usage_error(capsys, "--python", "/no/python", ".")


def test_verbose_says_that_nothing_is_known(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(project, "app.py", "")

    lint_it("--verbose", ".")

    assert "the newest versions (no environment, no pins found)" in capsys.readouterr().err


# Command line


def test_a_finding_says_where_what_and_how_to_mend_it(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(project, "app.py", WAITING)

    code = lint_it("app.py")

    assert code == 1
    assert capsys.readouterr().out == (
        "app.py:5: blocking-call: `time.sleep` blocks the event loop\n"
        "    fix: the async one, or `await asyncio.to_thread(...)`; "
        "see references/best-practices.md#blocking-call\n"
        "1 problem in 1 file (1 checked)\n"
    )


def test_without_problems_the_exit_code_is_zero(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(project, "app.py", "")

    assert lint_it(".") == 0
    assert capsys.readouterr().out == "0 problems in 0 files (1 checked)\n"


def test_json_has_the_findings(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(project, "app.py", WAITING)

    lint_it("--format", "json", ".")

    answer = json.loads(capsys.readouterr().out)
    assert answer["checked"] == 1
    (finding,) = answer["findings"]
    assert (finding["path"], finding["line"], finding["rule"]) == ("app.py", 5, "blocking-call")
    assert finding.keys() == {"path", "line", "rule", "what", "fix"}


def test_sarif_is_what_code_scanning_reads(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(project, "app.py", WAITING)
    write(project, "broken.py", "def f(:\n")

    lint_it("--format", "sarif", ".")

    answer = json.loads(capsys.readouterr().out)
    (ran,) = answer["runs"]
    assert answer["version"] == "2.1.0"
    rules = [rule["id"] for rule in ran["tool"]["driver"]["rules"]]
    assert rules == ["blocking-call", "syntax-error"]
    assert [r["level"] for r in ran["results"]] == ["warning", "error"]
    first = ran["results"][0]
    assert rules[first["ruleIndex"]] == first["ruleId"] == "blocking-call"
    place = first["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": "app.py"}, "region": {"startLine": 5}}


def test_github_shows_annotations(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(project, "app, 100%.py", WAITING)

    lint_it("--format", "github", ".")

    first, last = capsys.readouterr().out.splitlines()
    where = "file=app%2C 100%25.py,line=5,title=blocking-call"
    assert first.startswith(f"::error {where}::`time.sleep` blocks the event loop%0Afix: ")
    assert last == "1 problem in 1 file (1 checked)"


def test_rules_are_selected_and_ignored(project: Path) -> None:
    write(project, "app.py", WAITING)

    assert lint_it("--select", "lazy-load,blocking-call", ".") == 1
    assert lint_it("--select", "lazy-load", ".") == 0
    assert lint_it("--ignore", "blocking-call", ".") == 0


def test_a_folder_without_python_is_refused(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "docs").mkdir()

    assert "there is no Python file in docs" in usage_error(capsys, "docs")


def test_an_unknown_rule_is_refused_with_the_valid_ones(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option in ("--select", "--ignore", "--explain"):
        error = usage_error(capsys, option, "lazy-loads", ".")
        assert "there is no rule 'lazy-loads'; did you mean lazy-load" in error
        assert "blocking-call" in error


def test_a_rule_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert lint_it("--explain", "lazy-load") == 0

    name, symptom, cause, fix, link = capsys.readouterr().out.splitlines()
    assert name == "lazy-load"
    assert symptom.startswith("Symptom: `greenlet_spawn has not been called")
    assert cause.startswith("Cause: ")
    assert fix.startswith("Fix: ")
    assert link == "See: references/relationships.md#lazy-load"


def test_all_rules_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert lint_it("--list-rules") == 0

    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == [*RULES, *META]
    assert len(RULES) >= 35


def test_wrong_usage_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert "name the files or folders" in usage_error(capsys)
    assert "there is no nowhere" in usage_error(capsys, "nowhere")
