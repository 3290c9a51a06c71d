"""Record the statements that an engine sends."""

from typing import Any, Self

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine


class StatementLog:
    """The SQL texts sent while the log is open; an executemany counts as one.

    Transaction control (BEGIN, COMMIT, SAVEPOINT sent by hooks) is left out: it is no round trip
    that the code under test chose.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine.sync_engine
        self.texts: list[str] = []
        self.parameters: list[Any] = []

    @property
    def count(self) -> int:
        return len(self.texts)

    def clear(self) -> None:
        self.texts.clear()
        self.parameters.clear()

    def _record(
        self, _conn: Any, _cursor: Any, text: str, parameters: Any, _context: Any, _many: bool
    ) -> None:
        if not text.upper().startswith(("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE")):
            self.texts.append(text)
            self.parameters.append(parameters)

    def __enter__(self) -> Self:
        event.listen(self._engine, "before_cursor_execute", self._record)
        return self

    def __exit__(self, *_error: object) -> None:
        event.remove(self._engine, "before_cursor_execute", self._record)
