"""A process with many clients of one PgBouncer; prints what was served and what failed."""

import asyncio
import json
import sys
import uuid
from collections import Counter
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from snippets.production_patterns.pgbouncer import engine_for_pgbouncer

ROUNDS = 4
REPEATED = 8  # more often than psycopg runs a statement before it prepares it


def make_engine(url: str, connect_args: dict[str, Any] | None, clients: int) -> AsyncEngine:
    if connect_args is None:
        return engine_for_pgbouncer(url, application_name="fleet", pool_size=clients)
    if connect_args.pop("unique_names", False):
        connect_args["prepared_statement_name_func"] = lambda: f"__asyncpg_{uuid.uuid4()}__"
    if connect_args.pop("no_names", False):
        connect_args["prepared_statement_name_func"] = str
    return create_async_engine(url, pool_size=clients, connect_args=connect_args)


async def client(engine: AsyncEngine, name: str, served: list[str], failed: Counter[str]) -> None:
    for number in range(ROUNDS):
        key = f"{name}-{number}"
        try:
            async with engine.connect() as connection:
                for _ in range(REPEATED):
                    await connection.execute(text("SELECT pg_sleep(:s)"), {"s": 0.001})
                    await connection.commit()
                insert = text("INSERT INTO visit (visitor) VALUES (:key)")
                await connection.execute(insert, {"key": key})
                await connection.commit()
            served.append(key)
        except Exception as error:  # noqa: BLE001 - of 2.0 some are the driver's own
            failed[str(getattr(error, "orig", error))] += 1


async def main(url: str, process: str, connect_args: dict[str, Any] | None, clients: int) -> None:
    engine = make_engine(url, connect_args, clients)
    served: list[str] = []
    failed: Counter[str] = Counter()
    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(client(engine, f"{process}-{number}", served, failed))
    print(json.dumps({"served": served, "failed": failed}))
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), int(sys.argv[4])))
