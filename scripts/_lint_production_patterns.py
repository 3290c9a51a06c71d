"""Rules of the page on running the data layer in production."""

import ast
import re
from collections.abc import Iterator

from _lint_async_operations import caught, is_per_item
from _lint_database_setup import engine_calls, url_of
from _lint_fastapi_integration import commits_at_end
from _lint_flow import SESSIONS, Flow, async_flows, bindings, flow_of
from _lint_index import Class, Project
from _lint_source import (
    LOOPS,
    Hit,
    Source,
    arguments,
    attribute,
    calls_in,
    decorators,
    hit,
    is_constant,
    is_function,
    keyword,
    names_used,
    position,
    receiver,
    text_of,
    unpacks,
)
from _syntax import dotted, string_of

PAGE = "references/production-patterns.md"
DEADLINES = {"asyncio.timeout", "asyncio.timeout_at", "asyncio.wait_for", "anyio.fail_after"}
WRITES = {"add", "add_all", "flush", "delete", "merge"}
REPLICA = re.compile(r"read|replica|follower|standby|slave|(^|_)ro($|_)", re.IGNORECASE)
SENDING = re.compile(r"^(send|publish|notify|enqueue|emit)(_|$)|^(delay|apply_async|kiq)$")
SOCKETS = re.compile(r"socket|^ws$|websocket", re.IGNORECASE)
FORGETTING = {"forget", "invalidate", "delete", "delete_many", "evict", "pop", "unlink", "clear"}
PLAIN_SET = re.compile(
    r"^\s*SET\s+(?!LOCAL\b|TRANSACTION\b|CONSTRAINTS\b|STATEMENT\b|NAMES\b|SESSION\s+CHARACTER)",
    re.IGNORECASE,
)
WHOLE_SESSION = re.compile(r"set_config\s*\([^()]*,\s*false\s*\)", re.IGNORECASE)
BARE_CAST = re.compile(
    r"(?<!nullif\()current_setting\s*\([^()]*,\s*true\s*\)\s*::\s*(?!text|varchar)\w+",
    re.IGNORECASE,
)


