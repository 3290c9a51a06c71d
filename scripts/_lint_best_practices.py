"""Rules of the page that gathers what applies everywhere."""

import ast
import re
from collections.abc import Iterator
from itertools import pairwise

from _lint_database_setup import ENGINES, engine_calls
from _lint_flow import Flow, Statement, async_flows, bindings, flow_of, flows
from _lint_index import Project
from _lint_source import (
    Function,
    Hit,
    Source,
    arguments,
    attribute,
    calls_in,
    decorators,
    hit,
    is_function,
    keyword,
    names_used,
    receiver,
    text_of,
)
from _syntax import dotted, string_of

PAGE = "references/best-practices.md"
AWAITED = {
    "exec", "execute", "scalars", "scalar", "get", "get_one", "commit", "rollback", "flush",
    "refresh", "delete", "merge", "close", "stream", "stream_scalars", "connection", "run_sync",
}  # fmt: skip
BLOCKING = {
    "time.sleep", "urllib.request.urlopen", "subprocess.run", "subprocess.check_output",
    "subprocess.call", "subprocess.check_call", "os.system", "sqlmodel.create_engine",
    "sqlalchemy.create_engine", "sqlmodel.Session", "psycopg2.connect",
    "pymysql.connect",
}  # fmt: skip
LIKES = {"like", "ilike", "not_like", "not_ilike", "notlike", "notilike"}
PARTS = {
    "contains", "icontains", "startswith", "istartswith", "endswith", "iendswith",
}  # fmt: skip
# A value is put where a value stands: behind a comparison, in quotes, in a list of values.
VALUE_PLACE = re.compile(
    r"(?:[=<>]|\bLIKE|\bIN\s*\(|\bVALUES\s*\(|'%?|\bLIMIT|\bOFFSET|\bBETWEEN)\s*$", re.IGNORECASE
)
QUERY = re.compile(r"\s*(?:SELECT|INSERT|UPDATE|DELETE|WITH|REPLACE)\b", re.IGNORECASE)
DEVELOPMENT = re.compile(r"test|dev|demo|seed|scratch|local|create_tables|reset", re.IGNORECASE)


def missing_await(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `'coroutine' object has no attribute 'all'`, or nothing happens at all.
    Cause: a method of the session was called without `await`.
    Fix: `(await session.exec(statement)).all()`, `await session.commit()`.
    """
    for flow in flows(project, source):
        for call, info in flow.session_calls(*AWAITED):
            if not info.kind:
                continue
            parent = source.parents.get(call)
            lost = isinstance(parent, ast.Expr | ast.Attribute) or (
                isinstance(parent, ast.For) and parent.iter is call
            )
            if isinstance(parent, ast.comprehension):
                lost = parent.iter is call and not parent.is_async
            if lost or (isinstance(parent, ast.Assign) and _used_at_once(flow, parent)):
                yield hit(call, f"`{text_of(call.func)}` is not awaited")


def _used_at_once(flow: Flow, node: ast.Assign) -> bool:
    """Whether what was assigned is used as a result, and awaited nowhere."""
    name = dotted(node.targets[0])
    used = [
        n for n in flow.nodes if isinstance(n, ast.Name) and n.id == name and n not in node.targets
    ]
    parents = [flow.source.parents.get(n) for n in used]
    return bool(parents) and all(isinstance(p, ast.Attribute | ast.For) for p in parents)


def engine_per_request(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: a connection more with every request, until the server has no more.
    Cause: each engine is a pool of its own, and nobody disposes of it.
    Fix: one engine a process, made in the lifespan.
    """
    if source.is_test or not source.mentions("create_async_engine"):
        return
    routed = {route.function for route in project.routes}
    started = {
        name
        for c in source.all(ast.Call)
        if dotted(c.func) == "asyncio.run"
        for name in names_used(c)
    }
    for call in engine_calls(project, source):
        function = source.function_of(call)
        if function is None:
            continue
        served = function in routed or function in project.dependencies
        alone = isinstance(function, ast.AsyncFunctionDef) and function.name not in started
        if served or (alone and _is_local(flow_of(project, source, function), call)):
            yield hit(call, f"each call of `{function.name}` makes a pool of its own")


def _is_local(flow: Flow, call: ast.Call) -> bool:
    """Whether an engine is used inside a function, neither disposed of nor handed on."""
    names = {n for node in flow.nodes for n, value in bindings(node) if value is call}
    if not names or "dispose" in flow.words or any("." in name for name in names):
        return False
    if any(names & _handed_on(node) for node in flow.nodes):
        return False
    makers = {"AsyncSession", "async_sessionmaker"}
    return any(names & names_used(c) for c in flow.calls if attribute(c) in makers)


def _handed_on(node: ast.AST) -> set[str]:
    """Names that a statement gives to the caller, or keeps in an object."""
    match node:
        case ast.Return(value=value) | ast.Yield(value=value):
            return (
                names_used(value) if isinstance(value, ast.Name | ast.Tuple | ast.Call) else set()
            )
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()], value=value):
            return names_used(value)
    return set()


