"""A cache in Redis that processes share: what one commits, no other reads as it was before."""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Collection
from itertools import islice
from typing import TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

T = TypeVar("T")
AT_ONCE = 500  # keys that one command deletes
log = logging.getLogger(__name__)

# A script is one atomic step: no lease is lost between the look and the write.
LEASE = """
local held = redis.call('GET', KEYS[1])
if held then return held end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ARGV[1]
"""
STORE = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2])
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""


def redis_client(url: str, *, connections: int = 20) -> Redis:
    """Return a client whose pool waits when it is full; `aclose()` it in the lifespan.

    The usual pool raises `ConnectionError` then, and sends the readers to a database under load.
    """
    return Redis.from_pool(BlockingConnectionPool.from_url(url, max_connections=connections))


class RedisCache:
    """A backend for all processes; a Redis that does not answer is an empty cache, not an error.

    What a commit could not forget is logged as an error, and forgotten before this process reads
    from Redis again. Until then others read the old value, for at most twice `seconds`.
    """

    def __init__(
        self,
        client: Redis,
        *,
        seconds: float = 60,
        prefix: str = "cache:",
        patience: float = 0.5,
        retry_after: float = 5,
    ) -> None:
        """Take a client of one server, for `Cache`.

        Args:
            client: as `redis_client` makes it.
            seconds: how long a value is kept, and how long a load may take that is stored.
            prefix: of all keys, so that others can use the server too.
            patience: seconds that one step may take, with the wait for a connection.
            retry_after: seconds for which reads leave a Redis alone that has failed.

        Raises:
            ValueError: `seconds` is less than a millisecond, which is Redis's smallest time.
        """
        if seconds < 0.001:
            raise ValueError(f"seconds must be at least 0.001, not {seconds}")
        self._client = client
        self._take = client.register_script(LEASE)
        self._store = client.register_script(STORE)
        self._milliseconds = int(seconds * 1000)
        self._prefix = prefix
        self._patience = patience
        self._retry_after = retry_after
        self._retry_at = 0.0
        self._unforgotten: dict[str, float] = {}  # and when Redis has surely lost it
        self._catching_up = False

    async def get(self, key: str) -> bytes | None:
        if self._unforgotten and not await self._catch_up():
            return None
        value = await self._read(lambda: self._client.get(self._value(key)), None)
        return value.encode() if isinstance(value, str) else value  # decode_responses=True

    async def lease(self, key: str) -> str:
        lease = uuid.uuid4().hex
        held: str | bytes = await self._read(
            lambda: self._take(keys=[self._lease(key)], args=[lease, self._milliseconds]), lease
        )
        return held.decode() if isinstance(held, bytes) else held

    async def store(self, key: str, value: bytes, lease: str) -> bool:
        keys = [self._value(key), self._lease(key)]
        stored = self._read(
            lambda: self._store(keys=keys, args=[lease, value, self._milliseconds]), 0
        )
        return bool(await stored)

    async def forget(self, keys: Collection[str]) -> None:
        if await self._ask(lambda: self._delete(keys), False):
            return
        log.error("Redis has not forgotten %d key(s), first %s", len(keys), min(keys))
        now = time.monotonic()
        # A load begun before the commit stores its value for as long as its lease lasts.
        gone_at = now + 2 * self._milliseconds / 1000
        self._unforgotten = {key: at for key, at in self._unforgotten.items() if at > now}
        self._unforgotten.update(dict.fromkeys(keys, gone_at))

    async def _delete(self, keys: Collection[str]) -> bool:
        names = [name(key) for key in keys for name in (self._value, self._lease)]
        for start in range(0, len(names), AT_ONCE):
            await self._client.delete(*names[start : start + AT_ONCE])
        return True

    async def _catch_up(self) -> bool:
        """Forget what commits could not; who comes meanwhile has to do without the cache."""
        if self._catching_up:
            return False
        self._catching_up = True
        try:
            return await self._read(self._forget_the_rest, False)
        finally:
            self._catching_up = False

    async def _forget_the_rest(self) -> bool:
        while owed := dict(islice(self._unforgotten.items(), AT_ONCE)):
            now = time.monotonic()
            await self._delete([key for key, gone_at in owed.items() if gone_at > now])
            for key, gone_at in owed.items():
                if self._unforgotten.get(key) == gone_at:  # no later commit failed meanwhile
                    del self._unforgotten[key]
        return True

    def _value(self, key: str) -> str:
        return f"{self._prefix}value:{key}"

    def _lease(self, key: str) -> str:
        return f"{self._prefix}lease:{key}"

    async def _read(self, step: Callable[[], Awaitable[T]], otherwise: T) -> T:
        """Take the step, unless Redis has just failed: a read can do without it, at once."""
        if time.monotonic() < self._retry_at:
            return otherwise
        return await self._ask(step, otherwise)

    async def _ask(self, step: Callable[[], Awaitable[T]], otherwise: T) -> T:
        try:
            async with asyncio.timeout(self._patience):
                return await step()
        except (RedisError, OSError) as error:  # TimeoutError is an OSError
            self._retry_at = time.monotonic() + self._retry_after
            log.warning("Redis is left alone for %g s: %r", self._retry_after, error)
            return otherwise
