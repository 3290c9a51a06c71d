import asyncio
import datetime as dt
import os
import random
import signal
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest
from production_patterns.every_driver import running_engine, urls
from production_patterns.lossy_proxy import Loss, LossyProxy
from production_patterns.outbox_worker import LEASE, READY, Purchase, Shipment
from sqlalchemy import URL, func, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlmodel import col, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.async_operations.errors import ErrorKind, classify, is_retryable
from snippets.database_setup.session import session_factory, session_scope
from snippets.models.timestamps import utc_now
from snippets.production_patterns import outbox
from snippets.production_patterns.outbox import (
    MAX_ATTEMPTS,
    InboxRow,
    Message,
    OutboxRow,
    claim_messages,
    deliver_due,
    first_receipt,
    mark_failed,
    publish,
    run_worker,
    unpark,
)

TABLES = [OutboxRow, InboxRow, Purchase, Shipment]
Factory = async_sessionmaker[AsyncSession]
LONG = dt.timedelta(minutes=5)
ROOT = Path(__file__).parents[2]
KILLS = 6
PRODUCERS = 3
LIMIT = 120  # seconds that a condition may take on a busy machine


async def send(factory: Factory, *numbers: int, stream: str | None = None) -> None:
    for number in numbers:
        async with session_scope(factory) as session:
            await publish(session, "numbers", {"number": number}, stream=stream)


async def claim(factory: Factory, limit: int = 10) -> list[int]:
    async with session_scope(factory) as session:
        rows = await claim_messages(session, limit=limit, lease=LONG)
        return [row.payload["number"] for row in rows]


async def all_rows(factory: Factory) -> Sequence[OutboxRow]:
    async with factory() as session:
        return (await session.exec(select(OutboxRow).order_by(col(OutboxRow.id)))).all()


async def make_due(factory: Factory) -> None:
    async with session_scope(factory) as session:
        past = utc_now() - dt.timedelta(seconds=1)
        due = col(OutboxRow.due_at).is_not(None)
        await session.exec(update(OutboxRow).where(due).values(due_at=past))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110 - a plain list tells nobody
            await asyncio.sleep(0.01)


class Receiver:
    """Notes what arrives; fails for the numbers it was told to fail for."""

    def __init__(self, *, fails_for: set[int] = frozenset()) -> None:
        self.numbers: list[int] = []
        self.keys: list[uuid.UUID] = []
        self.fails_for = fails_for

    async def __call__(self, message: Message) -> None:
        assert message.topic == "numbers"
        if message.payload["number"] in self.fails_for:
            raise ConnectionRefusedError("no broker here")
        self.numbers.append(message.payload["number"])
        self.keys.append(message.key)


async def test_what_is_rolled_back_is_not_sent(factory: Factory) -> None:
    await send(factory, 1)
    with pytest.raises(ZeroDivisionError):
        async with session_scope(factory) as session:
            await publish(session, "numbers", {"number": 2})
            raise ZeroDivisionError
    receiver = Receiver()

    tried = await deliver_due(factory, receiver)

    assert (tried, receiver.numbers) == (1, [1])
    assert await all_rows(factory) == []


async def test_workers_never_share_a_message(factory: Factory) -> None:
    await send(factory, *range(12))

    claims = await asyncio.gather(*[claim(factory, 3) for _ in range(4)])

    taken = sorted(number for numbers in claims for number in numbers)
    assert len(taken) == len(set(taken))
    assert sorted(taken + await claim(factory, 12)) == list(range(12))


@pytest.mark.not_on("sqlite", reason="SQLite has one writer: the second waits for the first")
async def test_a_claim_waits_for_no_other(session: AsyncSession, factory: Factory) -> None:
    await send(factory, 1, 2, 3)
    first = await claim_messages(session, limit=2, lease=LONG)

    second = await asyncio.wait_for(claim(factory), LIMIT)

    assert ([row.payload["number"] for row in first], second) == ([1, 2], [3])


