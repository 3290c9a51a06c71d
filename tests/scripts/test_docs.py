import inspect
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import _docs_fetch
import _docs_pages
import docs
import fastapi
import pydantic
import pytest
import sqlalchemy
import sqlmodel
from _docs_fetch import FetchError, fetch, may_follow, section_text
from _markdown import Document
from sqlalchemy.orm import selectinload

from tests.scripts.interpreters import make_environment
from tests.scripts.web_server import ANCHOR, MKDOCS, SPHINX, Server, web_server

ROOT = Path(docs.__file__).resolve().parent.parent
SIBLINGS = [
    path
    for name in (".venv", ".venv-sa20", ".venv-floor")
    if (path := ROOT / name / "bin" / "python").exists()
]
PYTHONS = sorted({Path(sys.executable), *SIBLINGS})
SA_LINE = "".join(sqlalchemy.__version__.split(".")[:2])


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


class Lookup:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.err = ""

    def text(self, *arguments: str, code: int = 0, python: Path | str = sys.executable) -> str:
        returned = docs.main([*arguments, "--python", str(python)])
        printed = self.capsys.readouterr()
        self.err = printed.err
        assert returned == code, printed.out + printed.err
        return printed.out

    def json(self, *arguments: str, code: int = 0, python: Path | str = sys.executable) -> Any:
        return json.loads(self.text(*arguments, "--json", code=code, python=python))

    def entry(self, name: str, python: Path | str = sys.executable) -> dict[str, Any]:
        (entry,) = self.json(name, python=python)["candidates"]
        return dict(entry)


@pytest.fixture
def lookup(capsys: pytest.CaptureFixture[str]) -> Lookup:
    return Lookup(capsys)


@pytest.fixture
def web() -> Iterator[Server]:
    with web_server() as server:
        yield server


# Names


def test_a_short_name_is_found_with_signature_source_version_and_page(lookup: Lookup) -> None:
    entry = lookup.entry("selectinload")

    file, line = inspect.getsourcefile(selectinload), inspect.getsourcelines(selectinload)[1]
    assert entry["name"] == "sqlalchemy.orm.selectinload"
    assert (entry["file"], entry["line"]) == (file, line)
    assert entry["version"] == sqlalchemy.__version__
    assert "*keys: _AttrType" in entry["signature"]
    assert entry["page"] == (
        f"https://docs.sqlalchemy.org/en/{SA_LINE}/orm/queryguide/relationships.html"
        "#sqlalchemy.orm.selectinload"
    )


def test_the_text_for_people_begins_with_where_to_read_on(lookup: Lookup) -> None:
    lines = lookup.text("selectinload").splitlines()

    assert (
        lines[0] == f"sqlalchemy.orm.selectinload (function, SQLAlchemy {sqlalchemy.__version__})"
    )
    assert re.fullmatch(r"source: .+/strategy_options\.py:\d+", lines[1])
    assert lines[2].startswith(f"page:   https://docs.sqlalchemy.org/en/{SA_LINE}/")
    assert "bundle: references/relationships.md#eager-loading" in lines
    assert any(line.startswith("    selectinload(") for line in lines)
    assert "SELECT IN eager loading." in lines


