"""Rules of the page on relationships and how they are loaded."""

import ast
from collections.abc import Iterator
from dataclasses import replace

from _lint_flow import LOADERS, Flow, Load, Statement, async_flows, bindings, flows
from _lint_index import Class, Member, Project
from _lint_source import (
    COMPREHENSIONS,
    LOOPS,
    Hit,
    Source,
    attribute,
    calls_in,
    hit,
    is_constant,
    is_function,
    keyword,
    names_used,
    position,
    receiver,
    text_of,
)
from _syntax import dotted, string_of

PAGE = "references/relationships.md"
RESULTS = {"all", "first", "one", "one_or_none", "fetchall", "fetchone", "fetchmany", "partitions"}
HARMLESS = {
    "add", "delete", "refresh", "expunge", "len", "print", "repr", "str", "isinstance", "append",
    "model_validate", "info", "debug", "flush", "bool", "type", "id", "add_all",
}  # fmt: skip
EXPECTED = ("raises", "suppress", "warns")


# Reads of what was not loaded


def lazy_load(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `greenlet_spawn has not been called; can't call await_() here` (`MissingGreenlet`).
    Cause: a relationship is read that the query did not load, or a plain `refresh(obj)` forgot.
    Fix: load it in the query: `.options(selectinload(Model.items))`.
    """
    for flow, node, load in _unloaded_reads(project, source):
        if not _closed(flow, node, load):
            yield hit(node, f"`{text_of(node)}` is read, {_why(load)}")


def read_after_close(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `is not bound to a Session; lazy load operation of attribute 'x' cannot proceed`.
    Cause: the object outlived its session, and what is read was not loaded.
    Fix: load it before the block ends: `.options(selectinload(Model.items))`.
    """
    for flow, node, load in _unloaded_reads(project, source):
        if _closed(flow, node, load):
            yield hit(
                node, f"`{text_of(node)}` is read after `{load.session}` was closed, {_why(load)}"
            )


def _why(load: Load) -> str:
    line = getattr(load.node, "lineno", 0)
    if load.kind == "new":
        return f"but the object made in line {line} never had it"
    return f"but the load in line {line} left it out"


def _unloaded_reads(project: Project, source: Source) -> Iterator[tuple[Flow, ast.Attribute, Load]]:
    for flow in async_flows(project, source):
        if not flow.loads:
            continue
        for node in flow.nodes:
            if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Load):
                continue
            load = _read_from(flow, node)
            member = load.model.relationships.get(node.attr) if load else None
            if load is None or member is None or member.loads_itself is not False:
                continue
            if not _excused(flow, node) and _is_unloaded(flow, node, load, member):
                yield flow, node, load


def _read_from(flow: Flow, node: ast.Attribute) -> Load | None:
    value = node.value
    if isinstance(value, ast.Name):
        load = flow.holds(value.id, node)
        return load if load and not load.many else None
    if isinstance(value, ast.Subscript) and isinstance(value.value, ast.Name):
        load = flow.holds(value.value.id, node)
        return load if load and load.many and not isinstance(value.slice, ast.Slice) else None
    return flow.load(value) if isinstance(value, ast.Await) else None


def _excused(flow: Flow, node: ast.AST) -> bool:
    """Whether somebody expects the error, or the read happens elsewhere."""
    for parent in flow.source.ancestors(node):
        if isinstance(parent, ast.Lambda):
            return True
        if isinstance(parent, ast.With | ast.AsyncWith) and any(
            attribute(item.context_expr) in EXPECTED for item in parent.items
        ):
            return True
        if isinstance(parent, ast.Call) and attribute(parent) in {"del", "set_committed_value"}:
            return True
        if parent is flow.scope:
            return False
    return False


def _is_unloaded(flow: Flow, node: ast.Attribute, load: Load, member: Member) -> bool:
    if load.loaded is None or load.kind not in {"query", "get", "new", "service"}:
        return False
    name = node.value.id if isinstance(node.value, ast.Name) else ""
    state = _state(flow, name, load, node) if name else load
    if state.loaded is None or node.attr in state.loaded:
        return False
    if state.kind == "new" and not _flushed(flow, name, node, member):
        return False
    if not member.type.collection and _target_known(flow, load, member, node):
        return False
    return not _known_otherwise(flow, load, node)