async def test_a_stream_is_delivered_one_by_one_in_order(factory: Factory) -> None:
    await send(factory, 1, 2, stream="a")
    await send(factory, 10, 20, stream="b")
    await send(factory, 100, 200)

    assert sorted(await claim(factory)) == [1, 10, 100, 200]
    assert await claim(factory) == []

    await make_due(factory)
    receiver = Receiver()
    while await deliver_due(factory, receiver):
        pass
    assert [n for n in receiver.numbers if n < 10] == [1, 2]
    assert [n for n in receiver.numbers if 10 <= n < 100] == [10, 20]


async def test_a_message_gets_its_number_after_its_change_has_the_lock(
    factory: Factory, session: AsyncSession
) -> None:
    async with session_scope(factory) as other:
        other.add(Purchase(id=1))
    purchase = await session.get_one(Purchase, 1)
    purchase.last = 1

    row = await publish(session, "numbers", {"number": 1}, stream="purchase:1")

    assert purchase not in session.dirty
    assert row.id is not None


@pytest.mark.parametrize("fails", [False, True])
async def test_who_was_overtaken_leaves_a_new_message_alone_that_has_the_same_id(
    factory: Factory, fails: bool
) -> None:
    receiver = Receiver()

    async def be_overtaken(message: Message) -> None:
        await make_due(factory)
        await deliver_due(factory, receiver)
        await send(factory, 2)
        if fails:
            raise ConnectionRefusedError("no broker here")

    await send(factory, 1)
    await deliver_due(factory, be_overtaken)

    (row,) = await all_rows(factory)
    assert row.payload == {"number": 2}
    assert (row.attempts, row.last_error) == (0, None)
    assert receiver.numbers == [1]


async def test_a_claim_is_over_when_its_lease_is(factory: Factory) -> None:
    await send(factory, 1)

    assert await claim(factory) == [1]
    assert await claim(factory) == []
    await make_due(factory)
    assert await claim(factory) == [1]


