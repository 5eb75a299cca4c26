"""Which functions hand on a dictionary that can hold anything, by the source alone; `python FILE ROOT` lists them.

A signature is open if a dict, Mapping, ... of `object` or `Any` stands in it, at whatever depth, by itself or by an
alias, or pydantic's JsonValue, which is as open. Counted are functions that others call: public ones, methods of public
classes, and private ones that another module imports.
"""

import ast
import io
import sys
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

PACKAGE = "engagement_recognition"
MAPPINGS = {"dict", "Dict", "Mapping", "MutableMapping", "defaultdict", "DefaultDict", "OrderedDict", "ChainMap"}
ANYTHING = {"object", "Any", "JsonValue"}
OF_PARTS = {"list", "List", "tuple", "Tuple", "set", "frozenset", "Sequence", "Iterable", "Iterator", "Collection",
            "Optional", "Union", "Annotated"}  # fmt: skip
NO_REASONS = ("type:", "noqa", "fmt:")
Function = ast.FunctionDef | ast.AsyncFunctionDef
Seen = frozenset[tuple[str, str]]  # aliases by module and name, which may be made of themselves


@dataclass
class Module:
    """What of a module's source is needed here."""

    tree: ast.Module
    is_package: bool = False
    aliases: dict[str, ast.expr] = field(default_factory=dict)  # name → what it stands for
    imported: dict[str, tuple[str, str]] = field(default_factory=dict)  # name → module and its name there


def read_modules(sources: Mapping[str, str]) -> dict[str, Module]:
    """`evaluation/metrics.py` → its source; the modules by dotted name."""
    modules = {}
    for path, source in sources.items():
        parts = path.removesuffix(".py").split("/")
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        modules[name] = module = Module(ast.parse(source), is_package)
        for node in module.tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                module.aliases[node.targets[0].id] = node.value
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
                module.aliases[node.target.id] = node.value
            elif sys.version_info >= (3, 12) and isinstance(node, ast.TypeAlias):
                module.aliases[node.name.id] = node.value
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ImportFrom):
                origin = _origin_of(node, name, is_package)
                module.imported |= {alias.asname or alias.name: (origin, alias.name) for alias in node.names}
    return modules


def _origin_of(node: ast.ImportFrom, importer: str, is_package: bool) -> str:
    if not node.level:
        return (node.module or "").removeprefix(f"{PACKAGE}.")
    parents = importer.split(".") if importer else []
    kept = parents[: len(parents) - node.level + is_package]
    return ".".join([*kept, *([node.module] if node.module else [])])


def open_signatures(sources: Mapping[str, str]) -> list[str]:
    """As `file:line: function`, in the order of the files."""
    modules = read_modules(sources)
    taken = {origin for module in modules.values() for origin in module.imported.values()}
    files = dict(zip(modules, sources, strict=True))
    return [
        f"{files[name]}:{function.lineno}: {qualified}"
        for name, module in modules.items()
        for qualified, function in _called_by_others(module.tree, name, taken)
        if any(_is_open(annotation, name, modules) for annotation in _annotations(function))
    ]


def _called_by_others(
    parent: ast.Module | ast.ClassDef, module: str, taken: set[tuple[str, str]], within: str = ""
) -> Iterator[tuple[str, Function]]:
    for node in parent.body:
        if not isinstance(node, ast.ClassDef | Function):
            continue
        is_special = node.name.startswith("__") and node.name.endswith("__")  # called without that name
        is_public = not node.name.startswith("_") or is_special or (not within and (module, node.name) in taken)
        if is_public and isinstance(node, ast.ClassDef):
            yield from _called_by_others(node, module, taken, f"{within}{node.name}.")
        elif is_public:
            yield f"{within}{node.name}", node


def _annotations(function: Function) -> list[ast.expr]:
    told = function.args
    arguments = [*told.posonlyargs, *told.args, *told.kwonlyargs, *([told.vararg] if told.vararg else [])]
    return [one for one in (*(argument.annotation for argument in arguments), function.returns) if one is not None]


