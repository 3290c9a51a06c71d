"""Load relationships with the rows: `load=[Album.tracks, "tracks.artist"]`.

To-one relationships come by JOIN, to-many ones by one more SELECT each, so that neither multiplies
rows nor spoils a limit. Loader options of SQLAlchemy pass through.
"""

from collections.abc import Collection
from functools import cache
from typing import Any

from sqlalchemy.orm import InstrumentedAttribute, joinedload, raiseload, selectinload
from sqlalchemy.orm.interfaces import ORMOption
from sqlmodel import SQLModel

from snippets.servicebase._shape import names, shape_of
from snippets.servicebase.errors import InvalidLoadError

Load = Collection[object]
"""Relationship attributes (lists or objects to a type checker), dotted names, loader options."""


def loader_options(model: type[SQLModel], load: Load, *, strict: bool = False) -> list[ORMOption]:
    """Return the options; `strict` makes everything that is not loaded raise when it is read.

    Raises:
        InvalidLoadError: a relationship that the model does not have.
    """
    items = (load,) if isinstance(load, str) else load
    options = [_option(model, item) for item in items]
    return [*options, raiseload("*")] if strict else options


def needs_unique(model: type[SQLModel], load: Load) -> bool:
    """Return whether a JOIN may repeat parents; SQLAlchemy then insists on `unique()`."""
    return any(isinstance(item, ORMOption) for item in load) or _joins_collections(model)


@cache
def _joins_collections(model: type[SQLModel]) -> bool:
    """Return whether a model near this one has `lazy="joined"` on a collection."""
    mappers = shape_of(model).mapper.registry.mappers
    relationships = (one for mapper in mappers for one in mapper.relationships)
    return any(one.lazy == "joined" and one.uselist for one in relationships)


def _option(model: type[SQLModel], item: object) -> ORMOption:
    if isinstance(item, ORMOption):
        return item
    if isinstance(item, InstrumentedAttribute):
        if not issubclass(model, item.parent.class_):
            raise InvalidLoadError(f"{item} is no relationship of {model.__name__}")
        item = item.key
    if not isinstance(item, str):
        raise InvalidLoadError(f"{item!r} is no relationship, name or loader option")
    option: Any = None
    for name in item.replace("__", ".").split("."):
        relationships = shape_of(model).relationships
        if name not in relationships:
            raise InvalidLoadError(
                f"{item}: {model.__name__} has no relationship {name!r}; "
                f"it has {names(relationships)}"
            )
        option = _load(option, getattr(model, name), to_many=bool(relationships[name].uselist))
        model = relationships[name].mapper.class_
    loader: ORMOption = option
    return loader


def _load(before: Any, attribute: Any, *, to_many: bool) -> Any:
    if before is None:
        return selectinload(attribute) if to_many else joinedload(attribute)
    return before.selectinload(attribute) if to_many else before.joinedload(attribute)
