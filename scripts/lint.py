# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""Find the mistakes that the pages describe in your own async SQLModel code."""

import argparse
import difflib
import gc
import sys
from collections.abc import Sequence
from pathlib import Path

from _command import run as run_command
from _lint_report import FORMATS, told
from _lint_rules import META, RULES
from _lint_run import chosen, run
from _lint_versions import InterpreterError

EPILOG = """\
examples:
  python scripts/lint.py app tests migrations
  python scripts/lint.py --explain lazy-load

A finding that is right as it is: `# lint: ignore[rule] the reason`, on its line or the one above.

exit codes: 0 no problems, 1 problems found or a rule failed, 2 wrong usage
"""


def rule_names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in RULES:
            near = difflib.get_close_matches(name, RULES, 3, 0.5)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            raise argparse.ArgumentTypeError(
                f"there is no rule {name!r}; {hint}the rules are: {', '.join(RULES)}"
            )
    return names


def explanation(name: str) -> str:
    rule = RULES[name]
    parts = [f"{label}: {rule.part(label)}" for label in ("Symptom", "Cause", "Fix")]
    return "\n".join([name, *parts, f"See: {rule.link}"])


def listing() -> str:
    width = max(map(len, [*RULES, *META]))
    return "\n".join(f"{name:{width}}  {told(name)}" for name in [*RULES, *META])


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="files and folders")
    parser.add_argument("--format", choices=FORMATS, default="text", help="default: text")
    parser.add_argument("--select", type=rule_names, metavar="RULES", help="only these, by commas")
    parser.add_argument("--ignore", type=rule_names, metavar="RULES", help="all but these")
    parser.add_argument(
        "--explain", type=rule_names, metavar="RULE", help="tell of a rule and stop"
    )
    parser.add_argument("--list-rules", action="store_true", help="print all rules and stop")
    parser.add_argument(
        "--python", metavar="PATH", help="the project's interpreter (default: its .venv, its pins)"
    )
    parser.add_argument("--verbose", action="store_true", help="say whose versions are assumed")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.list_rules or args.explain:
        print(listing() if args.list_rules else "\n\n".join(map(explanation, args.explain)))
        return 0
    if not args.paths:
        parser.error("name the files or folders to look at")
    if missing := [str(path) for path in args.paths if not path.exists()]:
        parser.error(f"there is no {', '.join(missing)}")
    try:
        report = run(args.paths, chosen(args.select or (), args.ignore or ()), args.python)
    except InterpreterError as error:
        parser.error(str(error))
    if not report.checked:
        parser.error(f"there is no Python file in {', '.join(map(str, args.paths))}")
    if args.verbose:
        print(f"versions: {report.versions}", file=sys.stderr)
    print(FORMATS[args.format](report))
    return 1 if report.findings else 0


if __name__ == "__main__":
    # Syntax trees are many objects and no garbage: collecting would cost a fifth of the run.
    gc.disable()
    sys.exit(run_command(main))
