"""Bring objects of the session up to date after a statement that changed rows behind them."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import inspect, tuple_
from sqlalchemy import select as core_select
from sqlalchemy.orm.attributes import set_committed_value
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.servicebase._shape import shape_of

KEYS_PER_SELECT = 1000


async def refresh_loaded(
    session: AsyncSession, model: type[SQLModel], fields: Iterable[str]
) -> None:
    """Read these fields again for the loaded objects; sends nothing when there are none.

    SQLAlchemy would compare in Python, where "a" is not "A", or expire what can't be read later.
    """
    names = list(fields)
    objects = _loaded(session, model)
    for key, values in (await _rows(session, model, objects, names)).items():
        for name, value in zip(names, values, strict=True):
            set_committed_value(objects[key], name, value)


async def forget_deleted(session: AsyncSession, model: type[SQLModel]) -> None:
    """Detach the loaded objects whose rows are gone."""
    objects = _loaded(session, model)
    left = await _rows(session, model, objects, [])
    for key in objects.keys() - left.keys():
        session.expunge(objects[key])


def _loaded(session: AsyncSession, model: type[SQLModel]) -> dict[tuple[Any, ...], SQLModel]:
    loaded = (item for item in session.identity_map.values() if isinstance(item, model))
    return {tuple(inspect(item).identity): item for item in loaded}


async def _rows(
    session: AsyncSession,
    model: type[SQLModel],
    objects: dict[tuple[Any, ...], SQLModel],
    names: list[str],
) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Return the fields' values by primary key."""
    key = [getattr(model, name) for name in shape_of(model).key]
    columns = [getattr(model, name) for name in names]
    keys = list(objects)
    found: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for start in range(0, len(keys), KEYS_PER_SELECT):
        part = keys[start : start + KEYS_PER_SELECT]
        same = tuple_(*key).in_(part) if len(key) > 1 else key[0].in_([first for (first,) in part])
        for row in await session.exec(core_select(*key, *columns).where(same)):  # type: ignore[call-overload]
            found[tuple(row[: len(key)])] = tuple(row[len(key) :])
    return found
