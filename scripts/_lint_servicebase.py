"""Rules of the page on ServiceBase."""

import ast
from collections.abc import Iterator

from _lint_flow import Flow, async_flows, flow_of, flows
from _lint_index import Class, Project
from _lint_models import is_partial, leaves_out
from _lint_source import (
    Hit,
    Source,
    arguments,
    attribute,
    calls_in,
    hit,
    is_function,
    keyword,
    names_used,
    text_of,
)
from _syntax import dotted

PAGE = "references/servicebase.md"
CHANGES = {"update", "delete", "update_where", "delete_where"}


def compare_with_is(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `False is no condition`, or a query that finds nothing.
    Cause: `Model.field is None` is Python's answer, not SQL.
    Fix: `field=None` for a service, `col(Model.field).is_(None)` for a statement.
    """
    for node in source.all(ast.Compare):
        if not isinstance(node.ops[0], ast.Is | ast.IsNot):
            continue
        left = node.left
        if isinstance(left, ast.Call) and attribute(left) == "col" and left.args:
            left = left.args[0]
        if not isinstance(left, ast.Attribute):
            continue
        model = project.table_at(source, left.value)
        in_call = any(isinstance(parent, ast.Call) for parent in source.ancestors(node))
        if model is not None and left.attr in model.fields and in_call:
            yield hit(node, f"`{text_of(node)}` is decided by Python")


def query_string_as_filters(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `a whole number expected, not '1'`; or a filter reads what nobody opened.
    Cause: names and types of a query string are trusted.
    Fix: parse it against the service's `filterable`: `parse_query`, `offset_query`.
    """
    if not source.mentions("**"):
        return
    for flow in flows(project, source):
        for call in flow.calls:
            unpacked = [item.value for item in call.keywords if item.arg is None]
            name = attribute(call)
            is_filter = name == "filter_by" or (
                name in {"list", "find", "page", "count", "exists", "cursor_page"}
                and flow.service_of(call) is not None
            )
            if is_filter and any(_is_query(flow, value) for value in unpacked):
                yield hit(call, f"`{name}` filters by whatever the client names")


def _is_query(flow: Flow, node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        return any(_is_query(flow, arg) for arg in node.args) and attribute(node) == "dict"
    if isinstance(node, ast.Attribute):
        return node.attr == "query_params"
    if not isinstance(node, ast.Name):
        return False
    values = flow.values(node.id, node)
    if values:
        return any(_is_query(flow, value) for value in values if not isinstance(value, ast.Name))
    annotations = (
        {a.arg: a.annotation for a in arguments(flow.scope)} if is_function(flow.scope) else {}
    )
    annotation = annotations.get(node.id)
    text = ast.unparse(annotation) if annotation is not None else ""
    return text in {"Mapping[str, str]", "dict[str, str]", "Dict[str, str]", "QueryParams"}


def dump_everything_for_an_update(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: columns that nobody sent become NULL; derived ones go stale.
    Cause: `model_dump()` has the defaults of what was left out.
    Fix: `values=change`, or `model_dump(exclude_unset=True)`.
    """
    if not source.mentions("model_dump", ".dict("):
        return
    for flow in flows(project, source):
        for call in flow.calls:
            if attribute(call) not in {"update_where", "values"}:
                continue
            given = [k.value for k in call.keywords if k.arg in {None, "values"}]
            given += call.args if attribute(call) == "values" else []
            if any(_is_whole_dump(flow, value) for value in given):
                yield hit(call, "what the client left out is written too")


def _is_whole_dump(flow: Flow, node: ast.expr) -> bool:
    if not isinstance(node, ast.Call) or attribute(node) not in {"model_dump", "dict"}:
        return False
    if not isinstance(node.func, ast.Attribute) or keyword(node, "include") is not None:
        return False
    return not leaves_out(flow, node, node.func.value) and is_partial(flow, node.func.value)


def own_statement_without_scope(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: rows of other tenants, or deleted ones.
    Cause: a statement of one's own inside a service knows no scope.
    Fix: `self.list(...)`, or `.where(*self.scope())`.
    """
    for item in project.classes:
        model = item.served if item.source is source and _is_scoped(item) else None
        if model is None:
            continue
        for method in item.node.body:
            if not isinstance(method, ast.AsyncFunctionDef) or "scope" in _words(method):
                continue
            flow = flow_of(project, source, method)
            for call in flow.calls:
                statement = (
                    flow.statement(call.args[0])
                    if attribute(call) == "exec" and call.args
                    else None
                )
                if statement and statement.kind in {"select", "update", "delete"}:
                    first = statement.entities[0] if statement.entities else None
                    if first is not None and project.table_at(source, first) is model:
                        yield hit(call, f"this statement on `{model.name}` leaves `scope()` out")


def _is_scoped(item: Class) -> bool:
    """Whether a service, or one that it builds upon, narrows what it serves."""
    method = item.methods.get("scope") if item.is_service else None
    returns = [n for n in ast.walk(method) if isinstance(n, ast.Return)] if method else []
    values = [n.value for n in returns if n.value is not None]
    return any(not isinstance(v, ast.Tuple | ast.List) or v.elts for v in values)


def _words(node: ast.AST) -> set[str]:
    return {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}


def offset_while_rows_change(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: every other batch stays undone.
    Cause: what was done left the filter; the offset skipped as many.
    Fix: `stream`, or begin at offset 0 each time.
    """
    if not source.mentions("offset"):
        return
    for flow in async_flows(project, source):
        for node in flow.nodes:
            if isinstance(node, ast.While):
                offset = _moving_offset(node)
                if offset is not None and _filtered(node) & _changed(node):
                    yield hit(offset, "rows leave the filter while the offset moves on")


def _moving_offset(loop: ast.While) -> ast.AST | None:
    moved = {
        dotted(n.target)
        for n in ast.walk(loop)
        if isinstance(n, ast.AugAssign) and dotted(n.target)
    }
    for call in calls_in(loop):
        given = keyword(call, "offset") or (
            call.args[0] if attribute(call) == "offset" and call.args else None
        )
        if given is not None and names_used(given) & moved:
            return call
    return None


def _filtered(loop: ast.While) -> set[str]:
    """What the pages are filtered by; `*` where rows are deleted anyway."""
    found = {"*"}
    for call in calls_in(loop):
        if keyword(call, "offset") is not None:
            found |= {item.arg.partition("__")[0] for item in call.keywords if item.arg}
        if attribute(call) in {"where", "filter"}:
            found |= {
                n.attr for a in call.args for n in ast.walk(a) if isinstance(n, ast.Attribute)
            }
    return found - {"offset", "limit", "order_by", "load"}


def _changed(loop: ast.While) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(loop):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
        if isinstance(node, ast.Call) and attribute(node) in CHANGES:
            found |= {"*"} if attribute(node).startswith("delete") else set()
            found |= {k.arg for inner in calls_in(node) for k in inner.keywords if k.arg}
    return found


def table_class_as_schema(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `Member lacks a required value: name`.
    Cause: table classes do not validate.
    Fix: separate Create and Update schemas.
    """
    for item in project.classes:
        if item.source is not source or not item.is_service:
            continue
        for base in item.node.bases:
            if isinstance(base, ast.Subscript) and isinstance(base.slice, ast.Tuple):
                schemas = base.slice.elts[1:]
                if any(project.table_at(source, schema, item.node) for schema in schemas):
                    yield hit(item.node, f"`{item.name}` takes a table for a schema")


RULES = (
    compare_with_is,
    query_string_as_filters,
    dump_everything_for_an_update,
    own_statement_without_scope,
    offset_while_rows_change,
    table_class_as_schema,
)
