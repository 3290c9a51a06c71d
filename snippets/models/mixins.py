"""Columns that many tables share, each table with columns of its own."""

from datetime import datetime
from uuid import UUID

from sqlmodel import Field, SQLModel

from snippets.models.keys import uuid7
from snippets.models.timestamps import UTCTimestamp, server_utc_now, utc_now


class UUIDKeyMixin(SQLModel):
    id: UUID = Field(default_factory=uuid7, primary_key=True)


class TimestampMixin(SQLModel):
    """When a row was made and last changed.

    Python sets both, so they are readable after a flush; the server's clock is for other programs.
    A dialect's upsert runs no `onupdate`; those of async_operations and ServiceBase do.
    """

    # sa_type and sa_column_kwargs, never sa_column: a Column belongs to one table.
    created_at: datetime = Field(
        default_factory=utc_now,
        sa_type=UTCTimestamp,
        sa_column_kwargs={"server_default": server_utc_now()},
    )
    updated_at: datetime = Field(
        default_factory=utc_now,
        sa_type=UTCTimestamp,
        sa_column_kwargs={"server_default": server_utc_now(), "onupdate": utc_now},
    )


# Example: scaffold.py leaves out what follows.


class Carrier(UUIDKeyMixin, TimestampMixin, table=True):
    name: str = Field(max_length=100)


class Depot(UUIDKeyMixin, TimestampMixin, table=True):
    city: str = Field(max_length=100)