def _state(flow: Flow, name: str, load: Load, node: ast.AST) -> Load:
    """What is loaded when `node` reads from `name`, after all that happened to it."""
    loaded: frozenset[str] | None = load.loaded
    kind = load.kind
    if kind == "new" and isinstance(load.node, ast.Assign | ast.AnnAssign | ast.NamedExpr):
        call = load.node.value
        given = call.keywords if isinstance(call, ast.Call) else []
        is_seen = isinstance(call, ast.Call) and not call.args and all(k.arg for k in given)
        loaded = frozenset(k.arg for k in given if k.arg) if is_seen else None
    elif kind == "new":
        loaded = None
    for part in flow.nodes:
        if loaded is None or not load.at < position(part) < position(node):
            continue
        if isinstance(part, ast.Attribute) and dotted(part.value) == name and part is not node:
            touched = isinstance(part.ctx, ast.Store) or kind == "new"
            loaded |= {part.attr} if touched else set()
        if isinstance(part, ast.Attribute) and dotted(part.value) == f"{name}.awaitable_attrs":
            loaded |= {part.attr}
        if isinstance(part, ast.Call):
            loaded, kind = _after_call(part, name, loaded, kind)
    return replace(load, loaded=loaded, kind=kind)


def _after_call(
    call: ast.Call, name: str, loaded: frozenset[str], kind: str
) -> tuple[frozenset[str] | None, str]:
    given = [*call.args, *(item.value for item in call.keywords)]
    if attribute(call) == "run_sync" and any(name in names_used(part) for part in given):
        return None, kind
    if not any(name in {dotted(item) for item in _items(part)} for part in given):
        return loaded, kind
    if attribute(call) == "refresh":
        wanted = call.args[1] if len(call.args) > 1 else keyword(call, "attribute_names")
        if wanted is None:
            return frozenset(), "query"
        if isinstance(wanted, ast.List | ast.Tuple) and all(string_of(e) for e in wanted.elts):
            return loaded | {string_of(e) for e in wanted.elts}, kind
        return None, kind
    return (loaded, kind) if attribute(call) in HARMLESS else (None, kind)


def _items(node: ast.expr) -> list[ast.expr]:
    """What an argument hands over: itself, or what stands in its list."""
    return node.elts if isinstance(node, ast.List | ast.Tuple | ast.Set) else [node]


def _flushed(flow: Flow, name: str, node: ast.AST, member: Member) -> bool:
    """Whether a new object was written before the read; until then its collections are empty."""
    added = [c for c in flow.calls if attribute(c) in {"add", "add_all"} and name in names_used(c)]
    flushes = [c for c, _ in flow.session_calls("flush", "commit") if flow.source.precedes(c, node)]
    return member.type.collection and any(
        position(a) < position(f) < position(node) for a in added for f in flushes
    )


def _target_known(flow: Flow, load: Load, member: Member, node: ast.AST) -> bool:
    """Whether the other side of a to-one may be in the session already, so that nothing is sent."""
    target = load.model.target(member)
    if target is None:
        return True
    loads = (item for items in flow.loads.values() for item in items)
    if any(item.model is target and item.at < position(node) for item in loads):
        return True
    return any(
        flow.project.class_at(flow.source, part, part) is target
        for call in flow.calls
        for part in call.args
        if isinstance(part, ast.Name)
    )


def _known_otherwise(flow: Flow, load: Load, node: ast.AST) -> bool:
    """Whether the object may be in the session with all it has, from before the load."""
    makes = [c for c in flow.calls if flow.project.table_at(flow.source, c.func) is load.model]
    if load.kind != "new" and makes:
        return True
    wanted = node.attr if isinstance(node, ast.Attribute) else ""
    loaders = [c for c in flow.calls if attribute(c) in LOADERS and position(c) < position(node)]
    if any(part.attr == wanted for loader in loaders for part in _attributes(loader)):
        return True
    if not flow.source.is_test:
        return False
    passed = (c for c in flow.calls if load.session in {dotted(a) for a in c.args})
    return any(True for _ in passed) or any(
        attribute(c) in {"add", "add_all"} for c, _ in flow.session_calls()
    )


def _attributes(node: ast.AST) -> Iterator[ast.Attribute]:
    return (part for part in ast.walk(node) if isinstance(part, ast.Attribute))


