"""What a service reads, and what it knows of its model: the half that no write needs."""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar, get_args, get_origin

from sqlalchemy import ColumnElement, func
from sqlalchemy import select as core_select
from sqlalchemy.exc import StatementError
from sqlmodel import SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.servicebase import _aggregates as aggregates
from snippets.servicebase._shape import shape_of
from snippets.servicebase._values import identity
from snippets.servicebase.cursor_pagination import CursorPage, Seek, seek
from snippets.servicebase.eager_options import Load, loader_options, needs_unique
from snippets.servicebase.errors import InvalidFilterError, NotFoundError, filter_error
from snippets.servicebase.filters import Condition, all_of, where
from snippets.servicebase.offset_pagination import Page, check_limit, check_offset, known_total
from snippets.servicebase.sorting import OrderBy, Sort, order_clauses, resolve_order

ModelT = TypeVar("ModelT", bound=SQLModel)


class Reads(Generic[ModelT]):
    """Bound to one session and one model; `ServiceBase` adds the writes."""

    model: type[ModelT]
    filterable: ClassVar[Mapping[str, Collection[str]]] = {}
    sortable: ClassVar[Collection[str]] = ()
    max_limit: ClassVar[int] = 100

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for base in getattr(cls, "__orig_bases__", ()):
            origin, arguments = get_origin(base), get_args(base)
            ours = isinstance(origin, type) and issubclass(origin, Reads)
            # A class that is still generic has a TypeVar here; its subclass names the model.
            if ours and isinstance(arguments[0], type):
                cls.model = arguments[0]

    def __init__(self, session: AsyncSession) -> None:
        if not hasattr(self, "model"):
            raise TypeError(f"{type(self).__name__} names no model: ServiceBase[Model, ...]")
        self.session = session

    def scope(self) -> Sequence[ColumnElement[bool]]:
        """Return conditions that every read and write keeps to; such rows alone exist here."""
        return ()

    async def get(self, key: object, *, load: Load = (), strict: bool = False) -> ModelT:
        """Return the row with this primary key (a tuple if it has several columns).

        Raises:
            NotFoundError: there is none.
        """
        values = self._identity(key)
        item = None if values is None else await self._get(values, load, strict)
        if item is None:
            raise NotFoundError(self.model, key)
        return item

    def _identity(self, key: object) -> tuple[Any, ...] | None:
        """Return the values of the key's columns; None for those that no row can have."""
        try:
            return identity(self.model, key)
        except ValueError as error:
            raise InvalidFilterError(f"key of {self.model.__name__}: {error}") from None

    async def _get(self, key: tuple[Any, ...], load: Load, strict: bool) -> ModelT | None:
        if not load and not strict and not self.scope():
            return await self.session.get(self.model, key)  # sends nothing if it is loaded
        same = zip(shape_of(self.model).key, key, strict=True)
        return await self.find(all_of(**dict(same)), load=load, strict=strict)

    async def find(
        self,
        *conditions: Condition,
        order_by: OrderBy = (),
        load: Load = (),
        strict: bool = False,
        **filters: Any,
    ) -> ModelT | None:
        """Return the first match in this order, or None."""
        found = await self.list(
            *conditions, order_by=order_by, limit=1, load=load, strict=strict, **filters
        )
        return found[0] if found else None

    async def list(
        self,
        *conditions: Condition,
        order_by: OrderBy = (),
        limit: int | None = None,
        offset: int = 0,
        load: Load = (),
        strict: bool = False,
        **filters: Any,
    ) -> Sequence[ModelT]:
        """Return the matches, by primary key unless told otherwise; all of them without limit."""
        check_limit(limit)
        check_offset(offset)
        statement = select(self.model).where(*self._conditions(conditions, filters))
        statement = statement.order_by(*self._order(order_by))
        if limit is not None:
            statement = statement.limit(limit)
        if offset:
            statement = statement.offset(offset)
        options = loader_options(self.model, load, strict=strict)
        result = await self._send(statement.options(*options))
        found: Sequence[ModelT]
        found = (result.unique() if needs_unique(self.model, load) else result).all()
        return found

    async def page(
        self,
        *conditions: Condition,
        order_by: OrderBy = (),
        limit: int = 20,
        offset: int = 0,
        load: Load = (),
        strict: bool = False,
        **filters: Any,
    ) -> Page[ModelT]:
        """Return one page and the total, which costs a count where the page does not tell it."""
        check_limit(limit, self.max_limit)
        items = await self.list(
            *conditions,
            order_by=order_by,
            limit=limit,
            offset=offset,
            load=load,
            strict=strict,
            **filters,
        )
        total = known_total(len(items), offset, limit)
        if total is None:
            total = await self.count(*conditions, **filters)
        return Page(items, total, offset, limit)

    async def cursor_page(
        self,
        *conditions: Condition,
        cursor: str | None = None,
        order_by: OrderBy = (),
        limit: int = 20,
        load: Load = (),
        strict: bool = False,
        **filters: Any,
    ) -> CursorPage[ModelT]:
        """Return the page at the cursor, which `next` or `previous` of another page gave."""
        check_limit(limit, self.max_limit)
        limits = self._conditions(conditions, filters)
        place = seek(self.model, resolve_order(self.model, order_by), self._dialect, cursor)
        return place.page(await self._rows(limits, place, limit, load, strict=strict), limit)

    async def _rows(
        self,
        limits: Sequence[ColumnElement[bool]],
        place: Seek,
        limit: int,
        load: Load,
        *,
        strict: bool,
    ) -> Sequence[Any]:
        """Return the objects with their sort values, and one row more than asked for."""
        statement = place.statement().where(*limits).limit(limit + 1)
        statement = statement.options(*loader_options(self.model, load, strict=strict))
        result = await self._send(statement, params=place.parameters())
        rows: Sequence[Any]
        rows = (result.unique() if needs_unique(self.model, load) else result).all()
        return rows

    async def count(self, *conditions: Condition, **filters: Any) -> int:
        """Return how many rows match."""
        statement = select(func.count()).select_from(self.model)
        statement = statement.where(*self._conditions(conditions, filters))
        total: int = (await self._send(statement)).one()
        return total

    async def exists(self, *conditions: Condition, **filters: Any) -> bool:
        """Return whether a row matches; the database stops at the first."""
        key = getattr(self.model, shape_of(self.model).key[0])
        statement = select(key).where(*self._conditions(conditions, filters)).limit(1)
        return (await self._send(statement)).first() is not None

    async def stream(
        self,
        *conditions: Condition,
        order_by: OrderBy = (),
        load: Load = (),
        strict: bool = False,
        batch: int = 1000,
        **filters: Any,
    ) -> AsyncIterator[ModelT]:
        """Yield the matches in bounded memory, a statement for each batch.

        The reader may write, commit, send other statements and stop at any time, which no open
        result allows on every driver. Each batch sees what is committed then.
        """
        check_limit(batch)
        limits = self._conditions(conditions, filters)
        place = seek(self.model, resolve_order(self.model, order_by), self._dialect, None)
        while True:
            rows = await self._rows(limits, place, batch, load, strict=strict)
            for row in rows[:batch]:
                yield row[0]
            if len(rows) <= batch:
                return
            place = place.after(rows[batch - 1])
            del rows, row  # or a second batch would stay in memory

    async def aggregate(
        self,
        *conditions: Condition,
        compute: Mapping[str, str],
        by: str | Sequence[str] = (),
        **filters: Any,
    ) -> Sequence[dict[str, Any]]:
        """Return a dict for each group: `compute={"tracks": "count", "length": "sum:seconds"}`.

        Functions: count, count_distinct, sum, avg, min, max. Without `by` there is one group.
        """
        fields = (by,) if isinstance(by, str) else tuple(by)
        for field in fields:
            aggregates.column_of(self.model, field)
        groups = [getattr(self.model, field) for field in fields]
        numbers = [aggregates.expression(self.model, wanted) for wanted in compute.values()]
        statement = (
            core_select(*groups, *numbers)
            .select_from(self.model)
            .where(*self._conditions(conditions, filters))
            .group_by(*groups)
            .order_by(*order_clauses(self.model, tuple(map(Sort, fields)), self._dialect))
        )
        rows = (await self._send(statement)).all()
        return aggregates.as_dicts(self.model, fields, compute, rows)

    async def _send(self, statement: Any, **options: Any) -> Any:
        try:
            return await self.session.exec(statement, **options)
        except (StatementError, OverflowError) as error:
            refused = filter_error(error, self.model)
            if refused is None:
                raise
            raise refused from error

    def _conditions(
        self, conditions: Iterable[Condition], filters: Mapping[str, Any]
    ) -> Sequence[ColumnElement[bool]]:
        return [*self.scope(), *where(self.model, conditions, filters)]

    def _order(self, order_by: OrderBy) -> Sequence[ColumnElement[Any]]:
        return order_clauses(self.model, resolve_order(self.model, order_by), self._dialect)

    @property
    def _dialect(self) -> str:
        return self.session.get_bind().dialect.name
