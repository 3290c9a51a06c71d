"""Say what went wrong in one small tree, the same on every database and driver.

ServiceError
├── NotFoundError               no row has this key (or the service may not see it)
├── WriteError                  the row was refused: model, constraint, columns
│   ├── ConflictError           another row has these values (unique)
│   ├── MissingReferenceError   a foreign key points to no row
│   ├── StillReferencedError    another row refers to the one to be deleted; columns: its key
│   ├── RequiredValueError      NOT NULL
│   ├── CheckFailedError        CHECK
│   ├── ValueRangeError         too long, or out of the column's range
│   └── StaleVersionError       somebody changed the row since it was read
├── UnfilteredWriteError        update_where or delete_where that would hit every row
└── InvalidInputError           also a ValueError; the caller asked for what does not exist
    ├── InvalidFilterError
    ├── InvalidSortError
    ├── InvalidPageError        limit or offset
    ├── InvalidCursorError
    ├── InvalidLoadError
    └── InvalidValueError       a field that the table does not have, or a value of a wrong type
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError
from sqlalchemy.orm.exc import StaleDataError
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from snippets.async_operations.errors import ErrorKind, classify
from snippets.servicebase._constraints import columns_of
from snippets.servicebase._shape import shape_of


class ServiceError(Exception):
    """Base of all errors that a service raises by itself."""


class NotFoundError(ServiceError):
    def __init__(self, model: type[SQLModel], key: object) -> None:
        self.model = model
        self.key = key
        super().__init__(f"no {model.__name__} has the key {key!r}")


class WriteError(ServiceError):
    """The database refused a row; `columns` are fields of `model`, as far as they can be known."""

    reason = "was refused"

    def __init__(
        self, model: type[SQLModel], constraint: str | None = None, columns: Iterable[str] = ()
    ) -> None:
        self.model = model
        self.constraint = constraint
        self.columns = tuple(columns)
        where = ", ".join(self.columns) or constraint
        super().__init__(f"{model.__name__} {self.reason}" + (f": {where}" if where else ""))


class ConflictError(WriteError):
    reason = "conflicts with another row"


class MissingReferenceError(WriteError):
    reason = "refers to a row that does not exist"


class StillReferencedError(WriteError):
    reason = "is still referred to by another row"


class RequiredValueError(WriteError):
    reason = "lacks a required value"


class CheckFailedError(WriteError):
    reason = "fails a check"


class ValueRangeError(WriteError):
    reason = "has a value that does not fit its column"


class StaleVersionError(WriteError):
    reason = "was changed by somebody else since it was read"


class UnfilteredWriteError(ServiceError):
    def __init__(self, model: type[SQLModel]) -> None:
        self.model = model
        super().__init__(
            f"no condition limits this write to some rows of {model.__name__}; "
            "say everything=True if all of them are meant"
        )


class InvalidInputError(ServiceError, ValueError):
    """What was asked for does not exist; the message lists what does."""


class InvalidFilterError(InvalidInputError): ...


class InvalidSortError(InvalidInputError): ...


class InvalidPageError(InvalidInputError): ...


class InvalidCursorError(InvalidInputError): ...


class InvalidLoadError(InvalidInputError): ...


class InvalidValueError(InvalidInputError): ...


ERRORS: dict[ErrorKind, type[WriteError]] = {
    ErrorKind.UNIQUE: ConflictError,
    ErrorKind.FOREIGN_KEY: MissingReferenceError,
    ErrorKind.NOT_NULL: RequiredValueError,
    ErrorKind.CHECK: CheckFailedError,
    ErrorKind.TOO_LONG: ValueRangeError,
    ErrorKind.OUT_OF_RANGE: ValueRangeError,
}
# PostgreSQL and asyncpg: NUL or a lone surrogate in a text or in JSON, NaN in JSON
UNREADABLE = {"22000", "22021", "22P02", "22P05"}
NOT_READ = "a value that the database does not read"


def write_error(
    error: Exception, model: type[SQLModel], *, deleting: bool = False
) -> ServiceError | None:
    """Return what the error says about the row; None for deadlocks, timeouts, lost connections.

    Those are no fault of the row and stay as they are, for whoever retries the transaction.
    """
    if isinstance(error, StaleDataError):
        return StaleVersionError(model)
    if isinstance(error, OverflowError):  # SQLite's driver, beyond 64 bits
        return ValueRangeError(model)
    if not isinstance(error, DBAPIError):  # the column's type refused the value, or the encoding
        return InvalidValueError(f"{model.__name__}: {getattr(error, 'orig', error)}")
    return _refusal(error, model, deleting=deleting)


def _refusal(error: DBAPIError, model: type[SQLModel], *, deleting: bool) -> ServiceError | None:
    failure = classify(error)
    if failure.code in UNREADABLE and failure.kind is ErrorKind.OTHER:
        return InvalidValueError(f"{model.__name__}: {NOT_READ}")
    if failure.kind not in ERRORS:
        return None
    # NOT NULL: a relationship without `passive_deletes` sets the keys of its children to NULL.
    if deleting and failure.kind in {ErrorKind.FOREIGN_KEY, ErrorKind.NOT_NULL}:
        return StillReferencedError(model, failure.constraint, shape_of(model).key)
    fields = {column.name: name for name, column in shape_of(model).columns.items()}
    columns = failure.columns or columns_of(model, failure)
    named = (fields.get(column, column) for column in columns)
    return ERRORS[failure.kind](model, failure.constraint, named)


@asynccontextmanager
async def translated(model: type[SQLModel], *, deleting: bool = False) -> AsyncIterator[None]:
    """Raise a WriteError in place of a driver's refusal, which stays its cause."""
    try:
        yield
    except (StatementError, StaleDataError, OverflowError, UnicodeError) as error:
        refused = write_error(error, model, deleting=deleting)
        if refused is None:
            raise
        raise refused from error


def filter_error(
    error: StatementError | OverflowError, model: type[SQLModel]
) -> ServiceError | None:
    """Return what a type or a driver says of a value to look for; None for all else."""
    said: object = NOT_READ  # a driver's text is none for users
    if isinstance(error, DBAPIError):
        failure = classify(error)
        refused = failure.code in UNREADABLE or failure.kind is ErrorKind.OUT_OF_RANGE
    elif isinstance(error, StatementError):
        said = error.orig
        refused = isinstance(said, ValueError | TypeError | ArithmeticError | LookupError)
    else:
        refused = True
    return InvalidFilterError(f"{model.__name__}: {said}") if refused else None


@asynccontextmanager
async def contained(
    session: AsyncSession, model: type[SQLModel], *, deleting: bool = False
) -> AsyncIterator[None]:
    """Run a write in a savepoint: when it is refused, all that was done before it stays.

    Raises:
        WriteError: the refusal, with the driver's error as its cause.
        DBAPIError: no fault of the row.
    """
    savepoint = await session.begin_nested()
    async with translated(model, deleting=deleting):
        try:
            yield
            await savepoint.commit()
        except BaseException as error:
            # After a deadlock the server has dropped the savepoint: that would hide why.
            try:
                await savepoint.rollback()
            except SQLAlchemyError:
                raise error from None
            raise
