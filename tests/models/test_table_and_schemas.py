from decimal import Decimal

import pytest
from pydantic import ValidationError
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.models.table_and_schemas import (
    Product,
    ProductCreate,
    ProductPublic,
    ProductUpdate,
    new_product,
    update_product,
)

TABLES = [Product]


def lamp() -> Product:
    data = ProductCreate.model_validate({"name": "lamp", "price": "9.90", "description": "red"})
    return new_product(data, created_by="ann")


async def test_a_product_goes_from_the_request_to_the_table_to_the_answer(
    session: AsyncSession,
) -> None:
    session.add(lamp())
    await session.commit()
    session.expunge_all()

    product = (await session.exec(select(Product))).one()

    assert ProductPublic.model_validate(product).model_dump() == {
        "id": product.id,
        "name": "lamp",
        "price": Decimal("9.90"),
        "description": "red",
    }
    assert product.created_by == "ann"


@pytest.mark.parametrize("extra", [{"id": 7}, {"created_by": "eve"}, {"pricee": 1}])
def test_a_client_sets_neither_key_nor_owner_nor_unknown_fields(extra: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        ProductCreate.model_validate({"name": "lamp", "price": 1} | extra)


@pytest.mark.parametrize(
    "wrong", [{"name": ""}, {"name": "x" * 101}, {"price": -1}, {"price": "0.001"}, {"name": None}]
)
def test_create_and_update_refuse_the_same_values(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ProductCreate.model_validate({"name": "lamp", "price": 1} | wrong)
    with pytest.raises(ValidationError):
        ProductUpdate.model_validate(wrong)


def test_what_the_server_adds_is_validated_too() -> None:
    with pytest.raises(ValidationError, match="at most 50 characters"):
        new_product(ProductCreate(name="lamp", price=Decimal(1)), created_by="x" * 51)


async def test_an_update_changes_what_was_sent_and_nothing_else(session: AsyncSession) -> None:
    product = lamp()
    session.add(product)
    await session.flush()

    update_product(product, ProductUpdate.model_validate({"price": "12.50"}))
    await session.flush()
    await session.refresh(product)

    assert (product.name, product.price, product.description) == ("lamp", Decimal("12.50"), "red")


async def test_an_explicit_null_empties_the_field(session: AsyncSession) -> None:
    product = lamp()
    session.add(product)
    await session.flush()

    update_product(product, ProductUpdate.model_validate({"description": None}))
    await session.flush()
    await session.refresh(product)

    assert product.description is None
    assert product.name == "lamp"


def test_null_is_refused_where_the_column_is_not_nullable() -> None:
    with pytest.raises(ValidationError, match="may be left out, but not null"):
        ProductUpdate.model_validate({"name": None})