def engine_at_import(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: tests use the application's database, or `attached to a different loop`.
    Cause: the engine is made when the module is imported, before a test can choose its URL.
    Fix: make it in the lifespan, from settings, and keep it in `app.state`.
    """
    if source.is_test or not project.has_tests or source.path.name == "env.py":
        return
    if source.mentions("__main__"):
        return
    for node in source.tree.body:
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        if isinstance(value, ast.Call) and project.resolve(source, value.func) in ENGINES:
            yield hit(node, "the engine is there before a test can choose its URL")


def blocking_call(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: no other request moves meanwhile.
    Cause: `time.sleep`, `requests` or a sync driver in `async def`.
    Fix: the async one, or `await asyncio.to_thread(...)`.
    """
    if source.is_test:
        return
    for function in source.functions:
        if not isinstance(function, ast.AsyncFunctionDef):
            continue
        for call in source.own_calls(function):
            name = project.resolve(source, call.func)
            verbs = {"get", "post", "put", "patch", "delete", "head", "request"}
            is_request = name.partition(".")[0] == "requests" and name.rpartition(".")[2] in verbs
            inside = any(isinstance(p, ast.Lambda) for p in source.ancestors(call))
            # A dict may be called `requests` as well.
            is_module = dotted(call.func).partition(".")[0] in source.imports
            if (name in BLOCKING or is_request) and is_module and not inside:
                yield hit(call, f"`{text_of(call.func)}` blocks the event loop")


def sql_from_strings(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `Oslo' OR '1'='1` finds everything.
    Cause: a value was put into the text of a statement.
    Fix: `text("... = :town")` with `params={"town": town}`, or a built statement.
    """
    # Migrations put names of tables and columns together.
    if source.is_test or source.imports.get("op", "").startswith("alembic"):
        return
    if not source.mentions("text(", "exec_driver_sql("):
        return
    for call in source.all(ast.Call):
        if attribute(call) in {"text", "exec_driver_sql"} and call.args:
            node = call.args[0]
            flow = flow_of(project, source, source.scope_of(call))
            if isinstance(node, ast.Name):
                values = flow.values(node.id, node)
                node = values[0] if len(values) == 1 else node
            if _has_value_inside(flow, node):
                yield hit(call, "a value stands in the text of the statement")


def _has_value_inside(flow: Flow, node: ast.expr) -> bool:
    match node:
        case ast.JoinedStr(values=parts):
            pairs = list(pairwise(parts))
            begins = string_of(parts[0]) if parts else ""
            return bool(QUERY.match(begins)) and any(
                VALUE_PLACE.search(string_of(before)) and _may_be_free(flow, after.value)
                for before, after in pairs
                if isinstance(after, ast.FormattedValue)
            )
        case ast.BinOp(left=left, op=ast.Mod(), right=right):
            return bool(QUERY.match(string_of(left))) and _may_be_free(flow, right)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            text = string_of(left)
            ends = (
                bool(QUERY.match(text)) and bool(VALUE_PLACE.search(text)) and not string_of(right)
            )
            return (ends and _may_be_free(flow, right)) or _has_value_inside(flow, left)
        case ast.Call(func=ast.Attribute(attr="format", value=inner)):
            return bool(QUERY.match(string_of(inner))) and bool(
                re.search(r"(?:[=<>]|')\s*\{", string_of(inner))
            )
    return False


def _may_be_free(flow: Flow, node: ast.expr) -> bool:
    """Whether a value may be anything, also through a name that is no parameter."""
    given = arguments(flow.scope) if is_function(flow.scope) else []
    if not isinstance(node, ast.Name) or node.id in {argument.arg for argument in given}:
        return _is_free(node)
    values = flow.values(node.id, node)
    return any(map(_is_free, values)) if values else _is_free(node)


def _is_free(node: ast.expr) -> bool:
    """Whether a value may be anything: no constant of the module, no number, nothing quoted."""
    if isinstance(node, ast.Call):
        return attribute(node) not in {
            "int",
            "len",
            "float",
            "quote",
            "quote_identifier",
            "round",
            "join",
        }
    # `Model.__tablename__` and `Model.__table__.name` are written by who writes the model.
    own = any(re.fullmatch(r"__\w+__", part) for part in dotted(node).split("."))
    return not isinstance(node, ast.Constant) and not attribute(node).isupper() and not own


def pattern_from_user_text(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `%` finds every row.
    Cause: wildcards in what was typed keep their meaning.
    Fix: `col(...).icontains(typed, autoescape=True)`.
    """
    if source.is_test or not source.mentions(*LIKES, *PARTS):
        return
    for call in source.all(ast.Call):
        name = attribute(call)
        if (
            not call.args
            or keyword(call, "escape") is not None
            or keyword(call, "autoescape") is not None
        ):
            continue
        if name in LIKES and _is_pattern(call.args[0]):
            what = f"`{text_of(call.args[0])}` keeps the wildcards that were typed"
            yield hit(call, what, _operator_for(name, call.args[0]))
        elif name in PARTS and _is_text_column(project, source, call) and _is_typed(source, call):
            typed = text_of(call.args[0])
            fix = f"`{name}({typed}, autoescape=True)`"
            yield hit(call, f"`{typed}` may have wildcards", fix)


def _operator_for(name: str, pattern: ast.expr) -> str:
    """The operator that means what a pattern of LIKE does: `x%` is `startswith(x)`."""
    *before, last = _pieces(pattern)
    first = before[0] if before else last
    opens, closes = _is_percent(first, 0), _is_percent(last, -1)
    operators = {
        (True, True): "contains", (False, True): "startswith", (True, False): "endswith"
    }  # fmt: skip
    operator = operators.get((opens, closes))
    inner = _without_percent([*before, last], opens=opens, closes=closes)
    if operator is None or not inner or any(_has_wildcard(part) for part in inner):
        return 'escape `%` and `_` in what was typed, and name the sign: `escape="/"`'
    negated = "~" if name.startswith("not") else ""
    case = "i" if "ilike" in name else ""
    return f"`{negated}col(...).{case}{operator}({_joined(inner)}, autoescape=True)`"


def _pieces(node: ast.expr) -> list[ast.expr]:
    """The parts that an f-string or a sum puts together."""
    if isinstance(node, ast.JoinedStr):
        return list(node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [*_pieces(node.left), *_pieces(node.right)]
    return [node]


def _is_percent(node: ast.expr, index: int) -> bool:
    return string_of(node)[index:][:1] == "%"


def _without_percent(parts: list[ast.expr], *, opens: bool, closes: bool) -> list[ast.expr]:
    """The parts without the wildcards at both ends, and without what is empty then."""
    texts = [string_of(part) if isinstance(part, ast.Constant) else None for part in parts]
    if opens and texts[0] is not None:
        texts[0] = texts[0][1:]
    if closes and texts[-1]:
        texts[-1] = texts[-1][:-1]
    return [
        part if text is None else ast.Constant(text)
        for part, text in zip(parts, texts, strict=True)
        if text != ""
    ]


def _has_wildcard(part: ast.expr) -> bool:
    return bool(re.search("[%_]", string_of(part)))


def _joined(parts: list[ast.expr]) -> str:
    """The parts as one expression: a name alone, else an f-string."""
    if len(parts) == 1 and isinstance(parts[0], ast.FormattedValue):
        only = parts[0]
        if only.conversion == -1 and only.format_spec is None:
            return text_of(only.value)
    if len(parts) == 1 and not isinstance(parts[0], ast.FormattedValue):
        return text_of(parts[0])
    values: list[ast.expr] = [
        part
        if isinstance(part, ast.FormattedValue | ast.Constant)
        else ast.FormattedValue(part, -1)
        for part in parts
    ]
    return text_of(ast.JoinedStr(values))


def _is_pattern(node: ast.expr) -> bool:
    """`f"%{typed}%"`, `"%" + typed`, with nothing that escapes."""
    match node:
        case ast.JoinedStr(values=parts):
            free = [p for p in parts if isinstance(p, ast.FormattedValue)]
            typed = [p for p in free if not isinstance(p.value, ast.Call) and _is_free(p.value)]
            return "%" in string_of(node) and bool(typed)
        case ast.BinOp(op=ast.Add()):
            texts = [string_of(p) for p in ast.walk(node) if isinstance(p, ast.Constant)]
            names = [p for p in ast.walk(node) if isinstance(p, ast.Name)]
            is_typed = any(_is_free(name) for name in names) and not any(calls_in(node))
            return any("%" in t for t in texts) and is_typed
    return False


def _is_text_column(project: Project, source: Source, call: ast.Call) -> bool:
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    if isinstance(owner, ast.Call) and attribute(owner) == "col" and owner.args:
        owner = owner.args[0]
    if not isinstance(owner, ast.Attribute):
        return False
    model = project.table_at(source, owner.value)
    member = model.fields.get(owner.attr) if model else None
    return member is not None and member.type.name.rpartition(".")[2] == "str"


def _is_typed(source: Source, call: ast.Call) -> bool:
    """Whether the text is a parameter of the function."""
    function = source.function_of(call)
    node = call.args[0]
    return (
        function is not None
        and isinstance(node, ast.Name)
        and node.id in {a.arg for a in arguments(function)}
    )


def page_without_order(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: a row comes twice, another never.
    Cause: LIMIT and OFFSET without ORDER BY on a unique key.
    Fix: `.order_by(..., Model.id)`.
    """
    if not source.mentions(".offset("):
        return
    for flow in flows(project, source):
        seen: set[ast.AST] = set()
        for call in flow.calls:
            if (
                attribute(call) not in {"exec", "execute", "scalars", "stream", "stream_scalars"}
                or not call.args
            ):
                continue
            statement = flow.statement(call.args[0])
            if (
                statement is None
                or statement.opaque
                or statement.call in seen
                or statement.kind != "select"
            ):
                continue
            starts = [c.args[0] for c in statement.methods.get("offset", []) if c.args]
            moving = [s for s in starts if not isinstance(s, ast.Constant)]
            if moving and not statement.has("order_by") and statement.call is not None:
                seen.add(statement.call)
                yield hit(statement.methods["offset"][0], "the rows of a page are in any order")


def delete_without_where(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: the table is empty, or all its rows are changed.
    Cause: no condition, or one that an empty value leaves out.
    Fix: `delete_where`, `update_where`, which refuse that; or return before the statement.
    """
    if source.is_test or not source.mentions("delete(", "update("):
        return
    for flow in flows(project, source):
        for call in flow.calls:
            if (
                attribute(call) not in {"exec", "execute"}
                or not call.args
                or keyword(call, "params")
            ):
                continue
            statement = flow.statement(call.args[0])
            if statement is None or statement.opaque or statement.kind not in {"delete", "update"}:
                continue
            if not statement.entities or not project.table_at(source, statement.entities[0]):
                continue
            if not _bounded(flow, statement, call):
                yield hit(
                    call,
                    f"`{text_of(statement.entities[0])}` loses all its rows"
                    if statement.kind == "delete"
                    else f"all rows of `{text_of(statement.entities[0])}` are changed",
                )


def _bounded(flow: Flow, statement: Statement, call: ast.Call) -> bool:
    """Whether a condition is there whichever way the function goes."""
    conditions = [
        c for name in ("where", "filter", "filter_by") for c in statement.methods.get(name, [])
    ]
    always = flow.source.branches(call)
    return any(flow.source.branches(c) <= always for c in conditions) or _both_ways(
        flow, conditions
    )


def _both_ways(flow: Flow, conditions: list[ast.Call]) -> bool:
    """Whether each side of some `if` adds a condition, or the other side leaves."""
    for one in conditions:
        for parent, side in flow.source.branches(one):
            if isinstance(parent, ast.If):
                other = "orelse" if side == "body" else "body"
                if any((parent, other) in flow.source.branches(c) for c in conditions):
                    return True
                block = getattr(parent, other)
                if block and isinstance(block[-1], ast.Return | ast.Raise):
                    return True
    return False


def rows_loaded_to_be_counted(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: memory grows with the table.
    Cause: `len(....all())` loads every row.
    Fix: `select(func.count())`; whether there are any: `exists`.
    """
    if source.is_test or not source.mentions("len("):
        return
    for flow in async_flows(project, source):
        for call in flow.calls:
            if isinstance(call.func, ast.Name) and call.func.id == "len" and len(call.args) == 1:
                argument = call.args[0]
                if isinstance(argument, ast.Name):
                    uses = [
                        n for n in flow.nodes if isinstance(n, ast.Name) and n.id == argument.id
                    ]
                    values = flow.values(argument.id, argument) if len(uses) == 2 else []
                    argument = values[0] if len(values) == 1 else argument
                if _is_all(flow, argument):
                    yield hit(call, "all rows are loaded to be counted")


def _is_all(flow: Flow, node: ast.expr) -> bool:
    if not isinstance(node, ast.Call) or attribute(node) not in {"all", "fetchall"}:
        return False
    for inner in calls_in(node):
        if (
            attribute(inner) in {"exec", "execute", "scalars"}
            and flow.session_of(inner)
            and inner.args
        ):
            statement = flow.statement(inner.args[0])
            return (
                statement is not None
                and statement.kind == "select"
                and not statement.has("limit", "group_by")
            )
    return False


def session_for_background_work(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: none at first: the closed session begins again, and nobody closes it.
    Cause: the request's session was handed to a task.
    Fix: hand on ids and the factory; the task opens a session of its own.
    """
    if not source.mentions("add_task(", "create_task("):
        return
    routed = {route.function for route in project.routes}
    for flow in async_flows(project, source):
        for call in flow.calls:
            used = flow.sessions_in(
                ast.Tuple([*call.args, *(item.value for item in call.keywords)])
            )
            given = {name for name in used if name not in flow.assigned}
            if attribute(call) == "add_task" and given and _is_background(flow, call):
                yield hit(call, f"`{min(given)}` is closed when the task runs")
            is_loose = attribute(call) == "create_task" and isinstance(
                source.parents.get(call), ast.Expr
            )
            if is_loose and given and flow.scope in routed:
                yield hit(call, f"`{min(given)}` is closed when the task runs")


def _is_background(flow: Flow, call: ast.Call) -> bool:
    name = receiver(call)
    for argument in arguments(flow.scope) if is_function(flow.scope) else []:
        if argument.arg == name:
            return flow.project.type_of(flow.source, argument.annotation).name.endswith(
                "BackgroundTasks"
            )
    return any(
        isinstance(value, ast.Call) and attribute(value) == "BackgroundTasks"
        for value in flow.values(name, call)
    )


def tables_made_beside_alembic(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `relation "letter" already exists`, `table letter already exists`.
    Cause: `create_all` at start-up, beside migrations that make the same tables.
    Fix: migrations alone; `create_all` in tests.
    """
    if source.is_test or not source.mentions("create_all") or not _has_alembic(project):
        return
    for node in source.all(ast.Attribute):
        if node.attr != "create_all" or not isinstance(node.value, ast.Attribute):
            continue
        function = source.function_of(node)
        name = function.name if function else ""
        if DEVELOPMENT.search(name) or "__main__" in source.text or node.value.attr != "metadata":
            continue
        if project.resolve(source, node.value.value) in {
            "sqlmodel.SQLModel",
            "sqlmodel.main.SQLModel",
        }:
            yield hit(node, f"`{text_of(node)}` makes what Alembic makes")


def _has_alembic(project: Project) -> bool:
    return (project.root / "alembic.ini").is_file() or any(
        source.path.with_name("script.py.mako").is_file()
        for source in project.sources
        if source.path.name == "env.py"
    )


def override_of_event_loop(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `fixture 'event_loop' not found`; an override of that name is never used.
    Cause: pytest-asyncio 1.0 removed it.
    Fix: `loop_scope="session"` on fixtures and tests.
    """
    if not source.mentions("event_loop") or not project.versions.at_least("pytest-asyncio", 1, 0):
        return
    for function in source.functions:
        fixtures = [
            node for name, node in decorators(function) if name.rpartition(".")[2] == "fixture"
        ]
        names = [
            string_of(keyword(f, "name") or ast.Constant(""))
            for f in fixtures
            if isinstance(f, ast.Call)
        ]
        if fixtures and "event_loop" in (*filter(None, names), function.name):
            yield hit(function, "nobody asks for a fixture of this name any more")
        elif _requests_loop(function, fixtures=bool(fixtures)):
            yield hit(function, "there is no fixture `event_loop` any more")


def _requests_loop(function: Function, *, fixtures: bool) -> bool:
    asked = any(argument.arg == "event_loop" for argument in arguments(function))
    return asked and (fixtures or function.name.startswith("test_"))


RULES = (
    missing_await,
    engine_per_request,
    engine_at_import,
    blocking_call,
    sql_from_strings,
    pattern_from_user_text,
    page_without_order,
    delete_without_where,
    rows_loaded_to_be_counted,
    session_for_background_work,
    tables_made_beside_alembic,
    override_of_event_loop,
)
