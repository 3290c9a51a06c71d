"""Findings for people, for programs, for code scanning and for GitHub's annotations."""

import json
from collections.abc import Callable
from typing import Any

from _lint_rules import META, RULES
from _lint_run import Finding, Report


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def closing_line(report: Report) -> str:
    files = len({finding.path for finding in report.findings})
    problems = count(len(report.findings), "problem")
    return f"{problems} in {count(files, 'file')} ({report.checked} checked)"


def as_text(report: Report) -> str:
    return "\n".join([*map(str, report.findings), closing_line(report)])


def as_json(report: Report) -> str:
    findings = [finding._asdict() for finding in report.findings]
    return json.dumps({"findings": findings, "checked": report.checked}, indent=2)


def as_sarif(report: Report) -> str:
    named = sorted({finding.rule for finding in report.findings})
    driver = {
        "name": "async-sqlmodel-lint",
        "rules": [{"id": name, "shortDescription": {"text": told(name)}} for name in named],
    }
    run = {"tool": {"driver": driver}, "results": [_result(f, named) for f in report.findings]}
    schema = "https://json.schemastore.org/sarif-2.1.0.json"
    return json.dumps({"$schema": schema, "version": "2.1.0", "runs": [run]}, indent=2)


def _result(finding: Finding, named: list[str]) -> dict[str, Any]:
    place = {
        "artifactLocation": {"uri": finding.path},
        "region": {"startLine": finding.line},
    }
    return {
        "ruleId": finding.rule,
        "ruleIndex": named.index(finding.rule),
        "level": "error" if finding.rule in {"syntax-error", "rule-failed"} else "warning",
        "message": {"text": f"{finding.what}. Fix: {finding.fix}"},
        "locations": [{"physicalLocation": place}],
    }


def told(name: str) -> str:
    """What a rule is about, in one line."""
    return RULES[name].summary if name in RULES else META[name]


def as_github(report: Report) -> str:
    return "\n".join([*map(_annotation, report.findings), closing_line(report)])


def _annotation(finding: Finding) -> str:
    path = _escaped(finding.path).replace(":", "%3A").replace(",", "%2C")
    message = _escaped(f"{finding.what}\nfix: {finding.fix}")
    return f"::error file={path},line={finding.line},title={finding.rule}::{message}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


FORMATS: dict[str, Callable[[Report], str]] = {
    "text": as_text,
    "json": as_json,
    "sarif": as_sarif,
    "github": as_github,
}
