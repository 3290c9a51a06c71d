"""Wrong code, each function wrong in the way people are wrong. Nothing here is to be copied."""

import asyncio

import sqlalchemy
from sqlalchemy import func
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import col, insert, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.async_operations.aggregations import Reading
from snippets.async_operations.create_read_update_delete import StockItem
from snippets.async_operations.queries import Machine
from snippets.async_operations.transactions import Account


async def one_session_for_all_tasks(session: AsyncSession) -> None:
    await asyncio.gather(*[session.exec(select(Machine)) for _ in range(3)])


async def select_of_sqlalchemy(session: AsyncSession) -> list[str]:
    statement = sqlalchemy.select(Machine)
    machines = (await session.exec(statement)).all()  # type: ignore[call-overload]
    return [machine.hall for machine in machines]


async def scalars_instead_of_exec(session: AsyncSession) -> list[Machine]:
    return list(await session.scalars(select(Machine)))


async def commit_in_a_helper(session: AsyncSession) -> None:
    async def add_account(owner: str) -> None:
        session.add(Account(owner=owner))
        await session.commit()

    async with session.begin():
        await add_account("Ada")
        await add_account("Grace")


async def begin_after_a_query(session: AsyncSession) -> None:
    await session.exec(select(Account))
    await session.begin()


async def carry_on_after_a_failed_flush(session: AsyncSession, item: StockItem) -> StockItem:
    session.add(item)
    try:
        await session.flush()
    except IntegrityError:
        statement = select(StockItem).where(StockItem.code == item.code)
        return (await session.exec(statement)).one()
    return item


async def read_then_insert(factory: async_sessionmaker[AsyncSession], code: str) -> None:
    async with factory() as session:
        statement = select(StockItem).where(StockItem.code == code)
        if (await session.exec(statement)).one_or_none() is None:
            await asyncio.sleep(0.2)
            session.add(StockItem(code=code))
        await session.commit()


async def lost_update(factory: async_sessionmaker[AsyncSession], key: int) -> None:
    async with factory() as session:
        account = (await session.exec(select(Account).where(Account.id == key))).one()
        await asyncio.sleep(0.2)
        account.balance_cents += 10
        await session.commit()


async def retry_operational_errors_only(session: AsyncSession, key: int) -> bool:
    statement = select(Account.id).where(col(Account.id) == key).with_for_update(nowait=True)
    try:
        await session.exec(statement)
    except OperationalError:
        return True
    return False


async def bulk_insert_with_some_nulls(session: AsyncSession, rows: list[dict[str, object]]) -> None:
    await session.exec(insert(Reading), params=rows)


async def read_after_an_update_in_sql(session: AsyncSession, machine: Machine) -> int | None:
    shorter = func.abs(col(Machine.power_kw) - 10)
    await session.exec(update(Machine).values(power_kw=shorter))
    return machine.power_kw