@pytest.mark.parametrize(
    ("name", "found", "page"),
    [
        (
            "sqlalchemy.orm.selectinload",
            "sqlalchemy.orm.selectinload",
            "/orm/queryguide/relationships.html#sqlalchemy.orm.selectinload",
        ),
        (
            "AsyncSession.stream_scalars",
            "sqlalchemy.ext.asyncio.AsyncSession.stream_scalars",
            "/orm/extensions/asyncio.html#sqlalchemy.ext.asyncio.AsyncSession.stream_scalars",
        ),
        ("AsyncSession.exec", "sqlmodel.ext.asyncio.session.AsyncSession.exec", "tiangolo.com/"),
        ("Field", "sqlmodel.Field", "https://sqlmodel.tiangolo.com/tutorial/create-db-and-table/"),
        ("pydantic.Field", "pydantic.Field", "/api/fields/#pydantic.fields.Field"),
        (
            "Depends",
            "fastapi.Depends",
            "https://fastapi.tiangolo.com/reference/dependencies/#fastapi.Depends",
        ),
        (
            "op.batch_alter_table",
            "alembic.op.batch_alter_table",
            "/en/latest/ops.html#alembic.operations.Operations.batch_alter_table",
        ),
        (
            "context.configure",
            "alembic.context.configure",
            "/runtime.html#alembic.runtime.environment.EnvironmentContext.configure",
        ),
        ("func.count", "sqlalchemy.sql.functions.count", "#sqlalchemy.sql.functions.count"),
        ("Column", "sqlalchemy.Column", "core/metadata.html#sqlalchemy.schema.Column"),
        ("IntegrityError", "sqlalchemy.exc.IntegrityError", "#sqlalchemy.exc.IntegrityError"),
        (
            "asyncpg.Connection.fetch",
            "asyncpg.Connection.fetch",
            "https://magicstack.github.io/asyncpg/current/api/index.html#asyncpg.connection.Connection.fetch",
        ),
        (
            "TaskGroup",
            "asyncio.TaskGroup",
            f"https://docs.python.org/3.{sys.version_info[1]}/library/asyncio-task.html#asyncio.TaskGroup",
        ),
        ("HTTPException", "fastapi.HTTPException", "/exceptions/#fastapi.HTTPException"),
        ("TypeAdapter", "pydantic.TypeAdapter", "/#pydantic.type_adapter.TypeAdapter"),
    ],
)  # fmt: skip
def test_names_of_every_kind_are_found(lookup: Lookup, name: str, found: str, page: str) -> None:
    entry = lookup.entry(name)

    assert entry["name"] == found
    assert entry["page"].endswith(page)


@pytest.mark.parametrize("python", PYTHONS, ids=lambda path: path.parts[-3])
def test_the_page_is_that_of_the_installed_version_line(lookup: Lookup, python: Path) -> None:
    code = "import sqlalchemy as s, pydantic as p; print(s.__version__, p.VERSION)"
    command = [python, "-c", code]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    sqlalchemy_line, pydantic_line = (version.split(".")[:2] for version in told)

    assert f"/en/{''.join(sqlalchemy_line)}/" in lookup.entry("selectinload", python)["page"]
    assert f"/{'.'.join(pydantic_line)}/" in lookup.entry("field_validator", python)["page"]


def test_an_unversioned_page_says_so(lookup: Lookup) -> None:
    assert "#fastapi.Depends (of its newest version)" in lookup.text("Depends")


def test_a_name_of_sqlmodel_is_meant_and_the_others_are_named(lookup: Lookup) -> None:
    found = lookup.json("select")

    assert [entry["name"] for entry in found["candidates"]] == ["sqlmodel.select"]
    assert found["also"] == ["sqlalchemy.select"]
    assert "also:   sqlalchemy.select" in lookup.text("select")


def test_an_ambiguous_name_lists_what_it_may_mean(lookup: Lookup) -> None:
    out = lookup.text("insert", code=1)

    assert out.startswith("insert is ambiguous; name one of these:\n")
    names = re.findall(r"^  (\S+)", out, re.MULTILINE)
    dialects = [f"sqlalchemy.dialects.{name}.insert" for name in ("postgresql", "mysql", "sqlite")]
    assert names == ["sqlalchemy.insert", *dialects]
    assert lookup.entry(names[-1])["name"] == names[-1]


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("selectinlod", "sqlalchemy.orm.selectinload"),
        ("sqlalchemy.orm.selectinlod", "sqlalchemy.orm.selectinload"),
        ("AsyncSession.stream_scalar", "sqlmodel.ext.asyncio.session.AsyncSession.stream_scalars"),
    ],
)
def test_an_unknown_name_lists_the_nearest(lookup: Lookup, name: str, nearest: str) -> None:
    assert f"nearest: {nearest}\n" in lookup.text(name, code=1)


