import json
import os
import sys
from pathlib import Path
from textwrap import dedent

import pytest
import verify

LIBRARIES = {"sqlmodel": "0.0.50"}
REPORT = """\
<testsuites><testsuite>
<testcase classname="tests.models.test_keys" name="test_a[sqlite]">
  <properties><property name="ran" value="SQLite 3.40"/></properties></testcase>
<testcase classname="tests.models.test_keys" name="test_b[mysql]">
  <failure message="AssertionError: assert 1 == 2&#10;  and more">trace</failure></testcase>
<testcase classname="tests.models.test_columns" name="test_c"><skipped/></testcase>
<testcase classname="tests.versions.test_versions" name="test_d"/>
</testsuite></testsuites>
"""


@pytest.fixture
def report_file(tmp_path: Path) -> Path:
    path = tmp_path / "junit-latest.xml"
    path.write_text(REPORT)
    return path


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run it, expect wrong usage, and return its one line."""
    assert verify.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_results_are_told_by_page_and_heading(report_file: Path) -> None:
    report = verify.read_report([report_file], LIBRARIES)

    columns, keys, versions = report.patterns
    assert keys.place == "references/models.md#keys"
    assert (keys.passed, keys.failures) == (1, ["test_b[mysql]: AssertionError: assert 1 == 2"])
    assert (columns.place, columns.passed, columns.skipped) == (
        "references/models.md#columns",
        0,
        1,
    )
    assert versions.place == "tests/versions/test_versions.py"
    assert report.servers == {"SQLite 3.40": 1}


def test_the_lines_say_what_holds_what_does_not_and_what_did_not_run(report_file: Path) -> None:
    lines = list(verify.describe(verify.read_report([report_file], LIBRARIES)))

    assert lines == [
        "not run        references/models.md#columns",
        "DOES NOT HOLD  references/models.md#keys",
        "    test_b[mysql]: AssertionError: assert 1 == 2",
        "holds          tests/versions/test_versions.py (1 tests)",
        "",
        "SQLite 3.40: 1 tests passed",
        "sqlmodel 0.0.50",
        "1 patterns hold, 1 do not",
    ]


def test_a_failure_is_exit_code_1_and_json_has_everything(
    report_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "interpreter_of", lambda _versions: Path(sys.executable))

    assert verify.main(["--report", str(report_file), "--json"]) == 1

    (report,) = json.loads(capsys.readouterr().out)
    assert report["libraries"].keys() == set(verify.LIBRARIES)
    assert [pattern["place"] for pattern in report["patterns"]][:1] == [
        "references/models.md#columns"
    ]


def test_a_file_that_is_no_report_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "interpreter_of", lambda _versions: Path(sys.executable))
    path = tmp_path / "junit-latest.xml"
    path.write_text("no xml")

    assert "is no report of pytest" in refusal(capsys, "--report", str(path))
    assert "is no report of pytest" in refusal(capsys, "--report", str(tmp_path / "missing.xml"))


@pytest.mark.parametrize(
    ("url", "name", "variable"),
    [
        ("postgresql+asyncpg://ann:secret@host/db", "postgresql", "TEST_POSTGRESQL_URL"),
        ("postgres://ann@host", "postgresql", "TEST_POSTGRESQL_URL"),
        ("mariadb://ann@host", "mysql", "TEST_MYSQL_URL"),
    ],
)
def test_a_url_leads_the_suite_to_that_server_alone(url: str, name: str, variable: str) -> None:
    assert verify.server_environment(url) == {
        "TEST_DATABASES": name,
        "REQUIRED_DATABASES": name,
        variable: url,
    }


def test_sqlite_needs_no_server() -> None:
    assert verify.server_environment("sqlite:///any.db") == {
        "TEST_DATABASES": "sqlite",
        "REQUIRED_DATABASES": "sqlite",
    }


def test_another_database_is_refused_and_the_password_stays_hidden(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "oracle://ann:secret@host")

    line = refusal(capsys)

    assert "begins with 'oracle': use one of mariadb, mysql, postgres, postgresql, sqlite" in line
    assert "secret" not in line


def test_unknown_versions_are_refused_with_the_known(capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(capsys, "--versions", "newest")

    assert "unknown versions 'newest': use latest, sa20, floor, latest-available" in line


def test_a_missing_environment_says_what_makes_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(verify.VERSION_SETS, "floor", ".venv-nowhere")

    assert "run make verify VERSIONS=floor" in refusal(capsys, "--versions", "floor")


def test_the_newest_releases_are_asked_for_without_versions() -> None:
    names = verify.direct_requirements()

    assert {"sqlmodel", "fastapi", "pytest", "psycopg[binary]"} <= set(names)
    assert not [name for name in names if "=" in name]


def test_what_can_not_be_installed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "direct_requirements", lambda: [str(tmp_path / "no_package")])

    with pytest.raises(verify.UsageError, match="the newest releases can't be installed: "):
        verify.newest_environment(tmp_path / "venv")


def test_other_versions_than_the_pinned_are_listed(tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "latest.txt").write_text("sqlmodel==0.0.50\nfastapi==0.165.0\n")
    libraries = {"sqlmodel": "0.0.51", "fastapi": "0.165.0", "other": "1"}

    assert verify.changed_versions(libraries, tmp_path) == ["sqlmodel 0.0.50 -> 0.0.51"]


def test_the_table_of_the_readme_is_replaced(tmp_path: Path, report_file: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(
        f"# A\n\n{verify.README_HEAD}\n| --- | --- |\n| old | 1 |\n| older | 2 |\n\nB\n"
    )
    row = verify.readme_row(verify.read_report([report_file], LIBRARIES))

    verify.write_readme(path, [row])

    assert path.read_text() == (
        f"# A\n\n{verify.README_HEAD}\n| --- | --- |\n| sqlmodel 0.0.50 | SQLite 3.40: 1 |\n\nB\n"
    )
    path.write_text("# A\n")
    with pytest.raises(verify.UsageError, match="has no table that begins with"):
        verify.write_readme(path, [row])


def test_readme_without_reports_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--readme writes what --report FILE... names" in refusal(capsys, "--readme")


def test_the_suite_runs_on_the_named_database_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "sqlite:///never-made.db")
    monkeypatch.setattr(verify, "BUILD", tmp_path)
    monkeypatch.setattr(verify, "interpreter_of", lambda _versions: Path(sys.executable))
    for name in ("REQUIRED_DATABASES", "TEST_DATABASES"):
        monkeypatch.delenv(name, raising=False)

    code = verify.main(["tests/models/test_keys.py"])

    out = capsys.readouterr().out
    assert code == 0
    assert "holds          references/models.md#keys" in out
    assert "SQLite" in out
    assert "PostgreSQL" not in out
    assert not Path("never-made.db").exists()


@pytest.mark.parametrize(
    "url", ["mysql://nobody:s3cret@127.0.0.1:1/x", "postgresql://127.0.0.1:1/x"]
)
def test_a_server_that_does_not_answer_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setattr(verify, "interpreter_of", lambda _versions: Path(sys.executable))
    monkeypatch.setattr(verify, "run_suite", lambda *_given: pytest.fail("the suite was run"))

    assert verify.main([]) == 2

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("verify.py: the server of DATABASE_URL can't be used: ")
    assert "does not answer at" in line
    assert "s3cret" not in line


def test_what_does_not_hold_fails_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "test_wrong.py"
    wrong.write_text(
        dedent("""
        def test_arithmetic():
            assert 1 + 1 == 3
    """)
    )
    monkeypatch.setattr(verify, "BUILD", tmp_path)
    monkeypatch.setattr(verify, "interpreter_of", lambda _versions: Path(sys.executable))
    monkeypatch.delenv("DATABASE_URL", raising=False)

    assert verify.main([str(wrong)]) == 1

    assert "test_arithmetic: assert (1 + 1) == 3" in capsys.readouterr().out
    assert os.environ.get("DATABASE_URL") is None
