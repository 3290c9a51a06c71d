"""Rules of the page on tables, columns and schemas."""

import ast
import re
from collections.abc import Iterator

from _lint_flow import Flow, flow_of, flows
from _lint_index import Class, Member, Project, Type
from _lint_source import (
    Function,
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
    position,
    text_of,
)
from _syntax import dotted, names_in, string_of

PAGE = "references/models.md"
NAIVE_NOW = {
    "datetime.datetime.now",
    "datetime.datetime.utcnow",
    "datetime.datetime.utcfromtimestamp",
}
MOMENTS = {"datetime.datetime"}
DATES = {"datetime.datetime", "datetime.date", "datetime.time", "datetime.timedelta"}
ONCE = {
    "datetime.datetime.now", "datetime.datetime.utcnow", "datetime.date.today", "uuid.uuid4",
    "uuid.uuid1", "uuid.uuid7", "time.time", "secrets.token_hex", "secrets.token_urlsafe",
}  # fmt: skip
RAW_NAMES = {"body", "payload", "raw", "json_body", "request_body"}
JSON_TYPES = {"JSON", "JSONB"}
CHANGING = {
    "append", "extend", "insert", "remove", "pop", "clear", "update", "setdefault", "popitem",
    "sort",
}  # fmt: skip


def _tables(project: Project, source: Source) -> Iterator[Class]:
    return (item for item in project.tables if item.source is source)


def _sqlmodels(project: Project, source: Source) -> Iterator[Class]:
    return (item for item in project.classes if item.source is source and item.is_sqlmodel)


def column_type(member: Member) -> ast.expr | None:
    """What stands for the type of the column: `sa_type=`, or the first type in `sa_column=`."""
    given = member.option("sa_type")
    if given is not None:
        return given
    column = member.option("sa_column")
    if isinstance(column, ast.Call):
        types = [arg for arg in column.args if not isinstance(arg, ast.Constant)]
        return types[0] if types else keyword(column, "type_")
    return None


def own_column(member: Member) -> bool:
    """Whether the column is described by other means than the annotation."""
    return member.option("sa_type") is not None or member.option("sa_column") is not None


# Rows from outside


