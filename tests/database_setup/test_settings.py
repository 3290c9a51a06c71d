from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError
from sqlalchemy import URL, make_url, text

from snippets.database_setup.settings import DatabaseSettings, engine_from_settings
from snippets.database_setup.urls import with_password


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    return tmp_path


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:secret@h/d")
    monkeypatch.setenv("DATABASE_POOL_SIZE", "7")

    settings = DatabaseSettings()

    assert settings.async_url() == make_url("postgresql+asyncpg://u:secret@h/d")
    assert (settings.pool_size, settings.max_overflow) == (7, 10)


def test_settings_come_from_a_file_that_other_programs_use_too(empty_folder: Path) -> None:
    (empty_folder / ".env").write_text("DATABASE_URL=sqlite:///app.db\nMAIL_HOST=mail\n")

    assert DatabaseSettings().async_url() == make_url("sqlite+aiosqlite:///app.db")


def test_no_password_shows_in_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:secret@h/d")

    settings = DatabaseSettings()

    assert "secret" not in f"{settings} {settings!r} {settings.model_dump()}"


def test_a_wrong_url_is_reported_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql+psycopg2://u:secret@h/d")

    with pytest.raises(ValidationError, match=r"write postgresql\+asyncpg") as caught:
        DatabaseSettings()

    assert "secret" not in str(caught.value)


def test_a_missing_url_and_impossible_sizes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_POOL_SIZE", "0")

    with pytest.raises(ValidationError) as caught:
        DatabaseSettings()

    assert {error["loc"] for error in caught.value.errors()} == {("url",), ("pool_size",)}


@pytest.mark.parametrize("name", ["pool_timeout", "statement_timeout", "lock_timeout"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "0", "-1", "0.0004", "1e9"])
def test_a_time_that_no_server_takes_is_refused(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:secret@h/d")
    monkeypatch.setenv(f"DATABASE_{name.upper()}", value)

    with pytest.raises(ValidationError) as caught:
        DatabaseSettings()

    assert {error["loc"] for error in caught.value.errors()} == {(name,)}


@pytest.mark.parametrize("times", [{"lock_timeout": 0.001}, {"lock_timeout": 2_000_000}])
async def test_the_servers_take_the_times_that_are_let_through(
    times: dict[str, float], database_url: URL
) -> None:
    url = SecretStr(with_password(database_url))
    settings = DatabaseSettings(
        url=url, pool_timeout=2_000_000, statement_timeout=2_000_000, **times
    )
    engine = engine_from_settings(settings)
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT 1")) == 1
        if engine.dialect.name == "postgresql":
            assert await connection.scalar(text("SHOW lock_timeout")) != "0"
    await engine.dispose()
