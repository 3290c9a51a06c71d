# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""Check that everything in this bundle that must agree, agrees."""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import _checks_code
import _checks_links
import _checks_mistakes
import _checks_pages
import _checks_safety
import _checks_skill
from _bundle import Bundle, Note
from _command import run
from _outside import OUTSIDE, stage
from sync import count

ROOT = Path(__file__).resolve().parent.parent
EPILOG = """\
examples:
  python scripts/check.py              every check that --list names, under a second
  python scripts/check.py --outside    also the validators of others, on a staged export

exit codes: 0 all agree, 1 problems found, 2 wrong usage
"""


class Finding(NamedTuple):
    path: str
    line: int
    rule: str
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.what}\n    fix: {self.fix}"


Check = Callable[[Bundle], Iterator[Note]]
CHECKS: dict[str, Check] = {
    function.__name__.replace("_", "-"): function
    for function in (
        _checks_code.parses,
        _checks_skill.front_matter,
        _checks_skill.versions_agree,
        _checks_skill.budgets,
        _checks_links.pages_routed,
        _checks_links.links,
        _checks_links.script_mentions,
        _checks_pages.contents_list,
        _checks_pages.page_structure,
        _checks_pages.empty_sections,
        _checks_pages.mirrored_trees,
        _checks_pages.empty_test_files,
        _checks_pages.blocks_in_sync,
        _checks_pages.blocks_addressed,
        _checks_mistakes.mistakes,
        _checks_mistakes.symptoms_tested,
        _checks_code.import_direction,
        _checks_code.unique_nouns,
        _checks_code.no_future_annotations,
        _checks_code.no_engine_at_import,
        _checks_safety.bare_exec,
        _checks_safety.dynamic_execution,
        _checks_safety.requirements_plain,
        _checks_safety.clean_tree,
        _checks_safety.local_paths,
    )
}


def as_finding(rule: str, note: Note) -> Finding:
    return Finding(note.path, note.line, rule, note.what, note.fix)


def run_checks(bundle: Bundle) -> list[Finding]:
    """Everything that the checks find, in the order of the files."""
    return sorted(
        {as_finding(rule, n) for rule, function in CHECKS.items() for n in function(bundle)}
    )


def run_outside(bundle: Bundle) -> list[Finding]:
    """What other validators find in an export of the bundle."""
    found: list[Finding] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            export = stage(bundle, Path(folder))
        except OSError as error:
            note = Note(".", 1, f"the export failed: {error}", "install git, see what it says")
            return [as_finding("outside-export", note)]
        known = {note[:3] for note in _checks_links.links(bundle)}
        for rule, function in OUTSIDE.items():
            try:
                notes = [note for note in function(export) if note[:3] not in known]
            except FileNotFoundError as error:
                fix = "run by `make check`, which sets up .venv, or install requirements/latest.txt"
                notes = [Note("requirements/quality.txt", 1, f"{error} is not installed", fix)]
            except subprocess.TimeoutExpired as error:
                notes = [Note(".", 1, str(error), "run it by hand to see what holds it")]
            found += [as_finding(rule, note) for note in notes]
    return found


def closing_line(findings: Sequence[Finding], files: int) -> str:
    if not findings:
        return f"no problems ({count(files, 'file')} checked)"
    places = len({finding.path for finding in findings})
    problems = count(len(findings), "problem")
    return f"{problems} in {count(places, 'file')} ({files} checked)"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=ROOT, help="the bundle (default: this one)")
    parser.add_argument("--outside", action="store_true", help="also run agentskills and agnix")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--list", action="store_true", help="print the checks and stop")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.list:
        for rule, function in {**CHECKS, **OUTSIDE}.items():
            print(f"{rule:21} {function.__doc__}")
        return 0
    if not args.root.is_dir():
        parser.error(f"there is no folder {args.root}")
    bundle = Bundle(args.root.resolve())
    findings = run_checks(bundle)
    if args.outside:
        findings += run_outside(bundle)
    if args.json:
        listed = [finding._asdict() for finding in findings]
        print(json.dumps({"findings": listed, "files": len(bundle.files)}, indent=2))
    else:
        for finding in findings:
            print(finding)
        print(closing_line(findings, len(bundle.files)))
    return 1 if findings else 0


if __name__ == "__main__":
    # Syntax trees are many objects and no garbage: collecting would cost a fifth of the run.
    gc.disable()
    sys.exit(run(main))
