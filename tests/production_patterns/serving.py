"""The cinema as it runs in production, in a process of its own, and a balancer before several."""

import asyncio
import itertools
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
from fastapi import APIRouter, FastAPI
from sqlalchemy import URL, event
from sqlmodel import select

from snippets.database_setup.session import session_scope
from snippets.database_setup.settings import DatabaseSettings
from snippets.database_setup.urls import with_password
from snippets.fastapi_integration import app as cinema
from snippets.fastapi_integration._cinema import Film
from snippets.fastapi_integration.dependencies import SessionDep
from snippets.production_patterns.health import Health, health_router, probe_engine
from snippets.production_patterns.shutdown import add_drain, repeating

ROOT = Path(__file__).parents[2]
PATIENCE = 120  # seconds, for a busy machine


def say(what: str) -> None:
    sys.stderr.write(f"event: {what}\n")
    sys.stderr.flush()


def create_app() -> FastAPI:
    """The cinema with health, a drain of `DRAIN` seconds (none without), a loop, a slow route."""
    settings = DatabaseSettings()  # type: ignore[call-arg]
    app = cinema.create_app(settings)
    options: dict[str, Any] = {}
    if seconds := os.environ.get("DRAIN"):
        options["leaving"] = add_drain(app, seconds=float(seconds)).begun.is_set
    health = Health(probe_engine(settings), timeout=60)
    app.include_router(health_router(health, **options))
    app.include_router(APIRouter(lifespan=_loop))

    @app.post("/slow-films/{year}")
    async def slow(year: int, title: str, seconds: float, session: SessionDep) -> dict[str, int]:
        session.add(Film(title=title, year=year))
        await session.flush()
        say("slow request begun")
        await asyncio.sleep(seconds)
        say("slow request done")
        return {"year": year}

    return app


@asynccontextmanager
async def _loop(app: FastAPI) -> AsyncIterator[None]:
    event.listen(app.state.engine.sync_engine, "engine_disposed", lambda _: say("engine disposed"))

    async def look() -> None:
        async with session_scope(app.state.reading_factory) as session:
            await session.exec(select(Film).limit(1))

    async with repeating(look, pause=0.05):
        yield
    say("loop ended")


class Served:
    """A uvicorn process; `url` once it runs, `events` in the order of their happening."""

    def __init__(self, database: URL, log: Path, *options: str, drain: float | None = None) -> None:
        command = ["-m", "uvicorn", "--factory", "production_patterns.serving:create_app"]
        self._command = [*command, "--port", "0", *options]
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        limits = {f"DATABASE_{name}_TIMEOUT": str(PATIENCE) for name in ("POOL", "LOCK")}
        self._environment = os.environ | limits | {"PYTHONPATH": path}
        self._environment["DATABASE_URL"] = with_password(database)
        if drain is not None:
            self._environment["DRAIN"] = str(drain)
        self._log = log

    async def __aenter__(self) -> Self:
        with self._log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, *self._command, env=self._environment, stdout=log, stderr=log
            )
        try:
            self.url = (await self._written(r"running on (http://\S+) "))[1]
            await self._written(r"Application startup complete")
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def _written(self, pattern: str) -> re.Match[str]:
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, self.output)):
            if self.process.returncode is not None or time.monotonic() > deadline:
                raise AssertionError(f"no {pattern!r} in:\n{self.output}")
            await asyncio.sleep(0.05)
        return found

    async def happened(self, what: str) -> None:
        await self._written(f"event: {what}\n")

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def ended(self) -> int:
        async with asyncio.timeout(PATIENCE):
            return await self.process.wait()

    @property
    def output(self) -> str:
        return self._log.read_text()

    @property
    def events(self) -> list[str]:
        return re.findall(r"^event: (.*)$", self.output, re.MULTILINE)


@dataclass
class Traffic:
    """What clients sent, and what came of it."""

    acknowledged: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    async def post_film(self, client: httpx.AsyncClient, url: str) -> str:
        title = f"film {next(self._numbers)}"
        try:
            answer = await client.post(f"{url}/films", json={"title": title, "year": 2000})
        except httpx.ConnectError:
            self.refused.append(title)
        except httpx.TransportError as error:
            self.failed[title] = repr(error)
        else:
            if answer.status_code == 201:
                self.acknowledged.append(title)
            else:
                self.failed[title] = f"{answer.status_code} {answer.text}"
        return title
