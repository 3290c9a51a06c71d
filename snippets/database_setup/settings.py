"""Read the database's settings from the environment, typed, with the password kept out of sight."""

from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from snippets.database_setup.engine import engine_for
from snippets.database_setup.urls import async_url

# The servers count milliseconds in 32 bits, and take none of them for no limit at all.
Seconds = Annotated[float, Field(ge=0.001, le=2_000_000)]


class DatabaseSettings(BaseSettings):
    """`DATABASE_URL`, `DATABASE_POOL_SIZE` and so on; times are seconds.

    Raises:
        pydantic.ValidationError: a value is missing or wrong; the URL is not shown.
    """

    model_config = SettingsConfigDict(
        env_prefix="DATABASE_",
        env_file=".env",
        extra="ignore",  # the same .env has other programs' settings
        hide_input_in_errors=True,  # or a wrong URL is printed with its password
    )

    url: SecretStr
    application_name: str = Field(default="app", max_length=63)  # PostgreSQL cuts it there
    pool_size: int = Field(default=5, ge=1)
    max_overflow: int = Field(default=10, ge=0)
    pool_timeout: Seconds = 10
    statement_timeout: Seconds = 30
    lock_timeout: Seconds = 5

    @field_validator("url")
    @classmethod
    def _usable(cls, url: SecretStr) -> SecretStr:
        async_url(url.get_secret_value())
        return url

    def async_url(self) -> URL:
        return async_url(self.url.get_secret_value())


def engine_from_settings(settings: DatabaseSettings) -> AsyncEngine:
    return engine_for(
        settings.async_url(),
        application_name=settings.application_name,
        pool_size=settings.pool_size,
        max_overflow=settings.max_overflow,
        pool_timeout=settings.pool_timeout,
        statement_timeout=settings.statement_timeout,
        lock_timeout=settings.lock_timeout,
    )
