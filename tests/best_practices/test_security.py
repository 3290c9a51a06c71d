import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlalchemy.pool import NullPool
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.async_operations.errors import classify
from snippets.best_practices.query_plans import Letter
from snippets.best_practices.security import grant_rows_only, read_only_scope
from snippets.best_practices.testing import new_letter
from snippets.database_setup.engine import engine_for
from snippets.fastapi_integration.testing import rolled_back_sessions

TABLES = [Letter]
Factory = async_sessionmaker[AsyncSession]
READ_ONLY = {"SQLITE_READONLY", "25006", 1792}
NOT_ALLOWED = {"42501", 1142, 1044}


async def test_the_server_refuses_to_write(factory: Factory) -> None:
    async with factory() as session:
        await new_letter(session, code="L1")
        await session.commit()

    async with read_only_scope(factory) as session:
        assert (await session.exec(select(Letter.code))).all() == ["L1"]
        with pytest.raises(DBAPIError) as caught:
            await new_letter(session, code="L2")

    assert classify(caught.value).code in READ_ONLY


async def test_the_server_refuses_to_change_tables(factory: Factory) -> None:
    async with read_only_scope(factory) as session:
        connection = await session.connection()
        with pytest.raises(DBAPIError) as caught:
            await connection.execute(text("DROP TABLE letter"))

    assert classify(caught.value).code in READ_ONLY


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE made (id INT)", "CREATE INDEX made ON letter (code)", "ROLLBACK"]
)
async def test_nothing_is_written_after_a_statement_that_ends_the_transaction(
    factory: Factory, statement: str
) -> None:
    async with read_only_scope(factory) as session:
        await session.exec(select(Letter))
        with suppress(DBAPIError):
            await session.exec(text(statement))
        if (
            session.get_bind().dialect.name == "postgresql"
        ):  # where a failed transaction refuses all
            await session.rollback()
        with pytest.raises(DBAPIError) as caught:
            await new_letter(session, code="L1")

    assert classify(caught.value).code in READ_ONLY
    async with factory() as session:
        assert (await session.exec(select(Letter.code))).all() == []


@pytest.mark.only_on("mysql", reason="the others have no characteristics to come too late for")
async def test_a_transaction_that_has_begun_is_not_taken_for_read_only(
    engine: AsyncEngine,
) -> None:
    async with engine.connect() as connection:
        await connection.execute(select(Letter))
        joined = async_sessionmaker(connection, class_=AsyncSession)
        with pytest.raises(DBAPIError) as caught:
            async with read_only_scope(joined) as session:
                await session.exec(select(Letter))

    assert classify(caught.value).code == 1568


async def test_the_next_session_on_that_connection_writes_again(database_url: URL) -> None:
    engine = engine_for(database_url, pool_size=1, max_overflow=0)
    factory = async_sessionmaker(engine, class_=AsyncSession)
    async with engine.begin() as connection:
        await connection.run_sync(Letter.metadata.create_all, tables=[Letter.__table__])
    try:
        with pytest.raises(DBAPIError):
            async with read_only_scope(factory) as session:
                await new_letter(session)
        async with read_only_scope(factory) as session:
            await session.exec(select(Letter))

        async with factory() as session:
            await new_letter(session, code="L3")
            await session.commit()
            assert (await session.exec(select(Letter.code))).all() == ["L3"]
    finally:
        await engine.dispose()


async def test_the_server_refuses_in_each_transaction_of_the_scope(factory: Factory) -> None:
    async with read_only_scope(factory) as session:
        for end in (session.rollback, session.commit):
            await session.exec(select(Letter))
            await end()
        async with session.begin_nested():
            await session.exec(select(Letter))
        with pytest.raises(DBAPIError) as caught:
            await new_letter(session)

    assert classify(caught.value).code in READ_ONLY


