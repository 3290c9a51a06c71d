import asyncio
from uuid import uuid4

import pytest
from production_patterns.own_postgresql import OwnPostgreSQL
from servers import Server
from sqlalchemy import text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine

from snippets.database_setup.engine import engine_for
from snippets.database_setup.pooling import (
    PoolFigures,
    PoolPlanError,
    plan_pool,
    pool_figures,
    server_connection_limit,
)


@pytest.mark.parametrize("processes", [1, 3, 4, 19, 95])
def test_all_processes_together_stay_within_the_server(processes: int) -> None:
    plan = plan_pool(processes=processes, server_connections=100, reserved=5)

    assert plan.connections <= 95
    assert plan.connections > 95 - processes  # and nothing is wasted
    assert plan.pool_size >= 1


def test_processes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(PoolPlanError, match="96 processes do not fit into 100 connections with 5"):
        plan_pool(processes=96, server_connections=100, reserved=5)
    with pytest.raises(PoolPlanError, match="at least 1"):
        plan_pool(processes=0, server_connections=100)


async def test_the_server_says_how_many_connections_it_allows(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        limit = await server_connection_limit(connection)

    if engine.dialect.name == "sqlite":
        assert limit is None
    else:
        assert limit is not None
        assert limit >= 10


async def test_a_full_pool_answers_with_an_error_and_serves_again(server: Server) -> None:
    plan = plan_pool(processes=1, server_connections=7, reserved=5)
    engine = engine_for(server.url, pool_timeout=0.05, **plan.engine_options())

    async with engine.connect(), engine.connect():
        assert pool_figures(engine) == PoolFigures(limit=2, in_use=2, idle=0)
        with pytest.raises(PoolTimeoutError, match="QueuePool limit of size 1 overflow 1 reached"):
            await engine.connect()
    async with engine.connect():
        assert pool_figures(engine) == PoolFigures(limit=2, in_use=1, idle=0)
    assert pool_figures(engine) == PoolFigures(limit=2, in_use=0, idle=1)
    await engine.dispose()


async def test_an_engine_without_a_queue_has_no_figures() -> None:
    assert pool_figures(engine_for("sqlite://")) is None


@pytest.mark.not_on("sqlite", reason="a file has no accounts")
async def test_an_accounts_own_limit_counts(engine: AsyncEngine) -> None:
    name = f"few_{uuid4().hex[:20]}"
    create, grant = {
        "postgresql": (
            f"CREATE ROLE {name} LOGIN PASSWORD '{name}' CONNECTION LIMIT 7",
            "SELECT 1",
        ),
        "mysql": (
            f"CREATE USER {name} IDENTIFIED BY '{name}' WITH MAX_USER_CONNECTIONS 7",
            f"GRANT ALL ON `{engine.url.database}`.* TO {name}",
        ),
    }[engine.dialect.name]
    async with engine.begin() as connection:
        await connection.execute(text(create))
        await connection.execute(text(grant))
    few = engine_for(engine.url.set(username=name, password=name))
    try:
        async with few.connect() as connection:
            assert await server_connection_limit(connection) == 7
        if engine.dialect.name == "postgresql":  # whoever logged in counts, not whom they became
            async with engine.begin() as connection:
                await connection.execute(text(f"SET LOCAL ROLE {name}"))
                assert await server_connection_limit(connection) != 7
    finally:
        await few.dispose()
        async with engine.begin() as connection:
            await connection.execute(text(f"DROP USER {name}"))


@pytest.mark.only_on("postgresql", reason="its setting, since version 16")
async def test_what_the_server_keeps_back_does_not_count(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        if not await connection.scalar(
            text("SELECT current_setting('reserved_connections', true)")
        ):
            pytest.skip("this server is older")
    with OwnPostgreSQL() as server:
        own = engine_for(server.url)
        async with own.connect() as connection:
            before = await server_connection_limit(connection)
            await connection.rollback()
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(text("ALTER SYSTEM SET reserved_connections = 4"))
        await own.dispose()
        await asyncio.to_thread(server.restart)
        async with own.connect() as connection:
            after = await server_connection_limit(connection)
        await own.dispose()

    assert before is not None
    assert after == before - 4