def _closed(flow: Flow, node: ast.AST, load: Load) -> bool:
    for part in flow.nodes:
        if isinstance(part, ast.AsyncWith) and any(
            item.optional_vars is not None and dotted(item.optional_vars) == load.session
            for item in part.items
        ):
            after = position(node) > (part.end_lineno or 0, 0)
            if flow.source.inside(load.node, part) and after and not flow.source.inside(node, part):
                return True
    return False


def dump_expired(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `{}` from `model_dump()`, `Shelf()` from `repr()`, no error.
    Cause: a commit with `expire_on_commit=True`, or any rollback, expired the columns.
    Fix: `expire_on_commit=False`; after a rollback load the object again.
    """
    if not source.mentions("model_dump", "repr("):
        return
    for flow in async_flows(project, source):
        for call in flow.calls:
            name = _dumped(call)
            load = flow.holds(name, call) if name else None
            if load is None or load.kind not in {"new", "query", "get"} or load.many:
                continue
            if end := _expiring(flow, load, name, call):
                yield hit(call, f"the {attribute(end)} in line {end.lineno} expired `{name}`")


def _dumped(call: ast.Call) -> str:
    if attribute(call) in {"model_dump", "model_dump_json"}:
        return receiver(call)
    is_repr = isinstance(call.func, ast.Name) and call.func.id == "repr" and len(call.args) == 1
    return dotted(call.args[0]) if is_repr else ""


def _expiring(flow: Flow, load: Load, name: str, dump: ast.Call) -> ast.Call | None:
    """The commit or rollback that expired an object before it is dumped."""
    for call, info in flow.session_calls("commit", "rollback"):
        mine = info.name == load.session or (
            load.kind == "new"
            and any(
                attribute(c) == "add" and name in names_used(c)
                for c, i in flow.session_calls()
                if i.name == info.name
            )
        )
        if not mine or not load.at < position(call) < position(dump):
            continue
        if not flow.source.precedes(call, dump):
            continue
        expires = attribute(call) == "rollback" or info.kept is False
        is_new_and_gone = attribute(call) == "rollback" and load.kind == "new"
        refreshed = any(
            attribute(c) == "refresh"
            and name in names_used(c)
            and position(call) < position(c) < position(dump)
            for c in flow.calls
        )
        if expires and not refreshed and not is_new_and_gone:
            return call
    return None


# Queries


def loader_targets(flow: Flow, statement: Statement, *kinds: str) -> Iterator[tuple[Class, Member]]:
    """Relationships that loaders of these kinds load, with the class that has them."""
    for option in flow.options(statement):
        for call in calls_in(option):
            if attribute(call) in kinds and call.args:
                for part in ast.walk(call.args[0]):
                    if isinstance(part, ast.Attribute) and dotted(part.value):
                        model = flow.project.table_at(flow.source, part.value)
                        member = model.relationships.get(part.attr) if model else None
                        if model is not None and member is not None:
                            yield model, member


def joined_without_unique(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `The unique() method must be invoked on this Result`.
    Cause: a joined load of a collection gives a row per child.
    Fix: `.unique().all()`, or `selectinload`.
    """
    if not source.mentions("joinedload", "contains_eager", "select("):
        return
    for flow in async_flows(project, source):
        for call, _ in flow.session_calls("exec", "scalars"):
            statement = flow.statement(call.args[0]) if call.args else None
            if statement is None or statement.kind != "select":
                continue
            joined = _joined_collections(flow, statement)
            if joined and (used := _used_without_unique(flow, call)):
                yield hit(used, f"`{joined}` is joined, so the parents repeat")


def _joined_collections(flow: Flow, statement: Statement) -> str:
    for model, member in loader_targets(flow, statement, "joinedload", "contains_eager"):
        if member.type.collection:
            return f"{model.name}.{member.name}"
    queried = flow.model(statement)
    for member in queried.relationships.values() if queried else []:
        given = member.option("sa_relationship_kwargs")
        if member.type.collection and given is not None and _has_lazy(given, "joined", False):
            others = {
                m.name
                for _, m in loader_targets(
                    flow, statement, *LOADERS, "lazyload", "noload", "raiseload"
                )
            }
            return "" if member.name in others else f"{member.owner.name}.{member.name}"
    return ""


def _has_lazy(given: ast.expr, *values: object) -> bool:
    if not isinstance(given, ast.Dict):
        return False
    return any(
        string_of(key) == "lazy" and isinstance(value, ast.Constant) and value.value in values
        for key, value in zip(given.keys, given.values, strict=True)
        if key is not None
    )


def _used_without_unique(flow: Flow, call: ast.Call) -> ast.AST | None:
    """Where the result of a query is taken apart without `unique()`."""
    chain: list[str] = []
    for parent in flow.source.ancestors(call):
        match parent:
            case ast.Await() | ast.Call():
                continue
            case ast.Attribute(attr=name):
                chain.append(name)
            case ast.Assign(targets=[ast.Name(id=name)]):
                if chain:
                    break
                return _taken_apart(flow, name, call)
            case _:
                break
    if "unique" in chain or not set(chain) & RESULTS:
        return None
    return call


def _taken_apart(flow: Flow, name: str, call: ast.Call) -> ast.AST | None:
    uses = [c for c in flow.calls if receiver(c) == name and position(c) > position(call)]
    if not uses or attribute(uses[0]) not in RESULTS | {"scalars"}:
        return None
    uniques = any(attribute(c) == "unique" for c in flow.calls)
    return None if uniques else uses[0]


def load_in_a_loop(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: 1 + n statements, no error.
    Cause: `awaitable_attrs` or `refresh` loads for one object at a time.
    Fix: load all at once in the query: `selectinload`.
    """
    if source.is_test or not source.mentions("awaitable_attrs", "refresh("):
        return
    for flow in async_flows(project, source):
        for node in flow.nodes:
            if isinstance(node, ast.Attribute) and node.attr == "awaitable_attrs":
                name, what = dotted(node.value), f"`{text_of(node)}`"
            elif isinstance(node, ast.Call) and attribute(node) == "refresh" and node.args:
                name, what = dotted(node.args[0]) if flow.session_of(node) else "", "`refresh`"
            else:
                continue
            if name and name in _turning(flow, node) and not _busy(flow, node):
                yield hit(node, f"{what} sends a statement per object", _all_at_once(node))


def _all_at_once(node: ast.AST) -> str:
    """What to do instead of a plain `refresh(x)`, which loads columns; else the rule says it."""
    if not isinstance(node, ast.Call) or len(node.args) > 1 or node.keywords:
        return ""
    return (
        "leave it out where a flush has set all that is read, or load all again in one "
        "`select(...).where(col(Model.id).in_(ids))` with "
        "`.execution_options(populate_existing=True)`"
    )


def _busy(flow: Flow, node: ast.AST) -> bool:
    """Whether each turn of the loop sends other statements anyway."""
    loop = next((p for p in flow.source.ancestors(node) if isinstance(p, LOOPS)), None)
    for call in calls_in(loop) if loop is not None else ():
        if call is node or not flow.source.awaited(call) or flow.source.inside(call, node):
            continue
        if flow.session_of(call) or {dotted(argument) for argument in call.args} & set(
            flow.sessions
        ):
            return True
    return False


def _turning(flow: Flow, node: ast.AST) -> set[str]:
    """Names that have another value with each turn of the loops around a node."""
    found: set[str] = set()
    for parent in flow.source.ancestors(node):
        if is_function(parent):
            break
        if isinstance(parent, ast.For | ast.AsyncFor):
            found |= names_used(parent.target)
        elif isinstance(parent, COMPREHENSIONS):
            found |= {name for part in parent.generators for name in names_used(part.target)}
    return found


def limit_joined_rows(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: fewer parents than the limit.
    Cause: with `contains_eager` of a collection the limit counts joined rows.
    Fix: `selectinload` or `joinedload`: there it counts parents.
    """
    if not source.mentions("contains_eager"):
        return
    for flow in flows(project, source):
        seen: set[ast.AST] = set()
        for call in flow.calls:
            statement = flow.statement(call) if attribute(call) in {"limit", "options"} else None
            if statement is None or not statement.has("limit", "fetch") or statement.call in seen:
                continue
            for model, member in loader_targets(flow, statement, "contains_eager"):
                if member.type.collection and statement.call is not None:
                    seen.add(statement.call)
                    yield hit(call, f"the limit counts rows of `{model.name}.{member.name}`")


def filter_then_load_all(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: a later query still shows the filtered children.
    Cause: a collection that is loaded already is not loaded again.
    Fix: `.execution_options(populate_existing=True)` on the later query.
    """
    if not source.mentions("contains_eager"):
        return
    for flow in async_flows(project, source):
        filtered: dict[tuple[str, str, str], int] = {}
        for call, info in flow.session_calls("exec", "scalars"):
            statement = flow.statement(call.args[0]) if call.args else None
            if statement is None or "populate_existing" in ast.unparse(call):
                continue
            for model, member in loader_targets(flow, statement, *(LOADERS - {"contains_eager"})):
                line = filtered.get((info.name, model.name, member.name))
                if line and not statement.has("execution_options"):
                    yield hit(
                        call, f"`{model.name}.{member.name}` stays as line {line} filtered it"
                    )
            if statement.has("where", "filter"):
                for model, member in loader_targets(flow, statement, "contains_eager"):
                    filtered[info.name, model.name, member.name] = call.lineno


# Writes


def _objects(flow: Flow, node: ast.Attribute) -> tuple[Load, Member] | None:
    """The object and the relationship that `object.relationship` means."""
    if not isinstance(node.value, ast.Name):
        return None
    load = flow.holds(node.value.id, node)
    member = load.model.relationships.get(node.attr) if load and not load.many else None
    return (load, member) if load and member else None


def foreign_keys(model: Class, target: Class) -> list[Member]:
    """Fields of a model that refer to another's table."""
    prefix = f"{target.table_name}."
    return [
        m
        for m in model.fields.values()
        if m.text_option("foreign_key").rpartition(".")[0] + "." == prefix
    ]


def set_foreign_key_alone(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: the relationship is the old object, even after the commit.
    Cause: setting the foreign key changes a column, not the relationship.
    Fix: assign the relationship, or `refresh(obj, ["shelf"])` after the flush.
    """
    for flow in async_flows(project, source):
        for node in flow.nodes:
            if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute)):
                continue
            target = node.targets[0]
            name = dotted(target.value)
            load = flow.holds(name, node) if name else None
            if load is None or load.kind not in {"query", "get"} or load.many:
                continue
            for member in load.model.relationships.values():
                other = load.model.target(member)
                keys = [key.name for key in foreign_keys(load.model, other)] if other else []
                if keys == [target.attr] and not member.type.collection:
                    yield from _stale_read(flow, node, name, member.name)


def _stale_read(flow: Flow, change: ast.Assign, name: str, relationship: str) -> Iterator[Hit]:
    for node in flow.nodes:
        if position(node) <= position(change):
            continue
        if isinstance(node, ast.Call) and attribute(node) in {"refresh", "expire", "expire_all"}:
            return
        if isinstance(node, ast.Attribute) and dotted(node) == f"{name}.{relationship}":
            if isinstance(node.ctx, ast.Load):
                yield hit(
                    change, f"`{name}.{relationship}` in line {node.lineno} is still the old one"
                )
            return


def remove_required_child(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `NOT NULL constraint failed` for the child's foreign key.
    Cause: without delete-orphan, removing a child from the collection writes NULL.
    Fix: `cascade_delete=True` on the relationship, or move the child to another parent.
    """
    for flow in flows(project, source):
        for node in flow.nodes:
            changed = _emptied(node)
            found = _objects(flow, changed) if changed is not None else None
            if changed is None or found is None or found[0].kind == "new":
                continue
            load, member = found
            other = load.model.target(member)
            keys = foreign_keys(other, load.model) if other else []
            required = keys and not any(key.type.optional for key in keys)
            if member.type.collection and required and not _owns(member):
                yield hit(node, f"`{keys[0].owner.name}.{keys[0].name}` can't be NULL")


def _emptied(node: ast.AST) -> ast.Attribute | None:
    match node:
        case ast.Call(
            func=ast.Attribute(attr="remove" | "clear" | "pop", value=ast.Attribute() as changed)
        ):
            return changed
        case ast.Assign(targets=[ast.Attribute() as changed], value=ast.List(elts=[])):
            return changed
    return None


def _owns(member: Member) -> bool:
    """Whether children without parent are deleted, or are none of the relationship's business."""
    if member.option("link_model") is not None or member.says("cascade_delete") or member.opaque:
        return True
    given = [member.option("sa_relationship_kwargs"), member.option("sa_relationship")]
    return any(
        part is not None and ("orphan" in (t := ast.unparse(part)) or "viewonly" in t)
        for part in given
    ) or (given[0] is not None and not isinstance(given[0], ast.Dict))


def remove_an_equal_one(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: the wrong object leaves the list.
    Cause: `list.remove` takes the first equal one, and new rows of equal columns are equal.
    Fix: flush first, so that the ids differ.
    """
    if not source.mentions(".remove("):
        return
    for flow in flows(project, source):
        twins = _twins(flow)
        for call in flow.calls:
            if attribute(call) == "remove" and len(call.args) == 1 and "." in receiver(call):
                name = dotted(call.args[0])
                flushed = any(
                    attribute(c) in {"flush", "commit"} and position(c) < position(call)
                    for c in flow.calls
                )
                if name in twins and not flushed:
                    yield hit(call, f"another new object equals `{name}`")


def _twins(flow: Flow) -> set[str]:
    """Names of new objects that were made with the same values."""
    made: dict[str, list[str]] = {}
    for node in flow.nodes:
        pairs = list(bindings(node))
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Tuple)
            and isinstance(node.value, ast.Tuple)
        ):
            pairs += [
                (dotted(t), v) for t, v in zip(node.targets[0].elts, node.value.elts, strict=False)
            ]
        for name, value in pairs:
            if isinstance(value, ast.Call) and flow.project.table_at(flow.source, value.func):
                made.setdefault(ast.unparse(value), []).append(name)
    return {name for names in made.values() if len(names) > 1 for name in names}


def replace_unique_child(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `UNIQUE constraint failed` for the child's foreign key.
    Cause: a flush inserts the new child before it deletes the old one.
    Fix: set None and flush between, or share the primary key.
    """
    for flow in flows(project, source):
        for node in flow.nodes:
            match node:
                case ast.Assign(targets=[ast.Attribute() as changed], value=ast.Call() as made):
                    found = _objects(flow, changed)
                case _:
                    continue
            if found is None or found[0].kind not in {"query", "get"} or found[1].type.collection:
                continue
            other = found[0].model.target(found[1])
            if other is None or project.table_at(source, made.func) is not other:
                continue
            keys = foreign_keys(other, found[0].model)
            if keys and all(k.says("unique") for k in keys) and not _set_to_none(flow, changed):
                yield hit(
                    node, f"`{other.name}.{keys[0].name}` is unique, and the old one still there"
                )


def _set_to_none(flow: Flow, changed: ast.Attribute) -> bool:
    return any(
        isinstance(n, ast.Assign)
        and is_constant(n.value, None)
        and dotted(n.targets[0]) == dotted(changed)
        for n in flow.nodes
    )


def read_deleted_children(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `get` returns a child that a bulk delete removed.
    Cause: the database's cascade is invisible to the session.
    Fix: expunge the children, as `delete_crates` does.
    """
    if not source.mentions("delete("):
        return
    for flow in async_flows(project, source):
        deleted: list[tuple[ast.Call, Class, str]] = []
        for call, info in flow.session_calls("exec", "execute", "get", "get_one"):
            if attribute(call) in {"get", "get_one"}:
                model = project.table_at(source, call.args[0]) if call.args else None
                for bulk, parent, session in deleted:
                    if (
                        session == info.name
                        and model
                        and _cascades(model, parent)
                        and not _forgotten(flow, bulk, call)
                    ):
                        yield hit(
                            call,
                            f"the delete in line {bulk.lineno} may have removed this {model.name}",
                        )
                continue
            statement = flow.statement(call.args[0]) if call.args else None
            if statement is None or statement.kind != "delete" or not statement.entities:
                continue
            if parent_model := project.table_at(source, statement.entities[0]):
                deleted.append((call, parent_model, info.name))


def _cascades(child: Class, parent: Class) -> bool:
    return any(key.text_option("ondelete") == "CASCADE" for key in foreign_keys(child, parent))


def _forgotten(flow: Flow, first: ast.AST, then: ast.AST) -> bool:
    names = {"expunge", "expunge_all", "expire_all", "expire", "rollback", "close", "refresh"}
    return any(
        attribute(c) in names and position(first) < position(c) < position(then) for c in flow.calls
    )


# Models


def _tables(project: Project, source: Source) -> Iterator[Class]:
    return (item for item in project.tables if item.source is source)


def _relationship_text(member: Member) -> str:
    given = [member.option("sa_relationship_kwargs"), member.option("sa_relationship")]
    return " ".join(ast.unparse(part) for part in given if part is not None)


def tree_without_remote_side(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `are both of the same direction`.
    Cause: both ends of a self-reference look like one-to-many.
    Fix: `sa_relationship_kwargs={"remote_side": "Node.id"}` on the parent.
    """
    for item in _tables(project, source):
        own = [m for m in item.relationships.values() if item.target(m) is item]
        plain = [m for m in own if m.option("link_model") is None and not m.opaque]
        pairs = {m.name: m.text_option("back_populates") for m in plain}
        for member in plain:
            other = item.relationships.get(pairs[member.name])
            is_pair = other is not None and pairs.get(other.name) == member.name
            if is_pair and other is not None and not member.type.collection:
                texts = _relationship_text(member) + _relationship_text(other)
                if (
                    "remote_side" not in texts
                    and "primaryjoin" not in texts
                    and other is not member
                ):
                    yield hit(member.node, f"`{member.name}` does not say which side is remote")


def two_paths_to_one_table(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `there are multiple foreign key paths linking the tables`.
    Cause: two foreign keys lead there, and SQLAlchemy does not guess.
    Fix: `sa_relationship_kwargs={"foreign_keys": "Match.home_id"}`.
    """
    for item in _tables(project, source):
        for member in item.relationships.values():
            other = item.target(member)
            text = _relationship_text(member)
            if other is None or member.option("link_model") is not None or member.opaque:
                continue
            if "foreign_keys" in text or "primaryjoin" in text or (text and "{" not in text):
                continue
            keys = foreign_keys(item, other) + (
                foreign_keys(other, item) if other is not item else []
            )
            if len(keys) > 1:
                names = " and ".join(f"`{key.owner.name}.{key.name}`" for key in keys[:2])
                yield hit(member.node, f"`{member.name}` may go by {names}")


def writable_shortcut(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: SAWarning: `which conflicts with relationship(s)`.
    Cause: the shortcut and the link model's own relationships write the same row.
    Fix: `sa_relationship_kwargs={"viewonly": True}` on the shortcut.
    """
    if not source.mentions("link_model"):
        return
    for item in _tables(project, source):
        for member in item.relationships.values():
            link = member.option("link_model")
            model = project.table_at(source, link, item.node) if link is not None else None
            text = _relationship_text(member)
            if (
                model is None
                or "viewonly" in text
                or "overlaps" in text
                or (text and "{" not in text)
            ):
                continue
            targets = {model.target(m) for m in model.relationships.values()}
            if item in targets or item.target(member) in targets:
                yield hit(member.node, f"`{member.name}` writes what `{model.name}` writes too")


def cyclic_read_models(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `Recursion error - cyclic reference detected`.
    Cause: two read models contain each other.
    Fix: one model per depth: the inner one leaves the way back out.
    """
    for item in project.classes:
        if item.source is not source or not _reads_objects(item):
            continue
        for member in item.own_members:
            other = (
                project.class_at(source, member.type.name, item.node) if member.type.name else None
            )
            if other is None or other is item or not _reads_objects(other):
                continue
            back = [
                m
                for m in other.own_members
                if project.class_at(other.source, m.type.name, other.node) is item
            ]
            if back and (item.name, member.name) < (other.name, back[0].name):
                yield hit(member.node, f"`{item.name}` and `{other.name}` contain each other")


def _reads_objects(item: Class) -> bool:
    """Whether a schema is filled from table objects: SQLModel's are, pydantic's when told to."""
    return item.is_schema and (item.is_sqlmodel or item.has_config("from_attributes"))


RULES = (
    lazy_load,
    read_after_close,
    dump_expired,
    joined_without_unique,
    load_in_a_loop,
    limit_joined_rows,
    filter_then_load_all,
    set_foreign_key_alone,
    remove_required_child,
    remove_an_equal_one,
    replace_unique_child,
    read_deleted_children,
    tree_without_remote_side,
    two_paths_to_one_table,
    writable_shortcut,
    cyclic_read_models,
)
