"""Rules of the page on URLs, engines, sessions and pools."""

import ast
import re
from collections.abc import Iterator

from _lint_flow import Flow, async_flows, bindings, flow_of, flows
from _lint_index import Project
from _lint_source import (
    Hit,
    Source,
    attribute,
    calls_in,
    decorators,
    hit,
    is_constant,
    is_function,
    keyword,
    names_used,
    receiver,
    text_of,
    unpacks,
)
from _syntax import dotted, string_of

PAGE = "references/database-setup.md"
ENGINES = {
    "sqlalchemy.ext.asyncio.create_async_engine",
    "sqlalchemy.ext.asyncio.engine.create_async_engine",
}
ASYNC_DRIVERS = {
    "aiosqlite",
    "asyncpg",
    "psycopg",
    "psycopg_async",
    "aiomysql",
    "asyncmy",
    "aioodbc",
    "oracledb",
    "oracledb_async",
}
URL_START = re.compile(r"([a-z][a-z0-9]*)(?:\+(\w+))?://")
LIBPQ = {
    "sslmode", "sslrootcert", "sslcert", "sslkey", "channel_binding", "connect_timeout", "options",
    "application_name", "target_session_attrs", "keepalives",
}  # fmt: skip
ASYNCPG_TAKES = {"target_session_attrs"}
URL_TYPES = {"sqlalchemy.URL", "sqlalchemy.engine.URL", "sqlalchemy.engine.url.URL"}
DSNS = {
    "PostgresDsn", "MySQLDsn", "MariaDBDsn", "AnyUrl", "MongoDsn", "RedisDsn", "CockroachDsn",
}  # fmt: skip
SESSION_NAMES = {"sqlmodel.ext.asyncio.session.AsyncSession", "sqlalchemy.ext.asyncio.AsyncSession"}


def engine_calls(project: Project, source: Source) -> Iterator[ast.Call]:
    if source.mentions("create_async_engine"):
        for call in source.all(ast.Call):
            if (
                attribute(call) == "create_async_engine"
                and project.resolve(source, call.func) in ENGINES
            ):
                yield call


def text_value(project: Project, source: Source, node: ast.AST | None) -> str:
    """The text of an expression, through one name of the function or of a module."""
    if node is None:
        return ""
    if text := string_of(node):
        return text
    if isinstance(node, ast.Name):
        values = flow_of(project, source, source.scope_of(node)).values(node.id, node)
        if len(values) == 1 and (text := string_of(values[0])):
            return text
    found = project.definition(source, node) if dotted(node) else None
    value = getattr(found[1], "value", None) if found else None
    return string_of(value) if isinstance(value, ast.AST) else ""


def url_of(project: Project, source: Source, call: ast.Call) -> str:
    return text_value(project, source, call.args[0] if call.args else keyword(call, "url"))


