"""Constraints and indexes: the same names and the same rules on every database."""

from datetime import datetime
from decimal import Decimal
from typing import ClassVar

from sqlalchemy import (
    CheckConstraint,
    Computed,
    ForeignKeyConstraint,
    Index,
    MetaData,
    UniqueConstraint,
    text,
)
from sqlmodel import Field, SQLModel

from snippets.models.timestamps import UTCTimestamp

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class AppModel(SQLModel):
    """The base of all models of an application: names do not depend on who imports what first.

    Its tables are in `AppModel.metadata`, for `create_all` and for Alembic.
    """

    metadata: ClassVar[MetaData] = MetaData(naming_convention=NAMING_CONVENTION)


# Example: scaffold.py leaves out what follows.


class Invoice(AppModel, table=True):
    __table_args__ = (
        UniqueConstraint("country", "order_number"),
        # On the column itself a named CHECK is a syntax error on MariaDB.
        CheckConstraint("total >= 0", name="total_not_negative"),
    )

    country: str = Field(primary_key=True, max_length=2)
    number: int = Field(primary_key=True)
    order_number: str = Field(max_length=20)
    total: Decimal = Field(default=Decimal(0), max_digits=12, decimal_places=2)


class InvoiceLine(AppModel, table=True):
    __table_args__ = (
        ForeignKeyConstraint(
            ["country", "number"], ["invoice.country", "invoice.number"], ondelete="CASCADE"
        ),
        # Only MariaDB indexes a foreign key by itself.
        Index(None, "country", "number"),
    )

    id: int | None = Field(default=None, primary_key=True)
    country: str = Field(max_length=2)
    number: int
    text: str = Field(max_length=200)


class Voucher(AppModel, table=True):
    """One unused voucher a customer, any number of used ones."""

    __table_args__ = (
        # Small and quick, but MariaDB leaves out the condition: never `unique` there.
        Index(
            "ix_voucher_unused",
            "customer",
            postgresql_where=text("used_at IS NULL"),
            sqlite_where=text("used_at IS NULL"),
        ),
        # MariaDB has no index on an expression.
        Index("ix_voucher_code_lower", text("lower(code)")).ddl_if(
            dialect=("postgresql", "sqlite")  # type: ignore[arg-type]
        ),
    )

    id: int | None = Field(default=None, primary_key=True)
    code: str = Field(max_length=40)
    customer: str = Field(max_length=40)
    used_at: datetime | None = Field(default=None, sa_type=UTCTimestamp)
    # NULLs never collide: a conditional unique key that every database keeps.
    unused_customer: str | None = Field(
        default=None,
        max_length=40,
        unique=True,
        sa_column_args=(Computed("CASE WHEN used_at IS NULL THEN customer END", persisted=True),),
    )
