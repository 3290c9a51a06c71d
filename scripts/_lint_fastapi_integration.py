"""Rules of the page on FastAPI."""

import ast
import re
from collections.abc import Iterator

from _lint_async_operations import caught
from _lint_flow import Flow, flow_of, flows
from _lint_index import Class, Project, Route
from _lint_source import (
    Function,
    Hit,
    Source,
    arguments,
    attribute,
    calls_in,
    hit,
    keyword,
    names_used,
    position,
    receiver,
    text_of,
)
from _syntax import dotted, string_of

PAGE = "references/fastapi-integration.md"
NUMERIC_LIMITS = {"ge", "gt", "le", "lt", "multiple_of"}
VALIDATORS = {"BeforeValidator", "AfterValidator", "WrapValidator", "PlainValidator"}
FIELDS = {"pydantic.Field", "pydantic.fields.Field", "sqlmodel.Field", "sqlmodel.main.Field"}
ANSWERS = {"HTTPException", "JSONResponse", "PlainTextResponse"}
STREAMS = {"StreamingResponse", "EventSourceResponse"}
OWN_SESSION = re.compile(
    r"dependency_overrides.*\b\w*(?:session|db|database|engine|factory|uow|unit_of_work)\w*\s*[\]:]",
    re.IGNORECASE,
)
LIFESPANS = ("lifespan_context", "LifespanManager", "asgi_lifespan", "TestClient(")


