"""The operators of keyword filters: each a function of an expression, its column and a value."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ColumnElement, Numeric, and_, bindparam, false, literal, or_, true
from sqlalchemy import not_ as sql_not
from sqlalchemy.sql.elements import False_, True_
from sqlalchemy.types import TypeEngine

from snippets.servicebase._values import checked, kind_of, outside

MAX_VALUES = 10_000  # of one list; SQLite and asyncpg take 32 767 parameters in all
MAX_TEXT = 10_000  # to look for; SQLite takes patterns of 50 000 bytes

Conditions = Sequence[ColumnElement[bool]]


def both(conditions: Conditions) -> ColumnElement[bool]:
    """Return AND; what is true anyhow can be recognised, also by those who refuse it."""
    if any(isinstance(condition, False_) for condition in conditions):
        return false()
    left = [condition for condition in conditions if not isinstance(condition, True_)]
    if len(left) == 1:
        return left[0]
    return and_(*left) if left else true()


def either(conditions: Conditions) -> ColumnElement[bool]:
    """Return OR."""
    if any(isinstance(condition, True_) for condition in conditions):
        return true()
    left = [condition for condition in conditions if not isinstance(condition, False_)]
    if len(left) == 1:
        return left[0]
    return or_(*left) if left else false()


def opposite(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Return NOT."""
    if isinstance(condition, True_ | False_):
        return false() if isinstance(condition, True_) else true()
    return sql_not(condition)


@dataclass(frozen=True)
class Operand:
    """What an operator works on: the expression in the statement, and the column behind it."""

    expression: Any  # of the entity or of an alias of it
    column: Column[Any]

    @property
    def type_(self) -> TypeEngine[Any]:
        # With precision and scale asyncpg's cast would round the value: 1.005 matched 1.01.
        return Numeric() if kind_of(self.column) == "decimal" else self.column.type

    def parameter(self, value: Any) -> Any:
        """Return the value with the column's type, which a bare `True > column` would lose."""
        if kind_of(self.column) in {"integer", "text"}:
            return value  # SQLAlchemy adds the type
        return literal(value, self.type_)

    def is_null(self) -> ColumnElement[bool]:
        test: ColumnElement[bool] = self.expression.is_(None)
        return test if self.column.nullable else false()


Build = Callable[[Operand, Any], ColumnElement[bool]]
"""Return the positive condition. NULL must make it unknown or false, never true by accident."""


def _eq(operand: Operand, value: Any) -> ColumnElement[bool]:
    if value is None:
        return operand.is_null()
    value = checked(operand.column, value)
    if outside(operand.column, value):
        return false()
    equal: ColumnElement[bool] = operand.expression == operand.parameter(value)
    return equal


def _in(operand: Operand, values: Any) -> ColumnElement[bool]:
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise ValueError(f"a list of values expected, not {values!r}")
    given = list(values)
    if len(given) > MAX_VALUES:
        raise ValueError(f"{len(given)} values in one list; at most {MAX_VALUES} are taken")
    present = [checked(operand.column, value) for value in given if value is not None]
    inside = [value for value in present if not outside(operand.column, value)]
    found: ColumnElement[bool] = false()
    if inside:
        # One parameter that expands: the statement stays cached, whatever the length.
        expanding = bindparam(None, inside, type_=operand.type_, expanding=True)
        found = operand.expression.in_(expanding)
    return either([found, operand.is_null()]) if len(present) < len(given) else found


def _is(operand: Operand, value: Any) -> ColumnElement[bool]:
    if value is None:
        return operand.is_null()
    if not isinstance(value, bool) or kind_of(operand.column) != "boolean":
        raise ValueError(f"None expected, or True or False of a Boolean, not {value!r}")
    return _eq(operand, value)


def _is_null(operand: Operand, value: Any) -> ColumnElement[bool]:
    if not isinstance(value, bool):
        raise ValueError(f"True or False expected, not {value!r}")
    return operand.is_null() if value else opposite(operand.is_null())


