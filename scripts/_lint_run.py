"""Find the files, run the rules on them, and settle what comments suppress."""

import ast
import io
import os
import re
import sys
import tokenize
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from _lint_index import Project
from _lint_rules import META, RULES, Rule
from _lint_source import Hit, Source, attribute
from _lint_versions import find_versions, project_root, requirements_of

SKIPPED = {"node_modules", "build", "dist", "venv", "env", "__pycache__", "site-packages"}
COMMENT = re.compile(r"#\s*lint:\s*ignore(?:\[([^\]]*)\])?(.*)")
# Of a larger tree only what was asked for is read.
MAX_CONTEXT = 3000
HOW = "write `# lint: ignore[rule] why it is right here`"

MEND_SYNTAX = (
    "correct the syntax, or run lint.py with the project's Python if it is newer than "
    f"{sys.version_info.major}.{sys.version_info.minor}"
)


class Finding(NamedTuple):
    path: str
    line: int
    rule: str
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.what}\n    fix: {self.fix}"


class Suppression(NamedTuple):
    line: int
    covers: int
    rule: str
    reason: str


class Report(NamedTuple):
    findings: list[Finding]
    checked: int
    versions: str


def python_files(path: Path) -> Iterator[Path]:
    """The file, or all Python files below a folder that belong to the project itself."""
    if path.is_file():
        # Read as Python, a notebook may be one harmless expression.
        if path.suffix != ".ipynb":
            yield path
        return
    for folder, folders, names in os.walk(path):
        here = Path(folder)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name not in SKIPPED
            and not (here / name / "pyvenv.cfg").exists()
        )
        files = (here / name for name in sorted(names) if name.endswith(".py"))
        # An editor's lock is a link to nowhere, and a pipe would never end.
        yield from (file for file in files if file.is_file())


def shown(path: Path) -> str:
    try:
        return path.relative_to(Path.cwd()).as_posix()
    except ValueError:
        return path.as_posix()


def read(path: Path) -> Source:
    try:
        with tokenize.open(path) as file:
            return Source(path, file.read(), shown(path))
    # A LookupError is an encoding that is none of texts, as `# coding: rot13`.
    except (SyntaxError, UnicodeDecodeError, LookupError, OSError) as error:
        source = Source(path, "", shown(path))
        source.error = SyntaxError(str(error))
        return source


def run(paths: Sequence[Path], rules: Collection[str], python: str | None = None) -> Report:
    """Raises:
    InterpreterError: `python` cannot be asked.
    """
    wanted = dict.fromkeys(file.resolve() for path in paths for file in python_files(path))
    root = project_root(paths[0].resolve())
    # Models may live in files that nobody asked about: read those too, but report nothing there.
    around = list(islice(python_files(root), MAX_CONTEXT))
    is_small = len(around) < MAX_CONTEXT
    sources = [read(path) for path in wanted | dict.fromkeys(around if is_small else ())]
    whole = is_small or root in {path.resolve() for path in paths}
    requirements = requirements_of(root)
    versions = find_versions(root, python, requirements)
    project = Project(sources, root, versions, requirements, whole=whole)
    looked_at = [source for source in sources if source.path in wanted]
    findings: set[Finding] = set()
    for source in looked_at:
        findings |= set(check_file(project, source, rules))
    for name in rules:
        if survey := RULES[name].survey:
            findings |= set(survey_project(project, RULES[name], survey))
    return Report(sorted(findings), len(looked_at), project.versions.source)


def as_finding(rule: Rule, path: str, hit: Hit) -> Finding:
    fix = hit.fix or rule.part("Fix").rstrip(".")
    where = shown(Path(hit.path)) if hit.path else path
    return Finding(where, hit.line, rule.name, hit.what, f"{fix}; see {rule.link}")


def survey_project(
    project: Project, rule: Rule, survey: Callable[[Project], Iterator[Hit]]
) -> Iterator[Finding]:
    try:
        hits = list(survey(project))
    except Exception as error:  # noqa: BLE001 - what the other rules found must not be lost
        yield failure(rule, shown(project.root), error)
        return
    yield from (as_finding(rule, "", hit) for hit in hits)


