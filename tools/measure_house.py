"""Measure the package by folder: lines of code, the longest module and function, circles of imports, public names.

$ python tools/measure_house.py                 # one line a folder
$ python tools/measure_house.py --circles       # only the circles; exit code 1 if there is one

A line of code is one that holds more than a comment or a docstring. An import counts wherever it stands, inside a
function too, but not under `if TYPE_CHECKING`. The import of `a.b.c` leads to that module, not to `a` and `a.b`, which
Python runs first: else every package that exports its modules' names would be a circle.
"""

from __future__ import annotations

import argparse
import ast
import io
import statistics
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "splitiot"
LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass
class Module:
    """One file: its name as Python knows it, its lines of code, its functions, its imports."""

    name: str
    path: Path
    code: frozenset[int]  # the numbers of its lines of code
    public: frozenset[str]
    functions: dict[str, int]  # its lines of code, for each
    imports: list[Import]
    lazy: dict[str, str] = field(default_factory=dict)  # names that it imports when they are used, and from where


@dataclass(frozen=True)
class Import:
    """`from module import name` or, without a name, `import module`."""

    module: str
    name: str | None
    line: int


def read(path: Path, root: Path) -> Module:
    source = path.read_text("utf-8")
    tree = ast.parse(source)
    parts = path.relative_to(root.parent).with_suffix("").parts
    is_package = parts[-1] == "__init__"
    name = ".".join(parts[:-1] if is_package else parts)
    code = lines_of_code(source, tree)
    checked = {id(node) for test in ast.walk(tree) if is_type_checking(test) for node in walk_all(test.body)}
    imports = [(node, imported) for node in ast.walk(tree) for imported in imports_of(node)]
    shown = [imported for node, imported in imports if id(node) in checked]
    stub = path.with_suffix(".pyi")
    if stub.is_file():
        shown += [imported for node in ast.parse(stub.read_text("utf-8")).body for imported in imports_of(node)]
    is_lazy = stub.is_file() or any(isinstance(node, FUNCTION) and node.name == "__getattr__" for node in tree.body)
    lazy = {imported.name: imported.module for imported in shown if imported.name} if is_lazy else {}
    functions = {
        qualified: sum(node.lineno <= line <= (node.end_lineno or 0) for line in code)
        for qualified, node in functions_of(tree)
    }
    hidden = any(part.startswith("_") and part != "__init__" for part in parts)
    return Module(
        name=name,
        path=path,
        code=code,
        public=frozenset() if hidden else frozenset(exported(tree) or lazy),
        functions=functions,
        imports=[imported for node, imported in imports if id(node) not in checked],
        lazy=lazy,
    )


def lines_of_code(source: str, tree: ast.Module) -> frozenset[int]:
    docstrings: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, *FUNCTION)) and ast.get_docstring(node, clean=False) is not None:
            docstrings.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    held = {
        line
        for token in tokens
        if token.type not in LAYOUT
        for line in range(token.start[0], token.end[0] + 1)
    }
    return frozenset(held - docstrings)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def walk_all(nodes: list[ast.stmt]) -> Iterator[ast.AST]:
    for node in nodes:
        yield from ast.walk(node)


def imports_of(node: ast.AST) -> Iterator[Import]:
    """Yield what one node imports: a statement, or `import_module` with a name that stands there."""
    match node:
        case ast.ImportFrom(module=str(module), names=aliases, lineno=line):
            for alias in aliases:
                yield Import(module, alias.name, line)
        case ast.Import(names=aliases, lineno=line):
            for alias in aliases:
                yield Import(alias.name, None, line)
        case ast.Call(
            func=ast.Name(id="import_module") | ast.Attribute(attr="import_module"),
            args=[ast.Constant(value=str(module)), *_],
            lineno=line,
        ):
            yield Import(module, None, line)


def functions_of(tree: ast.AST, outer: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.ClassDef, *FUNCTION)):
            qualified = f"{outer}{node.name}"
            if isinstance(node, FUNCTION):
                yield qualified, node
            yield from functions_of(node, f"{qualified}.")
        else:
            yield from functions_of(node, outer)


def exported(tree: ast.Module) -> list[str]:
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=ast.List(elts=names)) | ast.AnnAssign(
                target=ast.Name(id="__all__"), value=ast.List(elts=names)
            ):
                return [name.value for name in names if isinstance(name, ast.Constant)]
    return []


