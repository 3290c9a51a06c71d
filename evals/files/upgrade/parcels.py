import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Request
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from sqlalchemy.exc import IntegrityError, MissingGreenlet, StatementError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlmodel import Field, Relationship, SQLModel, select, text
from sqlmodel.ext.asyncio.session import AsyncSession


class Depot(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=50)
    parcels: list["Parcel"] = Relationship(back_populates="depot")


class Parcel(SQLModel, table=True):
    id: uuid.UUID = Field(default_factory=uuid.uuid4, primary_key=True)
    code: str = Field(max_length=20, unique=True)
    arrived_at: datetime = Field(default_factory=datetime.utcnow)
    depot_id: int | None = Field(default=None, foreign_key="depot.id")
    depot: Depot | None = Relationship(back_populates="parcels")


class DuplicateError(Exception):
    def __init__(self, column: str | None) -> None:
        super().__init__(column)
        self.column = column


async def receive(session: AsyncSession, code: str, depot_id: int | None = None) -> Parcel:
    """Flush a new parcel; DuplicateError names the column whose value is taken."""
    parcel = Parcel(code=code, depot_id=depot_id)
    session.add(parcel)
    try:
        await session.flush()
    except IntegrityError as error:
        raise DuplicateError(_column(str(error.orig))) from error
    return parcel


def _column(message: str) -> str | None:
    for pattern in (r"Key \((\w+)\)=", r"parcel\.(\w+)", r"for key '(\w+)'"):
        if found := re.search(pattern, message):
            return found[1]
    return None


async def receive_numbered(session: AsyncSession, code: str) -> tuple[Parcel, int]:
    """Flush a new parcel; the number says how many there were before it."""
    parcel = Parcel(code=code)
    session.add(parcel)
    before = (await session.exec(text("SELECT count(*) FROM parcel"))).scalar_one()
    await session.flush()
    return parcel, before


async def in_depot(session: AsyncSession, depot_id: int) -> list[Parcel]:
    statement = select(Parcel).join(Depot).filter_by(id=depot_id).order_by(Parcel.code)
    return list(await session.exec(statement))


def depot_name(parcel: Parcel) -> str | None:
    """Return the name of its depot; None where it has none, or it is not loaded."""
    try:
        return parcel.depot.name if parcel.depot else None
    except (MissingGreenlet, StatementError) as error:  # wrapped by some drivers
        if "await_only" in str(error):
            return None
        raise


def trace(engine: AsyncEngine, tracer_provider: Any) -> None:
    """Make a span of each statement of the engine."""
    SQLAlchemyInstrumentor().instrument(
        engine=engine.sync_engine, tracer_provider=tracer_provider
    )


async def get_session(request: Request) -> AsyncIterator[AsyncSession]:
    async with request.app.state.sessions() as session:
        yield session
        await session.commit()


def create_app(url: str) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine = create_async_engine(url)
        app.state.sessions = async_sessionmaker(
            engine, class_=AsyncSession, expire_on_commit=False
        )
        yield
        await engine.dispose()

    app = FastAPI(lifespan=lifespan)

    @app.post("/parcels/{code}", status_code=201)
    async def add(code: str, session: AsyncSession = Depends(get_session)) -> uuid.UUID:
        try:
            return (await receive(session, code)).id
        except DuplicateError as error:
            raise HTTPException(409, error.column) from error

    return app
