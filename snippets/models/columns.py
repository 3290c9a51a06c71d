"""Column types that give back the value they were given, on every database."""

from collections.abc import Callable
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    BindParameter,
    ColumnElement,
    Double,
    LargeBinary,
    Numeric,
    String,
    Text,
    Time,
    func,
)
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine
from sqlmodel import Field, SQLModel

# MariaDB's TEXT and BLOB end at 64 KiB, its TIME drops fractions, its FLOAT has 32 bits.
LONG_TEXT = Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
EXACT_TIME = Time().with_variant(mysql.TIME(fsp=6), "mysql", "mariadb")
TEXT_LIST = JSON(none_as_null=True).with_variant(postgresql.ARRAY(Text()), "postgresql")


class HexBlob(mysql.LONGBLOB):
    """LONGBLOB whose values travel as hexadecimal text.

    aiomysql up to 0.3.2 fails for every bytes parameter with PyMySQL 1.2.3 and later.
    """

    def bind_processor(self, _dialect: Dialect) -> Callable[[bytes | None], str | None]:
        return lambda value: None if value is None else value.hex()

    def bind_expression(self, bindvalue: BindParameter[bytes]) -> ColumnElement[bytes]:
        return func.unhex(bindvalue)


LONG_BYTES = LargeBinary().with_variant(HexBlob(), "mysql", "mariadb")


def exact_text(length: int, *, mysql_collation: str = "utf8mb4_bin") -> TypeEngine[str]:
    """Return a text type that tells `a` from `A` and `á`, as MariaDB's default does not.

    To tell `a` from `a ` as well, take `utf8mb4_nopad_bin` (MariaDB) or `utf8mb4_0900_bin` (MySQL).
    """
    binary = mysql.VARCHAR(length, charset="utf8mb4", collation=mysql_collation)
    return String(length).with_variant(binary, "mysql", "mariadb")


class LowerText(TypeDecorator[str]):
    """Text kept in lower case: unique and found in any case, and an `é` is no `e`, everywhere.

    The object shows what it was given until it is read again.
    """

    impl = String
    cache_ok = True

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.length = length

    def __repr__(self) -> str:
        return f"LowerText(length={self.length})"

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(exact_text(self.length).dialect_impl(dialect))

    def process_bind_param(self, value: str | None, _dialect: Dialect) -> str | None:
        return None if value is None else value.lower()


class ExactDecimal(TypeDecorator[Decimal]):
    """NUMERIC(digits, places); on SQLite, which makes it a float, a whole number of the last place.

    Compare, sort and sum it in SQL; multiply, divide and average it in Python.

    Raises:
        ValueError: a value that would be rounded or does not fit (inside a `StatementError`).
    """

    impl = Numeric
    cache_ok = True

    def __init__(self, digits: int, places: int) -> None:
        if not 0 <= places <= digits <= 18:
            raise ValueError("0 <= places <= digits <= 18: SQLite's numbers end there")
        super().__init__(digits, places)
        self.digits = digits
        self.places = places

    def __repr__(self) -> str:  # what Alembic writes into a migration
        return f"ExactDecimal(digits={self.digits}, places={self.places})"

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(BigInteger())
        return dialect.type_descriptor(Numeric(self.digits, self.places))

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        value = Decimal(value)
        if value.is_finite() and value.adjusted() < self.digits:
            numerator, denominator = value.as_integer_ratio()
            scaled, rest = divmod(numerator * 10**self.places, denominator)
            if not rest and abs(scaled) < 10**self.digits:
                return scaled if dialect.name == "sqlite" else value
        raise ValueError(f"{value} does not fit into {self!r}")

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        if value is None:
            return None
        return Decimal(value).scaleb(-self.places if dialect.name == "sqlite" else 0)


class Duration(TypeDecorator[timedelta]):
    """A length of time as microseconds: compares, sorts and sums alike on every database.

    `Interval` is a date near 1970 on SQLite and MariaDB, there without fractions of a second.
    """

    impl = BigInteger
    cache_ok = True

    def __repr__(self) -> str:
        return "Duration()"

    def process_bind_param(self, value: timedelta | None, _dialect: Dialect) -> int | None:
        return None if value is None else value // timedelta(microseconds=1)

    def process_result_value(self, value: Any, _dialect: Dialect) -> timedelta | None:
        return None if value is None else timedelta(microseconds=int(value))


# Example: scaffold.py leaves out what follows.


class Article(SQLModel, table=True):
    """One column of each type."""

    id: int | None = Field(default=None, primary_key=True)
    title: str = Field(default="", max_length=100)
    sku: str = Field(default="", sa_type=exact_text(20))
    contact: str | None = Field(default=None, sa_type=LowerText(40), unique=True)
    manual: str = Field(default="", sa_type=LONG_TEXT)
    picture: bytes = Field(default=b"", sa_type=LONG_BYTES)
    # Up to 15 digits plain NUMERIC survives SQLite's float; never leave the digits out.
    price: Decimal = Field(default=Decimal(0), max_digits=15, decimal_places=2)
    rate: Decimal = Field(default=Decimal(0), sa_type=ExactDecimal(18, 9))
    weight: float = Field(default=0.0, sa_type=Double)
    barcode: int = Field(default=0, sa_type=BigInteger)
    released: date | None = None
    pickup: time | None = Field(default=None, sa_type=EXACT_TIME)
    handling: timedelta = Field(default=timedelta(), sa_type=Duration)
    labels: list[str] | None = Field(default=None, sa_type=TEXT_LIST)
