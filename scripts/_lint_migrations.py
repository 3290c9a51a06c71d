"""Rules of the page on migrations: revision files, env.py, and programs that call Alembic."""

import ast
import re
from collections.abc import Iterator

from _lint_index import SQLMODEL_ROOTS, Project
from _lint_source import (
    Function,
    Hit,
    Source,
    arguments,
    attribute,
    calls_in,
    hit,
    is_constant,
    keyword,
    names_used,
    position,
    receiver,
    text_of,
    unpacks,
)
from _syntax import dotted, string_of

PAGE = "references/migrations.md"
RUNS = {"upgrade", "downgrade", "revision", "check", "current", "stamp"}
ADD_VALUE = re.compile(
    r"ALTER\s+TYPE\s+\S+\s+ADD\s+VALUE\s+(?:IF\s+NOT\s+EXISTS\s+)?'([^']+)'", re.IGNORECASE
)
CREATE_TYPE = re.compile(r"CREATE\s+TYPE\s+\"?([\w.]+)", re.IGNORECASE)
EMPTYING = re.compile(r"\s*(?:DELETE\s+FROM|TRUNCATE)\b", re.IGNORECASE)
CONCURRENTLY = re.compile(
    r"\b(?:CREATE|DROP)\s+(?:UNIQUE\s+)?INDEX\s+CONCURRENTLY\b", re.IGNORECASE
)


def is_revision(source: Source) -> bool:
    return {"revision", "down_revision"} <= source.top.keys()


def changing_functions(source: Source) -> Iterator[tuple[Function, dict[str, str]]]:
    """Functions with an Alembic `op`, each with its batches: name of the batch -> table."""
    if not source.mentions("alembic"):
        return
    everywhere = source.imports.get("op", "").startswith("alembic")
    for function in source.functions:
        given = any(a.arg == "op" for a in arguments(function))
        if everywhere or given:
            batches: dict[str, str] = {}
            for node in source.own(function):
                match node:
                    case ast.withitem(
                        context_expr=ast.Call(func=ast.Attribute(attr="batch_alter_table")) as made,
                        optional_vars=ast.Name(id=name),
                    ):
                        batches[name] = _batch_table(made)
            yield function, batches


def operations(
    source: Source, function: Function, batches: dict[str, str], *names: str
) -> Iterator[tuple[ast.Call, str, list[ast.expr]]]:
    """Calls of `op` or of a batch, with their table and the arguments behind it."""
    for call in source.own_calls(function):
        if attribute(call) not in names:
            continue
        if receiver(call) in batches:
            yield call, _table_of_batch(source, call, batches), call.args or _named(call)
        elif receiver(call) == "op" and (call.args or keyword(call, "table_name") is not None):
            table = call.args[0] if call.args else keyword(call, "table_name")
            yield call, string_of(table or ast.Constant("")), call.args[1:] or _named(call)


def _named(call: ast.Call) -> list[ast.expr]:
    """What stands behind the table, where it is given by name: the column."""
    given = (keyword(call, name) for name in ("column", "column_name"))
    return [value for value in given if value is not None]


def _table_of_batch(source: Source, call: ast.Call, batches: dict[str, str]) -> str:
    """The table of the block around a call: blocks of one function mostly share a name."""
    for parent in source.ancestors(call):
        for item in parent.items if isinstance(parent, ast.With) else ():
            bound = item.optional_vars
            if isinstance(bound, ast.Name) and bound.id == receiver(call):
                return _batch_table(item.context_expr)
    return batches[receiver(call)]


def _batch_table(node: ast.expr) -> str:
    if not isinstance(node, ast.Call):
        return ""
    table = node.args[0] if node.args else keyword(node, "table_name")
    return string_of(table) if table is not None else ""


FOLDERS = {
    "postgresql": "postgresql", "postgres": "postgresql", "sqlite": "sqlite", "mysql": "mysql",
    "mariadb": "mysql",
}  # fmt: skip


def databases_of(project: Project, source: Source) -> set[str]:
    """Databases that a revision runs on: those of the project, or the one its folder names."""
    named = {FOLDERS[part] for part in source.path.parts if part in FOLDERS}
    return named or project.databases


def in_autocommit(source: Source, node: ast.AST) -> bool:
    return any(
        attribute(item.context_expr) == "autocommit_block"
        for parent in source.ancestors(node)
        if isinstance(parent, ast.With)
        for item in parent.items
    )


