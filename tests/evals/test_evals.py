import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
EVALS = ROOT / "evals"
TOPICS = {path.stem for path in (ROOT / "references").glob("*.md")}
RIGHT = """
import datetime as dt
from decimal import Decimal
from enum import StrEnum

from pydantic import field_validator
from snippets.models.enums_and_json import enum_by_value, json_type
from snippets.models.timestamps import Moment, UTCTimestamp
from sqlmodel import Field, SQLModel


class Status(StrEnum):
    OPEN = "open"
    PAID = "paid"


class InvoiceCreate(SQLModel):
    number: str = Field(max_length=20, unique=True)
    amount: Decimal = Field(max_digits=12, decimal_places=2)
    issued_at: Moment = Field(sa_type=UTCTimestamp)
    status: Status = Field(default=Status.OPEN, sa_type=enum_by_value(Status))
    tags: list[str] | None = Field(default=None, sa_type=json_type())


class Invoice(InvoiceCreate, table=True):
    id: int | None = Field(default=None, primary_key=True)


class InvoiceUpdate(SQLModel):
    amount: Decimal | None = Field(default=None, max_digits=12, decimal_places=2)
    tags: list[str] | None = None

    @field_validator("amount")
    @classmethod
    def _not_null(cls, value: object) -> object:
        if value is None:
            raise ValueError("may be left out, but not null")
        return value


def apply(invoice, data):
    invoice.sqlmodel_update(data.model_dump(exclude_unset=True))
"""


def load(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((EVALS / name).read_text(encoding="utf-8"))
    return content


TASKS: list[dict[str, Any]] = load("evals.json")["evals"]


def run_grade(*arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, EVALS / "grade.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"TEST_DATABASES": "sqlite", "PYTHONPATH": ""},
        check=False,
    )


def test_tasks_have_names_of_their_own_and_go_over_all_topics() -> None:
    assert len(TASKS) >= 12
    assert len({task["name"] for task in TASKS}) == len(TASKS)
    assert [task["id"] for task in TASKS] == list(range(1, len(TASKS) + 1))
    topics = {task["topic"] for task in TASKS}
    assert len(topics) >= 9
    assert topics <= TOPICS


@pytest.mark.parametrize("task", TASKS, ids=[task["name"] for task in TASKS])
def test_each_task_has_its_checks_and_its_files(task: dict[str, Any]) -> None:
    name = task["name"]
    assert "def test_" in (EVALS / "checks" / f"test_{name}.py").read_text(encoding="utf-8")
    folder = EVALS / "files" / name
    assert sorted(task["files"]) == sorted(path.name for path in folder.glob("*.py"))
    assert all(file in task["prompt"] for file in task["files"])


def test_there_are_no_checks_and_no_files_without_a_task() -> None:
    names = {task["name"] for task in TASKS}
    checked = {path.stem.removeprefix("test_") for path in (EVALS / "checks").glob("test_*.py")}
    assert checked == names
    assert {path.name for path in (EVALS / "files").iterdir()} <= names


def test_half_of_the_triggers_are_for_other_skills() -> None:
    triggers = load("triggers.json")["triggers"]
    assert load("triggers.json")["skill_name"] == load("evals.json")["skill_name"]
    assert len({trigger["request"] for trigger in triggers}) == len(triggers) == 24
    assert [trigger["use"] for trigger in triggers].count(False) == 12


def test_grade_lists_the_tasks() -> None:
    done = run_grade("--list")
    assert done.stdout.split() == [task["name"] for task in TASKS]


def test_grade_knows_a_right_solution(tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text(RIGHT)
    done = run_grade("models", tmp_path)
    *assertions, summary = done.stdout.splitlines()
    assert {line.split()[0] for line in assertions} == {"holds"}, done.stderr
    assert summary == f"{len(assertions)} of {len(assertions)} assertions hold on sqlite"
    assert done.returncode == 0


def test_grade_knows_a_wrong_solution(tmp_path: Path) -> None:
    wrong = RIGHT.replace("sa_type=json_type()", "sa_type=sa.JSON")
    (tmp_path / "models.py").write_text("import sqlalchemy as sa\n" + wrong)
    done = run_grade("models", tmp_path)
    lines = done.stdout.splitlines()
    assert "FAILS  no_tags_are_sql_null" in lines
    assert "holds  tags_come_back" in lines
    assert [line for line in lines if line.startswith("FAILS")] == ["FAILS  no_tags_are_sql_null"]
    assert done.returncode == 1


def test_grade_says_why_a_solution_can_not_be_imported(tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text("import no_such_package\n")
    done = run_grade("models", tmp_path)
    assert done.stdout == (
        "FAILS  the solution can't be imported: "
        "ModuleNotFoundError: No module named 'no_such_package'\n"
    )
    assert done.returncode == 1


@pytest.mark.parametrize("arguments", [(), ("no-such-task", "."), ("models", "no/such/folder")])
def test_grade_refuses_wrong_usage(arguments: tuple[str, ...]) -> None:
    done = run_grade(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
