"""Let a query string filter, sort and page, within what the service allows.

    ?title__icontains=blue&genre__in=rock&genre__in=jazz&sort=-released_on&limit=20

A service says what is open: `filterable = {"title": {"eq", "icontains"}, "label__name": {"eq"}}`,
`sortable = ("title", "released_on")`, `max_limit = 100`. All else is refused, by name.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError
from sqlmodel import SQLModel

from snippets.servicebase._operators import OPERATORS
from snippets.servicebase._shape import shape_of
from snippets.servicebase.errors import InvalidFilterError, InvalidPageError, InvalidSortError
from snippets.servicebase.filters import Condition, all_of, where
from snippets.servicebase.offset_pagination import check_limit, check_offset
from snippets.servicebase.service import ServiceBase
from snippets.servicebase.sorting import Sort

AnyService = type[ServiceBase[Any, Any, Any]]
RESERVED = {"sort", "limit", "offset", "cursor"}
TEXT_OPERATORS = {
    name for name in OPERATORS if name.endswith(("like", "with", "contains", "match"))
}
LIST_OPERATORS = {"in", "not_in", "between"}
MAX_PARAMETERS = 100


@dataclass(frozen=True)
class ListQuery:
    """What was asked for, checked: `service.page(*query.where, order_by=query.order_by, …)`."""

    where: tuple[Condition, ...]
    order_by: tuple[Sort, ...]
    limit: int
    offset: int
    cursor: str | None


def parse_query(
    service: AnyService, parameters: Iterable[tuple[str, str]], *, default_limit: int = 20
) -> ListQuery:
    """Read `request.query_params.multi_items()`, or any pairs of name and text.

    Raises:
        InvalidInputError: a name, operator or value that the service does not take.
    """
    given: dict[str, list[str]] = {}
    for number, (name, value) in enumerate(parameters):
        if number >= MAX_PARAMETERS:
            raise InvalidFilterError(f"more than {MAX_PARAMETERS} parameters")
        given.setdefault(name, []).append(value)
    single = {name: _single(name, given.pop(name)) for name in RESERVED & given.keys()}
    query = ListQuery(
        where=_where(service, given),
        order_by=_order(service, single.get("sort", "")),
        limit=_number("limit", single.get("limit", str(min(default_limit, service.max_limit)))),
        offset=_number("offset", single.get("offset", "0")),
        cursor=single.get("cursor"),
    )
    check_limit(query.limit, service.max_limit)
    check_offset(query.offset)
    if query.cursor is not None and "offset" in single:
        raise InvalidPageError("a page begins at a cursor or at an offset, not at both")
    return query


def _single(name: str, values: Sequence[str]) -> str:
    if len(values) > 1:
        raise InvalidFilterError(f"{name} is given {len(values)} times")
    return values[0]


def _number(name: str, text: str) -> int:
    # int() would take more: "1_0", digits of other scripts, any length.
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise InvalidPageError(f"{name}: a whole number expected")
    return int(text)


def _order(service: AnyService, text: str) -> tuple[Sort, ...]:
    names = [name for name in text.split(",") if name]
    sorts = [Sort(name.removeprefix("-"), descending=name.startswith("-")) for name in names]
    for sort in sorts:
        if sort.field not in service.sortable:
            choices = ", ".join(sorted(service.sortable)) or "nothing"
            raise InvalidSortError(f"can't sort by {sort.field!r}; it takes {choices}")
    return tuple(sorts)


def _where(service: AnyService, given: Mapping[str, list[str]]) -> tuple[Condition, ...]:
    filters = {}
    for name, values in given.items():
        path, operator = _allowed(service, name)
        filters[f"{path}__{operator}"] = _value(service.model, path, operator, values)
    if not filters:
        return ()
    # Values that a driver would refuse are refused here, before any statement.
    where(service.model, (), filters)
    return (all_of(**filters),)


def _allowed(service: AnyService, name: str) -> tuple[str, str]:
    """Return the field's path and the operator, both as the service lists them."""
    path, operator = name, "eq"
    if name not in service.filterable:
        path, _, operator = name.rpartition("__")
    if operator not in service.filterable.get(path, ()):
        choices = sorted(f"{p}__{op}" for p, ops in service.filterable.items() for op in ops)
        listed = ", ".join([*(c.removesuffix("__eq") for c in choices), *sorted(RESERVED)])
        raise InvalidFilterError(f"{name!r} is no parameter; there are {listed}")
    return path, operator


def _value(model: type[SQLModel], path: str, operator: str, texts: Sequence[str]) -> Any:
    name = f"{path}__{operator}"
    if operator == "is_null":
        return _parsed(name, bool, _single(name, texts))
    type_ = str if operator in TEXT_OPERATORS else _type_of(model, path)
    if operator in LIST_OPERATORS:
        return [_parsed(name, type_, text) for text in texts]
    return _parsed(name, type_, _single(name, texts))


def _type_of(model: type[SQLModel], path: str) -> Any:
    first, _, rest = path.partition("__")
    if not rest:
        return model.model_fields[first].annotation
    return _type_of(shape_of(model).relationships[first].mapper.class_, rest)


def _parsed(name: str, type_: Any, text: str) -> Any:
    try:
        return TypeAdapter(type_).validate_strings(text)
    except ValidationError as error:
        raise InvalidFilterError(f"{name}: {error.errors()[0]['msg']}") from None