def half_of_the_caches(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: behind PgBouncer `prepared statement "__asyncpg_stmt_1__" does not exist`.
    Cause: asyncpg has a cache of its own, which `prepared_statement_cache_size` leaves on.
    Fix: `connect_args={"statement_cache_size": 0}`; psycopg: `"prepare_threshold": None`.
    """
    for call in engine_calls(project, source):
        arguments = keyword(call, "connect_args")
        keys = {}
        if isinstance(arguments, ast.Dict):
            keys = {
                string_of(k): v for k, v in zip(arguments.keys, arguments.values, strict=True) if k
            }
            if None in arguments.keys:
                continue
        url = url_of(project, source, call)
        half = {"prepared_statement_cache_size", "prepared_statement_name_func"}
        found = sorted(key for key in half if key in keys or f"{key}=" in url)
        if found and "statement_cache_size" not in keys.keys() - half:
            yield hit(call, f"`{found[0]}` alone leaves asyncpg's own cache on")
        threshold = keys.get("prepare_threshold")
        if (
            isinstance(threshold, ast.Constant)
            and threshold.value == 0
            and threshold.value is not None
        ):
            yield hit(call, "`prepare_threshold=0` prepares every statement; None prepares none")


def _sql_texts(source: Source) -> Iterator[tuple[ast.Constant, str]]:
    """Text constants inside `text(...)` and the like."""
    for node in source.all(ast.Constant):
        if isinstance(node.value, str):
            yield node, node.value


def set_for_the_session(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: the setting of one request holds for those of others.
    Cause: `SET` stays with the connection, which goes back to the pool.
    Fix: `SET LOCAL`, or `set_config(name, value, true)`: until the transaction ends.
    """
    if source.is_test or not source.mentions("SET ", "set "):
        return
    for flow in async_flows(project, source):
        for call, _ in flow.session_calls("exec", "execute"):
            inner = call.args[0] if call.args else None
            is_text = isinstance(inner, ast.Call) and attribute(inner) == "text" and inner.args
            if (
                is_text
                and isinstance(inner, ast.Call)
                and PLAIN_SET.match(string_of(inner.args[0]))
            ):
                yield hit(
                    call, f"`{string_of(inner.args[0]).strip()[:40]}` outlives the transaction"
                )


def read_own_write_from_a_replica(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `No row was found when one was required`, now and then.
    Cause: the replica has not replayed the commit yet.
    Fix: read it where it was written, or wait for the position: `read(after=...)`.
    """
    for flow in async_flows(project, source):
        written: dict[str, str] = {}
        for node in flow.nodes:
            if isinstance(node, ast.AsyncWith):
                name = _factory_of(flow, node)
                models = {m.name for m in _models_in(flow, node)}
                if name and REPLICA.search(name) and models & written.keys():
                    other = written[min(models & written.keys())]
                    yield hit(node, f"what `{other}` has just written may not be in `{name}`")
                elif name and _writes(flow, node):
                    written |= dict.fromkeys(models, name)


def _factory_of(flow: Flow, block: ast.AsyncWith) -> str:
    for item in block.items:
        call = item.context_expr
        if isinstance(call, ast.Call):
            for name in [dotted(call.func), *(dotted(arg) for arg in call.args)]:
                if name and flow.factory(name, call) is not None:
                    return name
    return ""


def _models_in(flow: Flow, block: ast.AST) -> list[Class]:
    found: list[Class] = []
    for part in ast.walk(block):
        if isinstance(part, ast.Name):
            model = flow.project.table_at(flow.source, part)
            found += [model] if model is not None else []
    return found


def _writes(flow: Flow, block: ast.AST) -> bool:
    return any(attribute(c) in WRITES and receiver(c) in flow.sessions for c in calls_in(block))


def copy_the_database_file(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: the copy lacks the last commits, or is malformed.
    Cause: with WAL a SQLite database is more than one file, and it changes meanwhile.
    Fix: `VACUUM INTO`, or sqlite3's `backup()`.
    """
    if not source.mentions("shutil"):
        return
    for call in source.all(ast.Call):
        name = project.resolve(source, call.func)
        copies = name in {"shutil.copyfile", "shutil.copy", "shutil.copy2", "shutil.move"}
        if copies and call.args and dotted(call.args[0]).endswith("url.database"):
            yield hit(call, f"`{text_of(call.args[0])}` is not the whole database")


def _transactions(flow: Flow) -> Iterator[tuple[ast.AsyncWith, str]]:
    """Blocks that commit at their end, with the name of their session."""
    for node in flow.nodes:
        if isinstance(node, ast.AsyncWith):
            for item in node.items:
                if isinstance(item.context_expr, ast.Call) and commits_at_end(
                    flow, item.context_expr
                ):
                    name = dotted(item.optional_vars) if item.optional_vars is not None else ""
                    yield node, name or receiver(item.context_expr)


def _first_write(flow: Flow, block: ast.AsyncWith, session: str) -> ast.Call | None:
    for call in flow.calls:
        if not flow.source.inside(call, block) or receiver(call) != session:
            continue
        if attribute(call) in WRITES:
            return call
        if attribute(call) in {"exec", "execute"} and call.args:
            statement = flow.statement(call.args[0])
            if statement is not None and statement.kind in {"update", "insert", "delete"}:
                return call
    return None


def invalidate_before_the_commit(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: the cache has the old value, for good.
    Cause: somebody loads it again between the invalidation and the commit.
    Fix: forget the key after the commit: `caching_scope` and `forget_on_commit`.
    """
    if not source.mentions("cache", "redis"):
        return
    for flow in async_flows(project, source):
        for block, session in _transactions(flow):
            write = _first_write(flow, block, session)
            for call in flow.calls if write is not None else []:
                name = receiver(call).lower()
                is_cache = ("cache" in name or "redis" in name) and attribute(call) in FORGETTING
                if is_cache and flow.source.inside(call, block):
                    yield hit(call, f"`{text_of(call.func)}` comes before the commit")


def cache_orm_objects(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `is not bound to a Session; lazy load operation of attribute`, or old values.
    Cause: the object outlives its session, and one object is shared by all.
    Fix: cache schemas: `Public.model_validate(row)`.
    """
    if not source.mentions("cache"):
        return
    for flow in async_flows(project, source):
        for node in flow.nodes:
            match node:
                case ast.Assign(targets=[ast.Subscript(value=store)], value=value):
                    load = flow.load(value) if "cache" in dotted(store).lower() else None
                    kept = load is not None and not _ends_with(flow, store)
                    if load is not None and kept and load.kind in {"query", "get"}:
                        yield hit(node, f"an object of `{load.model.name}` outlives its session")
        names = (
            {name.rpartition(".")[2] for name, _ in decorators(flow.scope)}
            if isinstance(flow.scope, ast.AsyncFunctionDef)
            else set()
        )
        if names & {"cached", "lru_cache", "alru_cache", "cache"} and isinstance(
            flow.scope, ast.AsyncFunctionDef
        ):
            kind = project.type_of(source, flow.scope.returns)
            model = project.table_at(source, kind.name) if kind.name else None
            if model is not None:
                yield hit(flow.scope, f"an object of `{model.name}` outlives its session")


def _ends_with(flow: Flow, store: ast.expr) -> bool:
    """Whether a dict was made in this function, for its own use."""
    if not isinstance(store, ast.Name) or any(
        isinstance(node, ast.Global | ast.Nonlocal) and store.id in node.names
        for node in flow.nodes
    ):
        return False
    made = [value for _, value in flow.assigned.get(store.id, [])]
    return bool(made) and all(isinstance(value, ast.Dict | ast.DictComp) for value in made)


def send_inside_the_transaction(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: a message about a row that does not exist, or locks held as long as it takes.
    Cause: it is sent before the commit, which may fail.
    Fix: an outbox: write the message in the transaction, send it afterwards.
    """
    if source.is_test:
        return
    for flow in async_flows(project, source):
        for block, session in _transactions(flow):
            write = _first_write(flow, block, session)
            for call in flow.calls if write is not None else []:
                given = [*call.args, *(item.value for item in call.keywords)]
                passes = any(session in names_used(part) for part in given)
                if write is None or passes or SOCKETS.search(receiver(call)):
                    continue
                inside = flow.source.inside(call, block) and position(call) > position(write)
                if inside and SENDING.match(attribute(call)) and receiver(call) != session:
                    yield hit(call, f"`{text_of(call.func)}` comes before the commit")


def set_the_tenant_for_the_connection(_project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: rows of the tenant who had the connection before.
    Cause: `set_config(..., false)` stays with the connection, which goes back to the pool.
    Fix: `true`: the setting ends with the transaction.
    """
    if not source.mentions("set_config"):
        return
    for node, text in _sql_texts(source):
        if WHOLE_SESSION.search(text):
            yield hit(node, "this setting outlives the transaction")
    for call in source.all(ast.Call):
        if dotted(call.func).endswith("func.set_config") and is_constant(
            call.args[-1] if call.args else None, False
        ):
            yield hit(call, "this setting outlives the transaction")


def cast_a_setting_that_may_be_empty(_project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `invalid input syntax for type integer: ""`.
    Cause: after a transaction that set it, the setting is an empty text, not NULL.
    Fix: `nullif(current_setting('app.tenant_id', true), '')::int`.
    """
    if not source.mentions("current_setting"):
        return
    for node, text in _sql_texts(source):
        if BARE_CAST.search(text):
            yield hit(node, "the setting may be an empty text")


LIVE = re.compile(r"(?:^|/)(?:healthz?|probe)s?/live/?$|^/?live/?$|/livez/?$|/liveness/?$")


def liveness_asks_the_database(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: the orchestrator restarts every process while the database is down.
    Cause: the liveness probe asks the database, which no restart repairs.
    Fix: liveness answers by itself; readiness asks.
    """
    if not source.mentions("live"):
        return
    paths = {r.function: _path(source, r.decorator) for r in project.routes if r.source is source}
    for flow in async_flows(project, source):
        name = flow.scope.name if isinstance(flow.scope, ast.AsyncFunctionDef) else ""
        path = next((p for function, p in paths.items() if function is flow.scope), "")
        if not name.startswith(("liveness", "livez")) and not LIVE.search(path):
            continue
        for call in flow.calls:
            asks = attribute(call) in {"exec", "execute", "scalar", "scalars"}
            if asks and source.awaited(call):
                yield hit(call, f"`{name}` fails when the database does")
                break


def _path(source: Source, decorator: ast.Call) -> str:
    """The path of a route behind the prefix of its router: `/live` of matches is no probe."""
    router = source.top_value(receiver(decorator))
    prefix = keyword(router, "prefix") if isinstance(router, ast.Call) else None
    path = decorator.args[0] if decorator.args else keyword(decorator, "path")
    return "".join(string_of(part) for part in (prefix, path) if part is not None)


def listen_on_the_async_engine(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `NotImplementedError: asynchronous events are not implemented at this time`.
    Cause: events belong to the synchronous engine or session inside.
    Fix: `event.listen(engine.sync_engine, ...)`, `session.sync_session`.
    """
    if not source.mentions("listen"):
        return
    for call in source.all(ast.Call):
        if attribute(call) not in {"listen", "listens_for"} or not call.args:
            continue
        name = project.resolve(source, call.func)
        target = call.args[0]
        if name.startswith("sqlalchemy") and _is_async_target(project, source, target):
            yield hit(call, f"`{text_of(target)}` has no events of its own")


def _is_async_target(project: Project, source: Source, node: ast.expr) -> bool:
    flow = flow_of(project, source, source.scope_of(node))
    if dotted(node) in flow.sessions or project.resolve(source, node) in SESSIONS:
        return True
    if not isinstance(node, ast.Name):
        return False
    for scope in [flow.scope, *source.enclosing_functions(flow.scope)]:
        for argument in arguments(scope) if is_function(scope) else []:
            if argument.arg == node.id:
                kind = project.type_of(source, argument.annotation).name
                return kind.endswith((".AsyncEngine", ".AsyncConnection"))
    values = flow.values(node.id, node)
    return any(isinstance(v, ast.Call) and attribute(v) == "create_async_engine" for v in values)


def echo_in_production(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: every statement stands in the log, with the values of people.
    Cause: `echo=True` without `hide_parameters=True`.
    Fix: `hide_parameters=True`, and echo only where a setting asks for it.
    """
    if source.is_test or source.mentions("__main__"):
        return
    for call in engine_calls(project, source):
        echo = keyword(call, "echo")
        hidden = keyword(call, "hide_parameters") is not None or unpacks(call)
        if isinstance(echo, ast.Constant) and echo.value in {True, "debug"} and not hidden:
            yield hit(call, "every statement is logged, with its values")


def instrument_sqlalchemy_2_1(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `SQLAlchemyInstrumentor only instruments "sqlalchemy >= 1.0.0, < 2.1.0"`, no spans.
    Cause: the instrumentation refuses a version that it does not know.
    Fix: `skip_dep_check=True`.
    """
    if not project.versions.at_least("sqlalchemy", 2, 1):
        return
    for call in source.all(ast.Call):
        inner = call.func.value if isinstance(call.func, ast.Attribute) else None
        made = isinstance(inner, ast.Call) and attribute(inner) == "SQLAlchemyInstrumentor"
        told = keyword(call, "skip_dep_check") is not None or unpacks(call)
        if made and attribute(call) == "instrument" and not told:
            yield hit(call, "it instruments nothing, as it does not know SQLAlchemy 2.1")


FAILURES = {
    "sqlalchemy.exc.DBAPIError",
    "sqlalchemy.exc.OperationalError",
    "sqlalchemy.exc.SQLAlchemyError",
}


def _failed_tries(flow: Flow) -> Iterator[tuple[ast.Try, ast.ExceptHandler]]:
    """Attempts in a loop, with the handler that lets the loop go on after a database error."""
    for node in flow.nodes:
        is_loop = isinstance(node, ast.Try) and flow.source.in_loop(node)
        if is_loop and isinstance(node, ast.Try) and not is_per_item(flow.source, node):
            for handler in node.handlers:
                goes_on = not isinstance(handler.body[-1], ast.Raise | ast.Return | ast.Break)
                if caught(flow, handler) & FAILURES and goes_on:
                    yield node, handler


def _retried(flow: Flow) -> ast.expr | None:
    """A decorator that runs the function again after any error of the database."""
    for name, node in decorators(flow.scope) if is_function(flow.scope) else ():
        if name.rpartition(".")[2] in {"retry", "on_exception"} and isinstance(node, ast.Call):
            names = {flow.project.resolve(flow.source, part) for part in ast.walk(node)}
            if names & FAILURES:
                return node
    return None


def retry_in_the_same_session(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `Can't reconnect until invalid transaction is rolled back`, or half of the work.
    Cause: the failed transaction is over; trying again continues it, without what came before.
    Fix: run all of it again, in a session made inside of the attempt.
    """
    if source.is_test:
        return
    for flow in async_flows(project, source):
        given = [name for name in flow.sessions if name not in flow.assigned and "." not in name]
        if given and (decorator := _retried(flow)) is not None:
            yield hit(decorator, f"each attempt continues the transaction of `{given[0]}`")
        for node, handler in _failed_tries(flow):
            body = ast.Module(body=node.body, type_ignores=[])
            calls = [call for part in handler.body for call in calls_in(part)]
            if any("begin_nested" in text_of(call.func) for call in calls_in(body)):
                continue
            ended = any(attribute(call) in {"rollback", "close"} for call in calls)
            outside = [
                name for name in sorted(flow.sessions_in(body)) if _from_outside(flow, name, node)
            ]
            if outside and not ended:
                yield hit(handler, f"each attempt continues the transaction of `{outside[0]}`")


def _from_outside(flow: Flow, name: str, node: ast.AST) -> bool:
    """Whether a session was there before the loop around a node began."""
    loop = next(p for p in flow.source.ancestors(node) if isinstance(p, LOOPS))
    return not any(at >= position(loop) for at, _ in flow.assigned.get(name, []))


def retry_an_unclear_commit(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: what should happen once has happened twice.
    Cause: the connection was lost during COMMIT, and nobody knows whether it was saved.
    Fix: retry only what `is_retryable` allows, which excludes that.
    """
    if source.is_test:
        return
    for flow in async_flows(project, source):
        blocks = [block for block, _ in _transactions(flow)]
        commits = [call for call, _ in flow.session_calls("commit")]
        decorator = _retried(flow)
        if decorator is not None and (blocks or commits):
            yield hit(decorator, "a lost COMMIT is retried too")
        for node, handler in _failed_tries(flow):
            inside = [n for n in (*blocks, *commits) if source.inside(n, node)]
            looks = handler.name is not None and any(
                handler.name in names_used(part) for part in handler.body
            )
            if inside and not looks:
                yield hit(handler, "a lost COMMIT is retried too")


def deadline_inside_the_scope(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `Can't reconnect until invalid transaction is rolled back` at the commit.
    Cause: a cancelled statement ends its connection, and with it the whole transaction.
    Fix: the deadline outside of the scope, as `run_within` has it.
    """
    if source.is_test or not source.mentions("TimeoutError"):
        return
    for flow in async_flows(project, source):
        for node in flow.nodes:
            if not isinstance(node, ast.Try):
                continue
            body = ast.Module(body=node.body, type_ignores=[])
            bounded = any(
                project.resolve(source, call.func) in DEADLINES for call in calls_in(body)
            )
            used = flow.sessions_in(body) - {
                n for part in ast.walk(body) for n, _ in bindings(part)
            }
            for handler in node.handlers if bounded and used else ():
                calls = [call for part in handler.body for call in calls_in(part)]
                ended = any(attribute(call) in {"rollback", "close"} for call in calls)
                late = caught(flow, handler) & {"TimeoutError", "asyncio.TimeoutError"}
                if late and not ended and not isinstance(handler.body[-1], ast.Raise):
                    yield hit(handler, f"the transaction of `{min(used)}` is over")


RULES = (
    half_of_the_caches,
    set_for_the_session,
    read_own_write_from_a_replica,
    copy_the_database_file,
    invalidate_before_the_commit,
    cache_orm_objects,
    send_inside_the_transaction,
    set_the_tenant_for_the_connection,
    cast_a_setting_that_may_be_empty,
    liveness_asks_the_database,
    listen_on_the_async_engine,
    echo_in_production,
    instrument_sqlalchemy_2_1,
    retry_in_the_same_session,
    retry_an_unclear_commit,
    deadline_inside_the_scope,
)
