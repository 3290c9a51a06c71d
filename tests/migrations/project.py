"""A script directory of its own for each test, with revision files that really run."""

import asyncio
import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import alembic
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import URL
from sqlalchemy.pool import NullPool

from snippets.database_setup.engine import engine_for
from snippets.models.constraints import NAMING_CONVENTION

ALEMBIC = tuple(int(part) for part in alembic.__version__.split(".")[:2])
SCRIPT_DIRECTORY = Path(__file__).parents[2] / "snippets" / "migrations" / "script_directory"
ENV = """
from alembic import context
from snippets.migrations.environment import run_migrations

run_migrations(context.config.attributes["metadata"], **context.config.attributes["options"])
"""
HEADER = """
import sqlalchemy as sa
from alembic import op

revision = {revision!r}
down_revision = {down!r}
branch_labels = None
depends_on = None
"""


class Project:
    """An application's migrations; `revision()` adds one after the last."""

    def __init__(
        self, folder: Path, url: URL, metadata: sa.MetaData | None = None, **options: Any
    ) -> None:
        self.folder, self.url = folder, url
        self.versions = folder / "migrations" / "versions"
        self.versions.mkdir(parents=True)
        (folder / "migrations" / "env.py").write_text(ENV)
        shutil.copy(SCRIPT_DIRECTORY / "script.py.mako", folder / "migrations")
        self.output = io.StringIO()
        self.config = self.new_config()
        self.metadata = metadata or sa.MetaData(naming_convention=NAMING_CONVENTION)
        self.config.attributes |= {"metadata": self.metadata, "options": options}
        self.last: str | tuple[str, ...] | None = None

    def new_config(self) -> Config:
        config = Config(stdout=self.output, output_buffer=self.output)
        config.set_main_option("script_location", str(self.folder / "migrations"))
        config.set_main_option("path_separator", "os")
        config.attributes |= {"database_url": self.url}
        return config

    def revision(
        self,
        name: str,
        upgrade: str = "pass",
        downgrade: str = "pass",
        *,
        imports: str = "",
        down: str | tuple[str, ...] | None = None,
    ) -> None:
        header = HEADER.format(revision=name, down=down or self.last)
        body = [header, imports]
        for function, code in (("upgrade", upgrade), ("downgrade", downgrade)):
            body.append(f"\ndef {function}():\n{indent(dedent(code).strip(), '    ')}\n")
        (self.versions / f"{name}.py").write_text("\n".join(body))
        self.last = name

    async def run(self, name: str, *arguments: Any, **options: Any) -> Any:
        return await asyncio.to_thread(getattr(command, name), self.config, *arguments, **options)

    async def upgrade(self, target: str = "head") -> None:
        await self.run("upgrade", target)

    async def downgrade(self, target: str = "-1") -> None:
        await self.run("downgrade", target)

    @property
    def scripts(self) -> ScriptDirectory:
        return ScriptDirectory.from_config(self.config)

    async def current(self) -> set[str]:
        return {row[0] for row in await self.rows("SELECT version_num FROM alembic_version")}

    async def execute(self, *statements: str | sa.Executable) -> None:
        await self._with_connection(lambda connection: _execute(connection, statements))

    async def insert(self, table: str, *rows: dict[str, Any]) -> None:
        """Insert rows as an application would, values of Python turned into the column's type."""

        def insert(connection: sa.Connection) -> None:
            target = sa.Table(table, sa.MetaData(), autoload_with=connection)
            connection.execute(target.insert(), list(rows))

        await self._with_connection(insert)

    async def rows(self, query: str | sa.Select[Any]) -> list[tuple[Any, ...]]:
        statement = sa.text(query) if isinstance(query, str) else query
        return await self._with_connection(
            lambda connection: [tuple(row) for row in connection.execute(statement)]
        )

    async def table(self, name: str) -> list[tuple[Any, ...]]:
        """All rows of a table, in the order of its first column."""
        return await self.rows(_all_rows(name))

    async def inspect(self, what: str, *arguments: Any) -> Any:
        return await self._with_connection(
            lambda connection: getattr(sa.inspect(connection), what)(*arguments)
        )

    async def columns(self, table: str) -> dict[str, Any]:
        return {column["name"]: column for column in await self.inspect("get_columns", table)}

    async def snapshot(self, *tables: str) -> dict[str, Any]:
        """All rows, and what a copied table could lose."""

        def read(connection: sa.Connection) -> dict[str, Any]:
            inspector = sa.inspect(connection)
            found: dict[str, Any] = {"tables": set(inspector.get_table_names())}
            for name in tables:
                columns = inspector.get_columns(name)
                checks = inspector.get_check_constraints(name)
                found[name] = {
                    "rows": [tuple(row) for row in connection.execute(_all_rows(name))],
                    "columns": {c["name"]: (str(c["type"]), c["nullable"]) for c in columns},
                    "checks": {c["name"] for c in checks},
                    "indexes": {i["name"] for i in inspector.get_indexes(name)},
                    "keys": [(k["name"], k["options"]) for k in inspector.get_foreign_keys(name)],
                }
            return found

        return await self._with_connection(read)

    async def up_and_down(self, *tables: str) -> None:
        """Upgrade; the downgrade leads back to what was there, to the last row; and up again."""
        before = await self.snapshot(*tables)
        await self.upgrade()
        after = await self.snapshot(*tables)
        await self.downgrade()
        assert await self.snapshot(*tables) == before
        await self.upgrade()
        assert await self.snapshot(*tables) == after

    async def tables(self) -> set[str]:
        return set(await self.inspect("get_table_names"))

    async def _with_connection(self, work: Any) -> Any:
        engine = engine_for(self.url, poolclass=NullPool)
        try:
            async with engine.begin() as connection:
                return await connection.run_sync(work)
        finally:
            await engine.dispose()


def _all_rows(name: str) -> sa.Select[Any]:
    return sa.select(sa.text("*")).select_from(sa.table(name)).order_by(sa.text("1"))


def _execute(connection: sa.Connection, statements: Sequence[str | sa.Executable]) -> None:
    for statement in statements:
        connection.execute(sa.text(statement) if isinstance(statement, str) else statement)
