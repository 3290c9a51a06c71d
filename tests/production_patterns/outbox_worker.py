"""A worker process to be killed: it delivers the outbox to a receiver in the same database."""

import asyncio
import datetime as dt
import signal
import sys
import uuid

from sqlmodel import Field, SQLModel

from snippets.database_setup.engine import engine_for
from snippets.database_setup.session import session_factory, session_scope
from snippets.database_setup.sqlite_pragmas import begin_immediate
from snippets.production_patterns.outbox import Message, first_receipt, run_worker

READY = "ready"  # from now on SIGTERM lets it finish
LEASE = dt.timedelta(seconds=2)


class Purchase(SQLModel, table=True):
    """What the producers change: `last` counts the messages about it."""

    id: int | None = Field(default=None, primary_key=True)
    last: int = 0


class Shipment(SQLModel, table=True):
    """What the receiver does for each message; nothing here keeps it from doing it twice."""

    id: int | None = Field(default=None, primary_key=True)
    key: uuid.UUID
    purchase_id: int
    number: int


async def main(url: str) -> None:
    engine = engine_for(url)
    factory = session_factory(engine)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    print(READY, flush=True)

    async def deliver(message: Message) -> None:
        async with session_scope(factory) as session:
            await begin_immediate(session)
            if await first_receipt(session, "warehouse", message.key):
                session.add(Shipment(key=message.key, **message.payload))
        print(message.key, flush=True)  # before the outbox knows: the moment to be killed in

    # On a busy machine leases end by the dozen; no message is parked for that.
    await run_worker(factory, deliver, stop, poll=0.05, lease=LEASE, attempts=1000)
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
