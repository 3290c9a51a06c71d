# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""Write a tested async data layer: a new application, or patterns into one that exists."""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from _command import Parser
from _command import run as run_command
from _scaffold_add import Addition, add_patterns
from _scaffold_app import (
    DATABASES,
    PARTS,
    app_files,
    call_lines,
    chosen_parts,
    next_commands,
    table_steps,
)
from _scaffold_imports import TEMPLATE_PACKAGE
from _scaffold_names import (
    ROOT,
    TemplateError,
    UsageError,
    all_patterns,
    explanations,
    summary,
    topics,
)
from _scaffold_writing import Change, check_empty, destination, planned_changes, write_files

__all__ = [
    "DATABASES",
    "PARTS",
    "ROOT",
    "TEMPLATE_PACKAGE",
    "TemplateError",
    "UsageError",
    "add_patterns",
    "app_files",
    "main",
    "scaffold_app",
    "write_files",
]

APP_HELP = "a complete application"
ADD_HELP = "patterns and what they import, into a project that exists"
LIST_HELP = "the parts of the application, and all patterns"

EPILOG = """\
examples:
  python scripts/scaffold.py app ../shop --package shop --database postgresql
  python scripts/scaffold.py app ../worker --with migrations,tests --dry-run
  python scripts/scaffold.py add servicebase/service async-operations/locking ../shop

exit codes: 0 written (or would be, or nothing to do), 1 the files could not be written,
2 wrong usage or refused, and nothing was written
"""


@dataclass(frozen=True)
class Report:
    """What `app` did; its fields are the keys of --json."""

    dest: str
    package: str
    database: str
    parts: list[str]
    dry_run: bool
    files: list[Change]
    install: list[str]
    next: list[str]
    add_a_table: list[str]
    call: list[str]


# Commands


def install_commands(dest: Path) -> list[str]:
    return [
        shlex.join(["cd", str(dest)]),
        "python3 -m venv .venv",
        ".venv/bin/pip install -e '.[dev]'",
    ]


def more_calls(dest: Path) -> str:
    command = shlex.join(["scaffold.py", "add", "servicebase/service", str(dest), "--dry-run"])
    return f"all signatures of a part, also of one that you may add: {command}"


def scaffold_app(
    dest: Path,
    package: str,
    database: str,
    parts: Collection[str] = tuple(PARTS),
    *,
    force: bool = False,
    dry_run: bool = False,
) -> Report:
    """Write the application.

    Raises:
        UsageError: nothing was written, because what is asked for can't be done.
        OSError: nothing was written, because the system refused.
    """
    files = app_files(package, database, parts)
    if not force:
        check_empty(dest)
    changes = planned_changes(dest, files)
    todo = {change.path: files[change.path] for change in changes if change.action != "unchanged"}
    if todo and not dry_run:
        write_files(dest, todo)
    return Report(
        dest=str(dest),
        package=package,
        database=database,
        parts=[*parts],
        dry_run=dry_run,
        files=changes,
        install=install_commands(dest),
        next=list(next_commands(package, database, parts)),
        add_a_table=list(table_steps(package, parts)),
        call=[*call_lines(files, package), more_calls(dest)],
    )


def describe_files(report: Report | Addition) -> Iterator[str]:
    """Yield what happened to which file, for people."""
    by_action = {
        action: [change.path for change in report.files if change.action == action]
        for action in ("create", "overwrite", "keep", "unchanged")
    }
    if report.dry_run:
        yield from (f"would {c.action}: {c.path}" for c in report.files if c.action != "unchanged")
    else:
        yield from (f"overwritten: {path}" for path in by_action["overwrite"])
        yield from (f"kept: {path}" for path in by_action["keep"])
    verb = "would write" if report.dry_run else "wrote"
    count = len(by_action["create"]) + len(by_action["overwrite"])
    same = f", {len(by_action['unchanged'])} unchanged" if by_action["unchanged"] else ""
    yield f"{verb} {count} files{same}: {report.dest}"


def describe_app(report: Report) -> Iterator[str]:
    yield from describe_files(report)
    if not report.dry_run:
        yield from _block("install", report.install)
        yield from _block("next", report.next)
        yield from _block("add a table", report.add_a_table)
        yield from _block("call", report.call)


def describe_addition(report: Addition) -> Iterator[str]:
    if not report.dry_run:
        created = [c.path for c in report.files if c.action == "create"]
        for folder, paths in groupby(created, key=lambda path: path.rpartition("/")[0]):
            names = " ".join(path.rpartition("/")[2] for path in paths)
            yield f"created: {folder or '.'}/: {names}"
    yield from describe_files(report)
    yield from _block(
        "the project has these; give them to the pattern, and make no second ones",
        [f"{found.kind}: {found.name} ({found.path}:{found.line})" for found in report.existing],
    )
    yield from _block(
        "of the example, to be replaced by your own", [_example(e) for e in report.examples]
    )
    yield from _block("left out, an example of the use", report.left_out)
    yield from _block("install, and add to the project's requirements", report.install)
    yield from _block("use", report.imports)
    yield from _block("which is", report.api)
    yield from _block("know", report.notes)
    yield from _block("next", report.next)
    yield from _block("the whole page", report.read)