@pytest.mark.parametrize("name", ["os.system", "Optional"])
def test_only_the_libraries_of_the_bundle_are_looked_into(lookup: Lookup, name: str) -> None:
    assert lookup.json(name, code=1)["candidates"] == []


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["selectinload", "--topic", "engine"],
        ["__import__('os')"],
        ["a b"],
        ["../secret"],
        ["x", "--base-url", "file:///etc"],
        ["x", "--timeout", "0"],
    ],
)
def test_wrong_usage_is_one_line_and_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        docs.main(arguments)

    printed = capsys.readouterr()
    assert stop.value.code == 2
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1


def imported(tmp_path: Path, name: str) -> set[str]:
    """The libraries that a lookup imports."""
    python = make_environment(tmp_path / "env")
    log = tmp_path / "modules"
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    (site / "watch.pth").write_text(
        "import atexit, sys; atexit.register("
        f"lambda: open({str(log)!r}, 'w').write(' '.join(sys.modules)))"
    )
    assert docs.main([name, "--python", str(python)]) == 0
    return {module for module in log.read_text().split() if "." not in module}


def test_no_more_is_imported_than_the_name_needs(tmp_path: Path) -> None:
    modules = imported(tmp_path, "selectinload")

    assert "sqlalchemy" in modules
    assert not modules & {"sqlmodel", "fastapi", "alembic", "asyncpg", "httpx", "pytest_asyncio"}


def test_a_library_that_is_not_installed_is_no_obstacle(lookup: Lookup, tmp_path: Path) -> None:
    python = make_environment(tmp_path / "env", without=("fastapi", "alembic", "aiomysql"))

    assert lookup.entry("selectinload", python)["name"] == "sqlalchemy.orm.selectinload"
    assert lookup.json("Depends", code=1, python=python)["candidates"] == []
    assert lookup.text("--topic", "migrations", python=python).startswith("topic migrations")


def test_annotations_are_shown_without_their_documentation(lookup: Lookup) -> None:
    signature = lookup.entry("Depends")["signature"]

    assert "use_cache: bool = True" in signature
    assert "Doc(" not in signature
    assert "Annotated" not in signature


def test_what_fastapi_writes_beside_parameters_comes_with_full(lookup: Lookup) -> None:
    assert "By default, after a dependency is called" not in lookup.text("Depends")
    assert "By default, after a dependency is called" in lookup.text("Depends", "--full")


def test_a_method_is_shown_without_self(lookup: Lookup) -> None:
    assert "self" not in lookup.entry("AsyncSession.get")["signature"]


@pytest.mark.parametrize("name", ["context.configure", "Field", "alembic.op"])
def test_the_output_is_bounded_and_says_what_is_left_out(lookup: Lookup, name: str) -> None:
    short = lookup.text(name).splitlines()
    full = lookup.text(name, "--full").splitlines()

    assert len(short) <= docs.MAX_LINES
    if len(full) > len(short):
        assert any("more lines with --full" in line for line in short)


def test_a_long_docstring_is_cut_and_whole_with_full(lookup: Lookup) -> None:
    doc = docs.plain_prose(lookup.entry("context.configure")["doc"]).splitlines()

    out = lookup.text("context.configure")
    assert doc[0] in out
    assert doc[-1].strip() not in out
    assert "more lines with --full)" in out
    assert doc[-1].strip() in lookup.text("context.configure", "--full")


def test_the_markup_of_docstrings_is_made_plain() -> None:
    text = "See :meth:`_orm.Session.add` or :class:`.Table`.\n\n.. index:: x\n\n:func:`~a.b.c`"

    assert docs.plain_prose(text) == "See `Session.add` or `Table`.\n\n`c`"


