import os
from pathlib import Path

import _scaffold_code
import _scaffold_project
import pytest
from _scaffold_names import UsageError


def write(folder: Path, *names: str, pyproject: str = "") -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    if pyproject:
        (folder / "pyproject.toml").write_text(pyproject)


def message(folder: Path, package: str | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        _scaffold_project.detect(folder, package)
    return str(caught.value)


# The package


@pytest.mark.parametrize(
    ("files", "pyproject", "expected"),
    [
        (["shop/__init__.py", "tests/__init__.py", "docs/conf.py"], "", ("", "shop")),
        (["src/shop/__init__.py"], "", ("src", "shop")),
        (["src/__init__.py", "src/shop/__init__.py"], "", ("", "src")),
        (["shop/main.py", "scripts/x.py"], "", ("", "shop")),
        (["a/__init__.py", "my_shop/__init__.py"], '[project]\nname = "My.Shop"', ("", "my_shop")),
        (
            ["lib/shop/__init__.py"],
            '[tool.setuptools.packages.find]\nwhere = ["lib"]',
            ("lib", "shop"),
        ),
        (
            ["py/shop/__init__.py"],
            '[tool.hatch.build.targets.wheel]\npackages = ["py/shop"]',
            ("py", "shop"),
        ),
        (
            ["py/shop/__init__.py"],
            '[[tool.poetry.packages]]\ninclude = "shop"\nfrom = "py"',
            ("py", "shop"),
        ),
        (
            ["py/shop/__init__.py"],
            '[tool.uv.build-backend]\nmodule-root = "py"',
            ("py", "shop"),
        ),
        (["shop/__init__.py"], "[tool.setuptools]\npackages = ['shop']", ("", "shop")),
    ],
)
def test_the_package_is_found(
    tmp_path: Path, files: list[str], pyproject: str, expected: tuple[str, str]
) -> None:
    write(tmp_path, *files, pyproject=pyproject)

    project = _scaffold_project.detect(tmp_path)

    assert (project.source, project.package) == expected


def test_several_packages_are_listed_and_one_may_be_named(tmp_path: Path) -> None:
    write(tmp_path, "shop/__init__.py", "src/store/__init__.py", "tests/__init__.py")

    assert "has several packages: choose one of store, shop with --package" in message(tmp_path)
    assert _scaffold_project.detect(tmp_path, "shop").source == ""
    assert _scaffold_project.detect(tmp_path, "store.data").source == "src"


@pytest.mark.parametrize(
    ("package", "expected"),
    [
        ("stroe", "has no package stroe: choose one of shop"),
        ("../x", "is no name for an import"),
        ("shop.", "is no name for an import"),
        ("", "is no name for an import"),
    ],
)
def test_a_package_that_is_not_there_is_refused(
    tmp_path: Path, package: str, expected: str
) -> None:
    write(tmp_path, "shop/__init__.py")

    assert expected in message(tmp_path, package)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("fastapi", "would hide a library"),
        ("tenacity", "would hide a library"),
        ("json", "the standard library"),
    ],
)
def test_a_package_that_hides_a_library_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    write(tmp_path, f"{name}/__init__.py")

    assert reason in message(tmp_path)


def test_a_project_of_plain_modules_gets_a_package(tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text("")

    project = _scaffold_project.detect(tmp_path)
    assert (project.source, project.package) == ("", "data_layer")
    assert _scaffold_project.detect(tmp_path, "shop").package == "shop"

    (tmp_path / "src").mkdir()
    assert _scaffold_project.detect(tmp_path).source == "src"


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "there is no folder" in message(tmp_path / "gone")


def test_a_project_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "shop/__init__.py", pyproject="[project")

    assert "pyproject.toml: " in message(tmp_path)


def test_a_source_folder_is_never_outside(tmp_path: Path) -> None:
    write(tmp_path, "other/shop/__init__.py")
    here = tmp_path / "here"
    write(
        here,
        "x/y",
        pyproject='[tool.setuptools.packages.find]\nwhere = ["../other", "x/../../other"]',
    )

    assert _scaffold_project.detect(here).source == ""
    assert _scaffold_project.detect(here).package == "data_layer"


# Requirements


def test_requirements_are_found_wherever_they_are_written(tmp_path: Path) -> None:
    write(
        tmp_path,
        "shop/__init__.py",
        pyproject="""
[project]
dependencies = ["a>=1"]
[project.optional-dependencies]
dev = ["b"]
[dependency-groups]
test = ["c", {include-group = "dev"}]
[tool.poetry.dependencies]
python = "^3.11"
d = {version = "^2", extras = ["asyncio"]}
[tool.poetry.group.dev.dependencies]
e = "*"
""",
    )
    (tmp_path / "requirements.txt").write_text("f==1 # why\n\n# g\n-r other.txt\n")

    found = {*_scaffold_project.detect(tmp_path).requirements}

    assert found == {"a>=1", "b", "c", "python", "d[asyncio]", "e", "f==1 # why"}


# The code


def found_in(tmp_path: Path, source: str) -> set[tuple[str, str]]:
    (tmp_path / "shop").mkdir(exist_ok=True)
    (tmp_path / "shop" / "db.py").write_text(source)
    modules = _scaffold_code.parsed_modules(tmp_path, "")
    return {(found.kind, found.name) for found in _scaffold_code.existing(modules)}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("engine = create_async_engine(url)", {("engine", "shop.db.engine")}),
        ("e: AsyncEngine = sa.create_async_engine(url)", {("engine", "shop.db.e")}),
        ("def make():\n    return create_async_engine(url)", {("engine", "shop.db.make")}),
        ("f = async_sessionmaker(e)", {("session factory", "shop.db.f")}),
        (
            "class Database:\n    def __init__(self):\n        self.f = async_sessionmaker(e)",
            {("session factory", "shop.db.Database")},
        ),
        ("async def get_db(): ...", {("session dependency", "shop.db.get_db")}),
        (
            "SessionDep = Annotated[AsyncSession, Depends(x)]",
            {("session dependency", "shop.db.SessionDep")},
        ),
        ("class B(DeclarativeBase): ...", {("base class", "shop.db.B")}),
        ("class B(SQLModel):\n    metadata = MetaData()", {("base class", "shop.db.B")}),
        (
            "class B(SQLModel): ...\nclass T(B, table=True): ...",
            {("base class", "shop.db.B")},
        ),
        ("class B(SQLModel): ...\nclass Read(B): ...", set()),
        ("class T(SQLModel, table=True): ...", set()),
        ("engine = create_engine(url)\nfactory = sessionmaker(engine)", set()),
    ],
)
def test_what_a_project_has_is_found(
    tmp_path: Path, source: str, expected: set[tuple[str, str]]
) -> None:
    assert found_in(tmp_path, source) == expected


def test_what_python_warns_of_is_read_and_said_by_others(tmp_path: Path) -> None:
    source = 'engine = create_async_engine("\\d")'

    assert found_in(tmp_path, source) == {("engine", "shop.db.engine")}


def test_what_cannot_be_read_as_python_hides_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "deep.py").write_text("x = a" + ".b" * 20_000)
    (folder / "latin.py").write_bytes(b'NAME = "caf\xe9"\n')
    (folder / "nul.py").write_bytes(b"NAME = 1\0\n")
    os.mkfifo(folder / "pipe.py")

    assert found_in(tmp_path, "engine = create_async_engine(url)") == {("engine", "shop.db.engine")}