def _ordered(method: str, beyond: int) -> Build:
    """Build `<` and its kin. Every number is on the side `beyond` of one that does not fit."""

    def build(operand: Operand, value: Any) -> ColumnElement[bool]:
        if value is None:
            raise ValueError("None has no order; use is_null")
        if kind_of(operand.column) == "enum":
            raise ValueError("members of an Enum have no order that databases agree on")
        value = checked(operand.column, value)
        if side := outside(operand.column, value):
            return opposite(operand.is_null()) if side == beyond else false()
        compare: ColumnElement[bool] = getattr(operand.expression, method)(operand.parameter(value))
        return compare

    return build


GT, GTE = _ordered("__gt__", -1), _ordered("__ge__", -1)
LT, LTE = _ordered("__lt__", 1), _ordered("__le__", 1)


def _between(operand: Operand, bounds: Any) -> ColumnElement[bool]:
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise ValueError(f"a pair of bounds expected, not {bounds!r}")
    return both([GTE(operand, bounds[0]), LTE(operand, bounds[1])])


def _text(method: str, **options: Any) -> Build:
    def build(operand: Operand, value: Any) -> ColumnElement[bool]:
        if kind_of(operand.column) not in {"text", "other"}:
            raise ValueError("this operator is for text columns")
        if not isinstance(value, str):
            raise ValueError(f"text expected, not {value!r}")
        value = checked(operand.column, value)
        if len(value) > MAX_TEXT:
            raise ValueError(f"{len(value)} characters; at most {MAX_TEXT} are taken")
        match: ColumnElement[bool] = getattr(operand.expression, method)(value, **options)
        return match

    return build


def _pattern(method: str) -> Build:
    # One escape character for all: SQLite has none unless told, the others a backslash.
    build = _text(method, escape="\\")

    def checked_build(operand: Operand, value: Any) -> ColumnElement[bool]:
        if isinstance(value, str) and (len(value) - len(value.rstrip("\\"))) % 2:
            raise ValueError("the pattern ends in a lone backslash")
        return build(operand, value)

    return checked_build


@dataclass(frozen=True)
class Operator:
    build: Build
    negated: bool = False


LIKE, ILIKE = _pattern("like"), _pattern("ilike")
OPERATORS: dict[str, Operator] = {
    "eq": Operator(_eq),
    "ne": Operator(_eq, negated=True),
    "gt": Operator(GT),
    "gte": Operator(GTE),
    "lt": Operator(LT),
    "lte": Operator(LTE),
    "between": Operator(_between),
    "in": Operator(_in),
    "not_in": Operator(_in, negated=True),
    "is": Operator(_is),
    "is_not": Operator(_is, negated=True),
    "is_null": Operator(_is_null),
    "like": Operator(LIKE),
    "not_like": Operator(LIKE, negated=True),
    "notlike": Operator(LIKE, negated=True),
    "ilike": Operator(ILIKE),
    "not_ilike": Operator(ILIKE, negated=True),
    "notilike": Operator(ILIKE, negated=True),
    "startswith": Operator(_text("startswith", autoescape=True)),
    "endswith": Operator(_text("endswith", autoescape=True)),
    "contains": Operator(_text("contains", autoescape=True)),
    "istartswith": Operator(_text("istartswith", autoescape=True)),
    "iendswith": Operator(_text("iendswith", autoescape=True)),
    "icontains": Operator(_text("icontains", autoescape=True)),
    "match": Operator(_text("match")),
}


def condition(operand: Operand, name: str, value: Any, *, negate: bool) -> ColumnElement[bool]:
    """Return the operator's condition or its exact opposite: a row meets one of the two.

    SQL knows a third answer for NULL, which is in neither; so a negation takes NULL in.
    """
    if kind_of(operand.column) == "json" and name not in {"is_null", "is", "is_not"}:
        raise ValueError("databases compare JSON differently; only is_null is taken")
    operator = OPERATORS[name]
    positive = operator.build(operand, value)
    if operator.negated == negate:
        return positive
    if _has_null_test(operator.build, value):
        return opposite(positive)
    return either([opposite(positive), operand.is_null()])


def _has_null_test(build: Build, value: Any) -> bool:
    """Return whether the condition already says what it does with NULL."""
    if build is _in:
        return any(item is None for item in value)
    return value is None or build is _is_null
