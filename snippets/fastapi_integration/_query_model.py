"""Make of a service's allow-list what FastAPI reads from the query string."""

import datetime as dt
from collections.abc import Callable, Mapping
from itertools import permutations, product
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from fastapi import Query, Request
from pydantic import BaseModel, ConfigDict, create_model
from pydantic import Field as Limit

from snippets.fastapi_integration.bodies import Moment, Text, may_be_left_out
from snippets.servicebase._cursor_token import MAX_LENGTH
from snippets.servicebase.offset_pagination import MAX_OFFSET
from snippets.servicebase.query_parameters import (
    LIST_OPERATORS,
    TEXT_OPERATORS,
    AnyService,
    ListQuery,
    _type_of,
    parse_query,
)

MAX_VALUES = 20  # of one parameter that may be repeated
WIRE_TYPES: Mapping[object, Any] = {str: Text, dt.datetime: Moment, bool: Literal["true", "false"]}


def offset_query(service: AnyService) -> Callable[..., Any]:
    """Return the dependency that reads filters, `sort`, `limit` and `offset`."""
    return _query(service, offset=(Annotated[int, Limit(ge=0, le=MAX_OFFSET)], 0))


def cursor_query(service: AnyService) -> Callable[..., Any]:
    """Return the dependency that reads filters, `sort`, `limit` and `cursor`."""
    return _query(service, cursor=(Annotated[str, Limit(max_length=MAX_LENGTH)], may_be_left_out()))


def _query(service: AnyService, **paging: Any) -> Callable[..., Any]:
    model: Any = query_model(service, **paging)

    async def read(request: Request, _parameters: Annotated[model, Query()]) -> ListQuery:
        return parse_query(service, request.query_params.multi_items())

    return read


def query_model(service: AnyService, **paging: Any) -> type[BaseModel]:
    """Return the model of the query string: for OpenAPI, and to refuse what is not in it."""
    limit = Annotated[int, Limit(ge=1, le=service.max_limit)]
    fields: dict[str, Any] = paging | {"limit": (limit, min(20, service.max_limit))}
    if service.sortable:
        fields["sort"] = _sort_type(service), may_be_left_out()
    for path, operators in service.filterable.items():
        for operator in sorted(operators):
            name = path if operator == "eq" else f"{path}__{operator}"
            fields[name] = _value_type(service, path, operator), may_be_left_out()
    return create_model(
        f"{service.__name__}Query",
        __config__=ConfigDict(extra="forbid", protected_namespaces=()),
        **fields,
    )


def _sort_type(service: AnyService) -> Any:
    """Return one name, or several with commas between, each with or without a minus."""
    names = sorted(service.sortable)
    if len(names) > 2:  # the choices would be too many
        name = f"-?({'|'.join(names)})"
        return Annotated[str, Limit(pattern=f"^{name}(,{name})*$")]
    choices = [
        ",".join(sign + name for sign, name in zip(signs, order, strict=True))
        for count in range(1, len(names) + 1)
        for order in permutations(names, count)
        for signs in product(("", "-"), repeat=count)
    ]
    return Literal[tuple(choices)]


def _value_type(service: AnyService, path: str, operator: str) -> Any:
    if operator == "is_null":
        return WIRE_TYPES[bool]
    stored = str if operator in TEXT_OPERATORS else _type_of(service.model, path)
    if get_origin(stored) in {Union, UnionType}:
        (stored,) = {*get_args(stored)} - {NoneType}
    type_ = WIRE_TYPES.get(stored, stored)
    if operator in LIST_OPERATORS:
        least, most = (2, 2) if operator == "between" else (1, MAX_VALUES)
        values: Any = list[type_]  # type: ignore[valid-type]
        return Annotated[values, Limit(min_length=least, max_length=most)]
    return type_
