import asyncio
import gc
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import bench
import pytest
from servers import KINDS, Server
from sqlmodel.ext.asyncio.session import AsyncSession

# Statements of ours and of the hand-written side, the same on all three databases.
STATEMENTS = {
    "get": (1, 1),
    "list": (1, 1),
    "list with children": (2, 2),
    "count": (1, 1),
    "exists": (1, 1),
    "first offset page": (2, 2),
    "deep offset page": (2, 2),
    "first cursor page": (1, 1),
    "deep cursor page": (1, 1),
    "deep/first cursor page": (1, 1),
    "deep/first offset page": (2, 2),
    "create": (1, 1),
    "create in a savepoint": (1, 1),
    "create many": (1, 1),
    "update": (2, 2),
    "update by RETURNING": (2, 1),
    "update where": (1, 1),
    "upsert many": (1, 1),
    "delete where": (1, 1),
    "stream": (1, 1),
}
WITHOUT_UPDATE_RETURNING = {"update by RETURNING": (2, 2)}  # MariaDB
CONTAINED = {"create", "create in a savepoint", "create many", "upsert many"}
GET, CREATE = (next(o for o in bench.OPERATIONS if o.name == n) for n in ("get", "create"))


@pytest.fixture(autouse=True)
def unfrozen() -> Any:
    yield
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def quick(*arguments: str) -> int:
    return bench.main(["--rows", "500", "--rounds", "2", *arguments])


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the bench, expect wrong usage, and return its one line."""
    try:
        returned = bench.main(arguments)
    except SystemExit as stop:
        returned = stop.code
    (line,) = capsys.readouterr().err.splitlines()
    assert returned == 2
    return line


def only(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Leave one operation, `get` with some changes."""
    monkeypatch.setattr(bench, "OPERATIONS", (replace(GET, **changes),))


# From end to end


def test_all_operations_are_measured_and_both_sides_send_the_expected_statements(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = next(name for name, kind in KINDS.items() if isinstance(server, kind))
    file = tmp_path / "new" / "bench.json"

    assert quick("--database", name, "--json", str(file)) == 0

    expected = STATEMENTS | (WITHOUT_UPDATE_RETURNING if name == "mysql" else {})
    content = json.loads(file.read_text())
    assert (content["rows"], content["rounds"]) == (500, 2)
    assert {"sqlmodel", "sqlalchemy"} < content["libraries"].keys()
    (database,) = content["databases"]
    assert (database["name"], database["version"]) == (name, server.version)
    measured = {one["operation"]: one for one in database["operations"]}
    counts = {n: (o["statements"]["ours"], o["statements"]["theirs"]) for n, o in measured.items()}
    assert counts == expected
    assert {n for n, o in measured.items() if o["savepoints"]["ours"]} == CONTAINED
    for one in measured.values():
        assert one["ratio"] > 0
        assert len(one["spread"]) == 2
        assert one["microseconds"].keys() == {"ours", "theirs"}
        assert one["goal"].keys() == {"ratio", "statements"}
        assert one["verdict"] in {"met", "MISSED", "no goal"}
    assert database["memory"]["rows"] == 1000
    assert database["memory"]["ours"] > 0
    shown = capsys.readouterr().out
    for operation, (ours, theirs) in expected.items():
        assert any(
            [cell.strip() for cell in line.split("|")][:2] == [operation, f"{ours}/{theirs}"]
            for line in shown.splitlines()
        )
    (stream,) = (line for line in shown.splitlines() if line.startswith("stream of 1000 rows"))
    assert stream.endswith("by hand: no goal")


def test_chosen_operations_alone_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert quick("--database", "sqlite", "--operation", "get", "--operation", "count") == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[0].strip() for line in lines[3:]] == ["get", "count"]


def test_a_database_that_is_not_there_is_left_out_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TEST_MYSQL_URL", raising=False)
    monkeypatch.setattr(bench, "NAMES", ("sqlite", "mysql"))

    assert quick("--operation", "get") == 0

    shown = capsys.readouterr()
    assert "SQLite" in shown.out
    assert "mysql is left out: TEST_MYSQL_URL is not set" in shown.err
    assert "no mysql: TEST_MYSQL_URL is not set" in refusal(capsys, "--database", "mysql")


# Verdicts


