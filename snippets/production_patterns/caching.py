"""Read through a cache that no race fills with an old value, and forget what a commit changed."""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, suppress
from typing import Protocol, TypeVar

from cachetools import TTLCache
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from sqlalchemy import event
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import Session, SessionTransaction
from sqlmodel import Field, SQLModel, col, update
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.database_setup.session import run_to_end

T = TypeVar("T")
log = logging.getLogger(__name__)


class CacheBackend(Protocol):
    """What a cache has to do; each method is one atomic step."""

    async def get(self, key: str) -> bytes | None: ...

    async def lease(self, key: str) -> str:
        """Return the lease of those who load the key now, or a new one; `forget` voids it."""
        ...

    async def store(self, key: str, value: bytes, lease: str) -> bool:
        """Keep the value if the lease is still the key's, and end it; say whether it was."""
        ...

    async def forget(self, keys: Collection[str]) -> None:
        """Drop the values and the leases."""
        ...


class InProcessCache:
    """A backend for one process: others see old values until the time to live is over."""

    def __init__(self, *, size: int = 10_000, seconds: float = 60) -> None:
        self._values: TTLCache[str, bytes] = TTLCache(size, seconds)
        self._leases: TTLCache[str, str] = TTLCache(size, seconds)

    async def get(self, key: str) -> bytes | None:
        return self._values.get(key)

    async def lease(self, key: str) -> str:
        return self._leases.setdefault(key, uuid.uuid4().hex)

    async def store(self, key: str, value: bytes, lease: str) -> bool:
        if self._leases.get(key) != lease:
            return False
        del self._leases[key]
        self._values[key] = value
        return True

    async def forget(self, keys: Collection[str]) -> None:
        for key in keys:
            self._leases.pop(key, None)
            self._values.pop(key, None)


class Cache:
    """Schemas as JSON, loaded once however many ask; one per process.

    A load has a session of its own, begun after the lease: what it reads is at least that new. In
    the caller's session it might see an old snapshot, or changes that are not committed.
    """

    def __init__(self, backend: CacheBackend, factory: async_sessionmaker[AsyncSession]) -> None:
        self._backend = backend
        self._factory = factory
        self._loads: dict[str, asyncio.Task[tuple[bytes, bool]]] = {}

    async def get(
        self, key: str, kind: TypeAdapter[T], load: Callable[[AsyncSession], Awaitable[T]]
    ) -> T:
        """Return the cached value, or what `load` returns: schemas, never objects of a session.

        JSON has no infinity and no NaN: without `ser_json_inf_nan="constants"` in its config, a
        schema that has them comes back with None, or is refused.
        """
        cached = await self._backend.get(key)
        if cached is not None:
            with suppress(ValidationError):  # stored by a release whose schema is another
                return kind.validate_json(cached)
        joined = key in self._loads
        # shield: a caller that is cancelled must not take the value from the others.
        value, is_stored = await asyncio.shield(self._loading(key, kind, load))
        if joined and not is_stored:
            # Another process may have committed before this call, and after that load had begun.
            value, _ = await asyncio.shield(self._loading(key, kind, load))
        return kind.validate_json(value)

    def _loading(
        self, key: str, kind: TypeAdapter[T], load: Callable[[AsyncSession], Awaitable[T]]
    ) -> asyncio.Task[tuple[bytes, bool]]:
        task = self._loads.get(key)
        if task is None:
            task = self._loads[key] = asyncio.create_task(self._load(key, kind, load))
            task.add_done_callback(lambda done: self._loaded(key, done))
        return task

    async def _load(
        self, key: str, kind: TypeAdapter[T], load: Callable[[AsyncSession], Awaitable[T]]
    ) -> tuple[bytes, bool]:
        lease = await self._backend.lease(key)
        async with self._factory() as session:
            value = kind.dump_json(await load(session), by_alias=True, round_trip=True)
        return value, await self._backend.store(key, value, lease)

    def _loaded(self, key: str, done: asyncio.Task[tuple[bytes, bool]]) -> None:
        if self._loads.get(key) is done:
            del self._loads[key]
        if not done.cancelled():
            done.exception()  # seen, even when all who waited are gone

    async def forget(self, keys: Collection[str]) -> None:
        for key in keys:
            self._loads.pop(key, None)  # who asks from now on must not join an older load
        await self._backend.forget(keys)


