"""Read the settings of the HTTP side from the environment; the database has its own."""

from pydantic_settings import BaseSettings, SettingsConfigDict


class ApiSettings(BaseSettings):
    """`API_COUNT_STATEMENTS` and what you add here."""

    model_config = SettingsConfigDict(env_prefix="API_", env_file=".env", extra="ignore")

    count_statements: bool = False
