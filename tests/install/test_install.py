"""Each way to install the skill, as README.md writes it, in a home of its own.

What needs no network always runs: clone, release, and the scripts of the release with a bare
Python. The installers of others come from npm, at the versions in `NPM`, and run only when asked
for; they need npm, and write nothing outside the temporary folder of the tests:

    INSTALL_ROUTES=1 .venv/bin/python -m pytest tests/install
"""

import ast
import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.install.routes import (
    NAME,
    Home,
    Published,
    bare_python,
    contents,
    install_lines,
    make_home,
    publish,
)

NPM = (
    "node@22.23.3",  # the two below need 22.20, whatever the machine has
    "skills@1.7.4",
    "@anthropic-ai/claude-code@2.1.332",
    "skill-check@1.2.0",
)
NO_NETWORK = ("ENOTFOUND", "EAI_AGAIN", "ETIMEDOUT", "ECONNREFUSED", "ECONNRESET", "ENETUNREACH")
# A release carries these and nothing else: what an agent or its user reads or runs.
RELEASED = {
    ".claude-plugin", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "SKILL.md",
    "pyproject.toml", "references", "requirements", "scripts", "snippets", "templates",
}  # fmt: skip


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    return publish(tmp_path_factory.mktemp("published"))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path / "home")


@pytest.fixture
def clone(published: Published, home: Home) -> Path:
    home.run("git", "clone", "--quiet", published.url, NAME)
    return home.work / NAME


def test_the_readme_has_a_command_for_each_way() -> None:
    assert all(install_lines(way) for way in ("git clone", "npx skills add", "claude plugin"))


# A clone


@pytest.mark.parametrize("line", install_lines("git clone"))
def test_a_clone_lies_where_agents_look_under_the_name_of_the_skill(
    published: Published, home: Home, line: str
) -> None:
    home.shell(line.replace("REPOSITORY", published.url))

    (skill,) = [path.parent for path in home.folder.rglob("SKILL.md")]
    assert skill.parts[-3:] in {(".claude", "skills", NAME), (".agents", "skills", NAME)}
    assert f"\nname: {skill.name}\n" in (skill / "SKILL.md").read_text(encoding="utf-8")
    assert contents(skill).keys() >= contents(published.release).keys()


def test_a_clone_stays_clean_when_its_scripts_run(clone: Path, home: Home) -> None:
    home.run(*bare_python(), clone / "scripts/scaffold.py", "list")
    assert list(clone.rglob("*.pyc"))

    assert home.run("git", "-C", clone, "status", "--porcelain") == ""


# A release


def test_a_release_holds_what_is_used_and_nothing_of_its_making(published: Published) -> None:
    assert {path.name for path in published.release.iterdir()} == RELEASED


def test_a_release_leaves_out_no_page_no_snippet_and_no_template(
    published: Published, clone: Path
) -> None:
    for folder in ("references", "snippets", "templates"):
        assert contents(published.release / folder) == contents(clone / folder)


def test_a_release_writes_the_application_that_a_clone_writes(
    published: Published, clone: Path, home: Home
) -> None:
    for name, skill in (("released", published.release), ("cloned", clone)):
        scaffold = [*bare_python(), skill / "scripts/scaffold.py"]
        home.run(*scaffold, "app", name, "--package", "shop", "--database", "postgresql")
        home.run(*scaffold, "add", "models/soft_delete", name)

    released = contents(home.work / "released")
    assert released == contents(home.work / "cloned")
    assert "shop/model_parts/soft_delete.py" in released
    for path, text in released.items():
        if path.endswith(".py"):
            ast.parse(text, path)


def test_the_linter_of_a_release_finds_the_mistakes_and_nothing_in_an_application(
    published: Published, home: Home
) -> None:
    scripts = published.release / "scripts"
    home.run(*bare_python(), scripts / "scaffold.py", "app", "shop")
    mistakes = published.release / "snippets/relationships/mistakes.py"

    found = home.run(*bare_python(), scripts / "lint.py", mistakes, ends_with=1)

    assert "references/relationships.md#" in found
    home.run(*bare_python(), scripts / "lint.py", "shop")


def test_the_doctor_of_a_release_says_what_a_project_lacks(
    published: Published, home: Home
) -> None:
    venv.create(home.work / ".venv", symlinks=True)

    said = home.run(*bare_python(), published.release / "scripts/doctor.py", home.work, ends_with=1)

    assert "SQLModel is not installed" in said
    assert f"{Path('.venv/bin/python')} -m pip install 'sqlmodel" in said