def commit_after_the_answer(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: a success for a row that is not there (FastAPI 0.118 and newer).
    Cause: code after `yield` runs when the answer has been sent.
    Fix: `Depends(..., scope="function")` from FastAPI 0.121 on, or commit inside the route.
    """
    if not project.versions.at_least("fastapi", 0, 118):
        return
    for function in source.functions:
        late = [c for c in project.dependencies.get(function, []) if not _ends_early(c)]
        if late and (commit := _late_commit(project, source, function)):
            what = f"`{function.name}` commits when the answer has been sent"
            yield hit(commit, what, _in_time(project, source, commit))


def _in_time(project: Project, source: Source, commit: ast.AST) -> str:
    """Inside a `begin()` block a route can't commit, so there the rule's own advice is wrong."""
    if not _is_begun(project, source, commit):
        return ""
    early = '`Depends(..., scope="function")` from FastAPI 0.121 on'
    return f"{early}, or a session without `begin()` there, and `begin()` inside the route"


def _is_begun(project: Project, source: Source, commit: ast.AST) -> bool:
    if attribute(commit) == "begin":
        return True
    found = (
        project.function_at(source, commit.func, commit) if isinstance(commit, ast.Call) else None
    )
    inner = _late_commit(project, *found) if found is not None else None
    return found is not None and inner is not None and _is_begun(project, found[0], inner)


def _ends_early(depends: ast.Call) -> bool:
    """Whether the code after `yield` runs before the answer, or that cannot be seen."""
    scope = keyword(depends, "scope")
    return (scope is not None and string_of(scope) != "request") or any(
        item.arg is None for item in depends.keywords
    )


def _late_commit(project: Project, source: Source, function: Function) -> ast.AST | None:
    nodes = source.own(function)
    stops = [n for n in nodes if isinstance(n, ast.Yield | ast.YieldFrom)]
    if not stops:
        return None
    for call in source.own_calls(function):
        if attribute(call) == "commit" and position(call) > position(stops[-1]):
            return call
    flow = flow_of(project, source, function)
    for block in nodes:
        if isinstance(block, ast.AsyncWith) and source.inside(stops[0], block):
            for item in block.items:
                if isinstance(item.context_expr, ast.Call) and commits_at_end(
                    flow, item.context_expr
                ):
                    return item.context_expr
    return None


def commits_at_end(flow: Flow, call: ast.Call) -> bool:
    """Whether leaving `async with call` commits: `session.begin()`, or a scope of the project."""
    if attribute(call) == "begin":
        name = receiver(call)
        return name in flow.sessions or flow.factory(name, call) is not None
    found = flow.project.function_at(flow.source, call.func, call)
    if found is None:
        return False
    return _late_commit(flow.project, *found) is not None


def answer_with_an_expired_object(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `200` and `{}`.
    Cause: the commit expired the columns, and a table class as model asks for none.
    Fix: `expire_on_commit=False` and a response model of its own.
    """
    for route in _routes(project, source):
        flow = flow_of(project, source, route.function)
        model = response_model(project, route)
        if model is not None and not model.is_table:
            continue
        for node in flow.nodes:
            if isinstance(node, ast.Return) and isinstance(node.value, ast.Name):
                load = flow.holds(node.value.id, node)
                if load is not None and _expired(flow, node.value.id, node):
                    yield hit(node, f"the commit expired `{node.value.id}`")


def _expired(flow: Flow, name: str, node: ast.AST) -> bool:
    for call, info in flow.session_calls("commit"):
        added = any(
            attribute(c) == "add" and name in names_used(c) and receiver(c) == info.name
            for c in flow.calls
        )
        refreshed = any(
            attribute(c) == "refresh" and name in names_used(c) and position(c) > position(call)
            for c in flow.calls
        )
        if info.kept is False and added and not refreshed and flow.source.precedes(call, node):
            return True
    return False


def _routes(project: Project, source: Source) -> Iterator[Route]:
    return (route for route in project.routes if route.source is source)


def response_model(project: Project, route: Route) -> Class | None:
    """The class that a route's answer is read into."""
    given = keyword(route.decorator, "response_model")
    if given is None:
        given = route.function.returns
    kind = project.type_of(route.source, given)
    return project.class_at(route.source, kind.name, route.function) if kind.name else None


def lazy_field_in_the_response(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `get_attribute_error` with `greenlet_spawn has not been called`, a 500.
    Cause: the response reads a relationship that the query did not load.
    Fix: load it: `.options(selectinload(...))`, `load=[...]` for a service.
    """
    for route in _routes(project, source):
        model = response_model(project, route)
        flow = flow_of(project, source, route.function)
        for node in flow.nodes:
            schema, value = model, node.value if isinstance(node, ast.Return) else None
            if isinstance(node, ast.Call) and attribute(node) == "model_validate" and node.args:
                schema, value = project.class_at(source, receiver(node), node), node.args[0]
            name = (
                _unloaded_field(flow, value, schema, node) if schema and value is not None else ""
            )
            if name and schema is not None:
                yield hit(node, f"`{schema.name}.{name}` is not loaded")


def _unloaded_field(flow: Flow, value: ast.expr, schema: Class, at: ast.AST) -> str:
    if not schema.is_schema:
        return ""
    load = flow.holds(value.id, at) if isinstance(value, ast.Name) else flow.load(value)
    if load is None or load.loaded is None or load.kind not in {"query", "get", "service"}:
        return ""
    if isinstance(value, ast.Name) and _touched(flow, value.id, at):
        return ""
    for name in schema.fields:
        member = load.model.relationships.get(name)
        if member is not None and member.loads_itself is False and name not in load.loaded:
            return name
    return ""


def _touched(flow: Flow, name: str, at: ast.AST) -> bool:
    """Whether something may have loaded more for an object before the answer."""
    for node in flow.nodes:
        if position(node) >= position(at):
            break
        if isinstance(node, ast.Call):
            given = [*node.args, *(item.value for item in node.keywords)]
            if any(dotted(part) == name for part in given) and attribute(node) not in {
                "add",
                "delete",
            }:
                return True
        if (
            isinstance(node, ast.Attribute)
            and dotted(node.value) == name
            and node.attr == "awaitable_attrs"
        ):
            return True
    return False


def driver_text_in_the_answer(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `[SQL: INSERT INTO film` in the body of the answer.
    Cause: the text of a database error shows statement and values.
    Fix: answer with words of your own; log the error.
    """
    if not source.mentions("HTTPException", "JSONResponse") or not source.mentions("except"):
        return
    for flow in flows(project, source):
        for handler in flow.nodes:
            if not isinstance(handler, ast.ExceptHandler) or not handler.name:
                continue
            if not _is_database(flow, handler):
                continue
            for call in (c for part in handler.body for c in calls_in(part)):
                shows = attribute(call) in ANSWERS and _shows(call, handler.name)
                if shows and not _narrowed(source, call, handler):
                    yield hit(call, f"the answer shows the text of `{handler.name}`")


def _narrowed(source: Source, call: ast.Call, handler: ast.ExceptHandler) -> bool:
    """Whether the handler has found out that it is another error: `if isinstance(error, ...)`."""
    return any(
        isinstance(parent, ast.If) and "isinstance" in names_used(parent.test)
        for parent in source.ancestors(call)
        if source.inside(parent, handler)
    )


def _is_database(flow: Flow, handler: ast.ExceptHandler) -> bool:
    names = caught(flow, handler)
    if any(name.startswith("sqlalchemy") for name in names):
        return True
    parent = flow.source.parents.get(handler)
    calls = (
        calls_in(ast.Module(body=parent.body, type_ignores=[]))
        if isinstance(parent, ast.Try)
        else ()
    )
    return "Exception" in names and any(receiver(call) in flow.sessions for call in calls)


def _shows(call: ast.Call, name: str) -> bool:
    """Whether an argument has the error's text: `str(error)`, an f-string, `error.orig`."""
    for part in ast.walk(call):
        match part:
            case ast.Call(func=ast.Name(id="str" | "repr"), args=[argument]) if name in names_used(
                argument
            ):
                return True
            case ast.FormattedValue(value=ast.Name(id=shown)) if shown == name:
                return True
            case ast.FormattedValue(value=ast.Attribute(value=ast.Name(id=shown), attr="orig")) if (
                shown == name
            ):
                return True
    return False


def stream_over_the_request_session(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: SAWarning: `The garbage collector is trying to clean up non-checked-in connection`.
    Cause: the session was closed before the stream began; it reopens, and nobody closes it again.
    Fix: open a session inside the generator.
    """
    if not source.mentions(*STREAMS):
        return
    versions = project.versions
    early = versions.at_least("fastapi", 0, 106) and not versions.at_least("fastapi", 0, 118)
    for route in _routes(project, source):
        flow = flow_of(project, source, route.function)
        closed = {
            argument.arg
            for argument in arguments(route.function)
            if argument.arg in flow.sessions
            and (early or _is_function_scoped(project, source, argument))
        }
        for call in flow.calls:
            if attribute(call) in STREAMS and flow.sessions_in(call) & closed:
                yield hit(call, "the stream begins when the session is closed")


def _is_function_scoped(project: Project, source: Source, argument: ast.arg) -> bool:
    details = project.type_of(source, argument.annotation).details
    calls = [c for part in details for c in calls_in(part) if attribute(c) == "Depends"]
    return any(_ends_early(call) for call in calls)


def client_without_lifespan(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `'State' object has no attribute 'session_factory'`.
    Cause: ASGITransport does not run the lifespan.
    Fix: `async with app.router.lifespan_context(app):` round the client.
    """
    if not source.mentions("ASGITransport") or source.mentions(*LIFESPANS):
        return
    folder = source.path.parent
    helpers = [
        other
        for other in project.sources
        if other.path.name == "conftest.py" and other.path.parent in {folder, *folder.parents}
    ]
    if any(other.mentions(*LIFESPANS) for other in helpers):
        return
    # With a session of the tests the lifespan is left out on purpose: it opens the real database.
    if any(OWN_SESSION.search(other.text) for other in (source, *helpers)):
        return
    if not project.any_mentions("lifespan=", tests=False):
        return
    for call in source.all(ast.Call):
        app = keyword(call, "app") or (call.args[0] if call.args else None)
        if (
            attribute(call) == "ASGITransport"
            and app is not None
            and not _plain_app(project, source, app)
        ):
            yield hit(call, f"nobody starts `{text_of(app)}`")


def _plain_app(project: Project, source: Source, app: ast.expr) -> bool:
    """Whether the app is made here without a lifespan, or by a program that may start it."""
    function = source.function_of(app)
    given = {argument.arg for argument in arguments(function)} if function else set()
    if not source.is_test and dotted(app) not in given:
        return True
    if source.is_test and source.mentions("FastAPI()") and not source.mentions("lifespan="):
        return True
    flow = flow_of(project, source, source.scope_of(app))
    values = flow.values(app.id, app) if isinstance(app, ast.Name) else []
    return any(
        isinstance(v, ast.Call) and attribute(v) == "FastAPI" and keyword(v, "lifespan") is None
        for v in values
    )


def app_given_to_the_client(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `AsyncClient.__init__() got an unexpected keyword argument 'app'`.
    Cause: httpx 0.28 removed the shortcut.
    Fix: `AsyncClient(transport=ASGITransport(app=app), base_url="http://test")`.
    """
    if not source.mentions("AsyncClient(") or not project.versions.at_least("httpx", 0, 28):
        return
    for call in source.all(ast.Call):
        is_client = project.resolve(source, call.func) in {"httpx.AsyncClient", "httpx.Client"}
        if is_client and keyword(call, "app") is not None:
            yield hit(call, "httpx takes no `app` any more")


def limits_behind_a_validator(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: OpenAPI lacks `minimum`, and clients send what is refused.
    Cause: in `Annotated` a limit that follows a validator is outside of it.
    Fix: limits first, validators behind.
    """
    if not source.mentions(*VALIDATORS):
        return
    for node in source.all(ast.Subscript):
        if attribute(node.value) != "Annotated" or not isinstance(node.slice, ast.Tuple):
            continue
        seen = False
        for part in node.slice.elts[1:]:
            if isinstance(part, ast.Call) and seen and project.resolve(source, part.func) in FIELDS:
                limits = sorted({item.arg or "" for item in part.keywords} & NUMERIC_LIMITS)
                if limits:
                    yield hit(part, f"`{limits[0]}` stands behind a validator")
            seen = seen or (isinstance(part, ast.Call) and attribute(part) in VALIDATORS)


RULES = (
    commit_after_the_answer,
    answer_with_an_expired_object,
    lazy_field_in_the_response,
    driver_text_in_the_answer,
    stream_over_the_request_session,
    client_without_lifespan,
    app_given_to_the_client,
    limits_behind_a_validator,
)
