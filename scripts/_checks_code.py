"""Checks of the snippets as code: what they import, what they define, what importing them does."""

import ast
from collections.abc import Iterable, Iterator

from _bundle import Bundle, Note
from _syntax import defined_names, dotted, imported_modules, names_in, string_of

# Downhill: a topic imports from itself and from those before it.
TOPICS = (
    "database_setup",
    "models",
    "relationships",
    "async_operations",
    "servicebase",
    "fastapi_integration",
    "migrations",
    "production_patterns",
    "best_practices",
)


def parses(bundle: Bundle) -> Iterator[Note]:
    """The Python files that other checks read are Python."""
    for path in bundle.python("snippets", "scripts", "templates"):
        if error := bundle.parsed(path)[1]:
            yield Note(path, error.lineno or 1, error.msg, f"mend {path}")


def complaint_about_import(topic: str, module: str) -> tuple[str, str] | None:
    package, _, rest = module.partition(".")
    if package in {"", "tests", "scripts", "app"}:
        return f"a snippet imports `{module}`", "import from `snippets.<topic>.<module>`"
    if package != "snippets":
        return None
    source = rest.split(".")[0]
    if source not in TOPICS:
        return f"`{module}` is no topic", f"import from one of: {', '.join(TOPICS)}"
    if TOPICS.index(source) > TOPICS.index(topic):
        return f"{topic} comes before {source}", f"move what it needs to {topic} or before"
    is_mistake = ".mistakes." in f"{module}."
    return ("wrong code is imported", "import what does it right") if is_mistake else None


def import_direction(bundle: Bundle) -> Iterator[Note]:
    """Snippets import from their own topic or from those before it, never from a mistake."""
    for topic in bundle.topics:
        if topic not in TOPICS:
            fix = "add it to TOPICS in scripts/_checks_code.py, where it belongs in the order"
            yield Note(f"snippets/{topic}", 1, "this topic has no place in the order", fix)
            continue
        for path in bundle.python(f"snippets/{topic}"):
            found = {
                (line, complaint)
                for line, module in imported_modules(bundle.nodes(path))
                if (complaint := complaint_about_import(topic, module))
            }
            yield from (Note(path, line, *complaint) for line, complaint in sorted(found))


def table_classes(nodes: Iterable[ast.AST]) -> Iterator[ast.ClassDef]:
    for node in nodes:
        if isinstance(node, ast.ClassDef) and any(
            keyword.arg == "table" and ast.unparse(keyword.value) == "True"
            for keyword in node.keywords
        ):
            yield node


def table_name(node: ast.ClassDef) -> str:
    for member in node.body:
        if "__tablename__" in defined_names(member) and isinstance(
            member, ast.Assign | ast.AnnAssign
        ):
            return string_of(member.value) if member.value else ""
    return node.name.lower()


def unique_nouns(bundle: Bundle) -> Iterator[Note]:
    """A mapped class and its table are defined in one place of the snippets."""
    homes: dict[str, str] = {}
    for path in bundle.python("snippets"):
        for node in table_classes(bundle.nodes(path)):
            nouns = (f"the class {node.name}", f"the table {table_name(node)}")
            taken = [noun for noun in nouns if noun in homes]
            homes |= {noun: f"{path}:{node.lineno}" for noun in nouns if noun not in homes}
            if taken:
                what = f"{taken[0]} is defined in {homes[taken[0]]} already"
                yield Note(path, node.lineno, what, "choose another noun, or import that class")


def no_future_annotations(bundle: Bundle) -> Iterator[Note]:
    """Modules with relationships do not postpone annotations, which breaks Relationship."""
    for path in bundle.python("snippets", "templates"):
        nodes = bundle.nodes(path)
        postponed = [line for line, name in imported_modules(nodes) if "__future__.ann" in name]
        if postponed and "Relationship" in names_in(nodes):
            fix = "take the import out, and quote the names that come later"
            yield Note(path, postponed[0], "postponed annotations break Relationship", fix)


def nodes_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """What runs when the module is imported: all but the bodies of functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Lambda):
            continue
        yield child
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            for part in (*child.decorator_list, child.args):
                yield from ast.walk(part)
        else:
            yield from nodes_at_import(child)


CALLS_AT_IMPORT = {
    "create_engine": "an engine is created",
    "create_async_engine": "an engine is created",
    "engine_from_config": "an engine is created",
    "async_engine_from_config": "an engine is created",
    "getenv": "the environment is read",
    "asyncio.run": "a loop is run",
}


def no_engine_at_import(bundle: Bundle) -> Iterator[Note]:
    """Importing a snippet creates no engine, reads no environment and runs no loop."""
    for path in bundle.python("snippets"):
        for node in nodes_at_import(bundle.parsed(path)[0]):
            what = None
            if isinstance(node, ast.Call):
                name = dotted(node.func)
                what = CALLS_AT_IMPORT.get(name) or CALLS_AT_IMPORT.get(name.split(".")[-1])
            elif isinstance(node, ast.expr) and dotted(node) in {"os.environ", "environ"}:
                what = "the environment is read"
            if what and isinstance(node, ast.expr):
                fix = "do it in a function that is given what it needs"
                yield Note(path, node.lineno, f"{what} when the module is imported", fix)