def session_class_left_out(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `'AsyncSession' object has no attribute 'exec'`.
    Cause: `async_sessionmaker` makes SQLAlchemy's session unless told otherwise.
    Fix: `class_=AsyncSession` from `sqlmodel.ext.asyncio.session`.
    """
    if source.mentions("sessionmaker") and project.any_mentions("sqlmodel"):
        for call, made in _factories(project, source):
            # Named outright, it is a choice, unless this very file calls `exec`.
            chosen = keyword(call, "class_") is not None
            homes = [source] if chosen else project.sources
            if made == "sqlalchemy" and any(_execs(project, home) for home in homes):
                yield hit(call, "this makes SQLAlchemy's sessions, which have no `exec`")
    if not source.mentions(".exec("):
        return
    for flow in async_flows(project, source):
        for call, info in flow.session_calls("exec"):
            typed = isinstance(info.node, ast.arg) or _directly_made(project, source, info.node)
            if info.kind == "sqlalchemy" and typed:
                yield hit(call, f"`{info.name}` is SQLAlchemy's session, which has no `exec`")


def _execs(project: Project, source: Source) -> bool:
    """Whether a file awaits `exec` of a session: strings and other objects have one too."""
    if not source.mentions(".exec("):
        return False
    awaited = [c for c in source.all(ast.Call) if attribute(c) == "exec" and source.awaited(c)]
    return any(
        re.search(r"session|^db$", receiver(call).rpartition(".")[2], re.IGNORECASE)
        or flow_of(project, source, source.scope_of(call)).session_of(call)
        for call in awaited
    )


def _directly_made(project: Project, source: Source, node: ast.AST | None) -> bool:
    return isinstance(node, ast.Call) and project.resolve(source, node.func) in SESSION_NAMES


def _factories(project: Project, source: Source) -> Iterator[tuple[ast.Call, str]]:
    """Calls that make a maker of async sessions, and whose sessions those are."""
    flow = flow_of(project, source, source.tree)
    for call in source.all(ast.Call):
        name = attribute(call)
        if name not in {"async_sessionmaker", "sessionmaker"}:
            continue
        info = flow.factory_call(source, call)
        given = keyword(call, "class_")
        if info is None or info.node is not call or (name == "sessionmaker" and given is None):
            continue
        yield call, info.kind if not unpacks(call) or given is not None else ""


def expire_on_commit_left_on(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `greenlet_spawn has not been called; can't call await_() here` after a commit.
    Cause: the commit expired the attributes, and reading one loads it.
    Fix: `expire_on_commit=False`.
    """
    if not source.mentions("sessionmaker"):
        return
    for call, made in _factories(project, source):
        value = keyword(call, "expire_on_commit")
        if made and not unpacks(call) and (value is None or is_constant(value, True)):
            yield hit(call, "a commit expires all objects of these sessions")


def sync_driver(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `The asyncio extension requires an async driver to be used`.
    Cause: the URL has no driver, or a synchronous one.
    Fix: name the async driver: `sqlite+aiosqlite`, `postgresql+asyncpg`, `mysql+aiomysql`.
    """
    for call in engine_calls(project, source):
        match = URL_START.match(url_of(project, source, call))
        if match and _is_sync(project, match[1], match[2]):
            yield hit(call, f"`{match[0]}` has no async driver")
    if source.path.name == "env.py" and source.mentions("async_engine_from_config"):
        yield from _ini_url(project, source)


def _ini_url(project: Project, source: Source) -> Iterator[Hit]:
    """The URL in alembic.ini, where env.py makes an async engine of it."""
    if source.mentions("set_main_option", "set_section_option", "sqlalchemy.url"):
        return
    for folder in [*source.path.parents][1:3]:
        ini = folder / "alembic.ini"
        lines = ini.read_text("utf-8", "replace").splitlines() if ini.is_file() else []
        for number, line in enumerate(lines, 1):
            found = re.match(r"sqlalchemy\.url\s*=\s*(\S+)", line)
            match = URL_START.match(found[1]) if found else None
            if match and _is_sync(project, match[1], match[2]):
                yield Hit(number, f"`{match[0]}` has no async driver", path=str(ini))


def _is_sync(project: Project, database: str, driver: str | None) -> bool:
    if driver is not None:
        return driver not in ASYNC_DRIVERS
    # From SQLAlchemy 2.1 on a bare postgresql:// means psycopg, which serves both.
    if database == "postgresql" and project.versions.at_least("sqlalchemy", 2, 1):
        required = {item.name for item in project.requirements}
        known = project.versions.has("psycopg")
        return known is False or (
            known is None and "asyncpg" in required and "psycopg" not in required
        )
    return database in {"sqlite", "postgresql", "postgres", "mysql", "mariadb"}


def greenlet_left_to_luck(project: Project) -> Iterator[Hit]:
    """Symptom: `The SQLAlchemy asyncio module requires that the Python 'greenlet' library`.
    Cause: SQLAlchemy 2.1 installs greenlet only with its extra.
    Fix: require `sqlalchemy[asyncio]`.
    """
    listed = {item.name: item for item in project.requirements}
    item = listed.get("sqlalchemy") or listed.get("sqlmodel")
    if item is None or not project.versions.at_least("sqlalchemy", 2, 1):
        return
    extras = {extra for one in project.requirements for extra in one.extras}
    safe = {"asyncio", "aiosqlite", "postgresql-asyncpg", "aiomysql", "asyncmy"}
    there = project.versions.has("greenlet") or "greenlet" in listed or bool(extras & safe)
    if not there and project.any_mentions("sqlalchemy.ext.asyncio", "sqlmodel.ext.asyncio"):
        yield Hit(
            item.line, f"`{item.name}` without the extra brings no greenlet", path=str(item.path)
        )


def libpq_options_for_asyncpg(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `got an unexpected keyword argument 'sslmode'`.
    Cause: query keys of the URL become arguments of `asyncpg.connect`, which are not libpq's.
    Fix: `?ssl=require`, or let `async_url` translate the URL.
    """
    for node in source.all(ast.Constant):
        text = node.value
        if not isinstance(text, str) or "+asyncpg://" not in text or "?" not in text:
            continue
        keys = set(re.findall(r"[?&](\w+)=", text)) & LIBPQ - ASYNCPG_TAKES
        for key in sorted(keys):
            yield hit(node, f"asyncpg knows no `{key}`")
    for call in engine_calls(project, source):
        url = url_of(project, source, call)
        arguments = keyword(call, "connect_args")
        if "+asyncpg" in url and isinstance(arguments, ast.Dict):
            for key in sorted({string_of(k) for k in arguments.keys if k} & LIBPQ - ASYNCPG_TAKES):
                yield hit(call, f"asyncpg knows no `{key}`")
        yield from _added_keys(project, source, call)


def _added_keys(project: Project, source: Source, call: ast.Call) -> Iterator[Hit]:
    """`url.update_query_dict({"sslmode": ...})`, where nothing speaks of psycopg."""
    required = {item.name for item in project.requirements}
    if source.mentions("psycopg") or ("psycopg" in required and "asyncpg" not in required):
        return
    for inner in calls_in(call):
        if attribute(inner) in {"update_query_dict", "update_query_pairs"}:
            keys = {
                string_of(k)
                for n in ast.walk(inner)
                if isinstance(n, ast.Dict)
                for k in n.keys
                if k
            }
            for key in sorted(keys & LIBPQ - ASYNCPG_TAKES):
                yield hit(inner, f"asyncpg knows no `{key}`")


def url_as_text(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `Access denied for user`, with a password that works elsewhere.
    Cause: `str(url)` writes `***` for the password.
    Fix: pass the `URL` object on, or `render_as_string(hide_password=False)`.
    """
    if not source.mentions("str("):
        return
    for flow in flows(project, source):
        for call in flow.calls:
            is_str = (
                isinstance(call.func, ast.Name) and call.func.id == "str" and len(call.args) == 1
            )
            if is_str and _is_url(flow, call.args[0]) and _is_handed_on(source, call):
                yield hit(call, f"`{text_of(call)}` has `***` for the password")


def _is_url(flow: Flow, node: ast.expr) -> bool:
    name = dotted(node)
    if name.endswith("engine.url"):
        return True
    if is_function(flow.scope):
        for argument in flow.scope.args.args:
            if argument.arg == name:
                return flow.project.type_of(flow.source, argument.annotation).name in URL_TYPES
    values = flow.values(name, node) if isinstance(node, ast.Name) else []
    makers = {"make_url", "URL.create"}
    return any(isinstance(v, ast.Call) and dotted(v.func) in makers for v in values)


def _is_handed_on(source: Source, call: ast.Call) -> bool:
    """Whether the text goes somewhere that connects; a log is right to hide the password."""
    parent = source.parents.get(call)
    if isinstance(parent, ast.Return):
        function = source.function_of(call)
        name = function.name if function else ""
        return not re.search(r"repr|str|safe|mask|hid|log|display|label|redact", name)
    if isinstance(parent, ast.Call):
        return attribute(parent) in {
            "create_async_engine",
            "create_engine",
            "set_main_option",
            "putenv",
            "setenv",
        }
    return isinstance(parent, ast.Assign) and "environ" in ast.unparse(parent.targets[0])


def settings_that_print_the_url(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: the password in a log, in `input_value='mysql://...'`.
    Cause: pydantic quotes the input that it refuses.
    Fix: `hide_input_in_errors=True` in the settings' configuration.
    """
    if not source.mentions("BaseSettings"):
        return
    for item in project.classes:
        if item.source is not source or "pydantic_settings.BaseSettings" not in item.roots:
            continue
        urls = [m for m in item.own_members if m.type.name.rpartition(".")[2] in DSNS]
        if urls and not item.has_config("hide_input_in_errors"):
            yield hit(urls[0].node, f"a wrong `{urls[0].name}` is printed with its password")


def engine_in_two_loops(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `attached to a different loop` or `Event loop is closed`.
    Cause: a pooled connection of asyncpg or aiomysql belongs to the loop that opened it.
    Fix: `poolclass=NullPool`, or `await engine.dispose()` before the first loop ends.
    """
    if not source.mentions("asyncio.run(") or source.mentions("NullPool"):
        return
    for flow in flows(project, source):
        runs = [c for c in flow.calls if project.resolve(source, c.func) == "asyncio.run"]
        engines = {name for call in runs for name in _engines_used(flow, call)}
        again = len(runs) > 1 or any(source.in_loop(call) for call in runs)
        in_task = is_function(flow.scope) and any(
            _is_job(name) for name, _ in decorators(flow.scope)
        )
        for name in sorted(engines):
            made_here = name in flow.assigned
            if (again or in_task) and not (made_here and in_task and not again):
                yield hit(runs[-1], f"`{name}` is used in more than one event loop")


def _is_job(name: str) -> bool:
    return name.rpartition(".")[2] in {"task", "shared_task", "job", "actor", "periodic_task"}


def _engines_used(flow: Flow, run: ast.Call) -> set[str]:
    """Engines and makers of sessions from outside that the coroutine of a run uses."""
    found: set[str] = set()
    for call in run.args[:1]:
        target = (
            flow.project.function_at(flow.source, call.func, run)
            if isinstance(call, ast.Call)
            else None
        )
        if target is None or target[0] is not flow.source:
            continue
        inner = flow_of(flow.project, *target)
        if "dispose" in inner.words:
            continue
        own = {argument.arg for argument in target[1].args.args} | inner.assigned.keys()
        for name in names_used(target[1]) - own:
            if _is_engine(flow, name, run):
                found.add(name)
    return found


def _is_engine(flow: Flow, name: str, at: ast.AST) -> bool:
    if flow.factory(name, at):
        return True
    for outer in [flow.scope, *flow.source.enclosing_functions(at)]:
        for argument in outer.args.args if is_function(outer) else []:
            if argument.arg == name:
                return flow.project.type_of(flow.source, argument.annotation).name.endswith(
                    ".AsyncEngine"
                )
    values = flow.values(name, at)
    return any(isinstance(v, ast.Call) and attribute(v) == "create_async_engine" for v in values)


def second_session_inside_the_first(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `QueuePool limit of size 1 overflow 0 reached, connection timed out`.
    Cause: each task holds one connection and waits for another: enough tasks, and all wait.
    Fix: pass the session on; close it before slow work that needs no database.
    """
    if source.is_test:
        return
    for flow in async_flows(project, source):
        opened = [
            (node, item.context_expr)
            for node in flow.nodes
            if isinstance(node, ast.AsyncWith)
            for item in node.items
            if isinstance(item.context_expr, ast.Call) and _opens(flow, item.context_expr)
        ]
        for outer, first in opened:
            for inner, second in opened:
                if source.inside(inner, outer) and dotted(first.func) == dotted(second.func):
                    yield hit(inner, f"a second session of `{dotted(first.func)}` inside the first")


def _opens(flow: Flow, call: ast.Call) -> bool:
    name = dotted(call.func)
    return bool(name) and flow.factory(name.removesuffix(".begin"), call) is not None


def session_never_closed(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `The garbage collector is trying to clean up non-checked-in connection`.
    Cause: a session was made without `async with`, and nobody closes it.
    Fix: `async with factory() as session`, or `session_scope`.
    """
    for flow in async_flows(project, source):
        for node in flow.nodes:
            if not isinstance(node, ast.Assign | ast.AnnAssign):
                continue
            for name, value in bindings(node):
                info = flow.session_from(value, name)
                if info and (info.kept is not None or info.kind) and _is_lost(flow, name):
                    yield hit(node, f"`{name}` is never closed")


def _is_lost(flow: Flow, name: str) -> bool:
    """Whether nothing closes the session, and nobody else gets it."""
    if "." in name:
        return False
    return not any(_takes_over(node, name) for node in flow.nodes)


KEEPERS = {
    "callback", "push_async_callback", "enter_async_context", "append", "closing", "aclosing",
}  # fmt: skip


def _takes_over(node: ast.AST, name: str) -> bool:
    match node:
        case ast.Call() if receiver(node) == name:
            return attribute(node) in {"close", "aclose"}
        case ast.Call() if attribute(node) in KEEPERS:
            return name in names_used(node)
        case ast.Return(value=value) | ast.Yield(value=value):
            return isinstance(value, ast.Name | ast.Tuple) and name in names_used(value)
        case ast.withitem(context_expr=value):
            return name in names_used(value) and not attribute(value).startswith("begin")
        case ast.Assign(value=ast.Name(id=given)):
            return given == name
    return False


def sqlite_without_hooks(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: none: rows survive a rollback, children point to nothing.
    Cause: sqlite3 begins no transaction before SAVEPOINT, and foreign keys are off.
    Fix: `configure_sqlite(engine)`, which sets the pragmas and begins each transaction.
    """
    if source.is_test or not source.mentions("sqlite+aiosqlite"):
        return
    if project.any_mentions("foreign_keys", "sqlite_pragmas", "configure_sqlite", "engine_for("):
        return
    matters = project.any_mentions("foreign_key=", "begin_nested(", tests=False)
    for call in engine_calls(project, source):
        if matters and url_of(project, source, call).startswith("sqlite+aiosqlite"):
            yield hit(call, "no hook sets `PRAGMA foreign_keys`, none begins the transaction")


RULES = (
    session_class_left_out,
    expire_on_commit_left_on,
    sync_driver,
    libpq_options_for_asyncpg,
    url_as_text,
    settings_that_print_the_url,
    engine_in_two_loops,
    second_session_inside_the_first,
    session_never_closed,
    sqlite_without_hooks,
)
SURVEYS = (greenlet_left_to_luck,)
