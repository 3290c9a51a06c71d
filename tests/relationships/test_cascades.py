import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import selectinload
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

from snippets.relationships.cascades import (
    Apple,
    Basket,
    Bottle,
    Crate,
    Cupboard,
    Plate,
    delete_crates,
)
from snippets.relationships.self_reference import Category

TABLES = [Crate, Bottle, Basket, Apple, Cupboard, Plate, Category]


def verbs(statements: StatementLog) -> list[str]:
    """What was sent, as `DELETE crate`."""
    words = [text.replace("FROM ", "").replace("INTO ", "").split() for text in statements.texts]
    return [f"{first} {second}" for first, second, *_ in words]


@pytest.fixture(autouse=True)
async def pantry(session: AsyncSession, statements: StatementLog) -> None:
    session.add(Crate(id=1, label="a", bottles=[Bottle(id=1, content="cider")]))
    session.add(Crate(id=2, label="b", bottles=[Bottle(id=2, content="wine")]))
    session.add(Basket(id=1, label="a", apples=[Apple(id=1, sort="cox")]))
    session.add(Cupboard(id=1, label="a", plates=[Plate(id=1, pattern="blue")]))
    await session.commit()
    session.expunge_all()
    statements.clear()


async def test_owned_children_that_are_not_loaded_are_left_to_the_database(
    session: AsyncSession, statements: StatementLog
) -> None:
    crate = await session.get_one(Crate, 1)
    statements.clear()

    await session.delete(crate)
    await session.flush()

    assert verbs(statements) == ["DELETE crate"]
    assert (await session.exec(select(Bottle.id))).all() == [2]


async def test_owned_children_that_are_loaded_are_deleted_by_the_session(
    session: AsyncSession, statements: StatementLog
) -> None:
    crate = await session.get_one(Crate, 1, options=[selectinload(Crate.bottles)])
    (bottle,) = crate.bottles
    statements.clear()

    await session.delete(crate)
    await session.flush()

    assert verbs(statements) == ["DELETE bottle", "DELETE crate"]
    assert bottle not in session


async def test_an_owned_child_that_is_removed_is_deleted(session: AsyncSession) -> None:
    crate = await session.get_one(Crate, 1, options=[selectinload(Crate.bottles)])

    crate.bottles.clear()
    await session.commit()

    assert await session.get(Bottle, 1) is None


async def test_an_owned_child_may_move_to_another_owner(session: AsyncSession) -> None:
    load = select(Crate).options(selectinload(Crate.bottles)).order_by(Crate.id)
    first, second = (await session.exec(load)).all()

    second.bottles.append(first.bottles[0])
    await session.commit()

    assert first.bottles == []
    assert set(await session.exec(select(Bottle.id).where(Bottle.crate_id == 2))) == {1, 2}


@pytest.mark.parametrize("loaded", [False, True])
async def test_shared_children_stay_without_parent(session: AsyncSession, loaded: bool) -> None:
    options = [selectinload(Basket.apples)] if loaded else []
    basket = await session.get_one(Basket, 1, options=options)

    await session.delete(basket)
    await session.commit()
    session.expunge_all()

    assert (await session.get_one(Apple, 1)).basket_id is None


@pytest.mark.parametrize("loaded", [False, True])
async def test_protected_children_keep_their_parent(
    session: AsyncSession, statements: StatementLog, loaded: bool
) -> None:
    options = [selectinload(Cupboard.plates)] if loaded else []
    cupboard = await session.get_one(Cupboard, 1, options=options)
    statements.clear()

    await session.delete(cupboard)
    with pytest.raises(IntegrityError):
        await session.flush()

    assert verbs(statements) == ["DELETE cupboard"]


async def test_crates_are_deleted_in_one_statement_and_the_session_forgets_their_bottles(
    session: AsyncSession, statements: StatementLog
) -> None:
    load = select(Crate).options(selectinload(Crate.bottles)).order_by(Crate.id)
    first, second = (await session.exec(load)).all()
    gone, kept = first.bottles[0], second.bottles[0]
    statements.clear()

    assert await delete_crates(session, [1, 404]) == 1

    assert verbs(statements) == ["DELETE crate"]
    assert gone not in session
    assert kept in session
    assert await session.get(Bottle, 1) is None
    assert await session.get(Bottle, 2) is kept


async def test_a_bulk_delete_is_not_stopped_by_an_expired_object(session: AsyncSession) -> None:
    bottle = await session.get_one(Bottle, 1)
    session.expire(bottle)

    assert await delete_crates(session, [1]) == 1
