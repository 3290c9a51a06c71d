import asyncio
import random

import bank
import psycopg
import pymysql
import pytest
from sqlalchemy import URL, Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlmodel import select, text
from sqlmodel.ext.asyncio.session import AsyncSession

Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture
def engine(plain_engine: AsyncEngine) -> AsyncEngine:
    return plain_engine


async def accounts(sessions: Sessions, *balances: int) -> list[int]:
    async with sessions() as session:
        made = [bank.Account(balance=balance) for balance in balances]
        session.add_all(made)
        await session.commit()
        return [account.id for account in made]


async def balances(sessions: Sessions) -> list[int]:
    async with sessions() as session:
        return list(
            (await session.exec(select(bank.Account.balance).order_by(bank.Account.id))).all()
        )


async def transfers(sessions: Sessions) -> int:
    async with sessions() as session:
        return len((await session.exec(select(bank.Transfer))).all())


async def test_money_moves_once_a_key(sessions: Sessions) -> None:
    a, b = await accounts(sessions, 100, 0)
    for _ in range(3):
        await bank.transfer(sessions, a, b, 30, "k1")
    assert await balances(sessions) == [70, 30]
    assert await transfers(sessions) == 1


async def test_too_little_money_changes_nothing(sessions: Sessions) -> None:
    a, b = await accounts(sessions, 10, 0)
    with pytest.raises(bank.InsufficientFundsError):
        await bank.transfer(sessions, a, b, 30, "k1")
    assert await balances(sessions) == [10, 0]
    assert await transfers(sessions) == 0


async def test_equal_keys_at_once_have_one_effect(sessions: Sessions) -> None:
    a, b = await accounts(sessions, 100, 0)
    await asyncio.gather(*[bank.transfer(sessions, a, b, 10, "same") for _ in range(8)])
    assert await balances(sessions) == [90, 10]
    assert await transfers(sessions) == 1


async def test_many_in_all_directions_are_exact(sessions: Sessions) -> None:
    ids = await accounts(sessions, *[10_000] * 4)
    choose = random.Random(7)

    async def work(number: int) -> None:
        for step in range(12):
            source, target = choose.sample(ids, 2)
            await bank.transfer(sessions, source, target, 5, f"{number}-{step}")

    await asyncio.gather(*[work(n) for n in range(8)])
    assert sum(await balances(sessions)) == 40_000
    assert await transfers(sessions) == 96


async def test_never_negative(sessions: Sessions) -> None:
    a, b = await accounts(sessions, 50, 0)
    done = await asyncio.gather(
        *[bank.transfer(sessions, a, b, 10, f"k{n}") for n in range(9)], return_exceptions=True
    )
    refused = [error for error in done if isinstance(error, BaseException)]
    assert {type(error) for error in refused} == {bank.InsufficientFundsError}
    assert len(refused) == 4
    assert await balances(sessions) == [0, 50]


async def test_serialization_failures_are_survived(engine: AsyncEngine) -> None:
    strict = engine.execution_options(isolation_level="SERIALIZABLE")
    sessions = async_sessionmaker(strict, class_=AsyncSession, expire_on_commit=False)
    a, b = await accounts(sessions, 100, 100)

    async def work(number: int) -> None:
        for step in range(3):
            source, target = (a, b) if number % 2 else (b, a)
            await bank.transfer(sessions, source, target, 5, f"{number}-{step}")

    await asyncio.gather(*[work(n) for n in range(3)])
    assert sorted(await balances(sessions)) == [85, 115]
    assert await transfers(sessions) == 9


def kill(url: URL, number: int) -> None:
    """End a connection of the server, from another one."""
    if url.get_backend_name() == "postgresql":
        plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(plain, autocommit=True) as connection:
            # Waits until it is gone.
            connection.execute("SELECT pg_terminate_backend(%s, 10000)", [number])
        return
    connection = pymysql.connect(
        host=url.host or "127.0.0.1",
        port=url.port or 3306,
        user=url.username,
        password=url.password or "",
        unix_socket=url.query.get("unix_socket"),
    )
    with connection, connection.cursor() as cursor:
        cursor.execute("KILL %s", [number])


OWN_NUMBER = {"postgresql": "SELECT pg_backend_pid()", "mysql": "SELECT CONNECTION_ID()"}


async def test_a_connection_lost_in_the_pool_is_survived(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    if engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no connection to lose")
    a, b = await accounts(sessions, 100, 0)
    async with engine.connect() as connection:  # the pool has no other
        number = await connection.scalar(text(OWN_NUMBER[engine.dialect.name]))
    await asyncio.to_thread(kill, engine.url, number)
    await bank.transfer(sessions, a, b, 10, "k")
    assert await balances(sessions) == [90, 10]


async def test_a_connection_lost_in_commit_is_survived(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    if engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no connection to lose")
    a, b = await accounts(sessions, 100, 0)
    lost: list[int] = []

    def lose(connection: Connection) -> None:
        if not lost:
            number = connection.exec_driver_sql(OWN_NUMBER[engine.dialect.name]).scalar_one()
            lost.append(number)
            kill(engine.url, number)

    event.listen(engine.sync_engine, "commit", lose)
    await bank.transfer(sessions, a, b, 10, "k")
    assert len(lost) == 1
    assert await balances(sessions) == [90, 10]
    assert await transfers(sessions) == 1