@pytest.mark.parametrize(("strict", "code"), [([], 0), (["--strict"], 1)])
def test_a_missed_goal_counts_only_where_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    strict: list[str],
    code: int,
) -> None:
    only(monkeypatch, goal=bench.Goal(statements=0))

    assert quick("--database", "sqlite", "--operation", "get", *strict) == code

    assert "| 0 stmt | MISSED" in capsys.readouterr().out


def test_strict_agrees_when_all_goals_are_met(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, goal=bench.Goal(ratio=1000, statements=1))

    assert quick("--database", "sqlite", "--operation", "get", "--strict") == 0


@pytest.mark.parametrize(
    ("ratio", "statements", "met"),
    [(1.1, 2, True), (1.104, 2, True), (1.106, 2, False), (1, 3, False)],
)
def test_a_goal_is_compared_with_the_ratio_as_it_is_printed(
    ratio: float, statements: int, met: bool
) -> None:
    assert bench.Goal(ratio=1.1, statements=2).is_met(ratio, statements) is met


@pytest.mark.parametrize(("all_rows", "verdict"), [(2.3, "met"), (4.0, "MISSED")])
def test_memory_that_grows_with_the_rows_misses_its_goal(all_rows: float, verdict: str) -> None:
    memory = bench.Memory(200_000, ours=all_rows, for_a_tenth=bench.Both(2, 2))

    assert memory.verdict == verdict
    assert bench.Report("sqlite", "SQLite 3", [], memory).missed is (verdict == "MISSED")


# Fairness


def test_sides_that_return_different_values_are_not_compared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def get_another(session: AsyncSession, key: int) -> bench.Wagon:
        return await bench.get_by_hand(session, key + 1)

    only(monkeypatch, theirs=get_another)

    assert quick("--database", "sqlite", "--operation", "get") == 1

    assert "get: the sides differ" in capsys.readouterr().err


def test_sides_that_write_different_values_are_not_compared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def get_and_write(session: AsyncSession, key: int) -> bench.Wagon:
        await bench.update_where_by_hand(session, "depot 1")
        return await bench.get_by_hand(session, key)

    only(monkeypatch, theirs=get_and_write)

    assert quick("--database", "sqlite", "--operation", "get") == 1

    assert "get: the sides differ" in capsys.readouterr().err


def test_what_a_side_leaves_behind_is_noticed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def get_and_commit(session: AsyncSession, key: int) -> bench.Wagon:
        await bench.update_where_by_hand(session, "depot 1")
        await session.commit()
        return await bench.get_by_hand(session, key)

    only(monkeypatch, ours=get_and_commit, theirs=get_and_commit, value=None)

    assert quick("--database", "sqlite", "--operation", "get") == 1

    assert "has left something behind" in capsys.readouterr().err


def test_a_round_takes_turns_without_garbage_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[tuple[str, int, bool]] = []

    def side(name: str) -> bench.Side:
        async def run(_session: AsyncSession, key: int) -> None:
            turns.append((name, key, gc.isenabled()))

        return run

    only(monkeypatch, ours=side("A"), theirs=side("B"), value=None, calls=2, given=lambda _d, n: n)
    server = KINDS["sqlite"]()
    try:
        asyncio.run(bench.measure(server, ["get"], rows=500, rounds=2))
    finally:
        server.close()

    timed = [(name, key) for name, key, collecting in turns if not collecting]
    first = [(name, key) for name in "ABBA" for key in (0, 1)]
    assert timed == [*first, *((name, key + 2) for name, key in first)]


def test_the_same_wagon_comes_for_the_same_number_and_half_of_them_have_a_null() -> None:
    data = bench.Data(rows=100, train_ids=[1, 2])

    assert data.new_wagons(5, 1) == data.new_wagons(0, 10)[5:6]
    assert [wagon.remark is None for wagon in data.new_wagons(0, 4)] == [True, False] * 2


# Wrong usage


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--database", "oracle"], "choose from"),
        (["--operation", "dance"], "list with children"),
        (["--rows", "499"], "'499' is no whole number from 500 on"),
        (["--rounds", "0"], "'0' is no whole number from 1 on"),
        (["--rounds", "-1"], "is no whole number"),
        (["--colour"], "unrecognized arguments: --colour"),
    ],
)
def test_wrong_usage_is_answered_with_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert message in refusal(capsys, *arguments)