class _ChangedKeys:
    """The keys that a session has changed: those of its commits, the others by transaction."""

    def __init__(self, session: Session) -> None:
        self.committed: set[str] = set()  # or perhaps: its answer may be lost
        self._pending: dict[SessionTransaction, set[str]] = {}
        event.listen(session, "before_commit", self._before_commit)
        event.listen(session, "after_commit", self._after_commit)
        event.listen(session, "after_soft_rollback", self._after_rollback)

    def add(self, session: Session, keys: Collection[str]) -> None:
        innermost = session.get_nested_transaction() or session.get_transaction()
        if innermost is None:
            innermost = session.begin()
        self._pending.setdefault(innermost, set()).update(keys)

    # A released savepoint comes to both, when nothing is committed yet.

    def _before_commit(self, session: Session) -> None:
        if session.get_nested_transaction() is None:
            self.committed.update(*self._pending.values())

    def _after_commit(self, session: Session) -> None:
        savepoint = session.get_nested_transaction()
        if savepoint is None:
            self._pending.clear()
        elif (keys := self._pending.pop(savepoint, None)) and savepoint.parent is not None:
            self._pending.setdefault(savepoint.parent, set()).update(keys)

    def _after_rollback(self, _session: Session, ended: SessionTransaction) -> None:
        self._pending.pop(ended, None)


@asynccontextmanager
async def caching_scope(
    factory: async_sessionmaker[AsyncSession], cache: Cache
) -> AsyncIterator[AsyncSession]:
    """Do as `session_scope`; after the commit, the cache forgets the keys of `forget_on_commit`.

    Also when nobody knows whether the commit has happened; never after a rollback. A cache that
    fails to forget is logged, since what is committed has not failed.
    """
    async with factory() as session:
        session.info["changed_keys"] = changed = _ChangedKeys(session.sync_session)
        try:
            yield session
            await session.flush()  # what fails here is surely not committed
            await run_to_end(session.commit())
        finally:
            if changed.committed:
                await run_to_end(_forget(cache, changed.committed))


async def _forget(cache: Cache, keys: Collection[str]) -> None:
    try:
        await cache.forget(keys)
    except Exception:
        log.exception("the cache has not forgotten %d key(s), first %s", len(keys), min(keys))


def forget_on_commit(session: AsyncSession, *keys: str) -> None:
    """Note what the transaction changes, beside each write; a savepoint's rollback takes it back.

    Raises:
        LookupError: the session is none of `caching_scope`, and nothing would forget the keys.
    """
    changed: _ChangedKeys | None = session.info.get("changed_keys")
    if changed is None:
        raise LookupError("forget_on_commit needs a session of caching_scope")
    changed.add(session.sync_session, keys)


# Example: scaffold.py leaves out what follows.


class Tariff(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=50)
    cents: int


class TariffPublic(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    cents: int


TARIFF = TypeAdapter(TariffPublic | None)  # None: that it does not exist is worth caching too


async def read_tariff(cache: Cache, tariff_id: int) -> TariffPublic | None:
    async def load(session: AsyncSession) -> TariffPublic | None:
        tariff = await session.get(Tariff, tariff_id)
        return None if tariff is None else TariffPublic.model_validate(tariff)

    return await cache.get(f"tariff:{tariff_id}", TARIFF, load)


async def change_tariff(session: AsyncSession, tariff_id: int, cents: int) -> None:
    """Flushed, not committed: the caller opens `caching_scope`."""
    await session.exec(update(Tariff).where(col(Tariff.id) == tariff_id).values(cents=cents))
    forget_on_commit(session, f"tariff:{tariff_id}")
