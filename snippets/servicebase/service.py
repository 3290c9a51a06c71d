"""A typed service for one model: `class AlbumService(ServiceBase[Album, NewAlbum, AlbumChange])`.

It is bound to one session, flushes, and never commits or rolls back: the caller owns the
transaction. A refused write leaves all that was done before it, and a session that works.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Generic, TypeVar

from pydantic import BaseModel
from sqlalchemy import Column, ColumnElement
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.sql.elements import True_
from sqlmodel import delete, select, update

from snippets.servicebase import bulk
from snippets.servicebase._guard import insert_is_safe, referred_to, update_is_safe
from snippets.servicebase._reads import ModelT, Reads
from snippets.servicebase._shape import next_version, shape_of
from snippets.servicebase._sync import forget_deleted, refresh_loaded
from snippets.servicebase.errors import (
    NotFoundError,
    UnfilteredWriteError,
    WriteError,
    contained,
    translated,
)
from snippets.servicebase.filters import Condition, where

CreateT = TypeVar("CreateT", bound=BaseModel)
UpdateT = TypeVar("UpdateT", bound=BaseModel)


class ServiceBase(Reads[ModelT], Generic[ModelT, CreateT, UpdateT]):
    """Read and write the rows of one model.

    Filters are keywords (`seconds__gt=300`), groups (`any_of(…)`) and SQLAlchemy conditions; all of
    them must hold. `filterable`, `sortable` and `max_limit` say what untrusted input may ask for.
    """

    def values_for_create(self, data: CreateT) -> dict[str, Any]:
        """Return the columns of a new row. A None that nobody set leaves room for defaults."""
        values = data.model_dump()
        given = data.model_fields_set
        if len(given) == len(values):
            return values
        return {k: v for k, v in values.items() if v is not None or k in given}

    def values_for_update(self, data: UpdateT) -> dict[str, Any]:
        """Return what the caller has set; an explicit None is a value."""
        return data.model_dump(exclude_unset=True)

    async def create(self, data: CreateT) -> ModelT:
        """Insert one row.

        Raises:
            WriteError: it was refused.
        """
        values = self.values_for_create(data)
        bulk.check_fields(self.model, [values])
        async with self._writing(safe=insert_is_safe(self.model, values)):
            item = self.model(**values)
            self.session.add(item)
            await self.session.flush()
        return item

    async def create_many(self, items: Iterable[CreateT]) -> Sequence[ModelT]:
        """Insert all or none, a statement for each 1000; return the rows in the given order.

        Raises:
            WriteError: one was refused.
        """
        rows = [self.values_for_create(item) for item in items]
        bulk.check_fields(self.model, rows)
        return await bulk.insert_many(self.session, self.model, rows) if rows else []

    async def update(self, key: object, data: UpdateT) -> ModelT:
        """Change what `data` has set, and nothing else.

        Raises:
            NotFoundError: there is no such row.
            WriteError: the change was refused; the object is as it was.
        """
        values = self.values_for_update(data)
        bulk.check_fields(self.model, [values])
        if not values:
            return await self.get(key)
        item = await self._locked(key, key_share=True)
        safe = update_is_safe(self.model, values)
        try:
            async with self._writing(safe=safe):
                for name, value in values.items():
                    setattr(item, name, value)
                await self.session.flush()
        except WriteError:
            with suppress(InvalidRequestError):  # deleted by somebody else
                await self.session.refresh(item)
            raise
        return item

    async def update_where(
        self,
        *conditions: Condition,
        values: UpdateT | Mapping[str, Any],
        everything: bool = False,
        **filters: Any,
    ) -> int:
        """Change all matches in one statement; return how many. Values may be SQL expressions.

        Raises:
            UnfilteredWriteError: nothing limits it, and `everything` was not said.
        """
        new = dict(values) if isinstance(values, Mapping) else self.values_for_update(values)
        bulk.check_fields(self.model, [new])
        limits = self._limits(conditions, filters, everything=everything)
        if not new:
            return 0
        new = next_version(self.model) | new
        statement = update(self.model).where(*limits).values(new)
        async with self._writing(safe=update_is_safe(self.model, new)):
            changed = await self._run(statement)
        columns = shape_of(self.model).columns.items()
        touched = [name for name, column in columns if name in new or _follows(column)]
        await refresh_loaded(self.session, self.model, touched)
        return changed

    async def upsert_many(
        self,
        items: Iterable[CreateT],
        *,
        on: str | Sequence[str],
        update: Collection[str] | None = None,
    ) -> Sequence[ModelT]:
        """Insert rows, or update those whose unique key `on` exists; return them in this order.

        An update takes the fields that each item has set, or those in `update`.

        Raises:
            ConflictError: another unique key, or a row outside the scope.
            InvalidValueError: `on` is no unique key, or repeats.
        """
        given = [*items]
        rows = [self.values_for_create(item) for item in given]
        bulk.check_fields(self.model, [*rows, dict.fromkeys(update or ())])
        if not rows:
            return []
        written = [
            _set_fields(item, row) if update is None else update
            for item, row in zip(given, rows, strict=True)
        ]
        key = (on,) if isinstance(on, str) else on
        return await bulk.upsert_many(
            self.session, self.model, rows, on=key, written=written, scope=self.scope()
        )

    async def delete(self, key: object) -> None:
        """Delete one row, with the cascades of its relationships.

        Raises:
            NotFoundError: there is no such row.
            StillReferencedError: another row refers to it.
        """
        item = await self._locked(key)
        async with self._deleting():
            await self.session.delete(item)
            await self.session.flush()

    async def delete_where(
        self, *conditions: Condition, everything: bool = False, **filters: Any
    ) -> int:
        """Delete all matches in one statement; return how many. The database's cascades apply.

        Raises:
            UnfilteredWriteError: nothing limits it, and `everything` was not said.
            StillReferencedError: another row refers to one of them.
        """
        limits = self._limits(conditions, filters, everything=everything)
        async with self._deleting():
            deleted = await self._run(delete(self.model).where(*limits))
        await forget_deleted(self.session, self.model)
        return deleted

    async def _locked(self, key: object, *, key_share: bool = False) -> ModelT:
        """Return the row as it is now; nobody else changes or deletes it before we do.

        A model with a version has that instead: to read anew would hide what the caller missed.
        """
        if shape_of(self.model).mapper.version_id_col is not None:
            return await self.get(key)
        values = self._identity(key)
        if any((self.session.new, self.session.dirty, self.session.deleted)):
            await self.session.flush()  # or what is read would replace it
        item = None if values is None else await self._read_locked(values, key_share)
        if item is None:
            raise NotFoundError(self.model, key)
        return item

    async def _read_locked(self, key: tuple[Any, ...], key_share: bool) -> ModelT | None:
        identity = self.session.sync_session.identity_key(self.model, key)
        loaded: ModelT | None = self.session.identity_map.get(identity)
        lock = {"of": self.model, "key_share": key_share}
        if self.scope():
            columns = shape_of(self.model).mapper.primary_key
            same = (column == value for column, value in zip(columns, key, strict=True))
            statement = select(self.model).where(*same, *self.scope())
            statement = statement.with_for_update(of=self.model, key_share=key_share)
            # It may be loaded under another spelling of its key, which a collation finds.
            options = {"populate_existing": loaded is None}
            result = await self.session.exec(statement, execution_options=options)
            found = result.unique().one_or_none()
            if found is None or loaded is None:
                return found
        elif loaded is None:
            return await self.session.get(
                self.model, key, with_for_update=lock, populate_existing=True
            )
        try:  # the columns alone: relationships stay loaded
            await self.session.refresh(loaded, shape_of(self.model).columns, lock)
        except InvalidRequestError:  # the row is gone
            return None
        return loaded

    def _limits(
        self, conditions: Iterable[Condition], filters: Mapping[str, Any], *, everything: bool
    ) -> Sequence[ColumnElement[bool]]:
        given = where(self.model, conditions, filters)
        if not everything and all(isinstance(condition, True_) for condition in given):
            raise UnfilteredWriteError(self.model)
        return [*self.scope(), *given]

    async def _run(self, statement: Any) -> int:
        # Objects of the session are brought up to date from the database, not by guessing.
        options = {"synchronize_session": False}
        result = await self.session.exec(statement, execution_options=options)
        return int(result.rowcount)

    def _writing(self, *, safe: bool) -> AbstractAsyncContextManager[None]:
        """Return a savepoint, or nothing around a write that no constraint can refuse."""
        return translated(self.model) if safe else contained(self.session, self.model)

    def _deleting(self) -> AbstractAsyncContextManager[None]:
        if referred_to(self.model):
            return contained(self.session, self.model, deleting=True)
        return translated(self.model, deleting=True)


def _follows(column: Column[Any]) -> bool:
    """Return whether an UPDATE of others changes this column."""
    return column.onupdate is not None or column.computed is not None


def _set_fields(item: BaseModel, row: Mapping[str, Any]) -> Collection[str]:
    """Return the columns that the caller has set, or that a method has derived."""
    given = item.model_fields_set
    if given == row.keys():
        return given
    fields = type(item).model_fields
    return {name for name in row if name in given or name not in fields}