def test_a_module_lists_what_it_has(lookup: Lookup) -> None:
    out = lookup.text("alembic.op")

    assert "(module, Alembic " in out
    assert re.search(r"has: .*\badd_column, alter_column,", out)


def test_output_of_the_interpreter_does_not_spoil_the_answer(
    lookup: Lookup, tmp_path: Path
) -> None:
    python = make_environment(tmp_path / "env")
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    (site / "chatter.pth").write_text("import sys; print('hello')")

    assert lookup.entry("selectinload", python)["library"] == "sqlalchemy"


def test_the_json_has_a_stable_shape(lookup: Lookup) -> None:
    found = lookup.json("selectinload")

    assert list(found) == ["name", "candidates", "also", "nearest"]
    assert list(found["candidates"][0]) == [
        "name", "kind", "signature", "doc", "parameters", "file", "line", "module", "qualified",
        "library", "version", "members", "page",
    ]  # fmt: skip


# Topics


def test_every_page_of_the_bundle_is_a_topic() -> None:
    pages = [path.stem for path in (ROOT / "references").glob("*.md")]

    assert len(pages) >= 7
    assert set(pages) <= set(_docs_pages.TOPICS)


def test_every_section_that_a_topic_names_exists() -> None:
    for name, topic in _docs_pages.TOPICS.items():
        for section in topic.sections:
            page, _, anchor = section.partition("#")
            path = ROOT / "references" / page
            if path.exists():
                assert not anchor or anchor in Document(path.read_text()).anchors, (name, section)


def test_every_other_name_of_a_topic_leads_to_one() -> None:
    assert set(_docs_pages.ALIASES.values()) <= set(_docs_pages.TOPICS)
    assert not set(_docs_pages.ALIASES) & set(_docs_pages.TOPICS)


@pytest.mark.parametrize("python", PYTHONS, ids=lambda path: path.parts[-3])
def test_every_name_of_every_topic_resolves_to_one_page(python: Path) -> None:
    names = sorted({name for topic in _docs_pages.TOPICS.values() for name in topic.names})
    interpreter = docs.Interpreter(str(python), "")

    answer = docs.ask(interpreter, docs.PROBE, {"names": names}, ROOT, 300)

    assert len(names) > 60
    for name in names:
        meant, _ = docs.choose(answer[name]["candidates"])
        assert len(meant) == 1, (name, [entry["name"] for entry in meant])
        page = docs.official(meant[0], answer["versions"])
        assert page is not None, name
        assert "genindex" not in page.url, name


def test_a_topic_shows_the_bundle_first_then_the_official_pages(lookup: Lookup) -> None:
    lines = lookup.text("--topic", "eager-loading").splitlines()

    assert lines[:3] == [
        "topic eager-loading",
        "bundle: references/relationships.md#eager-loading",
        "code:   snippets/relationships/",
    ]
    assert lines[3].startswith("sqlalchemy.orm.selectinload (SQLAlchemy ")
    assert all("https://docs.sqlalchemy.org/" in line for line in lines[3:])


@pytest.mark.parametrize("asked", ["Eager_Loading", "eager loading", "lazy-loading"])
def test_a_topic_may_be_spelled_in_other_ways(lookup: Lookup, asked: str) -> None:
    assert lookup.text("--topic", asked).startswith("topic eager-loading\n")


def test_any_section_of_any_page_is_a_topic(lookup: Lookup) -> None:
    assert "custom-services" not in _docs_pages.TOPICS

    out = lookup.text("--topic", "custom services")

    assert "bundle: references/servicebase.md#custom-services" in out


def test_an_unknown_topic_lists_the_nearest(lookup: Lookup) -> None:
    assert "nearest: engine" in lookup.text("--topic", "engin", code=1)
    assert "topics: database-setup, " in lookup.text("--topic", "quuxquux", code=1)