def table_as_request_body(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: none: invalid values and a client's `id` are stored.
    Cause: table classes do not validate.
    Fix: take a Create schema, and make the row of `model_dump()`.
    """
    for route in project.routes:
        if route.source is not source or route.method in {"get", "head", "websocket"}:
            continue
        for argument in arguments(route.function):
            kind = project.type_of(source, argument.annotation)
            injected = any("Depends" in ast.unparse(part) for part in kind.details)
            model = project.table_at(source, kind.name, route.function) if kind.name else None
            if model is not None and not injected and not _has_depends(route.function, argument):
                yield hit(argument, f"`{model.name}` is a table, which does not validate")
    for call, model in _from_raw(project, source):
        if not _has_dates(model):
            yield hit(call, f"`{model.name}` is a table, which does not validate")


def _has_depends(function: Function, argument: ast.arg) -> bool:
    spec = function.args
    plain = [*spec.posonlyargs, *spec.args]
    defaults = dict(zip(reversed([a.arg for a in plain]), reversed(spec.defaults), strict=False))
    defaults |= {a.arg: d for a, d in zip(spec.kwonlyargs, spec.kw_defaults, strict=True) if d}
    value = defaults.get(argument.arg)
    return isinstance(value, ast.Call) and attribute(value) in {"Depends", "Security"}


def _from_raw(project: Project, source: Source) -> Iterator[tuple[ast.Call, Class]]:
    """Table objects that are made of what a client sent, as it is."""
    if source.is_test or not source.mentions("**"):
        return
    for flow in flows(project, source):
        for call in flow.calls:
            raw = [k.value for k in call.keywords if k.arg is None]
            if raw and _is_raw(flow, raw[0]) and (model := project.table_at(source, call.func)):
                yield call, model


def _is_raw(flow: Flow, node: ast.expr) -> bool:
    if isinstance(node, ast.Await):
        return _is_raw(flow, node.value)
    if isinstance(node, ast.Call):
        return attribute(node) == "json" or dotted(node.func) in {"json.loads", "orjson.loads"}
    if not isinstance(node, ast.Name):
        return False
    if any(_is_raw(flow, value) for value in flow.values(node.id, node) if value is not node):
        return True
    if node.id not in RAW_NAMES or not is_function(flow.scope):
        return False
    types = {a.arg: a.annotation for a in arguments(flow.scope)}
    annotation = types.get(node.id)
    return annotation is not None and ast.unparse(annotation).startswith(
        ("dict", "Dict", "Mapping")
    )


def _has_dates(model: Class) -> bool:
    return any(member.type.name in DATES for member in model.fields.values())


def text_for_a_date(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `SQLite Date type only accepts Python date objects as input`.
    Cause: a table object made from raw JSON keeps the text.
    Fix: `Model.model_validate(...)`, or a Create schema.
    """
    for call, model in _from_raw(project, source):
        dates = [name for name, member in model.fields.items() if member.type.name in DATES]
        if dates:
            yield hit(call, f"`{model.name}.{dates[0]}` gets text: a table does not validate")


def update_with_unset_fields(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `NOT NULL constraint failed`, or emptied columns.
    Cause: every field is copied, set or not.
    Fix: `row.sqlmodel_update(data.model_dump(exclude_unset=True))`.
    """
    if not source.mentions("sqlmodel_update", "setattr"):
        return
    for flow in flows(project, source):
        if is_function(flow.scope) and _replaces(flow.scope):
            continue
        for call in flow.calls:
            is_update = attribute(call) == "sqlmodel_update" and bool(call.args)
            if is_update and _has_unset(flow, call.args[0]):
                yield hit(call, f"`{text_of(call.args[0])}` has also what was not sent")
        for node in flow.nodes:
            data = _copied(node)
            if data is not None and _has_unset(flow, data, dumped=True):
                yield hit(node, f"`{text_of(data)}` has also what was not sent")


def _copied(node: ast.AST) -> ast.expr | None:
    """`data` of `for name, value in data.items(): setattr(row, name, value)`."""
    match node:
        case ast.For(
            iter=ast.Call(func=ast.Attribute(attr="items", value=data)),
            body=[ast.Expr(value=ast.Call(func=ast.Name(id="setattr")))],
        ):
            return data
    return None


def _replaces(function: Function) -> bool:
    names = {name.rpartition(".")[2] for name, _ in decorators(function)}
    return "put" in names or "replace" in function.name


def _has_unset(flow: Flow, node: ast.expr, *, dumped: bool = False) -> bool:
    """Whether an expression is a partial schema, or its dump with all defaults."""
    if isinstance(node, ast.Call) and attribute(node) in {"model_dump", "dict"}:
        if not isinstance(node.func, ast.Attribute) or leaves_out(flow, node, node.func.value):
            return False
        return is_partial(flow, node.func.value)
    if isinstance(node, ast.Name):
        values = flow.values(node.id, node)
        if values:
            return (
                len(values) == 1 and isinstance(values[0], ast.Call) and _has_unset(flow, values[0])
            )
    return not dumped and is_partial(flow, node)


def leaves_out(flow: Flow, dump: ast.Call, schema: ast.expr) -> bool:
    """Whether a dump has only what was sent, or that cannot be seen."""
    given = {item.arg for item in dump.keywords}
    if given & {"exclude_unset", "exclude_defaults", None}:
        return True
    # Where all defaults are None, leaving out None leaves out what was not sent.
    if "exclude_none" not in given:
        return False
    item = _annotated_class(flow, schema)
    return item is None or all(is_constant(_default_of(m), None) for m in item.fields.values())


def _default_of(member: Member) -> ast.expr | None:
    if member.call is None or attribute(member.call) != "Field":
        return member.value
    return keyword(member.call, "default") or (member.call.args[0] if member.call.args else None)


def _annotated_class(flow: Flow, node: ast.expr) -> Class | None:
    """The class of the project that a parameter is annotated with."""
    for scope in [flow.scope, *flow.source.enclosing_functions(flow.scope)]:
        for argument in arguments(scope) if is_function(scope) else []:
            if argument.arg == dotted(node):
                kind = flow.project.type_of(flow.source, argument.annotation)
                return flow.project.class_at(flow.source, kind.name) if kind.name else None
    return None


def is_partial(flow: Flow, node: ast.expr) -> bool:
    """Whether a name is annotated with a schema for changes: its fields may be left out."""
    name = dotted(node)
    for scope in [flow.scope, *flow.source.enclosing_functions(flow.scope)]:
        for argument in arguments(scope) if is_function(scope) else []:
            if argument.arg == name and argument.annotation is not None:
                return _is_change(flow, flow.project.type_of(flow.source, argument.annotation))
    return False


def _is_change(flow: Flow, kind: Type) -> bool:
    short = kind.name.rpartition(".")[2]
    item = flow.project.class_at(flow.source, kind.name) if kind.name else None
    if item is None:
        return bool(re.search(r"(Update|Patch|Change)$", short))
    fields = [m for m in item.fields.values() if m.name != "model_config"]
    may_be_left_out = [m for m in fields if _has_default(m)]
    return item.is_schema and bool(fields) and len(may_be_left_out) == len(fields)


def _has_default(member: Member) -> bool:
    if member.value is None:
        return False
    if member.call is not None and attribute(member.call) == "Field":
        named = {item.arg for item in member.call.keywords}
        first = member.call.args[0] if member.call.args else None
        return bool(named & {"default", "default_factory"}) or (
            first is not None and not is_constant(first, ...)
        )
    return True


def refused_assignment_is_kept(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: the value that `validate_assignment` refused is committed.
    Cause: SQLModel sets the attribute before pydantic validates.
    Fix: validate in a schema, before the table object is touched.
    """
    if not source.mentions("ValidationError"):
        return
    for flow in flows(project, source):
        for node in flow.nodes:
            if not isinstance(node, ast.Try):
                continue
            keeps = [h for h in node.handlers if _refuses(h) and not _undoes(h)]
            for part in node.body if keeps else []:
                match part:
                    case ast.Assign(targets=[ast.Attribute(value=ast.Name(id=name)) as target]):
                        load = flow.holds(name, part)
                        if load and load.model.has_config("validate_assignment"):
                            yield hit(part, f"`{text_of(target)}` keeps the refused value")


def _refuses(handler: ast.ExceptHandler) -> bool:
    return handler.type is not None and "ValidationError" in names_in(ast.walk(handler.type))


def _undoes(handler: ast.ExceptHandler) -> bool:
    calls = [c for part in handler.body for c in calls_in(part)]
    raises = any(isinstance(n, ast.Raise) for part in handler.body for n in ast.walk(part))
    return raises or any(
        attribute(c) in {"rollback", "refresh", "expire", "expunge"} for c in calls
    )


# Timestamps


def is_naive_now(project: Project, source: Source, node: ast.AST) -> bool:
    """`datetime.now()` without a zone, or `datetime.utcnow()`."""
    if not isinstance(node, ast.Call):
        return False
    name = project.resolve(source, node.func)
    return name in NAIVE_NOW and not (name.endswith(".now") and (node.args or node.keywords))


def is_naive_maker(project: Project, source: Source, node: ast.AST | None) -> bool:
    if isinstance(node, ast.Lambda):
        return is_naive_now(project, source, node.body)
    return node is not None and project.resolve(source, node) in NAIVE_NOW - {
        "datetime.datetime.utcfromtimestamp"
    }


def takes_aware(project: Project, member: Member | None) -> bool:
    """Whether a field is a moment that is stored with its zone; plain ones since 0.0.45."""
    if member is None or member.type.name not in MOMENTS:
        return False
    given = column_type(member)
    if given is None:
        return project.versions.at_least("sqlmodel", 0, 0, 45)
    return not _is_naive_type(given)


def _is_naive_type(node: ast.expr) -> bool:
    name = attribute(node)
    if name in {"DateTime", "DATETIME", "TIMESTAMP"}:
        zone = keyword(node, "timezone") if isinstance(node, ast.Call) else None
        first = node.args[0] if isinstance(node, ast.Call) and node.args else zone
        return not is_constant(first, True)
    return "NaiveDatetime" in name


def validates_that_changes(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: none: the value is stored as it was given.
    Cause: SQLModel writes it again after `@validates`, which can only refuse.
    Fix: a `TypeDecorator`, as `LowerText` is one, or the schema.
    """
    if not source.mentions("validates"):
        return
    for item in _sqlmodels(project, source):
        for function in filter(is_function, item.node.body):
            names = {project.resolve(source, _called(node)) for _, node in decorators(function)}
            if "sqlalchemy.orm.validates" in names and _gives_another(function):
                yield hit(function, f"what `{function.name}` returns is not what is stored")


def _called(node: ast.expr) -> ast.expr:
    return node.func if isinstance(node, ast.Call) else node


def _gives_another(function: Function) -> bool:
    """Return whether it changes its last parameter, or returns something else."""
    value = function.args.args[-1].arg if function.args.args else ""
    for node in ast.walk(function):
        if isinstance(node, ast.Return) and not (
            isinstance(node.value, ast.Name) and node.value.id == value
        ):
            return True
        if isinstance(node, ast.Name) and node.id == value and isinstance(node.ctx, ast.Store):
            return True
    return False


def naive_timestamp(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `Datetime values must have timezone information.`; before SQLModel 0.0.45 none.
    Cause: `datetime.now()` and `utcnow()` are naive.
    Fix: `datetime.now(UTC)`, as `utc_now` has it, also as `default_factory`.
    """
    if not source.mentions("now", "utcfromtimestamp"):
        return
    for item in _sqlmodels(project, source):
        for member in item.own_members:
            default = member.option("default_factory")
            if takes_aware(project, member) and is_naive_maker(project, source, default):
                yield hit(member.node, f"`{member.name}` begins with a naive time")
    for scope in [source.tree, *source.functions]:
        flow = flow_of(project, source, scope)
        for node in flow.nodes:
            if is_naive_now(project, source, node) and (where := _stored_as(flow, node)):
                yield hit(node, f"`{text_of(node)}` is naive, and `{where}` is not")


def _stored_as(flow: Flow, node: ast.AST) -> str:
    """The field that a value is stored in or compared with: `Model.field`, or nothing."""
    around = [node]
    for parent in flow.source.ancestors(node):
        around.append(parent)
        match parent:
            case ast.keyword(arg=str(name)):
                call = flow.source.parents.get(parent)
                model = (
                    flow.project.table_at(flow.source, call.func)
                    if isinstance(call, ast.Call)
                    else None
                )
                if model is None and isinstance(call, ast.Call) and attribute(call) == "values":
                    statement = flow.statement(call)
                    model = (
                        flow.project.table_at(flow.source, statement.entities[0])
                        if statement and statement.entities
                        else None
                    )
                return (
                    f"{model.name}.{name}"
                    if model and takes_aware(flow.project, model.fields.get(name))
                    else ""
                )
            case ast.Assign(targets=[ast.Attribute(attr=name, value=ast.Name(id=owner))]):
                load = flow.holds(owner, parent)
                return (
                    f"{load.model.name}.{name}"
                    if load and takes_aware(flow.project, load.model.fields.get(name))
                    else ""
                )
            case ast.Compare(left=left, comparators=[right]):
                for side in (left, right):
                    if side not in around and (field := _column(flow, side)):
                        return field
                return ""
            case ast.BinOp():
                continue
            case _:
                return ""
    return ""


def _column(flow: Flow, node: ast.expr) -> str:
    """`Model.field` of a column that takes aware moments, also in `col(...)`."""
    if isinstance(node, ast.Call) and node.args and attribute(node) == "col":
        node = node.args[0]
    if isinstance(node, ast.Attribute):
        model = flow.project.table_at(flow.source, node.value)
        if model is not None and takes_aware(flow.project, model.fields.get(node.attr)):
            return f"{model.name}.{node.attr}"
    return ""


def default_evaluated_once(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: all rows have the same time or id: that of the start of the process.
    Cause: `default=utc_now()` is called once, when the class is made.
    Fix: `default_factory=utc_now`.
    """
    for item in project.classes:
        if item.source is not source or not item.is_sqlmodel:
            continue
        for member in item.own_members:
            value = member.option("default") if member.call is not None else None
            if member.call is not None and attribute(member.call) != "Field":
                value = member.call
            first = member.call.args[0] if member.call is not None and member.call.args else None
            value = value or (first if first is not None and isinstance(first, ast.Call) else None)
            if isinstance(value, ast.Call) and _changes(project, source, value):
                yield hit(member.node, f"`{text_of(value)}` is called once, at import")


def _changes(project: Project, source: Source, call: ast.Call) -> bool:
    """Whether a call gives another value each time."""
    if project.resolve(source, call.func) in ONCE:
        return True
    found = project.function_at(source, call.func, call)
    if found is None or call.args or call.keywords:
        return False
    home, function = found
    returns = [
        n.value for n in home.own(function) if isinstance(n, ast.Return) and n.value is not None
    ]
    return any(project.resolve(home, c.func) in ONCE for r in returns for c in calls_in(r))


def column_without_zone(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: asyncpg `can't subtract offset-naive and offset-aware datetimes`; elsewhere the
        zone is lost.
    Cause: `DateTime` without `timezone=True`.
    Fix: `sa_type=UTCTimestamp`, or leave the type to SQLModel from 0.0.45 on.
    """
    if not source.mentions("DateTime", "TIMESTAMP"):
        return
    for item in _sqlmodels(project, source):
        for member in item.own_members:
            given = column_type(member)
            if member.type.name not in MOMENTS or given is None or not _is_naive_type(given):
                continue
            # A field that is naive throughout is consistent.
            if not is_naive_maker(project, source, member.option("default_factory")):
                yield hit(member.node, f"`{member.name}` has a column without zone")


# Columns


def decimal_without_digits(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: MariaDB and MySQL store 0.12 as 0.
    Cause: NUMERIC means (10, 0) there.
    Fix: `Field(max_digits=..., decimal_places=...)`.
    """
    if project.databases and "mysql" not in project.databases:
        return
    for item in _tables(project, source):
        for member in item.own_members:
            if member.type.name != "decimal.Decimal" or own_column(member) or member.opaque:
                continue
            texts = [ast.unparse(part) for part in member.type.details]
            if member.option("decimal_places") is None and not any(
                "decimal_places" in t for t in texts
            ):
                yield hit(member.node, f"`{member.name}` has no digits behind the point on MariaDB")


def plain_bytes(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: aiomysql `TypeError: 'str' object is not callable`.
    Cause: PyMySQL from 1.2.3 lacks a function that aiomysql 0.3.2 calls.
    Fix: `sa_type=LONG_BYTES`.
    """
    if "aiomysql" not in project.drivers or "mysql" not in project.databases:
        return
    for item in _tables(project, source):
        for member in item.own_members:
            if member.type.name.rpartition(".")[2] == "bytes" and not own_column(member):
                yield hit(member.node, f"`{member.name}` is sent as bytes")


def _json_type(member: Member) -> ast.expr | None:
    given = column_type(member)
    if given is None:
        return None
    names = names_in(ast.walk(given))
    return given if names & JSON_TYPES else None


def json_null_for_none(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `is_(None)` finds no row.
    Cause: `sa.JSON` stores None as JSON `null`.
    Fix: `JSON(none_as_null=True)`, in each variant too, as `json_type()` has it.
    """
    if not source.mentions(*JSON_TYPES):
        return
    for item in _sqlmodels(project, source):
        for member in item.own_members:
            given = _json_type(member)
            if given is None or not member.type.optional or attribute(given).startswith("as_"):
                continue
            if "none_as_null" not in ast.unparse(given):
                yield hit(member.node, f"None in `{member.name}` becomes JSON null, not NULL")


def change_inside_json(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: the change is not saved, with `MutableDict` neither until it was loaded again.
    Cause: nothing sees a change inside the value; SQLModel puts the plain dict over a tracked one.
    Fix: assign a new value: `row.data = {**row.data, "key": 1}`.
    """
    for flow in flows(project, source):
        if "flag_modified" in flow.words:
            continue
        for node in flow.nodes:
            changed = _changed_inside(node)
            if changed is None or not isinstance(changed.value, ast.Name):
                continue
            load = flow.holds(changed.value.id, node)
            member = load.model.fields.get(changed.attr) if load and not load.many else None
            if (
                load is None
                or member is None
                or load.kind == "new"
                or _assigned_later(flow, changed)
            ):
                continue
            given = column_type(member)
            tracked = given is not None and "Mutable" in ast.unparse(given)
            if _json_type(member) is not None and not (tracked and load.kind in {"query", "get"}):
                yield hit(node, f"nobody sees the change inside `{text_of(changed)}`")


def _changed_inside(node: ast.AST) -> ast.Attribute | None:
    """`row.data` of `row.data["key"] = 1` and `row.data.append(1)`."""
    target: ast.AST | None = None
    match node:
        case ast.Assign(targets=[ast.Subscript(value=inner)]):
            target = inner
        case ast.AugAssign(target=ast.Subscript(value=inner)):
            target = inner
        case ast.Delete(targets=[ast.Subscript(value=inner)]):
            target = inner
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr=name, value=inner))) if (
            name in CHANGING
        ):
            target = inner
    while isinstance(target, ast.Subscript):
        target = target.value
    return target if isinstance(target, ast.Attribute) else None


def _assigned_later(flow: Flow, changed: ast.Attribute) -> bool:
    return any(
        isinstance(n, ast.Assign)
        and dotted(n.targets[0]) == dotted(changed)
        and position(n) > position(changed)
        for n in flow.nodes
    )


def shared_column(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `Column object 'x' already assigned to Table 'y'`.
    Cause: one `sa_column=` of a mixin for several tables.
    Fix: `sa_type=` and `sa_column_kwargs=`, of which each table makes its own column.
    """
    if not source.mentions("sa_column="):
        return
    for item in _sqlmodels(project, source):
        if item.is_table:
            continue
        heirs = [t for t in project.tables if item in t.lineage]
        for member in item.own_members:
            takers = [t for t in heirs if t.members.get(member.name) is member]
            if isinstance(member.option("sa_column"), ast.Call) and _separate(takers) > 1:
                names = " and ".join(f"`{t.name}`" for t in takers[:2])
                yield hit(member.node, f"{names} would share this column")


def _separate(tables: list[Class]) -> int:
    """How many of the tables do not merely inherit from another one of them."""
    return sum(1 for t in tables if not any(o is not t and o in t.lineage for o in tables))


def big_key(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `NOT NULL constraint failed: freight.id`.
    Cause: SQLite does not number a BIGINT key.
    Fix: `sa_type=BIG_KEY`, which is INTEGER on SQLite.
    """
    if not source.mentions("BigInteger", "BIGINT") or "sqlite" not in _all_databases(project):
        return
    for item in _tables(project, source):
        for member in item.own_members:
            given = column_type(member)
            is_key = member.says("primary_key") or "primary_key=True" in ast.unparse(
                member.option("sa_column") or ast.Constant("")
            )
            if given is None or not is_key or "with_variant" in ast.unparse(given):
                continue
            if (
                attribute(given) in {"BigInteger", "BIGINT"}
                and member.option("foreign_key") is None
                and member.option("default_factory") is None
            ):
                yield hit(member.node, f"SQLite gives `{member.name}` no number")


def _all_databases(project: Project) -> set[str]:
    in_tests = {"sqlite"} if project.any_mentions("sqlite+aiosqlite") else set()
    return project.databases | in_tests


def check_on_the_column(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: MariaDB `You have an error in your SQL syntax` at CREATE TABLE.
    Cause: a named CHECK in `sa_column_args`.
    Fix: put it into `__table_args__`.
    """
    if "mysql" not in project.databases or not source.mentions("CheckConstraint"):
        return
    for item in _sqlmodels(project, source):
        for member in item.own_members:
            given = [member.option("sa_column_args"), member.option("sa_column")]
            for part in given:
                checks = (
                    [c for c in calls_in(part) if attribute(c) == "CheckConstraint"] if part else []
                )
                if any(keyword(c, "name") is not None for c in checks):
                    yield hit(member.node, f"MariaDB refuses the named CHECK on `{member.name}`")


def partial_unique_index(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: MariaDB `Duplicate entry 'ann' for key 'uq_coupon_unused'`.
    Cause: the condition of the index is left out there, its uniqueness is not.
    Fix: a unique generated column that is NULL where the condition is false.
    """
    if "mysql" not in project.databases or not source.mentions("postgresql_where", "sqlite_where"):
        return
    for call in source.all(ast.Call):
        conditions = {item.arg for item in call.keywords} & {"postgresql_where", "sqlite_where"}
        if attribute(call) == "Index" and conditions and is_constant(keyword(call, "unique"), True):
            yield hit(
                call,
                f"on MariaDB `{string_of(call.args[0]) if call.args else 'it'}` holds for all rows",
            )


def criteria_for_a_mixin(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `AttributeError: deleted_at` from `with_loader_criteria`.
    Cause: a SQLModel mixin has no such class attribute.
    Fix: one option per table, as `only_live` makes them.
    """
    if not source.mentions("with_loader_criteria"):
        return
    for call in source.all(ast.Call):
        if attribute(call) == "with_loader_criteria" and call.args:
            item = project.class_at(source, call.args[0], call)
            if item is not None and item.is_sqlmodel and not item.is_table:
                yield hit(call, f"`{item.name}` is no table")


def half_imported_models(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `expression 'Truck' failed to locate a name`.
    Cause: nobody imported the file of the other model.
    Fix: import the package that imports all models.
    """
    if not project.whole:
        return
    known = project.once("names of models", lambda: _known_models(project))
    for item in _tables(project, source):
        for member in item.own_members:
            if member.name not in item.relationships or not member.type.name:
                continue
            name = member.type.name.rpartition(".")[2]
            quoted = isinstance(member.node, ast.AnnAssign) and _quotes(
                member.node.annotation, name
            )
            there = name in known or name in source.top
            if quoted and not there and member.option("sa_relationship") is None:
                yield hit(member.node, f"no file has a model `{name}`")


def _known_models(project: Project) -> set[str]:
    """Names of all classes, and of what is imported: from where, cannot always be followed."""
    imported = {name for source in project.sources for name in source.imports}
    return {item.name for item in project.classes} | imported


def _quotes(annotation: ast.expr, name: str) -> bool:
    return any(string_of(part) == name for part in ast.walk(annotation))


RULES = (
    table_as_request_body,
    update_with_unset_fields,
    refused_assignment_is_kept,
    validates_that_changes,
    naive_timestamp,
    default_evaluated_once,
    column_without_zone,
    text_for_a_date,
    decimal_without_digits,
    plain_bytes,
    json_null_for_none,
    change_inside_json,
    shared_column,
    big_key,
    check_on_the_column,
    partial_unique_index,
    criteria_for_a_mixin,
    half_imported_models,
)
