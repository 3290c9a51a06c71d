"""Give each request one session, one transaction, and services bound to them."""

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

import fastapi
from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import HTTPConnection

from snippets.database_setup.session import session_scope
from snippets.servicebase.service import ServiceBase

Factory = async_sessionmaker[AsyncSession]
ServiceT = TypeVar("ServiceT", bound=ServiceBase[Any, Any, Any])
READS = {"GET", "HEAD"}
PLAIN = "/:@!$&'()*+,;=~"  # what a path may have as it is (RFC 3986)


def scope_option(version: str = fastapi.__version__) -> dict[str, Any]:
    """Return what makes `Depends` run the code after a `yield` before the answer is sent.

    Raises:
        RuntimeError: with FastAPI 0.118 to 0.120 nothing does.
    """
    release = tuple(int(part) for part in version.split(".")[:2])
    if release < (0, 118):  # always does
        return {}
    if release < (0, 121):
        raise RuntimeError(
            f"FastAPI {version} sends the answer before the commit; use 0.121 or newer"
        )
    return {"scope": "function"}


async def get_factory(connection: HTTPConnection) -> Factory:
    """Return the maker of sessions: for work that outlives the request; tests replace it."""
    state = connection.app.state
    reads = connection.scope.get("method") in READS
    factory: Factory = state.reading_factory if reads else state.session_factory
    return factory


FactoryDep = Annotated[Factory, Depends(get_factory)]


async def get_session(factory: FactoryDep) -> AsyncIterator[AsyncSession]:
    """Yield the request's session; commit when the route has returned, roll back when it raised."""
    async with session_scope(factory) as session:
        yield session


SessionDep = Annotated[AsyncSession, Depends(get_session, **scope_option())]


def provided(service: type[ServiceT]) -> Callable[[AsyncSession], Any]:
    """Return the dependency for `Annotated[FilmService, Depends(provided(FilmService))]`.

    All services of a request have the same session, and so are one transaction.
    """

    async def get(session: SessionDep) -> ServiceT:  # async, or it would run in a thread
        return service(session)

    return get


def path_of(request: Request, route: str, **parameters: Any) -> str:
    """Return the path that clients know a route by: with prefixes, mounts, and the proxy's part.

    `request.url_for` would put the Host header before it, whatever a client has written there.
    """
    root = request.scope.get("root_path", "").rstrip("/")
    path = f"{root}{request.app.url_path_for(route, **parameters)}"
    return quote(path, safe=PLAIN)  # a `?` in a key would end it, and a header takes no `é`
