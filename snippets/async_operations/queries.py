"""Read objects, columns and yes-or-no answers through `session.exec`."""

from collections.abc import Sequence

from sqlalchemy import exists, text
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession


class Machine(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=50, index=True)
    hall: str = Field(max_length=20)
    power_kw: int | None = None


async def machines_in_hall(session: AsyncSession, hall: str) -> Sequence[Machine]:
    statement = select(Machine).where(Machine.hall == hall).order_by(col(Machine.id))
    return (await session.exec(statement)).all()


async def only_machine_named(session: AsyncSession, name: str) -> Machine | None:
    """Return it, or None.

    Raises:
        sqlalchemy.exc.MultipleResultsFound: the name is not as unique as the caller believes.
    """
    return (await session.exec(select(Machine).where(Machine.name == name))).one_or_none()


async def strongest_machine(session: AsyncSession) -> Machine | None:
    # first() adds no LIMIT: without it the server sends every row and all but one are dropped.
    statement = (
        select(Machine)
        .where(col(Machine.power_kw).is_not(None))
        .order_by(col(Machine.power_kw).desc(), col(Machine.id))
        .limit(1)
    )
    return (await session.exec(statement)).first()


async def names_and_halls(session: AsyncSession) -> Sequence[tuple[str, str]]:
    """Return columns instead of objects: cheaper, and nothing is tracked."""
    return (await session.exec(select(Machine.name, Machine.hall).order_by(Machine.name))).all()


async def hall_is_used(session: AsyncSession, hall: str) -> bool:
    return (await session.exec(select(exists().where(col(Machine.hall) == hall)))).one()


async def find_machines(
    session: AsyncSession,
    *,
    halls: Sequence[str] | None = None,
    name_contains: str | None = None,
    power_other_than: int | None = None,
    limit: int = 100,
) -> Sequence[Machine]:
    """Combine conditions; a condition that is None is left out, an empty `halls` finds nothing."""
    statement = select(Machine).order_by(col(Machine.id)).limit(limit)
    if halls is not None:
        statement = statement.where(col(Machine.hall).in_(halls))
    if name_contains is not None:
        # autoescape: a % or _ in what a user typed is that character, no wildcard.
        statement = statement.where(col(Machine.name).icontains(name_contains, autoescape=True))
    if power_other_than is not None:
        # `!=` leaves out the rows where the column is NULL.
        statement = statement.where(col(Machine.power_kw).is_distinct_from(power_other_than))
    return (await session.exec(statement)).all()


async def power_by_name(session: AsyncSession, hall: str) -> dict[str, int | None]:
    """Run SQL text; its values go in as parameters, which are keyword only."""
    statement = text("SELECT name, power_kw FROM machine WHERE hall = :hall")
    # exec takes SQL text at run time; its types do not say so.
    result = await session.exec(statement, params={"hall": hall})  # type: ignore[call-overload]
    return {row.name: row.power_kw for row in result}
