"""Primary keys: numbers, UUIDs that sort by time, natural and composite keys."""

import secrets
import time
from uuid import UUID

from sqlalchemy import BigInteger, Integer, Uuid
from sqlmodel import Field, SQLModel

from snippets.models.columns import exact_text

# SQLite numbers rows by itself only if the key is called INTEGER, which has 64 bits there.
BIG_KEY = BigInteger().with_variant(Integer(), "sqlite")
# For tables that SQLAlchemy 2.0 made on MariaDB; 2.1 takes the server's UUID type for new ones.
UUID_AS_CHAR = Uuid().with_variant(Uuid(native_uuid=False), "mysql", "mariadb")


def uuid7() -> UUID:
    """Return a UUID that starts with the time, so that new rows land at the end of the index.

    Python 3.14 has `uuid.uuid7`. Sorted by creation to the millisecond, random within it; whoever
    sees the key sees the time.
    """
    value = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(76)
    value = value & ~(0xF << 76) | 0x7 << 76  # version
    return UUID(int=value & ~(0b11 << 62) | 0b10 << 62)  # variant


# Example: scaffold.py leaves out what follows.


class Warehouse(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_KEY)
    name: str = Field(max_length=100)


class Parcel(SQLModel, table=True):
    """Knows its key before it is saved, so clients may choose it and repeat a request."""

    id: UUID = Field(default_factory=uuid7, primary_key=True)
    content: str = Field(max_length=100)


class Container(SQLModel, table=True):
    """A table with CHAR(32) keys from an older version, kept as it is."""

    id: UUID = Field(default_factory=uuid7, primary_key=True, sa_type=UUID_AS_CHAR)
    label: str = Field(max_length=100)


class Currency(SQLModel, table=True):
    """A natural key: equal only if every letter is; on MariaDB `usd` would find `USD`."""

    code: str = Field(primary_key=True, sa_type=exact_text(3))
    name: str = Field(max_length=50)


class StockLevel(SQLModel, table=True):
    """`session.get(StockLevel, (warehouse_id, currency_code))`: in the order of the fields."""

    warehouse_id: int = Field(primary_key=True, foreign_key="warehouse.id", sa_type=BIG_KEY)
    # MariaDB wants the same collation on both sides of a foreign key.
    currency_code: str = Field(primary_key=True, foreign_key="currency.code", sa_type=exact_text(3))
    value: int = Field(default=0, sa_type=BIG_KEY)
