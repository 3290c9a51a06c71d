from contextlib import suppress

import pytest
import service
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

Sessions = async_sessionmaker[AsyncSession]


def data(sku: str, price: int | None = 10, name: str = "n") -> "service.ProductCreate":
    return service.ProductCreate(sku=sku, name=name, price=price)


async def ordered(session: AsyncSession, limit: int) -> list[str]:
    skus: list[str] = []
    cursor = None
    for _ in range(50):
        page = await service.ProductService(session).page(limit, cursor)
        skus += [product.sku for product in page.items]
        assert len(page.items) <= limit
        cursor = page.next
        if cursor is None:
            return skus
    raise AssertionError("the pages never end")


async def test_pages_have_each_row_once_in_order(session: AsyncSession) -> None:
    products = service.ProductService(session)
    for number, price in enumerate([5, None, 7, 7, None, 5, 7]):
        await products.create(data(f"s{number}", price))
    assert await ordered(session, 2) == ["s2", "s3", "s6", "s0", "s5", "s1", "s4"]
    assert await ordered(session, 3) == await ordered(session, 7)


async def test_a_row_that_comes_between_pages_repeats_nothing(session: AsyncSession) -> None:
    products = service.ProductService(session)
    for number in range(4):
        await products.create(data(f"s{number}", 10 - number))
    first = await products.page(2)
    await products.create(data("new", 100))
    second = await products.page(2, first.next)
    assert [p.sku for p in second.items] == ["s2", "s3"]


async def test_a_conflict_keeps_the_callers_work(sessions: Sessions) -> None:
    async with sessions() as session:
        products = service.ProductService(session)
        await products.create(data("a"))
        with pytest.raises(service.ConflictError) as caught:
            await products.create(data("a"))
        assert hasattr(caught.value, "columns")
        await products.create(data("b"))
        await session.commit()
    async with sessions() as session:
        found = await session.exec(select(service.Product.sku).order_by(service.Product.sku))
        assert found.all() == ["a", "b"]


async def test_a_conflict_of_an_update_keeps_the_callers_work(sessions: Sessions) -> None:
    async with sessions() as session:
        products = service.ProductService(session)
        await products.create(data("a"))
        other = await products.create(data("b"))
        with pytest.raises(service.ConflictError):
            await products.update(other.id, service.ProductUpdate(sku="a"))
        await session.commit()
    async with sessions() as session:
        assert {p.sku for p in (await session.exec(select(service.Product))).all()} == {"a", "b"}


async def test_update_tells_null_from_left_out(session: AsyncSession) -> None:
    products = service.ProductService(session)
    made = await products.create(data("a", 5, "old"))
    changed = await products.update(made.id, service.ProductUpdate(name="new"))
    assert (changed.name, changed.price) == ("new", 5)
    changed = await products.update(made.id, service.ProductUpdate(price=None))
    assert (changed.name, changed.price) == ("new", None)
    for required in ("name", "sku"):
        with pytest.raises(ValidationError):
            service.ProductUpdate.model_validate({required: None})


async def test_what_is_missing_is_said(session: AsyncSession) -> None:
    products = service.ProductService(session)
    with pytest.raises(service.NotFoundError):
        await products.get(99)
    with pytest.raises(service.NotFoundError):
        await products.update(99, service.ProductUpdate(name="x"))
    with pytest.raises(service.NotFoundError):
        await products.delete(99)


async def test_what_is_deleted_is_gone(session: AsyncSession) -> None:
    products = service.ProductService(session)
    made = await products.create(data("a"))
    await products.delete(made.id)
    with pytest.raises(service.NotFoundError):
        await products.get(made.id)


async def test_wrong_cursors_are_refused(session: AsyncSession) -> None:
    products = service.ProductService(session)
    for number in range(3):
        await products.create(data(f"s{number}"))
    cursor = (await products.page(1)).next
    for wrong in ("x", "bm9wZQ==", "bnVsbA==", "e30=", "W10=", cursor[:-3], cursor + "AA", "ü"):
        with pytest.raises(service.InvalidCursorError):
            await products.page(1, wrong)


async def test_changed_cursors_are_refused_or_lead_somewhere(session: AsyncSession) -> None:
    products = service.ProductService(session)
    for number in range(3):
        await products.create(data(f"s{number}"))
    cursor = (await products.page(1)).next
    for place in range(len(cursor)):
        for letter in "A5i-":
            with suppress(service.InvalidCursorError):
                await products.page(1, cursor[:place] + letter + cursor[place + 1 :])
    assert len((await products.page(3)).items) == 3  # nothing has ended the transaction


async def test_nothing_is_committed(sessions: Sessions) -> None:
    async with sessions() as session:
        await service.ProductService(session).create(data("a"))
    async with sessions() as session:
        assert (await session.exec(select(service.Product))).all() == []
