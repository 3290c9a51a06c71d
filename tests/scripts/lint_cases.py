"""Read the cases of lint.py's rules: code that must be found, and near misses that must not.

A file in `lint_cases/` has, for each rule, `@@ rule`, then cases: `++ title` for code that is
found where a line ends with `# !`, `-- title` for code in which the rule finds nothing. The code
of a case is `app/main.py` below the imports of PRELUDE; `>> path` begins another file.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).with_name("lint_cases")
MARK = re.compile(r"\s*#\s!$")

PRELUDE = """\
import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Optional
import sqlalchemy as sa
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException, Request
from sqlalchemy import func, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import contains_eager, joinedload, selectinload
from sqlmodel import Field, Relationship, SQLModel, col, delete, insert, select, update
from sqlmodel.ext.asyncio.session import AsyncSession
from app.database import session_scope
from app.models import Badge, Hero, HeroCreate, HeroPublic, HeroUpdate, Team, TeamWithHeroes
from app.services import ServiceBase, TeamService
"""
REVISION = """\
import sqlalchemy as sa
from alembic import op
revision = "2"
down_revision = "1"
"""
MODELS = """\
from datetime import datetime
from typing import Any, Optional
import sqlalchemy as sa
from pydantic import BaseModel
from sqlmodel import Field, Relationship, SQLModel

class Team(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=50, unique=True)
    wins: int = 0
    heroes: list["Hero"] = Relationship(back_populates="team")

class Hero(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=50)
    alias: str | None = None
    seen_at: datetime
    data: dict[str, Any] = Field(sa_type=sa.JSON(none_as_null=True))
    team_id: int = Field(default=None, foreign_key="team.id")
    team: Team = Relationship(back_populates="heroes")
    badge: Optional["Badge"] = Relationship(back_populates="hero")

class Badge(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    hero_id: int = Field(foreign_key="hero.id", unique=True, ondelete="CASCADE")
    hero: Hero = Relationship(back_populates="badge")

class HeroCreate(BaseModel):
    name: str

class HeroUpdate(BaseModel):
    name: str = ""
    alias: str | None = None

class HeroPublic(BaseModel):
    id: int
    name: str

class TeamWithHeroes(BaseModel):
    id: int
    heroes: list[HeroPublic]
"""
SERVICES = """\
from typing import Generic, TypeVar
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession
from app.models import HeroCreate, HeroUpdate, Team
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")

class ServiceBase(Generic[A, B, C]):
    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    def scope(self):
        return ()

class TeamService(ServiceBase[Team, HeroCreate, HeroUpdate]): ...

class OwnTeams(ServiceBase[Team, HeroCreate, HeroUpdate]):
    def scope(self):
        return [col(Team.wins) > 0]
"""
DATABASE = """\
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession

@asynccontextmanager
async def session_scope(factory: async_sessionmaker[AsyncSession]) -> AsyncIterator[AsyncSession]:
    async with factory() as session:
        yield session
        await session.commit()
"""


class Case(NamedTuple):
    rule: str
    title: str
    found: bool
    files: dict[str, str]

    @property
    def marked(self) -> set[tuple[str, int]]:
        """Path and line of what must be found."""
        return {
            (path, number)
            for path, text in self.files.items()
            for number, line in enumerate(text.splitlines(), 1)
            if MARK.search(line)
        }

    def write(self, root: Path) -> None:
        project = {
            "pyproject.toml": "",
            "app/__init__.py": "",
            "app/models.py": MODELS,
            "app/services.py": SERVICES,
            "app/database.py": DATABASE,
        }
        for path, text in (project | self.files).items():
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            lines = text.splitlines()
            plain = path.endswith(".py")
            file.write_text(
                "\n".join(line if plain else MARK.sub("", line) for line in lines) + "\n"
            )


def start_of(path: str) -> str:
    """What stands above the code of a case."""
    if path.startswith("migrations/versions"):
        return REVISION
    return PRELUDE if path.endswith(".py") and not path.startswith("migrations") else ""


def read_cases(text: str) -> Iterator[Case]:
    for part in re.split(r"^@@ ", text, flags=re.MULTILINE)[1:]:
        rule, _, body = part.partition("\n")
        pieces = re.split(r"^(\+\+|--) (.*)\n", body, flags=re.MULTILINE)[1:]
        for kind, title, code in zip(pieces[::3], pieces[1::3], pieces[2::3], strict=True):
            yield Case(rule.strip(), title, kind == "++", dict(read_files(code)))


def read_files(code: str) -> Iterator[tuple[str, str]]:
    first, *others = re.split(r"^>> (.*)\n", code, flags=re.MULTILINE)
    if first.strip():
        yield "app/main.py", start_of("app/main.py") + first
    for path, text in zip(others[::2], others[1::2], strict=True):
        yield path, start_of(path) + text


def all_cases() -> list[Case]:
    files = sorted(FOLDER.glob("*.txt"))
    return [case for file in files for case in read_cases(file.read_text(encoding="utf-8"))]
