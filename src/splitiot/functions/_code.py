"""What a function's code is, as far as another process can be asked for it: a hash that both sides compare.

It is made of the source, not of the bytecode, so that versions of Python, comments and layout make no difference, and
the same file gives the same hash everywhere. Where the source is not known, or is a library's, there is none.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import linecache
import os
import sys
import sysconfig
import types
from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeAlias

import numpy as np

__all__ = ["UNKNOWN", "code_hash"]

UNKNOWN: Final = bytes(8)
"""Stands where nobody can tell."""

_CONSTANTS: Final = (type(None), bool, int, float, complex, str, bytes)
_DEFINITIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_SKIPPED: Final = frozenset({"ctx", "kind", "type_comment", "annotation", "returns", "type_params"})
_STDLIB: Final = tuple(os.path.abspath(sysconfig.get_path(name)) + os.sep for name in ("stdlib", "platstdlib"))
_MOST: Final = 200  # functions and module-level names that are followed

Place: TypeAlias = tuple[str, int]
"""A function's name, and the first line of its definition."""


def code_hash(function: Any) -> bytes:
    """Return 8 bytes that are the same where a function's code is; `UNKNOWN` where that can't be told.

    In it stand the function's source, without comments, docstrings and annotations; the statements of its module that
    define the names which it uses, and those that these use; what it was made with, closures, defaults and arguments
    of a `functools.partial`, where these are constants or functions. Not in it: other modules, what objects hold,
    lists, dicts and arrays (they may be a state), and absolute paths (they differ between machines).

    Parameters
    ----------
    function : callable

    Examples
    --------
    >>> code_hash(len) == UNKNOWN
    True
    """
    collector = _SourceCollector()
    try:
        known = collector.follow(function)
    except RecursionError:
        known = False
    if not known:
        return UNKNOWN
    return hashlib.sha256("\n".join(collector.fragments).encode("utf-8", "backslashreplace")).digest()[:8]


class _SourceCollector:
    """Collects the text of all that a function consists of."""

    def __init__(self) -> None:
        self.fragments: list[str] = []
        self._visited: set[Any] = set()

    def follow(self, obj: Any) -> bool:
        """Add what a function, a class or another object that can be called is; whether its source is known."""
        if isinstance(obj, functools.partial):
            known = self.follow(obj.func)
            self._values("partial", enumerate(obj.args))
            self._values("partial", sorted(obj.keywords.items()))
            return known
        if isinstance(obj, types.MethodType):
            self.fragments.append(f"method {obj.__name__}")
            return self.follow(obj.__self__ if isinstance(obj.__self__, type) else type(obj.__self__))
        if isinstance(obj, type):
            return self._source(_module_file(obj), (obj.__name__, -1))
        if not isinstance(obj, types.FunctionType):
            inner = getattr(obj, "__wrapped__", None)
            return self.follow(inner if isinstance(inner, types.FunctionType) else type(obj))
        code = obj.__code__
        if not self._source((code.co_filename, obj.__globals__), (code.co_name, code.co_firstlineno)):
            inner = getattr(obj, "__wrapped__", None)
            return self.follow(inner) if inner is not None and len(self._visited) < _MOST else False
        rebound = {name for node in self._nodes(obj) for name in _rebound(node)}
        cells = zip(code.co_freevars, obj.__closure__ or (), strict=True)
        self._values("closure", ((name, _content(cell)) for name, cell in cells if name not in rebound))
        self._values("default", enumerate(obj.__defaults__ or ()))
        self._values("default", sorted((obj.__kwdefaults__ or {}).items()))
        return True

    def _nodes(self, function: types.FunctionType) -> list[ast.AST]:
        code = function.__code__
        module = _module(code.co_filename, function.__globals__)
        return [] if module is None else module.at.get((code.co_name, code.co_firstlineno), [])

    def _source(self, file: tuple[str, dict[str, Any] | None] | None, place: Place) -> bool:
        module = None if file is None else _module(*file)
        nodes = [] if module is None else module.at.get(place, [])
        if module is None or not nodes:
            return False
        for node in nodes:
            self._statement(module, node)
        return True

    def _statement(self, module: _Module, node: ast.AST) -> None:
        if (module, node) in self._visited or len(self._visited) >= _MOST:
            return
        self._visited.add((module, node))
        self.fragments.append(" ".join(_dump(node)))
        for name in sorted(set(_used(node))):
            for statement in module.binds.get(name, ()):
                self._statement(module, statement)

    def _values(self, kind: str, values: Iterable[tuple[Any, Any]]) -> None:
        for name, value in values:
            self.fragments.append(f"{kind} {name}")
            if callable(value) and not isinstance(value, type):
                key = id(getattr(value, "__code__", value))
                if key not in self._visited and len(self._visited) < _MOST:
                    self._visited.add(key)
                    self.follow(value)
            else:
                self.fragments.append(_constant(value))


