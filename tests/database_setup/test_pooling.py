import pytest
from servers import Server
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