def _example(example: Any) -> str:
    tables = f"tables {', '.join(example.tables)}" if example.tables else ""
    about = f"written for them: {', '.join(example.used_by)}" if example.used_by else ""
    return f"{example.path}: {'; '.join(filter(None, [tables, about]))}"


def _block(title: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield from ("", f"{title}:", *(f"  {line}" for line in lines))


def show(report: Report | Addition, lines: Iterator[str], *, as_json: bool) -> None:
    print("\n".join([json.dumps(asdict(report), indent=2)] if as_json else lines))


def run_app(arguments: argparse.Namespace) -> int:
    report = scaffold_app(
        destination(arguments.dest),
        arguments.package,
        arguments.database,
        chosen_parts(arguments.parts),
        force=arguments.force,
        dry_run=arguments.dry_run,
    )
    show(report, describe_app(report), as_json=arguments.json)
    return 0


def run_add(arguments: argparse.Namespace) -> int:
    names, dest = patterns_and_destination(arguments.names)
    report = add_patterns(
        destination(dest),
        names,
        arguments.package,
        force=arguments.force,
        keep=arguments.keep,
        dry_run=arguments.dry_run,
    )
    show(report, describe_addition(report), as_json=arguments.json)
    return 0


def patterns_and_destination(names: Sequence[str]) -> tuple[Sequence[str], str]:
    """Take the last name for a folder, unless it names a pattern or looks as if it should."""
    *patterns, last = names
    word = last.removeprefix("snippets/").replace("-", "_").split("/")[0]
    misspelt = "/" in last and last[0] not in "./~" and not Path(last).is_dir()
    if not patterns or word in topics() or misspelt:
        return names, "."
    return patterns, last


def run_list(arguments: argparse.Namespace) -> int:
    named = [(name, *name.split("/")) for name in all_patterns()]
    if arguments.json:
        app = {
            "databases": list(DATABASES),
            "parts": PARTS,
            "files": list(app_files(TEMPLATE_PACKAGE, "sqlite")),
        }
        patterns = [
            {"name": name, "summary": summary(topic, word), "read": explanations(topic, word)[0]}
            for name, topic, word in named
        ]
        print(json.dumps({"app": app, "patterns": patterns}, indent=2))
    else:
        print(f"app: a data layer on {', '.join(DATABASES)}; --with chooses from")
        width = max(len(name) for name, *_ in named)
        print("\n".join(f"  {name:{width}}  {what}" for name, what in PARTS.items()))
        print("add:")
        print("\n".join(f"  {name:{width}}  {summary(topic, word)}" for name, topic, word in named))
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="scaffold.py",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    app = commands.add_parser("app", help=APP_HELP, description=f"Write {APP_HELP}.")
    app.add_argument("dest", metavar="DEST", help="a folder that is empty or does not exist")
    app.add_argument("--package", default="app", help="its Python package (default: app)")
    app.add_argument(
        "--database",
        default="sqlite",
        help=f"{', '.join(DATABASES)}, or several with commas, the usual one first"
        " (default: sqlite)",
    )
    app.add_argument(
        "--with",
        dest="parts",
        metavar="PARTS",
        default=",".join(PARTS),
        help=f"some of {','.join(PARTS)}, or none (default: all)",
    )
    app.add_argument(
        "--force", action="store_true", help="overwrite the scaffold's own files, and list them"
    )
    _add_common(app)
    app.set_defaults(run=run_app)
    add = commands.add_parser("add", help=ADD_HELP, description=f"Write {ADD_HELP}.")
    add.add_argument(
        "names",
        metavar="TOPIC/PATTERN ... [DEST]",
        nargs="+",
        help="some of those that `list` names, and the project (default: .)",
    )
    add.add_argument("--package", help="where in it, as an import: shop, or shop.data")
    either = add.add_mutually_exclusive_group()
    either.add_argument("--keep", action="store_true", help="leave files that differ as they are")
    either.add_argument(
        "--force", action="store_true", help="overwrite files that differ, and list them"
    )
    _add_common(add)
    add.set_defaults(run=run_add)
    listing = commands.add_parser("list", help=LIST_HELP, description=f"Print {LIST_HELP}.")
    listing.add_argument("--json", action="store_true", help="answer in JSON")
    listing.set_defaults(run=run_list)
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="say what would be written")
    parser.add_argument("--json", action="store_true", help="answer in JSON")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    try:
        run: int = arguments.run(arguments)
        sys.stdout.flush()
    except UsageError as error:
        print(f"scaffold.py: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Who reads has seen enough; the interpreter would complain about the rest at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"scaffold.py: nothing was written: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("scaffold.py: interrupted, nothing was written", file=sys.stderr)
        return 130
    return run


if __name__ == "__main__":
    sys.exit(run_command(main))
