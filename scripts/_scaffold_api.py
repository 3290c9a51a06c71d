"""What copied modules offer, in lines that spare reading them and their page."""

import ast
import re
from collections.abc import Collection, Iterator, Mapping

from _markdown import Document
from _scaffold_names import ROOT
from _syntax import defined_names, dotted

Function = ast.FunctionDef | ast.AsyncFunctionDef
# Of a column type: SQLAlchemy calls them, nobody else.
HOOKS = {
    "bind_expression", "bind_processor", "load_dialect_impl", "process_bind_param",
    "process_result_value",
}  # fmt: skip
LONGEST = 120  # characters of a constant


def api_lines(
    own: Mapping[str, str], all_files: Mapping[str, str], said: Collection[str] = ()
) -> list[str]:
    """Return the public functions and classes of a pattern's own modules.

    Args:
        own: path -> text of the modules whose names are listed.
        all_files: all that was copied; a class shows what it inherits from there.
        said: what the page says of the pattern; the constants that it names are listed too.
    """
    classes = classes_of(all_files)
    nodes = [node for text in own.values() for node in ast.parse(text).body]
    constants = [line for node in nodes for line in constant(node, said)]
    return constants + [line for node in nodes for line in of(node, classes)]


def constant(node: ast.stmt, said: Collection[str]) -> list[str]:
    """Return the line about a constant or a type that the page names in code, if it is one."""
    if not isinstance(node, ast.Assign | ast.AnnAssign):
        return []
    words = {
        word
        for line in said
        for code in re.findall("`([^`]+)`", line)
        for word in re.findall(r"\w+", code)
    }
    text = ast.unparse(node)
    shown_text = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    return [shown_text] if words & {n for n in defined_names(node) if n[0].isupper()} else []


def classes_of(files: Mapping[str, str]) -> dict[str, ast.ClassDef]:
    trees = [ast.parse(text) for path, text in files.items() if path.endswith(".py")]
    return {n.name: n for tree in trees for n in tree.body if isinstance(n, ast.ClassDef)}


def of(node: ast.stmt, classes: Mapping[str, ast.ClassDef]) -> Iterator[str]:
    """Yield the lines about a definition; about what is private or no definition, none."""
    if isinstance(node, Function) and not node.name.startswith("_"):
        yield signature(node) + summary(node)
    if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        yield f"class {node.name}" + (f"({bases})" if bases else "") + summary(node)
        yield from (f"    {line}" for line in members(node, classes))


def members(node: ast.ClassDef, classes: Mapping[str, ast.ClassDef]) -> Iterator[str]:
    """Yield what is public, then what bases have that were copied too."""
    seen: set[str] = set()
    for part in lineage(node, classes):
        for item in part.body:
            name = name_of(item, node)
            if name and name not in seen:
                seen.add(name)
                yield shown(item)


def lineage(node: ast.ClassDef, classes: Mapping[str, ast.ClassDef]) -> Iterator[ast.ClassDef]:
    yield node
    for base in node.bases:
        name = dotted(base.value if isinstance(base, ast.Subscript) else base)
        if name in classes and name != node.name:
            yield from lineage(classes[name], classes)


def shown(item: ast.stmt) -> str:
    return signature(item) + summary(item) if isinstance(item, Function) else ast.unparse(item)


def called(text: str, names: Collection[str], classes: Mapping[str, ast.ClassDef]) -> Iterator[str]:
    """Yield how functions of a module are called; of a class what it has, by name alone."""
    for node in ast.parse(text).body:
        for name in (name for name in defined_names(node) if name in names):
            if isinstance(node, Function):
                yield signature(node)
            elif isinstance(node, ast.ClassDef):
                yield f"{name}: {', '.join(_methods(node, classes))}"
            else:
                yield name


def _methods(node: ast.ClassDef, classes: Mapping[str, ast.ClassDef]) -> list[str]:
    items = (item for part in lineage(node, classes) for item in part.body)
    names = dict.fromkeys(item.name for item in items if isinstance(item, Function))
    return [name for name in names if not name.startswith("_")]


def name_of(item: ast.stmt, owner: ast.ClassDef) -> str | None:
    """Return the name of what a reader of the class uses; errors say how they are made once."""
    if isinstance(item, Function):
        if item.name in HOOKS:
            return None
        shown_here = item in owner.body or not owner.name.endswith("Error")
        is_public = not item.name.startswith("_") or (item.name == "__init__" and shown_here)
        return item.name if is_public else None
    if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
        return None if item.target.id.startswith("_") else item.target.id
    return None


def signature(node: Function) -> str:
    """Return how it is called, and what comes back, without `self`."""
    arguments = ast.unparse(node.args)
    arguments = arguments.removeprefix("self, ").removeprefix("cls, ")
    arguments = "" if arguments in {"self", "cls"} else arguments
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    if not isinstance(node, ast.AsyncFunctionDef):
        return f"{node.name}({arguments}){returns}"
    if is_context(node):
        return f"async with {node.name}({arguments}){returns}"
    if any(isinstance(part, ast.Yield) for part in ast.walk(node)):
        return f"async for ... in {node.name}({arguments}){returns}"
    return f"await {node.name}({arguments}){returns}"


def is_context(node: Function) -> bool:
    return any("asynccontextmanager" in ast.unparse(item) for item in node.decorator_list)


def summary(node: Function | ast.ClassDef) -> str:
    first = (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ").strip()
    return f"  # {first}" if first else ""


def notes(place: str) -> list[str]:
    """Return what a page says under a heading, without the code that is copied.

    Args:
        place: the page and its anchor, as `explanations` gives them.
    """
    path, _, anchor = place.partition("#")
    page = Document((ROOT / path).read_text(encoding="utf-8"))
    [heading] = [heading for heading in page.headings if heading.slug == anchor]
    last = heading.line + len(page.section(heading).splitlines())
    code = {n for f in page.fences if f.address for n in range(f.start, f.end + 1)}
    kept = [page.lines[n - 1] for n in range(heading.line, last + 1) if n not in code]
    return [line for line in kept if line.strip()]
