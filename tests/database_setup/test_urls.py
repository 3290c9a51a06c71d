import uuid

import pytest
from servers import Server
from sqlalchemy import URL, make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import create_async_engine

from snippets.database_setup import urls
from snippets.database_setup.urls import DatabaseURLError, async_url, build_url, with_password

AWKWARD_PASSWORD = "p@ss/w:rd%20#?&=+"
TAKEN = {
    "sqlite+aiosqlite": {"timeout": "5"},
    "postgresql+asyncpg": {
        "command_timeout": "5",
        "krbsrvname": "postgres",
        "passfile": "/none",
        "prepared_statement_cache_size": "0",
        "ssl": "prefer",
        "target_session_attrs": "any",
    },
    "mysql+aiomysql": {
        "charset": "utf8mb4",
        "client_flag": "0",
        "connect_timeout": "5",
        "init_command": "SET @a = 1",
        "local_infile": "0",
        "program_name": "a",
        "sql_mode": "ANSI",
        "use_unicode": "1",
    },
}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("sqlite:///app.db", "sqlite+aiosqlite:///app.db"),
        ("sqlite://", "sqlite+aiosqlite://"),
        ("postgres://u@h/d", "postgresql+asyncpg://u@h/d"),
        ("postgres+asyncpg://u@h/d", "postgresql+asyncpg://u@h/d"),
        ("postgres+psycopg://u@h/d", "postgresql+psycopg://u@h/d"),
        ("postgresql://u@h/d", "postgresql+asyncpg://u@h/d"),
        (
            "postgresql+psycopg://u@h/d?sslmode=require",
            "postgresql+psycopg://u@h/d?sslmode=require",
        ),
        ("postgresql://u@h/d?sslmode=require", "postgresql+asyncpg://u@h/d?ssl=require"),
        ("mysql://u@h/d", "mysql+aiomysql://u@h/d"),
        ("mariadb://u@h/d", "mariadb+aiomysql://u@h/d"),
    ],
)
def test_a_url_gets_an_async_driver(given: str, expected: str) -> None:
    assert async_url(given) == make_url(expected)
    assert async_url(make_url(given)) == make_url(expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("oracle://u:secret@h/d", "unknown database 'oracle'.*known are sqlite, postgres"),
        ("postgresql+psycopg2://u:secret@h/d", r"psycopg2 is not async; write postgresql\+asyncpg"),
        (
            "postgres+psycopg2://u:secret@h/d",
            r"postgresql\+psycopg2 is not async; write postgresql",
        ),
        ("sqlite+pysqlite:///app.db", r"not async; write sqlite\+aiosqlite"),
        ("mysql+pymysql://u:secret@h/d", r"write mysql\+aiomysql or mysql\+asyncmy"),
        (
            "postgresql://u:secret@h/d?channel_binding=require",
            "from a URL: channel_binding; remove",
        ),
        ("postgresql://u:secret@h/d?statement_cache_size=0", "asyncpg .*: statement_cache_size;"),
        ("postgresql://u:secret@h/d?timeout=5&ssl=require", "URL: timeout; .* connect_args"),
        ("postgresql+psycopg://u:secret@h/d?prepare_threshold=0", "psycopg .*: prepare_threshold"),
        ("postgresql+psycopg://u:secret@h/d?foo=1", "psycopg .*: a key that is not shown"),
        ("mysql://u:secret@h/d?ssl-mode=REQUIRED", r"aiomysql .*: ssl-mode; .* or for TLS connect"),
        ("mariadb://u:secret@h/d?ssl_ca=ca.pem", r"aiomysql .*: ssl_ca; .* or for TLS connect"),
        ("mysql://u:secret@h/d?read_timeout=5", "aiomysql .*: read_timeout"),
        ("postgresql://u:pa@ss?secret=1@h/d", "perhaps the password has an @ and a [?] unescaped"),
        ("postgresql://u:pa@ss?timeout=1&secret=1@h/d", ": timeout, a key that is not shown"),
        ("mysql://u:pa@ss?secret=1@h/d", "a key that is not shown"),
        ("postgresql://u:secret@h:54x/d", "can't be parsed"),
        ("u:secret@h/d", "can't be parsed"),
    ],
)
def test_a_url_that_cannot_work_is_refused_without_its_password(given: str, message: str) -> None:
    with pytest.raises(DatabaseURLError, match=message) as caught:
        async_url(given)

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        "postgresql://h/d?command_timeout=5&prepared_statement_cache_size=0",
        "postgresql://h/d?host=a:1&host=b:2&target_session_attrs=any",
        "postgresql+psycopg://h/d?application_name=a&sslmode=require&channel_binding=require",
        "mysql://h/d?charset=utf8mb4&connect_timeout=3&local_infile=0&unix_socket=/x",
        "mysql+asyncmy://h/d?ssl_ca=ca.pem",
        "sqlite:///file:app.db?mode=ro&uri=true",
    ],
)
def test_a_key_that_the_driver_takes_stays(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urls, "find_spec", lambda _name: True)  # asyncmy is not installed here

    assert async_url(given).query == make_url(given).query


async def test_the_drivers_take_the_keys_that_are_let_through(database_url: URL) -> None:
    engine = create_async_engine(
        async_url(database_url.update_query_dict(TAKEN[database_url.drivername]))
    )
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT 1")) == 1
    await engine.dispose()


def test_a_driver_that_is_not_installed_is_named_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(urls, "find_spec", lambda _name: None)

    with pytest.raises(DatabaseURLError, match="aiomysql is not installed; run: pip install aiom"):
        async_url("mysql://h/d")


def test_any_character_may_stand_in_a_password() -> None:
    url = build_url(
        "postgresql", username="u", password=AWKWARD_PASSWORD, host="h", port=5432, database="d"
    )

    assert make_url(with_password(url)).password == AWKWARD_PASSWORD
    assert AWKWARD_PASSWORD not in f"{url} {url!r}"
    assert make_url("postgresql://u:p@ss@h/d").host == "ss@h"  # what the f-string would have made


@pytest.mark.only_on("mysql", reason="the other servers of the suite ask for no password")
async def test_the_server_gets_the_password_that_was_given(server: Server) -> None:
    user = f"u{uuid.uuid4().hex[:20]}"
    admin = create_async_engine(server.url, isolation_level="AUTOCOMMIT")
    url: URL = server.url.set(username=user, password=AWKWARD_PASSWORD)
    async with admin.connect() as connection:
        create = text(f"CREATE USER '{user}'@'%' IDENTIFIED BY :password")
        await connection.execute(create, {"password": AWKWARD_PASSWORD})
        try:
            await connection.execute(
                text(f"GRANT ALL ON `{server.url.database}`.* TO '{user}'@'%'")
            )
            engine = create_async_engine(async_url(with_password(url)))
            async with engine.connect() as theirs:
                assert await theirs.scalar(text("SELECT SUBSTRING_INDEX(USER(), '@', 1)")) == user
            await engine.dispose()

            masked = create_async_engine(str(url))
            with pytest.raises(OperationalError, match=r"1045, .Access denied for user"):
                await masked.connect()
            await masked.dispose()
        finally:
            await connection.execute(text(f"DROP USER '{user}'@'%'"))
    await admin.dispose()