# Pages over the network


def test_fetch_prints_the_section_of_the_anchor(lookup: Lookup, web: Server) -> None:
    out = lookup.text("selectinload", "--fetch", "--base-url", web.url)

    assert web.asked == [f"/en/{SA_LINE}/orm/queryguide/relationships.html"]
    assert "function selectinload(*keys)\n\nLoad with SELECT IN & friends.\n- one\n- two\n" in out
    assert "select(Jar)\n    .options(selectinload(Jar.lid))" in out
    for left_out in ("Not this paragraph", "Another entry", "track()", "Menu", "¶"):
        assert left_out not in out


def test_nothing_is_read_without_fetch(lookup: Lookup, web: Server) -> None:
    lookup.text("selectinload", "--base-url", web.url)
    lookup.text("--topic", "engine", "--base-url", web.url)

    assert web.asked == []


def test_a_topic_is_fetched_too(lookup: Lookup, web: Server) -> None:
    found = lookup.json("--topic", "eager-loading", "--fetch", "--base-url", web.url)

    assert found["section"].startswith("function selectinload(*keys)")


def test_a_section_of_the_other_kind_ends_with_the_next_heading(
    lookup: Lookup, web: Server
) -> None:
    web.page = MKDOCS

    section = lookup.json("Depends", "--fetch", "--base-url", web.url)["section"]

    assert section.startswith("Depends")
    assert "scope | when it ends" in section
    assert "Example" in section
    assert "Security" not in section


def test_a_redirect_on_the_same_server_is_followed(lookup: Lookup, web: Server) -> None:
    web.mode = "moved"

    assert "Load with SELECT IN" in lookup.text("selectinload", "--fetch", "--base-url", web.url)
    assert web.asked[-1] == "/moved.html"


def refused(lookup: Lookup, web: Server, *more: str) -> str:
    """The one line about a page that was not read; what is installed is shown all the same."""
    out = lookup.text("selectinload", "--fetch", "--base-url", web.url, *more, code=3)
    assert "sqlalchemy.orm.selectinload" in out
    (line,) = lookup.err.splitlines()
    assert line.startswith("docs.py: the page was not read: ")
    return line


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("loop", "redirects without end"),
        ("chain", "redirects without end"),
        ("404", "HTTP 404 Not Found"),
        ("huge", "has more than 8 MB"),
    ],
)
def test_a_page_that_is_none_is_refused(lookup: Lookup, web: Server, mode: str, said: str) -> None:
    web.mode = mode

    assert said in refused(lookup, web)
    assert len(web.asked) <= 11


@pytest.mark.parametrize("mode", ["hang", "drip"])
def test_a_server_that_does_not_come_to_an_end_is_left(
    lookup: Lookup, web: Server, mode: str
) -> None:
    web.mode = mode

    line = refused(lookup, web, "--timeout", "1")

    assert re.search(r"did not answer within 1 seconds|timed out", line)


@pytest.mark.parametrize(
    "target", ["http://localhost:1/", "https://example.com/", "ftp://127.0.0.1/"]
)
def test_a_redirect_to_another_server_is_not_followed(
    lookup: Lookup, web: Server, target: str
) -> None:
    web.mode, web.elsewhere = "elsewhere", target

    line = refused(lookup, web)

    assert "not followed" in line or "not allowed" in line


@pytest.mark.parametrize("kind", ["application/pdf", "image/png", "application/octet-stream"])
def test_what_is_no_page_of_text_is_refused(lookup: Lookup, web: Server, kind: str) -> None:
    web.kind = kind

    assert f"is {kind}, not a page of text" in refused(lookup, web)


def test_a_page_without_the_section_is_refused(lookup: Lookup, web: Server) -> None:
    web.page = SPHINX.replace(ANCHOR, "something.else")

    assert f"has no section {ANCHOR}" in refused(lookup, web)


