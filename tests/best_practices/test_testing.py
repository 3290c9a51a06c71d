import asyncio
from pathlib import Path

import pytest
from sqlalchemy import URL, inspect
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.pool import NullPool
from sqlmodel import SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.best_practices.query_plans import Letter
from snippets.best_practices.testing import new_letter, scratch_database
from snippets.database_setup.engine import engine_for
from snippets.database_setup.session import session_factory

TABLES = [Letter]


async def tables_in(url: URL) -> list[str]:
    engine = engine_for(url, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            return await table_names(connection)
    finally:
        await engine.dispose()


async def table_names(connection: AsyncConnection) -> list[str]:
    return await connection.run_sync(lambda sync: inspect(sync).get_table_names())


async def use(url: URL, code: str) -> None:
    """Make the table and a row, and stay connected."""
    engine = engine_for(url)
    try:
        async with engine.begin() as connection:
            assert await table_names(connection) == []
            await connection.run_sync(
                lambda sync: SQLModel.metadata.create_all(sync, tables=[Letter.__table__])
            )
        async with session_factory(engine)() as session:
            await new_letter(session, code=code)
            await session.commit()
            assert (await session.exec(select(Letter.code))).all() == [code]
    finally:
        await engine.dispose()


async def test_workers_have_databases_of_their_own(database_url: URL) -> None:
    async def work(code: str) -> URL:
        async with scratch_database(database_url) as url:
            await use(url, code)
        return url

    first, second = await asyncio.gather(work("A"), work("B"))

    assert len({first.database, second.database, database_url.database}) == 3
    assert await tables_in(database_url) == []


async def test_the_database_is_gone_also_after_an_error(database_url: URL) -> None:
    with pytest.raises(ZeroDivisionError):
        async with scratch_database(database_url) as url:
            await use(url, "A")
            raise ZeroDivisionError

    if url.get_backend_name() == "sqlite":
        assert not list(Path(url.database or "").parent.glob("scratch_*"))
    else:
        # The driver's own class differs by version and driver; the text is the server's.
        with pytest.raises(Exception, match=f"{url.database}"):
            await tables_in(url)


async def test_an_open_connection_does_not_keep_the_database(database_url: URL) -> None:
    async with scratch_database(database_url) as url:
        engine = engine_for(url)
        async with engine.connect() as connection:
            assert await table_names(connection) == []
        # still in the pool
    await engine.dispose()


async def test_a_new_letter_differs_from_the_others_and_takes_what_the_test_says(
    session: AsyncSession,
) -> None:
    letters = [await new_letter(session), await new_letter(session, town="Bergen")]

    assert letters[0].id != letters[1].id
    assert letters[0].code != letters[1].code
    assert [letter.town for letter in letters] == ["Oslo", "Bergen"]


async def test_a_new_letter_is_validated(session: AsyncSession) -> None:
    with pytest.raises(ValueError, match="town"):
        await new_letter(session, town=None)