class _Module:
    """A module's source: its functions and classes by their places, and the statements that bind its names."""

    def __init__(self, tree: ast.Module) -> None:
        self.at: dict[Place, list[ast.AST]] = {}
        self.binds: dict[str, list[ast.AST]] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Lambda):
                self.at.setdefault(("<lambda>", node.lineno), []).append(node)
            elif isinstance(node, _DEFINITIONS):
                first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
                line = -1 if isinstance(node, ast.ClassDef) else first
                self.at.setdefault((node.name, line), []).append(node)
        for statement in _statements(tree.body):
            for name in _bound(statement):
                self.binds.setdefault(name, []).append(statement)


def _module(filename: str, scope: dict[str, Any] | None) -> _Module | None:
    """Return a module's source; None where it is not known, or a library's: versions of those may differ."""
    path = os.path.abspath(filename)
    if {"site-packages", "dist-packages"} & set(path.split(os.sep)) or path.startswith(_STDLIB):
        return None
    return _parsed("".join(linecache.getlines(filename, scope)))


@functools.lru_cache(maxsize=32)
def _parsed(text: str) -> _Module | None:
    try:
        return _Module(ast.parse(text)) if text else None
    except (SyntaxError, ValueError, RecursionError):  # the file has changed since it was imported
        return None


def _module_file(thing: type) -> tuple[str, dict[str, Any] | None] | None:
    module = sys.modules.get(thing.__module__)
    file = getattr(module, "__file__", None)
    return None if file is None else (file, vars(module))


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module's own level, those under its conditions as well."""
    for statement in body:
        inner = [
            one
            for field in ("body", "orelse", "finalbody", "handlers")
            for one in getattr(statement, field, [])
            if not isinstance(statement, _DEFINITIONS)
        ]
        for one in inner:
            yield from _statements(one.body if isinstance(one, ast.ExceptHandler) else [one])
        if not inner:
            yield statement


def _bound(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, _DEFINITIONS):
        yield statement.name
    elif isinstance(statement, ast.Import | ast.ImportFrom):
        for alias in statement.names:
            yield alias.asname or alias.name.split(".")[0]
    else:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                yield node.id


def _used(value: Any) -> Iterator[str]:
    """Names that code uses, without those in annotations."""
    if isinstance(value, ast.Name):
        yield value.id
    elif isinstance(value, ast.AST):
        for field in value._fields:
            if field not in _SKIPPED:
                yield from _used(getattr(value, field, None))
    elif isinstance(value, list):
        for inner in value:
            yield from _used(inner)


def _rebound(node: ast.AST) -> Iterator[str]:
    """Names of an outer function that a function binds anew: what they hold is a state."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Nonlocal):
            yield from inner.names


def _dump(value: Any) -> Iterator[str]:
    """Yield the same text for the same code in all versions of Python, which `ast.dump` does not do."""
    if isinstance(value, ast.Constant):
        yield f"{type(value.value).__name__} {value.value!r}"
    elif isinstance(value, ast.AST):
        yield f"({type(value).__name__}"
        for field in value._fields:
            inner = getattr(value, field, None)
            if field == "body" and isinstance(value, _DEFINITIONS):
                inner = _without_docstring(value.body)
            if isinstance(value, ast.JoinedStr):
                inner = list(_joined(value.values))
            if field not in _SKIPPED and inner is not None and inner != []:
                yield field
                yield from _dump(inner)
        yield ")"
    elif isinstance(value, list):
        yield "["
        for inner in value:
            yield from _dump(inner)
        yield "]"
    else:
        yield repr(value)


def _joined(values: list[Any]) -> Iterator[Any]:
    """The texts of an f-string as one where they follow each other: Python 3.12 divides them otherwise."""
    text = ""
    for value in values:
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            text += value.value
        else:
            if text:
                yield ast.Constant(text)
            text = ""
            yield value
    if text:
        yield ast.Constant(text)


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    """A body without its docstring."""
    first = body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return body[1:]
    return body


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # nothing was put there yet
        return NotImplemented


def _constant(value: Any) -> str:
    """Return the text of a value that can't change; of another value only the type."""
    kind = type(value)
    if kind is str and os.path.isabs(value):
        return "str, a path"
    if kind in _CONSTANTS:
        return f"{kind.__name__} {value!r}"
    if isinstance(value, np.generic):
        return f"{value.dtype} {value.tobytes().hex()}"
    if kind is tuple:
        return f"({', '.join(map(_constant, value))})"
    if kind is frozenset:
        return f"frozenset({', '.join(sorted(map(_constant, value)))})"
    return f"a {kind.__qualname__}"
