"""See how the database would run a statement, and hold a test to its index."""

from typing import Any

from sqlalchemy import Index, Insert, text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import Executable
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import ClauseElement
from sqlmodel import Field, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession


class Explain(Executable, ClauseElement):
    """The statement behind EXPLAIN, with its parameters."""

    inherit_cache = False
    _inline = True  # the compiler asks whoever holds an UPDATE: nothing is fetched after it

    def __init__(self, statement: ClauseElement) -> None:
        self.statement = statement


@compiles(Explain)
def _explain(element: Explain, compiler: SQLCompiler, **options: Any) -> str:
    verb = "EXPLAIN QUERY PLAN" if compiler.dialect.name == "sqlite" else "EXPLAIN"
    explained = compiler.process(element.statement, **options)
    compiler._result_columns = []  # the rows are the plan's: no types of the statement's columns
    return f"{verb} {explained}"


async def query_plan(session: AsyncSession, statement: ClauseElement, *, scans: bool = True) -> str:
    """Return the plan as the database words it, a step a line; the statement is not run.

    Args:
        session: has the transaction, which stays as it was.
        statement: built, not text.
        scans: False keeps PostgreSQL from reading whole tables, as it does with small ones; a test
            on a few rows then sees the index that a large table would use.

    Raises:
        TypeError: an INSERT, which chooses nothing; ask for the plan of its SELECT.
    """
    if isinstance(statement, Insert):
        raise TypeError("an INSERT has no plan: ask for that of its SELECT")
    async with session.begin_nested() as savepoint:
        connection = await session.connection()
        if not scans and connection.dialect.name == "postgresql":
            await connection.execute(text("SET LOCAL enable_seqscan = off"))
        steps = (await connection.execute(Explain(statement))).all()
        await savepoint.rollback()
    return "\n".join(" ".join(str(part) for part in step) for step in steps)


# Example: scaffold.py leaves out what follows.


class Letter(SQLModel, table=True):
    # First what is compared for equality, last what sorts.
    __table_args__ = (Index("ix_letter_town_code", "town", "code"),)

    id: int | None = Field(default=None, primary_key=True)
    code: str = Field(max_length=20)
    town: str = Field(max_length=50)