async def test_a_failure_is_tried_again_later_and_later(
    factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    await send(factory, 1)
    waits = []
    for _ in range(3):
        now = utc_now()
        with monkeypatch.context() as stopped:  # or the wait may be over, on a busy machine
            stopped.setattr(outbox, "utc_now", lambda now=now: now)
            assert await deliver_due(factory, Receiver(fails_for={1})) == 1
            assert await deliver_due(factory, Receiver()) == 0
        (row,) = await all_rows(factory)
        waits.append((row.due_at - now).total_seconds())
        await make_due(factory)

    assert waits[0] >= 1
    assert waits[1] >= 2
    assert waits[2] >= 4
    assert row.last_error == "ConnectionRefusedError('no broker here')"
    receiver = Receiver()
    assert await deliver_due(factory, receiver) == 1
    assert receiver.numbers == [1]


async def test_a_poisoned_message_is_parked_and_holds_back_its_stream_alone(
    factory: Factory,
) -> None:
    await send(factory, 1, 2, stream="a")
    await send(factory, 10, stream="b")
    receiver = Receiver(fails_for={1})
    for _ in range(MAX_ATTEMPTS + 3):
        await deliver_due(factory, receiver)
        await make_due(factory)

    assert receiver.numbers == [10]
    parked, waiting = await all_rows(factory)
    assert (parked.due_at, parked.attempts) == (None, MAX_ATTEMPTS)
    assert waiting.attempts == 0

    async with session_scope(factory) as session:  # a person has mended the receiver
        assert await unpark(session, []) == await unpark(session, [waiting.key]) == 0
        assert await unpark(session, [parked.key]) == 1
        assert await unpark(session) == 0
    receiver.fails_for = set()
    while await deliver_due(factory, receiver):
        pass
    assert receiver.numbers == [10, 1, 2]


async def test_the_number_of_attempts_is_the_workers(factory: Factory) -> None:
    await send(factory, 1)
    receiver = Receiver(fails_for={1})
    for _ in range(5):
        await deliver_due(factory, receiver, attempts=2)
        await make_due(factory)

    (parked,) = await all_rows(factory)
    assert (parked.due_at, parked.attempts) == (None, 2)
    async with session_scope(factory) as session:
        assert await unpark(session) == 1
    (row,) = await all_rows(factory)
    assert (row.attempts, row.due_at <= utc_now()) == (0, True)


async def test_after_many_attempts_the_wait_is_no_longer(factory: Factory) -> None:
    await send(factory, 1)
    async with session_scope(factory) as session:
        await session.exec(update(OutboxRow).values(attempts=10_000))

    await deliver_due(factory, Receiver(fails_for={1}), attempts=20_000)

    (row,) = await all_rows(factory)
    assert row.attempts == 10_001
    assert row.due_at - utc_now() <= dt.timedelta(minutes=10)


async def test_a_message_that_kills_its_workers_is_parked_and_harms_no_other(
    factory: Factory,
) -> None:
    await send(factory, 1, 666, 2, 3)

    class KilledError(BaseException):
        """Nothing of the worker runs after it, as after kill -9."""

    arrived = []

    async def deliver(message: Message) -> None:
        if message.payload["number"] == 666:
            raise KilledError
        arrived.append(message.payload["number"])

    for _ in range(4 * MAX_ATTEMPTS):
        try:
            await deliver_due(factory, deliver)
        except KilledError:
            await make_due(factory)

    assert sorted(arrived) == [1, 2, 3]
    (parked,) = await all_rows(factory)
    assert (parked.payload, parked.due_at) == ({"number": 666}, None)
    assert parked.last_error == "its workers died"


async def test_a_worker_that_lost_its_lease_does_not_touch_the_next_ones_claim(
    factory: Factory,
) -> None:
    await send(factory, 1)
    async with session_scope(factory) as session:
        (slow,) = await claim_messages(session, limit=1, lease=LONG)
    await make_due(factory)
    await claim(factory)
    (before,) = await all_rows(factory)

    async with session_scope(factory) as session:
        await mark_failed(session, slow, ConnectionRefusedError())

    (after,) = await all_rows(factory)
    assert (after.due_at, after.last_error) == (before.due_at, None)


async def test_a_message_that_is_delivered_twice_has_the_same_key_and_is_received_once(
    factory: Factory,
) -> None:
    await send(factory, 1)
    receiver = Receiver()

    async def deliver_and_die(message: Message) -> None:
        await receiver(message)
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await deliver_due(factory, deliver_and_die)
    await make_due(factory)
    await deliver_due(factory, receiver)

    assert receiver.numbers == [1, 1]
    receipts = []
    for key in receiver.keys:
        async with session_scope(factory) as session:
            receipts.append(await first_receipt(session, "printer", key))
    assert receipts == [True, False]
    async with session_scope(factory) as session:
        assert await first_receipt(session, "another consumer", receiver.keys[0])


async def test_a_receipt_is_taken_back_with_what_the_consumer_did(factory: Factory) -> None:
    key = uuid.uuid4()
    with pytest.raises(ZeroDivisionError):
        async with session_scope(factory) as session:
            assert await first_receipt(session, "printer", key)
            raise ZeroDivisionError

    async with session_scope(factory) as session:
        assert await first_receipt(session, "printer", key)


async def test_consumers_and_streams_are_told_apart_by_every_letter(factory: Factory) -> None:
    key = uuid.uuid4()
    async with session_scope(factory) as session:
        new = [await first_receipt(session, name, key) for name in ("mail", "Mail", "máil")]
    for stream in ("order:a", "order:A"):
        await send(factory, 1, stream=stream)

    assert new == [True, True, True]
    assert await claim(factory) == [1, 1]  # neither holds the other back


async def test_a_second_receipt_keeps_the_consumers_transaction_alive(factory: Factory) -> None:
    key = uuid.uuid4()
    async with session_scope(factory) as session:
        assert await first_receipt(session, "printer", key)

    async with session_scope(factory) as session:
        session.add(Purchase(id=5))
        assert not await first_receipt(session, "printer", key)

    async with factory() as session:
        assert await session.get(Purchase, 5)


async def test_what_is_refused_of_the_consumers_own_work_is_no_second_receipt(
    factory: Factory,
) -> None:
    async with session_scope(factory) as session:
        session.add(Purchase(id=5))

    with pytest.raises(IntegrityError):
        async with session_scope(factory) as session:
            session.add(Purchase(id=5))
            await first_receipt(session, "printer", uuid.uuid4())


async def test_a_receipt_may_be_asked_for_twice_in_a_transaction(factory: Factory) -> None:
    key = uuid.uuid4()
    async with session_scope(factory) as session:
        assert await first_receipt(session, "printer", key)
        assert not await first_receipt(session, "printer", key)


@pytest.mark.not_on("sqlite", reason="SQLite enforces no lengths")
async def test_an_inbox_that_refuses_the_note_is_no_second_receipt(factory: Factory) -> None:
    with pytest.raises(DBAPIError) as caught:
        async with session_scope(factory) as session:
            await first_receipt(session, "x" * 51, uuid.uuid4())

    assert classify(caught.value).kind is ErrorKind.TOO_LONG


async def test_a_worker_goes_on_until_it_is_stopped(factory: Factory) -> None:
    stop = asyncio.Event()
    receiver = Receiver()
    worker = asyncio.create_task(run_worker(factory, receiver, stop, poll=0.01))
    await send(factory, 1, 2, 3)
    await until(lambda: len(receiver.numbers) == 3)

    stop.set()

    await asyncio.wait_for(worker, LIMIT)
    assert await all_rows(factory) == []


@pytest.mark.only_on("sqlite", reason="there one open transaction stops the claim")
async def test_a_worker_survives_what_trying_again_mends(
    factory: Factory, session: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    await send(factory, 1)
    await session.exec(update(OutboxRow).values(attempts=0))  # takes the lock
    async with surviving_worker(factory, caplog):
        await session.rollback()


@asynccontextmanager
async def surviving_worker(
    factory: Factory, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[None]:
    """Run a worker; the body ends an outage that the worker has met, then it must deliver."""
    stop = asyncio.Event()
    receiver = Receiver()
    lease = dt.timedelta(seconds=1)
    with caplog.at_level("WARNING", outbox.log.name):
        worker = asyncio.create_task(run_worker(factory, receiver, stop, poll=0.01, lease=lease))
        await until(lambda: worker.done() or "out of reach" in caplog.text)
        yield
        await until(lambda: worker.done() or receiver.numbers)
    stop.set()
    await asyncio.wait_for(worker, LIMIT)
    assert set(receiver.numbers) == {1}


async def test_a_worker_survives_a_full_pool(
    factory: Factory, database_url: URL, caplog: pytest.LogCaptureFixture
) -> None:
    await send(factory, 1)
    options = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 0.1}
    async with (
        running_engine(database_url, **options) as engine,
        engine.connect() as only,
        surviving_worker(session_factory(engine), caplog),
    ):
        await only.close()


@pytest.mark.not_on("sqlite", reason="nobody can refuse to connect")
async def test_a_worker_survives_a_server_that_refuses_connections(
    factory: Factory, database_url: URL, caplog: pytest.LogCaptureFixture
) -> None:
    for url in urls(database_url):
        await send(factory, 1)
        caplog.clear()
        async with LossyProxy(url) as proxy, running_engine(proxy.url) as engine:
            await proxy.refuse()
            async with surviving_worker(session_factory(engine), caplog):
                await proxy.accept()


@pytest.mark.only_on("postgresql", reason="MariaDB's limits are no property of an idle user")
async def test_a_worker_survives_a_server_without_room_for_its_connection(
    factory: Factory, engine: AsyncEngine, database_url: URL, caplog: pytest.LogCaptureFixture
) -> None:
    await send(factory, 1)
    role = f"crowded_{uuid.uuid4().hex}"
    async with engine.begin() as connection:
        await connection.execute(text(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 0"))
        await connection.execute(text(f"GRANT USAGE ON SCHEMA public TO {role}"))
        await connection.execute(text(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}"))
    try:
        async with (
            running_engine(database_url.set(username=role)) as crowded,
            surviving_worker(session_factory(crowded), caplog),
            engine.begin() as connection,
        ):
            await connection.execute(text(f"ALTER ROLE {role} CONNECTION LIMIT 5"))
    finally:
        async with engine.begin() as connection:
            await connection.execute(text(f"DROP OWNED BY {role}"))
            await connection.execute(text(f"DROP ROLE {role}"))


LOCKS = {
    "postgresql": ("LOCK TABLE outboxrow IN ACCESS EXCLUSIVE MODE", "SELECT 1"),
    "mysql": ("LOCK TABLES outboxrow WRITE", "UNLOCK TABLES"),
}


@pytest.mark.not_on("sqlite", reason="it has no limit of statements by itself")
async def test_a_worker_survives_a_table_that_is_locked_for_longer_than_a_statement_may_take(
    factory: Factory, engine: AsyncEngine, database_url: URL, caplog: pytest.LogCaptureFixture
) -> None:
    await send(factory, 1)
    lock, unlock = LOCKS[engine.dialect.name]
    # A second: those that connect must keep to it as well.
    limits = {"statement_timeout": 1, "lock_timeout": LIMIT}
    async with running_engine(database_url, **limits) as impatient, engine.connect() as migration:
        await migration.execute(text(lock))
        async with surviving_worker(session_factory(impatient), caplog):
            await migration.execute(text(unlock))
            await migration.commit()


@pytest.mark.not_on("sqlite", reason="there is no connection that could be lost")
@pytest.mark.parametrize("loss", ["before", "after"])
async def test_a_worker_survives_a_claim_whose_commit_is_lost(
    factory: Factory, database_url: URL, loss: Loss, caplog: pytest.LogCaptureFixture
) -> None:
    for url in urls(database_url):
        await send(factory, 1)
        caplog.clear()
        async with LossyProxy(url) as proxy, running_engine(proxy.url) as engine:
            proxy.lose_commit.append(loss)
            async with surviving_worker(session_factory(engine), caplog):
                assert proxy.lost == [loss]
        assert await all_rows(factory) == []


async def test_a_worker_can_be_cancelled(factory: Factory) -> None:
    worker = asyncio.create_task(run_worker(factory, Receiver(), asyncio.Event(), poll=0.01))
    await asyncio.sleep(0.1)
    worker.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(worker, LIMIT)


async def test_a_worker_ends_with_an_error_that_trying_again_does_not_mend(
    factory: Factory, engine: AsyncEngine
) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(OutboxRow.__table__.drop)

    with pytest.raises(DBAPIError):
        await asyncio.wait_for(run_worker(factory, Receiver(), asyncio.Event()), LIMIT)


class Crowd:
    """Worker processes, and what they said they have delivered."""

    def __init__(self, url: URL) -> None:
        self.url = url.render_as_string(hide_password=False)
        self.delivered: Counter[str] = Counter()
        self._readers: list[asyncio.Task[None]] = []
        self.processes: list[asyncio.subprocess.Process] = []
        self._ready: list[asyncio.Event] = []

    async def start(self) -> "Worker":
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).with_name("outbox_worker.py")),
            self.url,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=asyncio.subprocess.PIPE,
        )
        self.processes.append(process)
        worker = Worker(process)
        self._ready.append(worker.is_ready)
        self._readers.append(asyncio.create_task(self._read(worker)))
        return worker

    async def _read(self, worker: "Worker") -> None:
        assert worker.process.stdout is not None
        async for line in worker.process.stdout:
            worker.is_ready.set()
            if (word := line.decode().strip()) != READY:
                self.delivered[word] += 1
                worker.has_delivered.set()

    async def end(self) -> list[int]:
        """Stop those that still run; return how all have ended."""
        async with asyncio.timeout(LIMIT):
            for process, ready in zip(self.processes, self._ready, strict=True):
                if process.returncode is None:
                    await ready.wait()
                    process.terminate()
            await asyncio.gather(*self._readers)
            return [await process.wait() for process in self.processes]

    def kill_all(self) -> None:
        for process in self.processes:
            if process.returncode is None:
                process.kill()


class Worker:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.is_ready = asyncio.Event()
        self.has_delivered = asyncio.Event()

    async def until_it_delivers(self) -> None:
        async with asyncio.timeout(LIMIT):
            await self.has_delivered.wait()


@asynccontextmanager
async def crowd_of_workers(url: URL) -> AsyncIterator[Crowd]:
    crowd = Crowd(url)
    try:
        yield crowd
    finally:
        crowd.kill_all()
        for process in crowd.processes:
            await process.wait()


async def outbox_length(factory: Factory) -> int:
    async with factory() as session:
        return (await session.exec(select(func.count()).select_from(OutboxRow))).one()


async def produce(factory: Factory, purchase_id: int, done: asyncio.Event) -> list[tuple[str, int]]:
    """Change a purchase and publish that, again and again; return what was committed."""
    committed: list[tuple[str, int]] = []
    for turn in count(1):
        if done.is_set():
            return committed
        if await outbox_length(factory) > 30:
            await asyncio.sleep(0.05)
            continue
        with_rollback = turn % 5 == 0
        try:
            async with session_scope(factory) as session:
                more = update(Purchase).where(col(Purchase.id) == purchase_id)
                await session.exec(more.values(last=Purchase.last + 1))
                number = (
                    await session.exec(select(Purchase.last).where(Purchase.id == purchase_id))
                ).one()
                payload = {"purchase_id": purchase_id, "number": number}
                row = await publish(session, "more", payload, stream=f"purchase:{purchase_id}")
                if with_rollback:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            continue
        except DBAPIError as error:
            assert is_retryable(error)  # noqa: PT017 - the producer's own retry
            continue
        committed.append((str(row.key), number))
        await asyncio.sleep(random.uniform(0, 0.03))
    raise AssertionError


async def kill_workers(crowd: Crowd) -> None:
    """Kill workers a moment after they have delivered something; a new one takes each place."""
    workers = [await crowd.start() for _ in range(2)]
    for turn in range(KILLS):
        victim = workers.pop(0)
        await victim.until_it_delivers()
        await asyncio.sleep(random.uniform(0, 0.02))
        if turn == KILLS // 2:  # this one only sleeps longer than its lease, and then goes on
            victim.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(LEASE.total_seconds() * 1.5)
            victim.process.send_signal(signal.SIGCONT)
            workers.append(victim)
            continue
        victim.process.kill()
        workers.append(await crowd.start())


async def test_nothing_is_lost_or_doubled_when_workers_are_killed(
    factory: Factory, database_url: URL, tally: Callable[..., None]
) -> None:
    ids = range(1, PRODUCERS + 1)
    async with session_scope(factory) as session:
        session.add_all([Purchase(id=n) for n in ids])
    done = asyncio.Event()

    async with crowd_of_workers(database_url) as crowd:
        producers = [asyncio.create_task(produce(factory, n, done)) for n in ids]
        try:
            await kill_workers(crowd)
        finally:
            done.set()
            sent = await asyncio.gather(*producers)
        async with asyncio.timeout(LIMIT):
            while await outbox_length(factory):  # noqa: ASYNC110 - other processes empty it
                await asyncio.sleep(0.05)
        ends = await crowd.end()

    async with factory() as session:
        shipments = (await session.exec(select(Shipment).order_by(col(Shipment.id)))).all()
    for purchase_id, messages in zip(ids, sent, strict=True):
        received = [(str(s.key), s.number) for s in shipments if s.purchase_id == purchase_id]
        assert received == messages  # each, once, in order
        assert [number for _, number in messages] == list(range(1, len(messages) + 1))
    assert set(ends) == {-signal.SIGKILL, 0}
    assert ends.count(-signal.SIGKILL) == KILLS - 1
    published = [key for messages in sent for key, _ in messages]
    received = [str(shipment.key) for shipment in shipments]
    tally("worker killed or halted", KILLS, served=published, stored=received)