async def test_all_connections_write_again_however_the_scope_ended(factory: Factory) -> None:
    async with factory() as one, factory() as other:  # two wait in the pool from now on
        await one.exec(select(Letter))
        await other.exec(select(Letter))
    async with read_only_scope(factory) as session:
        await session.exec(select(Letter))
        await session.rollback()
        await session.exec(select(Letter))
    with pytest.raises(asyncio.CancelledError):
        async with read_only_scope(factory) as session:
            await session.exec(select(Letter))
            raise asyncio.CancelledError

    for number in range(4):  # the pool hands them out in turn
        async with factory() as session:
            await new_letter(session, code=f"L{number}")
            await session.commit()


@pytest.fixture
async def role(engine: AsyncEngine) -> AsyncIterator[str]:
    """A role with a password of its own, gone after the test."""
    name = f"role_{secrets.token_hex(6)}"
    make = "CREATE ROLE {} LOGIN PASSWORD '{}'"
    drop = "DROP OWNED BY {0}; DROP ROLE {0}"
    if engine.dialect.name == "mysql":
        make, drop = "CREATE USER {} IDENTIFIED BY '{}'", "DROP USER {}"
    async with engine.begin() as connection:
        await connection.execute(text(make.format(name, name)))
    yield name
    async with engine.begin() as connection:
        for statement in drop.format(name).split("; "):
            await connection.execute(text(statement))


@pytest.mark.not_on("sqlite", reason="SQLite has no roles")
async def test_a_role_of_rows_writes_rows_and_makes_no_tables(
    engine: AsyncEngine, role: str
) -> None:
    async with engine.begin() as connection:
        await grant_rows_only(connection, role)
        await connection.execute(text("CREATE TABLE made_later (id INT PRIMARY KEY)"))
    url = engine.url.set(username=role, password=role)
    limited = engine_for(url, poolclass=NullPool)
    try:
        async with async_sessionmaker(limited, class_=AsyncSession)() as session:
            letter = await new_letter(session, code="L1")
            letter.town = "Bergen"
            await session.commit()
            await session.delete(letter)
            await session.commit()
            connection = await session.connection()
            await connection.execute(text("INSERT INTO made_later VALUES (1)"))
            await session.commit()
        for statement in ("DROP TABLE letter", "CREATE TABLE other (id INT PRIMARY KEY)"):
            async with limited.connect() as connection:
                with pytest.raises(DBAPIError) as caught:
                    await connection.execute(text(statement))
            assert classify(caught.value).code in NOT_ALLOWED
    finally:
        await limited.dispose()


@pytest.mark.only_on("mysql", reason="a GRANT takes the name of its database for a pattern")
async def test_rows_of_a_database_with_a_similar_name_stay_closed(
    engine: AsyncEngine, role: str
) -> None:
    mine = f"a_b%{secrets.token_hex(6)}"
    similar = mine.replace("_", "x").replace("%", "y")
    owner = engine_for(engine.url.set(database=mine), poolclass=NullPool)
    limited = engine_for(engine.url.set(database=mine, username=role, password=role))
    async with engine.begin() as connection:
        for name in (mine, similar):
            await connection.execute(text(f"CREATE DATABASE `{name}`"))
    try:
        async with owner.begin() as connection:
            await connection.run_sync(Letter.metadata.create_all, tables=[Letter.__table__])
            await grant_rows_only(connection, role)
        async with limited.connect() as connection:
            assert (await connection.execute(select(Letter.code))).all() == []
            with pytest.raises(DBAPIError) as caught:
                await connection.exec_driver_sql(f"USE {similar}")
        assert classify(caught.value).code in NOT_ALLOWED
    finally:
        await limited.dispose()
        await owner.dispose()
        async with engine.begin() as connection:
            for name in (mine, similar):
                await connection.execute(text(f"DROP DATABASE `{name}`"))


@pytest.mark.not_on("postgresql", reason="there a savepoint ends with what was set in it")
async def test_a_connection_that_has_begun_is_too_late(engine: AsyncEngine) -> None:
    async def read_then_write(factory: Factory) -> None:
        async with read_only_scope(factory) as session:
            await session.exec(select(Letter.code))
        async with factory() as session:
            await new_letter(session)

    async with rolled_back_sessions(engine) as factory:
        with pytest.raises(DBAPIError) as caught:
            await read_then_write(factory)

    assert classify(caught.value).code in READ_ONLY | {1568}