# Environment and programs


def url_in_the_ini(_project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `invalid interpolation syntax`.
    Cause: a percent sign in a URL given to `set_main_option`.
    Fix: `config.attributes["database_url"] = url`, or `.replace("%", "%%")`.
    """
    if not source.mentions("set_main_option"):
        return
    for call in source.all(ast.Call):
        if attribute(call) != "set_main_option" or len(call.args) < 2 or source.is_test:
            continue
        if string_of(call.args[0]) == "sqlalchemy.url" and not _is_escaped(source, call.args[1]):
            yield hit(call, f"`{text_of(call.args[1])}` may have a percent sign")


def _is_escaped(source: Source, value: ast.expr) -> bool:
    if isinstance(value, ast.Constant):
        return "%" not in str(value.value)
    if isinstance(value, ast.Name):
        made = [
            node.value
            for node in source.all(ast.Assign)
            if dotted(node.targets[0]) == value.id
            and source.scope_of(node) is source.scope_of(value)
        ]
        return bool(made) and all(_is_escaped(source, m) for m in made if m is not value)
    return any(
        attribute(c) == "replace" and [string_of(a) for a in c.args[:2]] == ["%", "%%"]
        for c in calls_in(value)
    )


def upgrade_in_a_running_loop(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `asyncio.run() cannot be called from a running event loop`.
    Cause: env.py runs a loop of its own.
    Fix: `await asyncio.to_thread(command.upgrade, config, "head")`.
    """
    if not source.mentions("alembic"):
        return
    environments = [s for s in project.sources if s.path.name == "env.py" and s.mentions("alembic")]
    if environments and not any(
        s.mentions("asyncio", "import run_migrations") for s in environments
    ):
        return
    for function in source.functions:
        if isinstance(function, ast.AsyncFunctionDef):
            for call in source.own_calls(function):
                home, _, name = project.resolve(source, call.func).rpartition(".")
                is_run = home == "alembic.command" and name in RUNS
                if is_run and not any(isinstance(p, ast.Lambda) for p in source.ancestors(call)):
                    yield hit(call, f"`{text_of(call.func)}` inside a running loop")


def _hands_over(source: Source, function: Function) -> list[ast.AST]:
    """Where a function gives its connection to Alembic."""
    found: list[ast.AST] = []
    for node in source.own(function):
        match node:
            case ast.Assign(
                targets=[ast.Subscript(value=ast.Attribute(attr="attributes"), slice=key)]
            ) if string_of(key) == "connection":
                found.append(node)
            case ast.Call(func=ast.Attribute(attr="configure")) if (
                keyword(node, "connection") is not None
            ):
                found.append(node)
    return found


def query_before_configure(_project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: every step is logged, nothing is there (on MariaDB the tables).
    Cause: a statement before `context.configure` began a transaction, which nobody commits.
    Fix: commit it first.
    """
    if not source.mentions("alembic", "context"):
        return
    for function in source.functions:
        given = _hands_over(source, function)
        if not given:
            continue
        calls = [c for c in source.own_calls(function) if position(c) < position(given[0])]
        queries = [c for c in calls if attribute(c) in {"execute", "exec_driver_sql", "scalar"}]
        names = {receiver(c) for c in queries}
        ended = [
            c for c in calls if attribute(c) in {"commit", "rollback"} and receiver(c) in names
        ]
        open_still = not (ended and position(ended[-1]) > position(queries[-1]))
        if queries and open_still and "AUTOCOMMIT" not in ast.unparse(function):
            what = "this begins a transaction that Alembic takes for an outer one"
            yield hit(queries[-1], what)


def connection_that_has_begun(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: a bare `AssertionError` in `autocommit_block`.
    Cause: `engine.begin()` has begun before Alembic does.
    Fix: `engine.connect()`, and commit at the end.
    """
    if not source.mentions(".begin()") or not source.mentions("alembic"):
        return
    blocks: list[ast.AsyncWith | ast.With] = [*source.all(ast.AsyncWith), *source.all(ast.With)]
    for block in blocks:
        for item in block.items:
            call = item.context_expr
            if not isinstance(call, ast.Call) or attribute(call) != "begin" or call.args:
                continue
            if "engine" in receiver(call).lower() or receiver(call) == "connectable":
                inner = ast.Module(body=block.body, type_ignores=[])
                if any(_migrates(project, source, c) for c in calls_in(inner)):
                    yield hit(call, f"`{text_of(call)}` before Alembic's own transaction")


def _migrates(project: Project, source: Source, call: ast.Call) -> bool:
    if attribute(call) == "run_sync" and call.args:
        found = project.function_at(source, call.args[0], call)
        return found is not None and bool(_hands_over(*found))
    return attribute(call) == "configure" and keyword(call, "connection") is not None


def type_without_import(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `name 'sqlmodel' is not defined`.
    Cause: Alembic writes `sqlmodel.sql.sqltypes.AutoString()` and imports nothing.
    Fix: `import sqlmodel` in script.py.mako, or a `render_item` that writes SQLAlchemy's types.
    """
    if source.path.name == "env.py" and source.mentions("alembic"):
        template = source.path.with_name("script.py.mako")
        text = template.read_text("utf-8", "replace") if template.is_file() else "import sqlmodel"
        uses = project.any_mentions("SQLModel") and not project.any_mentions("render_item")
        if uses and not re.search(r"^(import sqlmodel|from sqlmodel)", text, re.MULTILINE):
            yield Hit(1, "new revisions will not import sqlmodel", path=str(template))
    if is_revision(source) and source.mentions("sqlmodel.") and "sqlmodel" not in source.imports:
        for node in source.all(ast.Name):
            if node.id == "sqlmodel":
                yield hit(node, "`sqlmodel` is not imported here", "`import sqlmodel` in this file")
                return


def drop_an_unnamed_constraint(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `Constraint must have a name`.
    Cause: no naming convention, so constraints have no name to drop them by.
    Fix: a `naming_convention` before the first model; for old ones `name_constraints`.
    """
    if source.path.name == "env.py" and source.mentions("alembic"):
        target = source.top_value("target_metadata")
        plain = target is not None and not project.any_mentions("naming_convention")
        if target is not None and plain and _is_plain_metadata(project, source, target):
            yield hit(target, f"`{text_of(target)}` has no naming convention")
    for function, batches in changing_functions(source):
        for call in source.own_calls(function):
            if attribute(call) == "drop_constraint" and receiver(call) in {"op", *batches}:
                name = call.args[0] if call.args else keyword(call, "constraint_name")
                if is_constant(name, None):
                    yield hit(call, "a constraint without name can't be dropped")


def _is_plain_metadata(project: Project, source: Source, target: ast.expr) -> bool:
    """Whether the definition of `Base.metadata` is found, down to the library that makes it."""
    if not isinstance(target, ast.Attribute) or target.attr != "metadata":
        return False
    found = project.definition(source, target)
    if found is not None:
        return _makes_metadata(getattr(found[1], "value", None))
    owner = target.value
    if project.resolve(source, owner) in SQLMODEL_ROOTS:
        return True
    item = project.class_at(source, owner)
    if item is None:
        base = project.definition(source, owner)
        made = getattr(base[1], "value", None) if base is not None else None
        return (
            isinstance(made, ast.Call) and _makes_metadata(made) and attribute(made) != "MetaData"
        )
    inside = {f"{part.source.module}.{part.name}" for part in item.lineage}
    homes = {name.partition(".")[0] for name in item.roots - inside}
    own = item.assigned.get("metadata")
    return homes <= {"sqlalchemy", "sqlmodel"} and (own is None or _makes_metadata(own))


def _makes_metadata(node: ast.AST | None) -> bool:
    """Whether this is `MetaData()` or `declarative_base()`, with options that can be seen."""
    if not isinstance(node, ast.Call) or unpacks(node) or keyword(node, "metadata") is not None:
        return False
    return attribute(node) in {"MetaData", "declarative_base"}


# Revisions


def models_of_today(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `no such column: buoy.colour`, `column buoy.colour does not exist`.
    Cause: the model is newer than the table is at this revision.
    Fix: `sa.table("buoy", sa.column("id"))` in the revision.
    """
    for node in source.all(ast.ImportFrom) if is_revision(source) else ():
        for alias in node.names:
            model = project.table_at(source, ast.Name(alias.asname or alias.name))
            if model is not None and model.source is not source:
                yield hit(node, f"`{model.name}` will change, this revision will not")
    for function, _ in changing_functions(source):
        given = {argument.arg for argument in arguments(function)} & {"model", "cls", "entity"}
        for call in source.own_calls(function):
            if attribute(call) == "select" and call.args and dotted(call.args[0]) in given:
                yield hit(call, f"`{dotted(call.args[0])}` will change, revisions will not")


def alter_on_sqlite(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `near "ALTER": syntax error`.
    Cause: SQLite can't alter a column.
    Fix: `with op.batch_alter_table(...) as batch: batch.alter_column(...)`.
    """
    databases = databases_of(project, source)
    on_sqlite = databases == {"sqlite"} or project.any_mentions("render_as_batch")
    if not on_sqlite or "sqlite" not in databases:
        return
    for function, batches in changing_functions(source):
        if _asks_for_dialect(function):
            continue
        for call, table, _rest in operations(source, function, batches, "alter_column"):
            changes = {item.arg for item in call.keywords} & {"type_", "nullable", "server_default"}
            if receiver(call) == "op" and changes and table:
                yield hit(call, "SQLite can't do this outside of a batch")


def _asks_for_dialect(function: Function) -> bool:
    return any(isinstance(n, ast.Attribute) and n.attr == "dialect" for n in ast.walk(function))


def required_without_default(_project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `contains null values`, `Cannot add a NOT NULL column with default value NULL`.
    Cause: the rows that are there have no value.
    Fix: a `server_default`, as `add_required_column` has it.
    """
    for function, batches in changing_functions(source):
        made = {table for _, table, _ in operations(source, function, batches, "create_table")}
        emptied = " ".join(t for _, t in _executed(source, function) if EMPTYING.match(t))
        for call, table, rest in operations(source, function, batches, "add_column"):
            column = rest[0] if rest and isinstance(rest[0], ast.Call) else None
            if (
                column is None
                or table in made
                or not is_constant(keyword(column, "nullable"), False)
            ):
                continue
            filled = keyword(column, "server_default") is not None or any(
                attribute(part) in {"Computed", "Identity"} for part in column.args
            )
            if not filled and not is_downgrade(function) and table not in emptied:
                yield hit(call, f"rows of `{table}` have no value for it")


def is_downgrade(function: Function) -> bool:
    return function.name.startswith("downgrade")


def type_that_forgets_not_null(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: none: NULLs on MariaDB and MySQL.
    Cause: MODIFY states the whole column, and what it leaves out is lost.
    Fix: `existing_nullable=...`, `existing_server_default=...`.
    """
    if "mysql" not in databases_of(project, source):
        return
    for function, batches in changing_functions(source):
        for call, table, rest in operations(source, function, batches, "alter_column"):
            opaque = any(item.arg is None for item in call.keywords)
            if keyword(call, "type_") is None or opaque or not table:
                continue
            if keyword(call, "existing_nullable") is None and keyword(call, "nullable") is None:
                name = string_of(rest[0]) if rest else ""
                yield hit(call, f"`{table}.{name}` may be NULL afterwards on MariaDB")


def rename_as_autogenerated(_project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: none: all values are lost.
    Cause: to Alembic a rename is an added and a dropped column.
    Fix: `rename_column`, or `alter_column(..., new_column_name=...)`.
    """
    pairs = list(changing_functions(source))
    again = {
        (table, string_of(rest[0].args[0])): _kind(rest[0])
        for function, batches in pairs
        if is_downgrade(function)
        for _, table, rest in operations(source, function, batches, "add_column")
        if rest and isinstance(rest[0], ast.Call) and rest[0].args
    }
    for function, batches in pairs:
        if is_downgrade(function) or _copies(source, function):
            continue
        added = list(operations(source, function, batches, "add_column"))
        dropped = list(operations(source, function, batches, "drop_column"))
        for call, table, rest in added:
            losers = [(c, string_of(r[0])) for c, t, r in dropped if t == table and r]
            twins = [c for c, t, _ in added if t == table]
            if len(losers) != 1 or len(twins) != 1 or not rest or not isinstance(rest[0], ast.Call):
                continue
            before = again.get((table, losers[0][1]), _kind(rest[0]))
            new = string_of(rest[0].args[0]) if rest[0].args else ""
            named = bool(new and losers[0][1])
            if named and before == _kind(rest[0]) and position(call) < position(losers[0][0]):
                yield hit(losers[0][0], f"if `{losers[0][1]}` is now `{new}`, its values are lost")


def _kind(column: ast.Call) -> str:
    return ast.unparse(column.args[1]) if len(column.args) > 1 else ""


def _copies(source: Source, function: Function) -> bool:
    """Whether a revision moves values by itself."""
    return any(
        attribute(c) in {"execute", "bulk_insert", "scalars", "get_bind"}
        for c in source.own_calls(function)
    )


def zone_without_using(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: none: 12:00 becomes 17:00 UTC.
    Cause: PostgreSQL reads the old values in the session's TimeZone.
    Fix: `postgresql_using="laid_at AT TIME ZONE 'UTC'"`, as `timestamps_to_utc` has it.
    """
    databases = databases_of(project, source)
    if databases and "postgresql" not in databases:
        return
    for function, batches in changing_functions(source):
        for call, table, rest in operations(source, function, batches, "alter_column"):
            new, old = keyword(call, "type_"), keyword(call, "existing_type")
            if new is None or not _has_zone(new) or (old is not None and _has_zone(old)):
                continue
            if keyword(call, "postgresql_using") is None and not is_downgrade(function):
                name = string_of(rest[0]) if rest else ""
                yield hit(call, f"PostgreSQL takes `{table}.{name}` for local time")


def _has_zone(kind: ast.expr) -> bool:
    if attribute(kind) in {"UTCDateTime", "UTCTimestamp"}:
        return True
    return any(
        attribute(c) in {"DateTime", "TIMESTAMP"} and is_constant(keyword(c, "timezone"), True)
        for c in calls_in(kind)
    )


def _executed(source: Source, function: Function) -> Iterator[tuple[ast.Call, str]]:
    """SQL text that `op.execute(...)` sends."""
    for call in source.own_calls(function):
        if attribute(call) == "execute" and call.args:
            inner = call.args[0]
            if isinstance(inner, ast.Call) and attribute(inner) == "text" and inner.args:
                inner = inner.args[0]
            if text := string_of(inner):
                yield call, text


def enum_member_used_at_once(_project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `unsafe use of new value "LIT" of enum type buoykind`.
    Cause: a new member can't be used in the transaction that adds it.
    Fix: `add_enum_member`, or ADD VALUE in an `autocommit_block()`.
    """
    for function, _ in changing_functions(source):
        added: dict[str, ast.Call] = {}
        for call, text in _executed(source, function):
            for member in added:
                if f"'{member}'" in text and not ADD_VALUE.search(text):
                    yield hit(call, f"`{member}` was added in this transaction")
            match = ADD_VALUE.search(text)
            if match and not in_autocommit(source, call):
                added[match[1]] = call


def enum_left_behind(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `type "buoykind" already exists`.
    Cause: dropping the table keeps its type.
    Fix: `op.execute("DROP TYPE buoykind")` in the downgrade, as `guard_revision` writes it.
    """
    if not is_revision(source) or source.mentions("DROP TYPE"):
        return
    databases = databases_of(project, source)
    if databases and "postgresql" not in databases:
        return
    kinds = _created_enums(source)
    for earlier in _earlier_revisions(project, source) if kinds else ():
        kinds -= _mentioned_enums(earlier)
    for function, batches in changing_functions(source):
        drops = list(operations(source, function, batches, "drop_table"))
        typed = any(attribute(c) == "drop" for c in source.own_calls(function))
        if is_downgrade(function) and drops and not typed:
            for name in sorted(kinds):
                yield hit(drops[0][0], f"the type `{name}` stays on PostgreSQL")


def _created_enums(source: Source) -> set[str]:
    """Names of the types that come with the tables and columns that a revision creates."""
    found: set[str] = set()
    for function, batches in changing_functions(source):
        if is_downgrade(function):
            continue
        for call, _, _ in operations(source, function, batches, "create_table", "add_column"):
            named = names_used(call)
            kept = [
                node.value
                for node in (*source.tree.body, *source.own(function))
                if isinstance(node, ast.Assign) and dotted(node.targets[0]) in named
            ]
            found |= {name for part in (call, *kept) for name in _enums_in(part)}
    return found


def _enums_in(node: ast.AST) -> Iterator[str]:
    """Names of the enums that come into being with the table that has them."""
    for call in calls_in(node):
        options = [keyword(call, option) for option in ("native_enum", "create_type")]
        made = attribute(call) in {"Enum", "ENUM"} and not any(
            is_constant(option, False) for option in options
        )
        if made and (name := string_of(keyword(call, "name") or ast.Constant(""))):
            yield name


def _mentioned_enums(source: Source) -> set[str]:
    """Names of all types that a revision speaks of, also in SQL."""
    calls = (c for c in source.all(ast.Call) if attribute(c) in {"Enum", "ENUM"})
    named = {string_of(keyword(c, "name") or ast.Constant("")) for c in calls}
    return named | {name.rpartition(".")[2] for name in CREATE_TYPE.findall(source.text)}


def _earlier_revisions(project: Project, source: Source) -> Iterator[Source]:
    """The revisions below this one, as far as they are found."""
    known = project.once("revisions", lambda: {
        revision: item
        for item in project.sources
        if is_revision(item)
        for revision in _texts(item.top_value("revision"))
    })  # fmt: skip
    pending, seen = _texts(source.top_value("down_revision")), {source}
    while pending:
        item = known.get(pending.pop())
        if item is not None and item not in seen:
            seen.add(item)
            yield item
            pending += _texts(item.top_value("down_revision"))


def _texts(node: ast.expr | None) -> list[str]:
    """A revision's name, or the several names of a merge."""
    parts = node.elts if isinstance(node, ast.Tuple | ast.List) else [node]
    return [text for part in parts if part is not None and (text := string_of(part))]


def concurrent_index_in_a_transaction(project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `CREATE INDEX CONCURRENTLY cannot run inside a transaction block`.
    Cause: Alembic runs a revision in a transaction.
    Fix: `with op.get_context().autocommit_block():` round it, as `create_index_online` has it.
    """
    for function, _ in changing_functions(source):
        sent = [call for call, text in _executed(source, function) if CONCURRENTLY.search(text)]
        for call in source.own_calls(function):
            flagged = is_constant(keyword(call, "postgresql_concurrently"), True) or call in sent
            if not flagged or in_autocommit(source, call):
                continue
            if not _only_in_autocommit(project, source, function):
                yield hit(call, "a concurrent index inside of Alembic's transaction")


def _only_in_autocommit(
    project: Project, source: Source, function: Function, depth: int = 0
) -> bool:
    """Whether all who call a function do so in an `autocommit_block()`."""
    # A revision is nobody's module; what stands elsewhere, others may call.
    homes = [source] if is_revision(source) else project.sources
    calls = [
        (home, call)
        for home in homes
        if home.mentions(function.name)
        for call in home.all(ast.Call)
        if attribute(call) == function.name
    ]
    return bool(calls) and all(
        in_autocommit(home, call)
        or (
            depth < 4
            and (outer := home.function_of(call)) is not None
            and outer is not function
            and _only_in_autocommit(project, home, outer, depth + 1)
        )
        for home, call in calls
    )


def empty_directives(_project: Project, source: Source) -> Iterator[Hit]:
    """Symptom: `list index out of range` at a check.
    Cause: a hook that empties `directives`.
    Fix: leave empty revisions to a check.
    """
    if not source.mentions("directives"):
        return
    emptied: list[ast.AST] = [
        call
        for call in source.all(ast.Call)
        if attribute(call) == "clear" and receiver(call) == "directives"
    ]
    for node in source.all(ast.Assign):
        match node:
            case ast.Assign(
                targets=[ast.Subscript(value=ast.Name(id="directives"), slice=ast.Slice())],
                value=ast.List(elts=[]),
            ):
                emptied.append(node)
    for part in emptied:
        if not _serves_only_revision(source, source.function_of(part)):
            yield hit(part, "`alembic check` reads the first directive")


def _serves_only_revision(source: Source, hook: Function | None) -> bool:
    """Whether a hook is given to `command.revision(...)`, and so to no check."""
    given = {
        attribute(call)
        for call in source.all(ast.Call)
        if hook is not None and dotted(_hook_of(call)) == hook.name
    }
    return given == {"revision"}


def _hook_of(call: ast.Call) -> ast.expr:
    return keyword(call, "process_revision_directives") or ast.Constant("")


RULES = (
    url_in_the_ini,
    upgrade_in_a_running_loop,
    query_before_configure,
    connection_that_has_begun,
    type_without_import,
    models_of_today,
    alter_on_sqlite,
    drop_an_unnamed_constraint,
    required_without_default,
    type_that_forgets_not_null,
    rename_as_autogenerated,
    zone_without_using,
    enum_member_used_at_once,
    enum_left_behind,
    concurrent_index_in_a_transaction,
    empty_directives,
)
