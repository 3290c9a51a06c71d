"""Turn keyword filters into conditions: `seconds__gt=300`, `album__label__name="4AD"`, any_of(…).

Two rules hold on every database. Nothing is ignored: what is not known raises, and lists what is.
And every condition is either true or false for a row: `ne`, `not_in`, `not_like` and `not_` take in
the rows with NULL, which SQL would leave out of both sides.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import ColumnElement, false, func
from sqlalchemy.orm import aliased
from sqlalchemy.orm.util import AliasedClass
from sqlmodel import SQLModel

from snippets.servicebase._operators import OPERATORS, Operand, both, condition, either, opposite
from snippets.servicebase._shape import Shape, names, shape_of
from snippets.servicebase.errors import InvalidFilterError

Entity = type[SQLModel] | AliasedClass[Any]


@dataclass(frozen=True)
class Group:
    """Conditions joined by one word; made by `all_of`, `any_of` and `not_`."""

    word: Literal["all", "any", "not"]
    conditions: tuple["Condition", ...]
    filters: Mapping[str, Any] = field(default_factory=dict)


# A comparison of a SQLModel attribute is a bool for type checkers; a real one is refused.
Condition = ColumnElement[bool] | Group | bool


def all_of(*conditions: Condition, **filters: Any) -> Group:
    """All hold. Filters across one relationship speak of the same related row."""
    return Group("all", conditions, filters)


def any_of(*conditions: Condition, **filters: Any) -> Group:
    """At least one holds."""
    return Group("any", conditions, filters)


def not_(*conditions: Condition, **filters: Any) -> Group:
    """Not all hold: exactly the rows that `all_of` leaves out, NULL or not."""
    return Group("not", conditions, filters)


def where(
    model: type[SQLModel], conditions: Iterable[Condition], filters: Mapping[str, Any]
) -> list[ColumnElement[bool]]:
    """Return conditions, all of which must hold; none when nothing was given.

    Raises:
        InvalidFilterError: an unknown field, relationship or operator, a value of a wrong type.
    """
    parts = [_condition(model, model, part, negate=False) for part in conditions]
    return parts + _keywords(model, model, filters, negate=False)


def _group(
    entity: Entity, model: type[SQLModel], group: Group, *, negate: bool
) -> ColumnElement[bool]:
    if not group.conditions and not group.filters:
        raise InvalidFilterError(f"an empty {group.word}_of() or not_() says nothing")
    negate ^= group.word == "not"
    parts = [_condition(entity, model, part, negate=negate) for part in group.conditions]
    if group.word == "any":
        for path, value in group.filters.items():
            parts += _keywords(entity, model, {path: value}, negate=negate)
    else:
        parts += _keywords(entity, model, group.filters, negate=negate)
    return either(parts) if (group.word == "any") != negate else both(parts)


def _condition(
    entity: Entity, model: type[SQLModel], given: object, *, negate: bool
) -> ColumnElement[bool]:
    if isinstance(given, Group):
        return _group(entity, model, given, negate=negate)
    if not isinstance(given, ColumnElement):
        hint = "; compare with col(Model.field), and None with .is_(None)"
        raise InvalidFilterError(
            f"{given!r} is no condition" + (hint if isinstance(given, bool) else "")
        )
    # Unknown counts as false, so that its opposite is true.
    return opposite(func.coalesce(given, false())) if negate else given


def _keywords(
    entity: Entity, model: type[SQLModel], filters: Mapping[str, Any], *, negate: bool
) -> list[ColumnElement[bool]]:
    """Return a condition for each field, and one for each relationship that is crossed."""
    shape = shape_of(model)
    parts: list[ColumnElement[bool]] = []
    crossed: dict[str, dict[str, Any]] = {}
    for path, value in filters.items():
        name, _, rest = path.partition("__")
        if name in shape.columns:
            parts.append(_field(entity, model, name, rest or "eq", value, negate=negate))
        elif name not in shape.relationships:
            raise InvalidFilterError(_unknown(model, shape, name, path))
        elif rest == "is_null":
            parts.append(_related(entity, model, name, None, negate=negate != _flag(path, value)))
        elif not rest:
            target: type[SQLModel] = shape.relationships[name].mapper.class_
            fields = names(shape_of(target).columns)
            raise InvalidFilterError(
                f"{path}: name a field of the related row ({fields}), or use {name}__is_null"
            )
        else:
            crossed.setdefault(name, {})[rest] = value
    for name, inner in crossed.items():
        parts.append(_related(entity, model, name, inner, negate=negate))
    return parts


def _flag(path: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidFilterError(f"{path}: True or False expected, not {value!r}")
    return value


def _related(
    entity: Entity,
    model: type[SQLModel],
    name: str,
    filters: Mapping[str, Any] | None,
    *,
    negate: bool,
) -> ColumnElement[bool]:
    """Return EXISTS: a join would multiply the rows, and count and limit with them."""
    relationship = shape_of(model).relationships[name]
    target: type[SQLModel] = relationship.mapper.class_
    alias = aliased(target)
    inner = both(_keywords(alias, target, filters, negate=False)) if filters else None
    attribute = getattr(entity, name).of_type(alias)
    found: ColumnElement[bool] = (attribute.any if relationship.uselist else attribute.has)(inner)
    return opposite(found) if negate else found


def _field(
    entity: Entity, model: type[SQLModel], name: str, operator: str, value: Any, *, negate: bool
) -> ColumnElement[bool]:
    operand = Operand(getattr(entity, name), shape_of(model).columns[name])
    where = f"{model.__name__}.{name}__{operator}"
    choices = {operator: value}
    if operator == "or":
        if not isinstance(value, Mapping) or not value:
            raise InvalidFilterError(f'{where}: operators expected, such as {{"lt": 5, "gt": 60}}')
        choices = dict(value)
    for choice in choices:
        if choice not in OPERATORS:
            raise InvalidFilterError(
                f"{where}: unknown operator {choice!r}; there are {names(OPERATORS)}, or"
            )
    try:
        parts = [condition(operand, op, given, negate=negate) for op, given in choices.items()]
    except ValueError as error:
        raise InvalidFilterError(f"{where}: {error}") from None
    return both(parts) if negate else either(parts)


def _unknown(model: type[SQLModel], shape: Shape, name: str, path: str) -> str:
    return (
        f"{path}: {model.__name__} has no field {name!r}; it has {names(shape.columns)}; "
        f"relationships: {names(shape.relationships)}"
    )
