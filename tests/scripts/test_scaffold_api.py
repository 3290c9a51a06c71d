"""What `scaffold.py add` says of the modules that it copied."""

import _scaffold_api

BASE = '''
class Reads:
    async def get(self, key: int) -> str:
        """Return it."""
        ...

    async def stream(self) -> AsyncIterator[str]:
        yield ""

    def _hidden(self) -> None: ...
'''
OWN = '''
@asynccontextmanager
async def scope(factory: Factory, *, level: str = "") -> AsyncIterator[Session]:
    """Yield a session;
    commit at the end.

    Nothing of this is shown.
    """
    yield factory()


class Service(Reads, Generic[T]):
    """Read and write."""

    limit: ClassVar[int] = 100
    _secret: int

    def __init__(self, session: Session) -> None: ...

    async def get(self, key: int, *, load: tuple[str, ...] = ()) -> str: ...

    @classmethod
    def named(cls) -> str: ...


def plain(): ...


def _private(): ...


CONSTANT = 1
'''


def test_signatures_say_how_to_call_and_what_comes_back() -> None:
    assert _scaffold_api.api_lines({"a.py": OWN}, {"a.py": OWN, "b.py": BASE, "c.mako": "${x"}) == [
        (
            "async with scope(factory: Factory, *, level: str='') -> AsyncIterator[Session]"
            "  # Yield a session; commit at the end."
        ),
        "class Service(Reads, Generic[T])  # Read and write.",
        "    limit: ClassVar[int] = 100",
        "    __init__(session: Session) -> None",
        "    await get(key: int, *, load: tuple[str, ...]=()) -> str",
        "    named() -> str",
        "    async for ... in stream() -> AsyncIterator[str]",
        "plain()",
    ]


def test_a_constant_is_listed_when_the_page_names_it() -> None:
    own = 'LIMIT = 5\nOTHER = 6\nText = Annotated[str, "' + "x" * 200 + '"]\n'

    lines = _scaffold_api.api_lines({"a.py": own}, {}, ["`Text` below `LIMIT`; OTHER is prose"])

    assert lines[0] == "LIMIT = 5"
    assert lines[1].startswith("Text = Annotated[str, 'xxx")
    assert len(lines[1]) == 120 + len("...")
    assert len(lines) == 2


def test_what_sqlalchemy_calls_is_not_listed() -> None:
    own = "class Kind(TypeDecorator[str]):\n    def process_bind_param(self, value): ...\n"

    assert _scaffold_api.api_lines({"a.py": own}, {}) == ["class Kind(TypeDecorator[str])"]


def test_nothing_that_was_asked_for_is_cut() -> None:
    own = "\n".join(f"def f{number}(): ..." for number in range(300))

    lines = _scaffold_api.api_lines({"a.py": own}, {})

    assert lines == [f"f{number}()" for number in range(300)]


def test_what_is_called_has_signatures_or_names() -> None:
    classes = _scaffold_api.classes_of({"a.py": OWN, "b.py": BASE})
    names = ["CONSTANT", "Service", "plain"]

    assert list(_scaffold_api.called(OWN, names, classes)) == [
        "Service: get, named, stream",
        "plain()",
        "CONSTANT",
    ]


def test_a_class_that_inherits_from_its_own_name_ends() -> None:
    own = "from other import A as A_\n\n\nclass A(A_, A): ...\n"

    assert _scaffold_api.api_lines({"a.py": own}, {"a.py": own}) == ["class A(A_, A)"]


def test_an_error_says_how_it_is_made_and_those_that_inherit_it_do_not() -> None:
    own = """
class LostError(Exception):
    def __init__(self, key: int) -> None: ...


class GoneError(LostError):
    at: int
"""

    assert _scaffold_api.api_lines({"a.py": own}, {"a.py": own}) == [
        "class LostError(Exception)",
        "    __init__(key: int) -> None",
        "class GoneError(LostError)",
        "    at: int",
    ]