def test_a_missing_network_is_said_plainly(lookup: Lookup) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    base = f"http://127.0.0.1:{port}"
    out = lookup.text("selectinload", "--fetch", "--base-url", base, code=3)

    assert "sqlalchemy.orm.selectinload" in out
    assert "is there a network?" in lookup.err


def test_an_unknown_host_is_a_missing_network_too() -> None:
    with pytest.raises(FetchError, match="is there a network"):
        fetch("https://no-such-host.invalid/page.html", 30)


def test_only_web_addresses_are_read() -> None:
    with pytest.raises(FetchError, match="no web address"):
        fetch("file:///etc/passwd", 5)


def test_a_fetched_page_is_bounded_unless_full(lookup: Lookup, web: Server) -> None:
    web.page = SPHINX.replace("<li>one", "<li>one" * 500)

    short = lookup.text("selectinload", "--fetch", "--base-url", web.url).splitlines()
    full = lookup.text("selectinload", "--fetch", "--base-url", web.url, "--full").splitlines()

    assert len(short) == docs.MAX_LINES
    assert short[-1].endswith("more lines with --full)")
    assert sum(line == "- one" for line in full) == 500


@pytest.mark.parametrize(
    ("target", "origin", "allowed"),
    [
        ("https://docs.sqlalchemy.org/b", "https://docs.sqlalchemy.org/a", True),
        ("https://www.sqlalchemy.org/b", "https://docs.sqlalchemy.org/a", True),
        ("http://docs.sqlalchemy.org/b", "https://docs.sqlalchemy.org/a", False),
        ("https://sqlalchemy.org.example.com/b", "https://docs.sqlalchemy.org/a", False),
        ("https://evilsqlalchemy.org/b", "https://docs.sqlalchemy.org/a", False),
        ("https://other.github.io/b", "https://magicstack.github.io/a", False),
        ("https://other.readthedocs.io/b", "https://aiomysql.readthedocs.io/a", False),
        ("http://127.0.0.1:8000/b", "http://127.0.0.1:8000/a", True),
        ("http://127.0.0.1:9000/b", "http://127.0.0.1:8000/a", False),
        ("file:///etc/passwd", "https://docs.sqlalchemy.org/a", False),
    ],
)
def test_redirects_stay_with_the_owner_of_the_page(
    target: str, origin: str, *, allowed: bool
) -> None:
    assert may_follow(target, origin) is allowed


def test_without_an_anchor_the_main_part_is_taken() -> None:
    text = section_text(SPHINX, "")

    assert text is not None
    assert text.startswith("Relationship Loading")
    assert "Another entry." in text
    assert "Menu" not in text


def test_a_broken_page_of_any_depth_is_read() -> None:
    text = section_text("<div>" * 50_000 + "deep" + "</p>" * 10, "")

    assert text == "deep"


def test_a_mirror_gets_the_path_of_the_official_page() -> None:
    moved = _docs_fetch.moved_to("https://docs.sqlalchemy.org/en/21/a.html#b", "http://h:1/ignored")

    assert moved == "http://h:1/en/21/a.html#b"


def test_the_libraries_of_these_tests_are_those_that_are_looked_up(lookup: Lookup) -> None:
    for name, version in (
        ("sqlmodel.Field", sqlmodel.__version__),
        ("fastapi.Depends", fastapi.__version__),
        ("pydantic.Field", pydantic.VERSION),
    ):
        assert lookup.entry(name)["version"] == version


def test_the_readme_names_every_host() -> None:
    scripts = Path(docs.__file__).parent
    sources = [path.read_text() for path in scripts.glob("*.py")]
    hosts = {host for text in sources for host in re.findall(r"https://([\w.-]+)/", text)}
    readme = (scripts.parent / "README.md").read_text()

    assert "docs.sqlalchemy.org" in hosts
    assert [host for host in sorted(hosts) if host not in readme] == []