def _is_open(annotation: ast.expr, module: str, modules: Mapping[str, Module], seen: Seen = frozenset()) -> bool:
    """Whether a dictionary of anything stands in it, or JsonValue."""
    node, module, seen = _resolved(annotation, module, modules, seen)
    if _name(node) == "JsonValue" or _name(node) in MAPPINGS:  # without brackets: of anything
        return True
    parts = _parts(node)
    is_mapping = isinstance(node, ast.Subscript) and _name(node.value) in MAPPINGS
    if is_mapping and _is_anything(parts[-1], module, modules, seen):
        return True
    return any(_is_open(part, module, modules, seen) for part in parts)


def _is_anything(annotation: ast.expr, module: str, modules: Mapping[str, Module], seen: Seen) -> bool:
    """Whether it is `object` or `Any`, or a choice or a list of these."""
    node, module, seen = _resolved(annotation, module, modules, seen)
    if _name(node) in ANYTHING:
        return True
    is_of_parts = isinstance(node, ast.BinOp) or (isinstance(node, ast.Subscript) and _name(node.value) in OF_PARTS)
    return is_of_parts and any(_is_anything(part, module, modules, seen) for part in _parts(node))


def _resolved(
    annotation: ast.expr, module: str, modules: Mapping[str, Module], seen: Seen
) -> tuple[ast.expr, str, Seen]:
    """The one that is meant, the module whose names it uses, and the aliases that led there; a text is read."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    place, name = _origin_of_name(annotation, module, modules)
    if place in modules and name in modules[place].aliases and (place, name) not in seen:
        return _resolved(modules[place].aliases[name], place, modules, seen | {(place, name)})
    return (ast.Name(name) if name else annotation), place, seen


def _origin_of_name(annotation: ast.expr, module: str, modules: Mapping[str, Module]) -> tuple[str, str]:
    """Of `Name` or `module.Name`: the module that it comes from, and its name there; no name for anything else."""
    place, name = module, _name(annotation)
    if isinstance(annotation, ast.Attribute):
        qualifier = _name(annotation.value)
        imported = modules[module].imported if module in modules else {}
        place = ".".join(filter(None, imported.get(qualifier, (qualifier,))))
    followed = set()
    while place in modules and name in modules[place].imported and (place, name) not in followed:
        followed.add((place, name))
        place, name = modules[place].imported[name]
    return place, name


def _parts(node: ast.expr) -> list[ast.expr]:
    """What stands in brackets, or to both sides of `|`; of Annotated the type alone, of Literal nothing."""
    if isinstance(node, ast.BinOp):
        return [node.left, node.right]
    if isinstance(node, ast.List):
        return node.elts
    if not isinstance(node, ast.Subscript) or _name(node.value) == "Literal":
        return []
    inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    return inner[:1] if _name(node.value) == "Annotated" else inner


def _name(node: ast.expr) -> str:
    """`Any` for `Any` and for `typing.Any`; nothing for what is no name."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def unexplained_any(sources: Mapping[str, str]) -> tuple[int, list[str]]:
    """How often `Any` stands outside of imports, and as `file:line` where no comment beside or above it says why."""
    count, silent = 0, []
    for path, source in sources.items():
        if "Any" not in source:  # reading tokens takes a second for the whole package
            continue
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
        imports = {
            line
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
        }
        found = [token.start[0] for token in tokens if token.type == tokenize.NAME and token.string == "Any"]
        lines = [line for line in found if line not in imports]
        reasons = {token.start[0] for token in tokens if token.type == tokenize.COMMENT and _is_reason(token.string)}
        count += len(lines)
        silent += [f"{path}:{line}" for line in dict.fromkeys(lines) if not {line, line - 1} & reasons]
    return count, silent


def _is_reason(comment: str) -> bool:
    parts = [part.strip() for part in comment.split("#")]
    return any(part and not part.startswith(NO_REASONS) for part in parts)


def package_sources(root: Path) -> dict[str, str]:
    """Of the modules of the package at `root`, by path below it."""
    folders = [root]
    for folder in folders:  # which grows
        folders += [init.parent for init in sorted(folder.glob("*/__init__.py"))]
    return {
        path.relative_to(root).as_posix(): path.read_text(encoding="utf-8")
        for folder in folders
        for path in sorted(folder.glob("*.py"))
    }


if __name__ == "__main__":
    told = package_sources(Path(sys.argv[1]))
    print("\n".join(open_signatures(told)))
