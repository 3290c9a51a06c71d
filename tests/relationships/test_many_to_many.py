import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import selectinload
from sqlmodel import insert, select
from sqlmodel.ext.asyncio.session import AsyncSession
from statements import StatementLog

from snippets.relationships.many_to_many import Dish, DishSpice, Spice

TABLES = [Dish, Spice, DishSpice]


async def curry(session: AsyncSession) -> Dish:
    session.add(Dish(name="curry", spices=[Spice(name="cumin"), Spice(name="chili")]))
    await session.commit()
    session.expunge_all()
    with_spices = select(Dish).options(selectinload(Dish.spices))
    return (await session.exec(with_spices)).one()


async def test_links_are_written_from_either_side(session: AsyncSession) -> None:
    dish = await curry(session)
    session.add(Spice(name="salt", dishes=[dish]))
    await session.commit()
    session.expunge_all()

    dish = (await session.exec(select(Dish).options(selectinload(Dish.spices)))).one()

    assert {spice.name for spice in dish.spices} == {"cumin", "chili", "salt"}


async def test_a_removed_spice_is_unlinked_and_stays(session: AsyncSession) -> None:
    dish = await curry(session)

    dish.spices.remove(next(spice for spice in dish.spices if spice.name == "chili"))
    await session.commit()

    assert len((await session.exec(select(DishSpice))).all()) == 1
    assert len((await session.exec(select(Spice))).all()) == 2


async def test_a_pair_is_linked_once(session: AsyncSession) -> None:
    dish = await curry(session)
    link = {"dish_id": dish.id, "spice_id": dish.spices[0].id}

    with pytest.raises(IntegrityError):
        await session.exec(insert(DishSpice).values(link))


async def test_deleting_a_dish_leaves_the_links_to_the_database(
    session: AsyncSession, statements: StatementLog
) -> None:
    dish_id = (await curry(session)).id
    session.expunge_all()
    dish = await session.get_one(Dish, dish_id)
    statements.clear()

    await session.delete(dish)
    await session.flush()

    assert [text.split()[:3] for text in statements.texts] == [["DELETE", "FROM", "dish"]]
    assert (await session.exec(select(DishSpice))).all() == []
    assert len((await session.exec(select(Spice))).all()) == 2
