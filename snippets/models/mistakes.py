"""Wrong models: each is a heading under Mistakes in the page, which says what to do instead."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID, uuid4

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import validates, with_loader_criteria
from sqlmodel import Field, Relationship, SQLModel, select

from snippets.models.soft_delete import SoftDeleteMixin, Supplier
from snippets.models.timestamps import UTCTimestamp
from snippets.models.table_and_schemas import Product, ProductUpdate


class WrongModel(SQLModel):
    """Keeps the tables here out of everybody's `create_all`."""

    metadata: ClassVar[sa.MetaData] = sa.MetaData()


class Scale(WrongModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    grams: int = Field(ge=0)


def table_as_request_body(body: dict[str, Any]) -> Scale:
    return Scale(**body)


def update_with_unset_fields(product: Product, data: ProductUpdate) -> None:
    product.sqlmodel_update(data)


class Thermostat(WrongModel, table=True):
    model_config = {"validate_assignment": True}

    id: int | None = Field(default=None, primary_key=True)
    celsius: int = Field(ge=-30)


def refused_assignment_is_kept(thermostat: Thermostat) -> None:
    try:
        thermostat.celsius = -300
    except ValidationError:
        pass


class Subscriber(WrongModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    email: str

    @validates("email")
    def lower(self, _key: str, value: str) -> str:
        return value.lower()


def validates_that_changes() -> Subscriber:
    return Subscriber(email="Ada@Example.org")


class Alarm(WrongModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    raised_at: datetime


def naive_timestamp() -> Alarm:
    return Alarm(raised_at=datetime.now())


class Gong(WrongModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    struck_at: datetime = Field(default=datetime.now(UTC), sa_type=UTCTimestamp)


def default_evaluated_once() -> tuple[Gong, Gong]:
    return Gong(), Gong()


class Siren(WrongModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    heard_at: datetime = Field(sa_type=sa.DateTime)


def column_without_zone() -> Siren:
    return Siren(heard_at=datetime.now(UTC))


class Permit(WrongModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    valid_until: date


def text_for_a_date(body: dict[str, Any]) -> Permit:
    return Permit(**body)


class Toll(WrongModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    amount: Decimal


def decimal_without_digits() -> Toll:
    return Toll(amount=Decimal("0.12"))


class Scan(WrongModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    image: bytes


def plain_bytes() -> Scan:
    return Scan(image=b"\x00")


class Declaration(WrongModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    visa: dict[str, Any] | None = Field(default=None, sa_type=sa.JSON)


def json_null_for_none() -> Any:
    return select(Declaration).where(sa.inspect(Declaration).columns["visa"].is_(None))


class Cargo(WrongModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    marks: dict[str, Any] = Field(sa_type=sa.JSON)
    seals: dict[str, Any] = Field(sa_type=MutableDict.as_mutable(sa.JSON()))


def change_inside_json(cargo: Cargo) -> None:
    cargo.marks["left"] = 1
    cargo.seals["left"] = 1


def shared_column() -> None:
    class StampMixin(WrongModel):
        stamped_on: date = Field(sa_column=sa.Column(sa.Date))

    class Barrel(StampMixin, table=True):
        id: int | None = Field(default=None, primary_key=True)

    class Keg(StampMixin, table=True):
        id: int | None = Field(default=None, primary_key=True)


class Freight(WrongModel, table=True):
    id: int | None = Field(default=None, primary_key=True, sa_type=sa.BigInteger)


def big_key() -> Freight:
    return Freight()


class Seal(WrongModel, table=True):
    id: UUID = Field(default_factory=uuid4, primary_key=True)


def uuid_over_char() -> Seal:
    return Seal()


class Ramp(WrongModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    tons: int = Field(sa_column_args=(sa.CheckConstraint("tons > 0", name="tons_positive"),))


def check_on_the_column() -> sa.Table:
    return WrongModel.metadata.tables["ramp"]


class Coupon(WrongModel, table=True):
    __table_args__ = (
        sa.Index(
            "uq_coupon_unused",
            "customer",
            unique=True,
            postgresql_where=sa.text("NOT used"),
            sqlite_where=sa.text("NOT used"),
        ),
    )

    id: int | None = Field(default=None, primary_key=True)
    customer: str
    used: bool


def partial_unique_index() -> list[Coupon]:
    return [Coupon(customer="ann", used=True), Coupon(customer="ann", used=True)]


def criteria_for_a_mixin() -> Any:
    return select(Supplier).options(
        with_loader_criteria(SoftDeleteMixin, lambda cls: cls.deleted_at.is_(None))
    )


class HalfImported(SQLModel, registry=sa.orm.registry()):
    """Keeps the broken relationship out of everybody's `configure_mappers`."""


def half_imported_models() -> None:
    class Trailer(HalfImported, table=True):
        id: int | None = Field(default=None, primary_key=True)
        trucks: list["Truck"] = Relationship()  # type: ignore[name-defined]

    Trailer()
