"""Rules of the page on queries, transactions and errors."""

import ast
import re
from collections.abc import Iterator, Sequence
from itertools import combinations

from _lint_flow import ENDS, QUERIES, Flow, Statement, async_flows, bindings, flow_of
from _lint_index import Class, Member, Project
from _lint_source import (
    COMPREHENSIONS,
    LOOPS,
    Hit,
    Source,
    attribute,
    calls_in,
    decorators,
    hit,
    is_constant,
    keyword,
    leaves,
    names_used,
    position,
    receiver,
    text_of,
)
from _syntax import dotted

PAGE = "references/async-operations.md"
AT_ONCE = {"gather", "wait", "as_completed"}
TASKS = {"create_task", "ensure_future", "start_soon"}
LOST = {
    "sqlalchemy.exc.IntegrityError", "sqlalchemy.exc.DBAPIError", "sqlalchemy.exc.SQLAlchemyError",
    "sqlalchemy.exc.StatementError", "Exception", "sqlalchemy.exc.DatabaseError",
}  # fmt: skip
OPERATIONAL = {"sqlalchemy.exc.OperationalError", "sqlalchemy.exc.DBAPIError.OperationalError"}
LOCKS = re.compile(r"with_for_update|isolation_level|SERIALIZABLE|lock|lease|fence", re.IGNORECASE)
RETRIERS = {"retry_if_exception_type", "on_exception", "retry"}
# What a session may still do when the transaction of its block is over.
AFTER_THE_END = {"close", "aclose", "expunge", "expunge_all", "in_transaction"}
READERS = {"exec", "scalars", "scalar", "execute", "get", "get_one"}