def failure(rule: Rule, path: str, error: Exception) -> Finding:
    """What is told of a rule that broke: itself a finding, so that no run passes for clean."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(last.filename).name}:{last.lineno}"
    what = f"the rule `{rule.name}` broke here: {type(error).__name__}: {error} ({where})"
    fix = (
        "the other rules went on; report this line, with the code if you may, as a mistake of "
        f"lint.py, and meanwhile go on with `--ignore {rule.name}`"
    )
    return Finding(path, 1, "rule-failed", what, fix)


def check_file(project: Project, source: Source, rules: Collection[str]) -> Iterator[Finding]:
    if source.error is not None:
        line = source.error.lineno or 1
        yield Finding(source.shown, line, "syntax-error", source.error.msg, MEND_SYNTAX)
        return
    found: list[Finding] = []
    broken: set[str] = set()
    for name in rules:
        if look := RULES[name].look:
            try:
                hits = list(look(project, source))
            except RecursionError:
                hits = [Hit(1, "an expression here is nested too deeply to look into")]
            except Exception as error:  # noqa: BLE001 - the other rules go on
                broken.add(name)
                yield failure(RULES[name], source.shown, error)
                continue
            found += [as_finding(RULES[name], source.shown, hit) for hit in hits]
    expected = list(expected_failures(source))
    found = [f for f in found if not any(first <= f.line <= last for first, last in expected)]
    yield from settle(source, found, [name for name in rules if name not in broken])


def expected_failures(source: Source) -> Iterator[tuple[int, int]]:
    """Lines of blocks such as `with pytest.raises(...)`: what is wrong there is so on purpose."""
    if source.mentions("raises(", "warns("):
        blocks: list[ast.With | ast.AsyncWith] = [*source.all(ast.With), *source.all(ast.AsyncWith)]
        for block in blocks:
            if any(attribute(item.context_expr) in {"raises", "warns"} for item in block.items):
                yield block.lineno, block.end_lineno or block.lineno


def settle(source: Source, found: list[Finding], rules: Collection[str]) -> Iterator[Finding]:
    """Leave out what comments suppress; complain of comments that say or do nothing."""
    suppressions = list(suppressions_in(source))
    used: set[Suppression] = set()
    for finding in found:
        covering = [
            s
            for s in suppressions
            if s.rule == finding.rule and s.reason and finding.line in {s.line, s.covers}
        ]
        used |= set(covering)
        if not covering:
            yield finding
    for item in suppressions:
        yield from complaints(source.shown, item, used=item in used, selected=item.rule in rules)


def complaints(path: str, item: Suppression, *, used: bool, selected: bool) -> Iterator[Finding]:
    if item.rule not in RULES:
        what = f"there is no rule `{item.rule}`" if item.rule else "it names no rule"
        yield Finding(
            path, item.line, "unknown-suppression", what, f"{HOW}; --list-rules lists them"
        )
    elif not item.reason:
        what = f"`{item.rule}` is ignored without a reason"
        yield Finding(path, item.line, "suppression-without-reason", what, HOW)
    elif selected and not used:
        what = f"`{item.rule}` finds nothing here"
        yield Finding(path, item.line, "unused-suppression", what, "remove the comment")


def suppressions_in(source: Source) -> Iterator[Suppression]:
    if not source.mentions("lint:"):
        return
    lines = io.StringIO(source.text).readline
    try:
        tokens = list(tokenize.generate_tokens(lines))
    except (tokenize.TokenError, SyntaxError):
        return
    for token in tokens:
        match = COMMENT.match(token.string) if token.type == tokenize.COMMENT else None
        if match is None:
            continue
        line = token.start[0]
        alone = not token.line[: token.start[1]].strip()
        reason = match[2].strip(" :-\t")
        for name in (match[1] or "").split(","):
            yield Suppression(line, line + 1 if alone else line, name.strip(), reason)


def chosen(select: Iterable[str], ignore: Iterable[str]) -> list[str]:
    """Names of the rules to run, in the order of the pages."""
    wanted = set(select) or set(RULES)
    left_out = set(ignore)
    return [name for name in RULES if name in wanted and name not in left_out]


__all__ = ["META", "Finding", "Report", "chosen", "run"]
