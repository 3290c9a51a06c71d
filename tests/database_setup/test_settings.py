from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlalchemy import make_url

from snippets.database_setup.settings import DatabaseSettings


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