def test_the_documentation_of_a_release_comes_from_the_named_interpreter(
    published: Published, home: Home
) -> None:
    docs = [*bare_python(), published.release / "scripts/docs.py"]

    said = home.run(*docs, "selectinload", "--python", sys.executable)

    assert "sqlalchemy.orm" in said
    assert "references/async-operations.md" in home.run(*docs, "--topic", "upsert")


# Installers of others


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the installers, removed afterwards: it holds half a gigabyte."""
    if os.environ.get("INSTALL_ROUTES") != "1":
        pytest.skip("INSTALL_ROUTES=1 is not set: installers from npm are not fetched")
    if not shutil.which("npm"):
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("tools")
    # The user's registry, proxy and certificates count; their home and caches do not.
    variables = {
        "HOME": str(folder),
        "npm_config_cache": str(folder / "cache"),
        "npm_config_prefix": str(folder),
    }
    command = ["npm", "install", "--global", "--no-audit", "--no-fund", *NPM]
    ended = subprocess.run(
        command, env=os.environ | variables, cwd=folder, capture_output=True, text=True, check=False
    )
    try:
        if any(code in ended.stderr for code in NO_NETWORK):
            pytest.skip(f"npm does not reach its registry: {ended.stderr.strip().splitlines()[-1]}")
        assert ended.returncode == 0, ended.stderr
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def user(tools: Path, tmp_path: Path) -> Home:
    """A home whose commands are the installers; npx finds them there and fetches nothing."""
    variables = {
        "npm_config_prefix": str(tools),
        "npm_config_cache": str(tmp_path / "cache"),
        "npm_config_offline": "true",
        "DO_NOT_TRACK": "1",
        "DISABLE_AUTOUPDATER": "1",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    return make_home(tmp_path / "user", tools / "bin", **variables)


@pytest.fixture
def cloned(published: Published, user: Home) -> Path:
    user.run("git", "clone", "--quiet", published.url, NAME)
    return user.work / NAME


def installed(home: Home, clone: Path) -> set[Path]:
    return {path.parent for path in home.folder.rglob("SKILL.md")} - {clone}


@pytest.mark.parametrize("line", install_lines("npx skills add"))
def test_the_skills_installer_takes_a_clone(user: Home, cloned: Path, line: str) -> None:
    assert "Installed 1 skill" in user.shell(line)

    (skill,) = installed(user, cloned)
    assert skill.parts[-2:] == ("skills", NAME)
    assert contents(skill) == contents(cloned)


def test_the_skills_installer_shares_one_copy_between_agents(
    published: Published, user: Home, cloned: Path
) -> None:
    user.run("npx", "skills", "add", published.url, "-a", "codex", "claude-code", "-y")

    assert installed(user, cloned) == {user.work / ".agents/skills" / NAME}
    assert (user.work / ".claude/skills" / NAME).readlink().is_absolute() is False
    assert contents(user.work / ".claude/skills" / NAME) == contents(cloned)


@pytest.mark.parametrize("line", install_lines("claude plugin"))
def test_the_plugin_brings_the_one_skill(user: Home, cloned: Path, line: str) -> None:
    user.shell(line)

    plugins = json.loads(user.run("claude", "plugin", "list", "--json"))
    (plugin,) = [plugin for plugin in plugins if plugin["id"] == f"{NAME}@{NAME}"]
    manifest = json.loads((cloned / ".claude-plugin/plugin.json").read_text(encoding="utf-8"))
    assert (plugin["version"], plugin["enabled"]) == (manifest["version"], True)
    assert contents(Path(plugin["installPath"])) == contents(cloned)
    assert f"Skills (1)  {NAME}" in user.run("claude", "plugin", "details", NAME)


def test_the_manifests_pass_the_validator_of_their_vendor(
    published: Published, user: Home, cloned: Path
) -> None:
    for skill in (cloned, published.release):
        report = json.loads(user.run("claude", "plugin", "validate", "--strict", "--json", skill))

        assert report["success"]
        assert report["manifest"]["errors"] == report["manifest"]["warnings"] == []
        assert report["provides"]["skills"] == [f"{NAME}:{NAME}"]


def test_a_release_has_the_highest_score_of_skill_check(published: Published, user: Home) -> None:
    options = ("--no-security-scan", "--format", "json")

    report = json.loads(user.run("skill-check", "check", published.release, *options))

    assert report["diagnostics"] == []
    assert [skill["score"] for skill in report["scores"]] == [100]
