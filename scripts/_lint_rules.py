"""All rules, by the name of the mistake that they find."""

import inspect
import re
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import NamedTuple

import _lint_async_operations
import _lint_best_practices
import _lint_database_setup
import _lint_fastapi_integration
import _lint_migrations
import _lint_models
import _lint_production_patterns
import _lint_relationships
import _lint_servicebase
from _lint_index import Project
from _lint_source import Hit, Source
from _lint_unseen import UNSEEN

MODULES: tuple[ModuleType, ...] = (
    _lint_database_setup,
    _lint_models,
    _lint_relationships,
    _lint_async_operations,
    _lint_servicebase,
    _lint_fastapi_integration,
    _lint_migrations,
    _lint_production_patterns,
    _lint_best_practices,
)


class Rule(NamedTuple):
    """`look` finds the mistake in a file, `survey` in the project as a whole."""

    name: str
    page: str
    told: str
    look: Callable[[Project, Source], Iterator[Hit]] | None = None
    survey: Callable[[Project], Iterator[Hit]] | None = None

    @property
    def link(self) -> str:
        return f"{self.page}#{self.name}"

    def part(self, label: str) -> str:
        """What the docstring says after `Symptom:`, `Cause:` or `Fix:`."""
        match = re.search(rf"^{label}: (.*?)(?=^\w+: |\Z)", self.told, re.DOTALL | re.MULTILINE)
        return " ".join(match[1].split()) if match else ""

    @property
    def summary(self) -> str:
        return self.part("Symptom").rstrip(".")


def _rules() -> Iterator[Rule]:
    for module in MODULES:
        for look in getattr(module, "RULES", ()):
            yield Rule(_name(look), module.PAGE, inspect.getdoc(look) or "", look=look)
        for survey in getattr(module, "SURVEYS", ()):
            yield Rule(_name(survey), module.PAGE, inspect.getdoc(survey) or "", survey=survey)


def _name(function: Callable[..., Iterator[Hit]]) -> str:
    return function.__name__.replace("_", "-")


RULES: dict[str, Rule] = {rule.name: rule for rule in _rules()}
# Findings of lint.py itself: about files and comments, not about a mistake of a page.
META = {
    "syntax-error": "The file does not parse; nothing else was looked for in it.",
    "rule-failed": "A rule broke on a file: a mistake of lint.py itself; the others went on.",
    "suppression-without-reason": "A `# lint: ignore[rule]` must say why, behind the bracket.",
    "unused-suppression": "A `# lint: ignore[rule]` stands where the rule finds nothing.",
    "unknown-suppression": "A `# lint: ignore[rule]` names a rule that does not exist.",
}

__all__ = ["META", "RULES", "UNSEEN", "Rule"]