def import_lines(modules: dict[str, Module]) -> dict[str, dict[str, int]]:
    """Return, for each module, which others it imports and in which line."""
    lines: dict[str, dict[str, int]] = {}
    for module in modules.values():
        lines[module.name] = {}
        for imported in module.imports:
            target = imported.module
            if imported.name and f"{target}.{imported.name}" in modules:
                target = f"{target}.{imported.name}"
            elif imported.name and target in modules:
                target = modules[target].lazy.get(imported.name, target)
            if target in modules and target != module.name:
                lines[module.name].setdefault(target, imported.line)
    return lines


def circles(lines: dict[str, dict[str, int]]) -> list[list[str]]:
    """Return the strongly connected components of more than one module (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    components: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in lines[name]:
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            component = [*stack[stack.index(name) :]]
            del stack[stack.index(name) :]
            if len(component) > 1:
                components.append(sorted(component))

    sys.setrecursionlimit(10_000)
    for name in lines:
        if name not in index:
            visit(name)
    return sorted(components)


def shortest_way_round(component: list[str], lines: dict[str, dict[str, int]]) -> list[str]:
    ways = [[name] for name in component]
    while True:
        for way in ways:
            if way[0] in lines[way[-1]]:
                return way
        ways = [[*way, other] for way in ways for other in lines[way[-1]] if other in component and other not in way]


def print_circles(modules: dict[str, Module]) -> int:
    lines = import_lines(modules)
    components = circles(lines)
    for component in components:
        print(f"{len(component)} modules import each other: {', '.join(component)}")
        way = shortest_way_round(component, lines)
        for name, other in zip(way, [*way[1:], way[0]], strict=True):
            print(f"    {modules[name].path}:{lines[name][other]}: {name} imports {other}")
    print(f"{len(components)} circles of imports among {len(modules)} modules")
    return 1 if components else 0


def print_table(modules: dict[str, Module], root: Path) -> None:
    folders = defaultdict(list)
    for module in modules.values():
        folders[str(module.path.parent.relative_to(root)).replace(".", "(root)")].append(module)
    components = circles(import_lines(modules))
    columns = "{:<20} {:>7} {:>6} {:>6}  {:<30} {:>6}  {:<55} {:>7} {:>6}"
    titles = ("folder", "modules", "lines", "median", "longest", "", "longest function", "circles", "public")
    print(columns.format(*titles))
    for folder, inside in [*sorted(folders.items()), ("all", list(modules.values()))]:
        lengths = [len(module.code) for module in inside]
        longest = max(inside, key=lambda module: len(module.code))
        functions = [(count, name) for module in inside for name, count in module.functions.items()]
        count, function = max(functions, default=(0, "-"))
        names = {module.name for module in inside}
        print(
            columns.format(
                folder,
                len(inside),
                sum(lengths),
                f"{statistics.median(lengths):.0f}",
                longest.path.name if folder != "all" else str(longest.path.relative_to(root)),
                len(longest.code),
                f"{count:>3} {function}",
                sum(any(name in names for name in component) for component in components),
                len(frozenset().union(*(module.public for module in inside))),
            )
        )
    print_long(modules, root)


def print_long(modules: dict[str, Module], root: Path) -> None:
    long_modules = [(len(module.code), str(module.path.relative_to(root))) for module in modules.values()]
    long_functions = [
        (count, f"{module.path.relative_to(root)}: {name}")
        for module in modules.values()
        for name, count in module.functions.items()
    ]
    for kind, limit, measured in (("modules", 400, long_modules), ("functions", 60, long_functions)):
        over = sorted(((count, name) for count, name in measured if count > limit), reverse=True)
        print(f"\n{len(over)} {kind} over {limit} lines of code")
        for count, name in over:
            print(f"    {count:>4}  {name}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", nargs="?", type=Path, default=PACKAGE, help="its folder (default: %(default)s)")
    parser.add_argument("--circles", action="store_true", help="list the circles only; exit code 1 if there is one")
    arguments = parser.parse_args()
    root = arguments.package.resolve()
    modules = {module.name: module for module in (read(path, root) for path in sorted(root.rglob("*.py")))}
    if not modules:
        parser.error(f"there are no modules in {root}")
    if arguments.circles:
        return print_circles(modules)
    print_table(modules, root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