def one_session_for_all_tasks(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `concurrent operations are not permitted`, or rows of one task in another's commit.
    Cause: several tasks run on one session, which serves one at a time.
    Fix: a session for each task, as `run_each` does.
    """
    if not source.mentions(*AT_ONCE, *TASKS):
        return
    for flow in async_flows(project, source):
        tasks: dict[str, list[ast.Call]] = {}
        for call in flow.calls:
            for name in _shared_at_once(flow, call):
                yield hit(call, f"`{name}` serves several tasks at once")
            if attribute(call) in TASKS:
                for name in flow.sessions_in(ast.Tuple([*call.args])):
                    tasks.setdefault(name, []).append(call)
        for name, calls in tasks.items():
            late = [b for a, b in combinations(calls, 2) if _run_together(flow, a, b)]
            if late or _repeated(flow, calls[0], name):
                yield hit(late[-1] if late else calls[-1], f"`{name}` serves several tasks at once")


def _shared_at_once(flow: Flow, call: ast.Call) -> set[str]:
    if attribute(call) not in AT_ONCE or flow.project.resolve(flow.source, call.func).partition(
        "."
    )[0] not in {"asyncio", "gather"}:
        return set()
    seen: list[str] = []
    for argument in call.args:
        expression = argument.value if isinstance(argument, ast.Starred) else argument
        used = flow.sessions_in(expression)
        seen += used
        if isinstance(expression, COMPREHENSIONS):
            bound = {n for part in expression.generators for n in names_used(part.target)}
            seen += used - bound
    return {name for name in seen if seen.count(name) > 1}


def _run_together(flow: Flow, first: ast.Call, second: ast.Call) -> bool:
    """Whether the first task may still run when the second begins."""
    if not flow.source.leads_to(first, second):
        return False
    return not any(position(wait) < position(second) for wait in _waits_for(flow, first))


def _waits_for(flow: Flow, call: ast.Call) -> Iterator[ast.Await]:
    """Where the task that a call makes is awaited."""
    statement = flow.source.parents.get(call)
    names = {name for name, _ in bindings(statement)} if statement is not None else set()
    for node in flow.nodes:
        if isinstance(node, ast.Await) and names & names_used(node):
            yield node


def _repeated(flow: Flow, call: ast.Call, name: str) -> bool:
    """Whether a task is made in a loop, with a session from outside of the loop."""
    if not flow.source.in_loop(call):
        return False
    made = [at for at, _ in flow.assigned.get(name, [])]
    loop = next(p for p in flow.source.ancestors(call) if hasattr(p, "body") or hasattr(p, "elt"))
    if any(flow.source.inside(wait, loop) for wait in _waits_for(flow, call)):
        return False
    return not any(at >= position(loop) for at in made)


def select_of_sqlalchemy(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `AttributeError` for a field of the model: the result has rows, not objects.
    Cause: `sqlalchemy.select` in `session.exec(...)` gives rows, sqlmodel's gives objects.
    Fix: `from sqlmodel import select`.
    """
    if not source.mentions("sqlalchemy"):
        return
    for flow in async_flows(project, source):
        for call, info in flow.session_calls("exec"):
            statement = flow.statement(call.args[0]) if call.args else None
            if statement is None or statement.home != "sqlalchemy" or info.kind == "sqlalchemy":
                continue
            if flow.model(statement) and not _unpacked(source, flow, call):
                yield hit(call, f"`{text_of(statement.entities[0])}` comes in rows of one")


def _unpacked(source: Source, flow: Flow, call: ast.Call) -> bool:
    """Whether `.scalars()` and the like, or an index, takes the object out of its row."""
    around = [*source.ancestors(call)][:6]
    if any(attribute(part).startswith("scalar") for part in around):
        return True
    names = [
        n for node in around if isinstance(node, ast.Assign) for n in names_used(node.targets[0])
    ]
    after = [part for part in flow.nodes if isinstance(part, ast.Attribute)]
    return any(part.attr.startswith("scalar") and dotted(part.value) in names for part in after)


def scalars_instead_of_exec(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: DeprecationWarning: `You probably want to use session.exec`.
    Cause: on SQLModel's session `scalars()` and `scalar()` call the deprecated `execute()`.
    Fix: `session.exec(...)` gives scalars by itself.
    """
    if not source.mentions(".scalars(", ".scalar(", ".execute("):
        return
    for flow in async_flows(project, source):
        for call, info in flow.session_calls("scalars", "scalar", "execute"):
            if info.kind == "sqlmodel":
                what = f"`{info.name}.{attribute(call)}` on SQLModel's session"
                yield hit(call, what, _as_exec(flow, call))


def _as_exec(flow: Flow, call: ast.Call) -> str:
    """What to write instead: `exec` gives scalars only of sqlmodel's `select` of one thing."""
    statement = flow.statement(call.args[0]) if call.args else None
    name = attribute(call)
    taken = {"scalars": ".scalars()", "scalar": ".scalar()"}.get(name, "")
    instead = f"`(await session.exec(...)){taken}`" if taken else "`session.exec(...)`"
    if call.args and _is_text(flow, call.args[0]):
        return f"{instead}, which takes `text()` too, though its types do not say so"
    if statement is None:
        return "`session.exec(...)`: scalars of sqlmodel's `select` of one thing, rows of all else"
    if statement.kind != "select":
        return f"{instead}, which gives what `execute` did"
    if statement.home == "sqlalchemy":
        return f"{instead}; of sqlmodel's `select`, not SQLAlchemy's, it gives scalars by itself"
    if len(statement.entities) != 1 or statement.opaque:
        return f"{instead}, which gives rows of several columns"
    return "`(await session.exec(...)).first()`" if name == "scalar" else ""


def _is_text(flow: Flow, node: ast.expr) -> bool:
    values = flow.values(node.id, node) if isinstance(node, ast.Name) else [node]
    return any(isinstance(part, ast.Call) and attribute(part) == "text" for part in values)


def commit_in_a_helper(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `Can't operate on closed transaction inside context manager`.
    Cause: a commit inside a `begin()` block ends the transaction that the block still uses.
    Fix: flush there; the block commits at its end.
    """
    if not source.mentions("begin()"):
        return
    for flow in async_flows(project, source):
        for node in flow.nodes:
            if isinstance(node, ast.AsyncWith):
                for item in node.items:
                    yield from _commits_in(flow, node, item)


def _commits_in(flow: Flow, block: ast.AsyncWith, item: ast.withitem) -> Iterator[Hit]:
    begun = _begun(flow, item)
    if not begun:
        return
    inside = [c for c in flow.calls if flow.source.inside(c, block) and c is not item.context_expr]
    for call in inside:
        if attribute(call) == "commit" and receiver(call) == begun:
            if any(
                receiver(later) == begun
                and attribute(later) not in AFTER_THE_END
                and flow.source.leads_to(call, later)
                for later in inside
            ):
                yield hit(call, f"`{begun}` is used after this commit, in its `begin()` block")
        elif flow.source.awaited(call) and _helper_commits(flow, call, begun):
            yield hit(
                call, f"`{text_of(call.func)}` commits the transaction of this `begin()` block"
            )


def _begun(flow: Flow, item: ast.withitem) -> str:
    """The session whose transaction a `with` item begins."""
    call = item.context_expr
    if not isinstance(call, ast.Call) or attribute(call) != "begin":
        return ""
    name = receiver(call)
    if name in flow.sessions:
        return name
    bound = dotted(item.optional_vars) if item.optional_vars is not None else ""
    return bound if bound in flow.sessions and flow.factory(name, call) else ""


def _helper_commits(flow: Flow, call: ast.Call, session: str) -> bool:
    found = flow.project.function_at(flow.source, call.func, call)
    if found is None:
        return False
    source, function = found
    inner = flow_of(flow.project, source, function)
    commits = {receiver(c) for c in inner.calls if attribute(c) == "commit"}
    if session in commits and session not in inner.own_sessions and source is flow.source:
        return function in flow.nodes
    names = [argument.arg for argument in function.args.args]
    given = dict(zip(names, call.args, strict=False))
    given |= {item.arg: item.value for item in call.keywords if item.arg}
    return any(name in commits and dotted(value) == session for name, value in given.items())


def begin_after_a_query(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `A transaction is already begun on this Session`.
    Cause: the first statement began one by itself.
    Fix: `session_scope` round all of it, or `begin()` before the first statement.
    """
    if not source.mentions(".begin()"):
        return
    for flow in async_flows(project, source):
        for begin, info in flow.session_calls("begin"):
            earlier = [
                call
                for call, other in flow.session_calls(*(QUERIES | ENDS))
                if other.name == info.name and source.precedes(call, begin)
            ]
            last = earlier[-1] if earlier else None
            if last is None or attribute(last) in ENDS or flow.rebound(info.name, last, begin):
                continue
            if not any(
                attribute(c) in ENDS and position(last) < position(c) < position(begin)
                for c, _ in flow.session_calls(*ENDS)
            ):
                yield hit(
                    begin, f"`{info.name}.{attribute(last)}` in line {last.lineno} has begun one"
                )


def carry_on_after_a_failed_flush(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `This Session's transaction has been rolled back due to a previous exception`.
    Cause: the error of a flush or commit was caught, and the session was not rolled back.
    Fix: `begin_nested()` round what may fail, or `rollback()` in the handler.
    """
    if not source.mentions("except"):
        return
    for flow in async_flows(project, source):
        for node in flow.nodes:
            if isinstance(node, ast.Try):
                yield from _carries_on(flow, node)


def _carries_on(flow: Flow, node: ast.Try) -> Iterator[Hit]:
    body = ast.Module(body=node.body, type_ignores=[])
    risky = [
        call
        for call in calls_in(body)
        if attribute(call) in {"flush", "commit"} and receiver(call) in flow.sessions
    ]
    if not risky or flow.source.function_of(risky[0]) is not flow.scope:
        return
    name = receiver(risky[0])
    if any(attribute(call) in {"begin_nested", "begin"} for call in calls_in(body)) or _made_in(
        flow, node, name
    ):
        return
    for handler in node.handlers:
        calls = [c for part in handler.body for c in calls_in(part) if name in flow.sessions_in(c)]
        if not _catches(flow, handler, LOST) or any(attribute(c) in ENDS for c in calls):
            continue
        used = calls or (None if leaves(handler.body[-1]) else _used_after(flow, node, name))
        if used:
            yield hit(handler, f"`{name}` is used after the failed `{attribute(risky[0])}`")


def _made_in(flow: Flow, node: ast.Try, name: str) -> bool:
    made = (part for part in flow.nodes if name in {n for n, _ in _bound(part)})
    return any(flow.source.inside(part, node) for part in made)


def _bound(node: ast.AST) -> list[tuple[str, ast.expr]]:
    if isinstance(node, ast.withitem) and node.optional_vars is not None:
        return [(dotted(node.optional_vars), node.context_expr)]
    return []


def _used_after(flow: Flow, node: ast.Try, name: str) -> list[ast.Call]:
    end = (node.end_lineno or node.lineno, 0)
    after = [c for c, info in flow.session_calls() if info.name == name and position(c) > end]
    if not after or attribute(after[0]) in ENDS - {"commit"}:
        return []
    if any(flow.source.inside(node, w) for w in flow.nodes if isinstance(w, ast.AsyncWith) and any(
        "begin_nested" in text_of(i.context_expr) for i in w.items
    )):  # fmt: skip
        return []
    return after if flow.source.precedes(node, after[0]) else []


def _catches(flow: Flow, handler: ast.ExceptHandler, names: set[str]) -> bool:
    return handler.type is None or bool(caught(flow, handler) & names)


def caught(flow: Flow, handler: ast.ExceptHandler) -> set[str]:
    """Full names of the exceptions that a handler takes."""
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return {flow.project.resolve(flow.source, kind) for kind in kinds if kind is not None}


def read_then_insert(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `duplicate key value violates unique constraint`, `Duplicate entry`.
    Cause: two requests looked, neither found the row, and both inserted it.
    Fix: an upsert, or insert in a savepoint and read when that fails.
    """
    if not source.mentions(".add("):
        return
    for flow in async_flows(project, source):
        if source.is_test or flow.words & {"with_for_update", "on_conflict_do_nothing"}:
            continue
        for node in flow.nodes:
            if isinstance(node, ast.If) and not _guarded(flow):
                yield from _inserted(flow, node)


def _guarded(flow: Flow) -> bool:
    """Whether somebody expects that the insert fails."""
    tries = (part for part in flow.nodes if isinstance(part, ast.Try))
    return any(_catches(flow, h, LOST) for part in tries for h in part.handlers) or any(
        "begin_nested" in text_of(call.func) for call in flow.calls
    )


def _inserted(flow: Flow, node: ast.If) -> Iterator[Hit]:
    inserting: Sequence[ast.AST] = node.body
    if missing := _tested_for_none(node.test):
        looked = missing
    elif found := _returned_if_found(node):
        looked = found
        inserting = flow.source.after(node)
    else:
        return
    load = flow.holds(looked.id, node) if isinstance(looked, ast.Name) else flow.load(looked)
    call = load.node if load else None
    if load is None or load.kind not in {"query", "get"} or call is None:
        return
    keys = _looked_up(flow, call)
    unique = {name for name in keys if is_unique(load.model, name)}
    for made in (c for part in inserting for c in calls_in(part)):
        same = flow.project.table_at(flow.source, made.func) is load.model
        given = {item.arg for item in made.keywords}
        if same and unique & given:
            names = ", ".join(sorted(unique))
            yield hit(made, f"another may insert the same `{names}` after this one has looked")


def _tested_for_none(test: ast.expr) -> ast.expr | None:
    match test:
        case ast.Compare(left=left, ops=[ast.Is()], comparators=[right]) if is_constant(
            right, None
        ):
            return _named(left)
        case ast.UnaryOp(op=ast.Not(), operand=ast.Name() | ast.Call() | ast.Await() as operand):
            return operand
    return None


def _returned_if_found(node: ast.If) -> ast.expr | None:
    """What `if row: return row` looks at; who raises there may be glad of either error."""
    if node.orelse or not isinstance(node.body[-1], ast.Return) or node.body[-1].value is None:
        return None
    match node.test:
        case ast.Compare(left=left, ops=[ast.IsNot()], comparators=[right]) if is_constant(
            right, None
        ):
            return _named(left)
        case ast.Name() | ast.NamedExpr() as found:
            return _named(found)
    return None


def _named(node: ast.expr) -> ast.expr:
    return node.value if isinstance(node, ast.NamedExpr) else node


def _looked_up(flow: Flow, node: ast.AST) -> set[str]:
    """Columns that the query compares with one value."""
    found: set[str] = set()
    for call in calls_in(node):
        if attribute(call) in READERS and call.args:
            statement = flow.statement(call.args[0])
            conditions = [
                *(
                    a
                    for c in (statement.methods.get("where", []) if statement else [])
                    for a in c.args
                )
            ]
            for part in conditions:
                for compare in (n for n in ast.walk(part) if isinstance(n, ast.Compare)):
                    if isinstance(compare.ops[0], ast.Eq):
                        found |= {
                            a.attr for a in ast.walk(compare.left) if isinstance(a, ast.Attribute)
                        }
    return found


def is_unique(model: Class, name: str) -> bool:
    member = model.fields.get(name)
    if member is None:
        return False
    primary = [m for m in model.fields.values() if m.says("primary_key")]
    alone = member.says("primary_key") and len(primary) == 1
    return member.says("unique") or alone


def lost_update(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: no error, one change missing; SQLite: `database is locked`.
    Cause: two transactions read the old value, and each writes its own sum.
    Fix: `update(...).values(n=Model.n + 1)` in one statement, or read with `with_for_update()`.
    """
    for flow in async_flows(project, source):
        if source.is_test or not flow.sessions:
            continue
        for node in flow.nodes:
            target = _counted(node)
            if target is None or not isinstance(target.value, ast.Name):
                continue
            load = flow.holds(target.value.id, node)
            if load is None or load.kind not in {"query", "get"} or _is_alone(flow):
                continue
            if _is_number(load.model, target.attr) and not _versioned(load.model):
                yield hit(node, f"`{text_of(target)}` was read without a lock")


def _counted(node: ast.AST) -> ast.Attribute | None:
    """The attribute that a statement makes from its own old value."""
    match node:
        case ast.AugAssign(target=ast.Attribute() as target, op=ast.Add() | ast.Sub()):
            return target
        case ast.Assign(targets=[ast.Attribute() as target], value=ast.BinOp() as value):
            parts = {dotted(part) for part in (value.left, value.right)}
            return target if dotted(target) in parts else None
    return None


def _is_number(model: Class, name: str) -> bool:
    member = model.fields.get(name)
    kind = member.type.name.rpartition(".")[2] if member else ""
    return kind in {"int", "float", "Decimal"}


def _is_alone(flow: Flow) -> bool:
    """Whether something keeps other transactions away meanwhile."""
    return any(LOCKS.search(str(word)) for word in flow.words)


def _versioned(model: Class) -> bool:
    return "version_id_col" in ast.unparse(model.assigned.get("__mapper_args__", ast.Constant("")))


def retry_operational_errors_only(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: deadlocks and lock timeouts of PostgreSQL pass the retry.
    Cause: with asyncpg they are bare `DBAPIError`s, not `OperationalError`s.
    Fix: `except DBAPIError`, and decide by its code, as `is_retryable` does.
    """
    if not source.mentions("OperationalError"):
        return
    for flow in async_flows(project, source):
        for node in flow.nodes:
            if isinstance(node, ast.Try):
                yield from _retries(flow, node)
    for function in source.functions:
        for name, node in decorators(function):
            if name.rpartition(".")[2] in RETRIERS and isinstance(node, ast.Call):
                names = {project.resolve(source, part) for part in ast.walk(node) if dotted(part)}
                if names & OPERATIONAL and "sqlalchemy.exc.DBAPIError" not in names:
                    yield hit(node, "a deadlock on asyncpg is no `OperationalError`")


def _retries(flow: Flow, node: ast.Try) -> Iterator[Hit]:
    taken = [caught(flow, handler) for handler in node.handlers]
    broad = LOST - {"sqlalchemy.exc.IntegrityError"}
    if any(names & broad for names in taken):
        return
    looping = flow.source.in_loop(node) and not is_per_item(flow.source, node)
    for handler, names in zip(node.handlers, taken, strict=True):
        if not names & OPERATIONAL or isinstance(handler.body[-1], ast.Raise):
            continue
        calls = [call for part in handler.body for call in calls_in(part)]
        again = isinstance(handler.body[-1], ast.Continue) or any(
            attribute(call) in {"sleep", "rollback"} for call in calls
        )
        waits = any(
            keyword(call, "nowait") is not None
            for part in node.body
            for call in _statement_calls(flow, part)
        )
        if (looping and again) or waits:
            yield hit(handler, "a deadlock on asyncpg is no `OperationalError`")


def is_per_item(source: Source, node: ast.Try) -> bool:
    """Whether a loop does the same to one thing after the other, and so is no retry."""
    loop = next((p for p in source.ancestors(node) if isinstance(p, LOOPS)), None)
    if not isinstance(loop, ast.For | ast.AsyncFor):
        return False
    return bool(names_used(loop.target) & names_used(ast.Module(body=node.body, type_ignores=[])))


def _statement_calls(flow: Flow, part: ast.stmt) -> Iterator[ast.Call]:
    for call in calls_in(part):
        statement = (
            flow.statement(call.args[0]) if attribute(call) == "exec" and call.args else None
        )
        if statement is not None:
            yield from statement.methods.get("with_for_update", [])


def bulk_insert_with_some_nulls(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: 100 statements for 100 rows.
    Cause: the ORM begins a new statement wherever the set of NULL columns changes.
    Fix: `execution_options={"render_nulls": True}`, as `insert_rows` has it.
    """
    if not source.mentions("insert(") or source.is_test:
        return
    for flow in async_flows(project, source):
        for call, _ in flow.session_calls("exec", "execute"):
            statement = flow.statement(call.args[0]) if call.args else None
            rows = keyword(call, "params") or (call.args[1] if len(call.args) > 1 else None)
            if statement is None or statement.kind != "insert" or not isinstance(rows, ast.Name):
                continue
            model = project.table_at(source, statement.entities[0]) if statement.entities else None
            names = [n for n, member in model.fields.items() if nullable(member)] if model else []
            if names and keyword(call, "execution_options") is None and not _options(statement):
                yield hit(call, f"rows with and without `{names[0]}` are not sent together")


def _options(statement: Statement) -> bool:
    return statement.has("execution_options", "values", "from_select")


def nullable(member: Member) -> bool:
    return member.type.optional and not member.says("primary_key")


def read_after_an_update_in_sql(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `greenlet_spawn has not been called; can't call await_() here`.
    Cause: an UPDATE with a value that Python can't compute expires the attribute of loaded objects.
    Fix: `await session.refresh(...)`, or load again with `populate_existing`.
    """
    if not source.mentions("update(", "func."):
        return
    for flow in async_flows(project, source):
        for call, info in flow.session_calls("exec", "execute"):
            statement = flow.statement(call.args[0]) if call.args else None
            if statement is None or statement.kind != "update" or not statement.entities:
                continue
            model = project.table_at(source, statement.entities[0])
            if model is not None:
                for name in _computed(flow, statement):
                    yield from _read_later(flow, call, model, name, info.name)


def _computed(flow: Flow, statement: Statement) -> set[str]:
    """Columns that get the value of an SQL function."""
    found = set()
    for values in statement.methods.get("values", []):
        for item in values.keywords:
            parts = [
                item.value,
                *(
                    flow.values(item.value.id, item.value)
                    if isinstance(item.value, ast.Name)
                    else []
                ),
            ]
            names = (dotted(call.func) for part in parts for call in calls_in(part))
            if item.arg and any(name.startswith("func.") or ".func." in name for name in names):
                found.add(item.arg)
    return found


def _read_later(
    flow: Flow, update: ast.Call, model: Class, name: str, session: str
) -> Iterator[Hit]:
    after = [node for node in flow.nodes if position(node) > position(update)]
    fresh = [c for c in flow.calls if attribute(c) in {"refresh", "expunge", "get", "rollback"}]
    for node in after:
        if not (
            isinstance(node, ast.Attribute)
            and node.attr == name
            and isinstance(node.value, ast.Name)
        ):
            continue
        load = flow.holds(node.value.id, node)
        if load is None or load.model is not model or load.at > position(update):
            continue
        if isinstance(node.ctx, ast.Load) and not any(
            position(update) < position(c) < position(node) and receiver(c) == session
            for c in fresh
        ):
            yield hit(node, f"the UPDATE in line {update.lineno} expired `{text_of(node)}`")
            return


RULES = (
    one_session_for_all_tasks,
    select_of_sqlalchemy,
    scalars_instead_of_exec,
    commit_in_a_helper,
    begin_after_a_query,
    carry_on_after_a_failed_flush,
    read_then_insert,
    lost_update,
    retry_operational_errors_only,
    bulk_insert_with_some_nulls,
    read_after_an_update_in_sql,
)
