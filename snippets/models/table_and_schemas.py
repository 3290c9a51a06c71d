"""Keep the table apart from what clients send and what they get back."""

from decimal import Decimal

from pydantic import field_validator
from sqlmodel import Field, SQLModel


class ProductBase(SQLModel):
    """What the table and its schemas share; the rules here are for the schemas."""

    name: str = Field(min_length=1, max_length=100)
    price: Decimal = Field(ge=0, max_digits=10, decimal_places=2)
    description: str | None = Field(default=None, max_length=500)


class Product(ProductBase, table=True):
    id: int | None = Field(default=None, primary_key=True)
    created_by: str = Field(max_length=50)


class ProductCreate(ProductBase):
    model_config = {"extra": "forbid"}  # or a misspelt field vanishes


class ProductUpdate(SQLModel):
    """Every field may be left out; only `description` may be null."""

    model_config = {"extra": "forbid"}

    name: str | None = Field(default=None, min_length=1, max_length=100)
    price: Decimal | None = Field(default=None, ge=0, max_digits=10, decimal_places=2)
    description: str | None = Field(default=None, max_length=500)

    @field_validator("name", "price")  # runs for what was sent, not for the default
    @classmethod
    def _not_null(cls, value: object) -> object:
        if value is None:
            raise ValueError("may be left out, but not null")
        return value


class ProductPublic(ProductBase):
    id: int


def new_product(data: ProductCreate, *, created_by: str) -> Product:
    """Return a product that is validated, what the server adds included."""
    return Product.model_validate(data, update={"created_by": created_by})


def update_product(product: Product, data: ProductUpdate) -> None:
    """Change what the client has sent, an explicit null included, and nothing else."""
    product.sqlmodel_update(data.model_dump(exclude_unset=True))
