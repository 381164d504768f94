"""Functions by their names: where another process finds one."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import types
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from typing import Any, Final

from splitiot.errors import CutError

__all__ = ["LOADING", "importable", "load"]

LOADING: Final[list[str]] = []
"""What this process, a child, is importing now."""

_OF_TASK: Final = ".function"


def importable(function: Callable[..., Any]) -> tuple[str, str]:
    """Return where another process finds a function.

    Parameters
    ----------
    function : callable
        A function at the top of a module (or of a class there), or anything else that can be called and that is a
        module's attribute.

    Returns
    -------
    where : str
        The module's name; or the absolute path of its file, if the module can't be found by its name: a script.
    name : str
        The function's qualified name there.

    Raises
    ------
    CutError
        It can't be found: a lambda, a function within a function, a bound method, or from an interactive session.

    Examples
    --------
    >>> import math
    >>> importable(math.sqrt)
    ('math', 'sqrt')
    >>> importable(lambda x: x)
    Traceback (most recent call last):
    splitiot.errors.CutError: <lambda> can't run in a process of its own: ...
    """
    named: str | None = getattr(function, "__qualname__", None)
    name = named or repr(function)
    home = sys.modules.get(getattr(function, "__module__", None) or "")
    value = None if home is None else _attribute(home, name)
    if home is not None and _same(value, function):
        return _place(home, name), name
    if home is not None and getattr(value, "function", None) is function:  # resize = task(resize, isolated=True)
        return _place(home, name), name + _OF_TASK
    for module in (*([home] if home is not None else []), *list(sys.modules.values())):
        for attribute, candidate in list(getattr(module, "__dict__", {}).items()):
            if candidate is function and attribute != "_":  # `_` is an interactive session's last value
                return _place(module, attribute), attribute
    if value is not None and isinstance(function, types.FunctionType):
        reason = f"under this name its module has another object, a {type(value).__name__}: call that something else"
    else:
        reason = "that process imports it by its name. Make it a function at the top of a module: no lambda, no "
        reason += "function within a function, no bound method"
    raise CutError(f"{name} can't run in a process of its own: {reason}")


def _attribute(module: types.ModuleType, name: str) -> Any:
    value: Any = module
    for attribute in name.split("."):
        value = getattr(value, attribute, None)
    return value


def _same(value: Any, function: Any) -> bool:
    if isinstance(value, types.MethodType):  # a class method: each look-up makes a new object
        return bool(value == function)
    return value is function


def _place(module: types.ModuleType, name: str) -> str:
    spec = getattr(module, "__spec__", None)
    path: str | None = getattr(module, "__file__", None)
    if module.__name__ == "__main__":
        if spec is not None and spec.name != "__main__":  # python -m
            return str(spec.name)
    elif "." in module.__name__ or hasattr(module, "__path__") or path is None or _findable(module.__name__, path):
        return module.__name__
    if path is None or not os.path.isfile(path):
        raise CutError(
            f"{name} can't run in a process of its own from an interactive session or an archive: put it into a file"
        )
    return os.path.abspath(path)


def _findable(name: str, path: str) -> bool:
    for finder in sys.meta_path:
        spec = finder.find_spec(name, None) if hasattr(finder, "find_spec") else None
        if spec is not None:
            return spec.origin is not None and os.path.abspath(spec.origin) == os.path.abspath(path)
    return False


def load(where: str, name: str) -> Any:
    """Import what `importable` found."""
    module = _file(where) if os.path.isabs(where) else importlib.import_module(where)
    value = _attribute(module, name)
    if value is None and name.endswith(_OF_TASK):  # it is a task only under the script's `__main__` guard
        value = _attribute(module, name.removesuffix(_OF_TASK))
    if value is None:
        raise ImportError(f"{where} has no {name}: does it stand under `if __name__ == '__main__':`?")
    return value


def _file(where: str) -> types.ModuleType:
    for module in list(sys.modules.values()):
        if getattr(module, "__file__", None) == where:
            return module
    # not under its bare name: a script called numpy.py must not become numpy. Nor as __main__: its guard must hold
    module_name = f"splitiot_target_{os.path.splitext(os.path.basename(where))[0]}"
    if module_name in sys.modules:
        module_name += "_2"
    spec = importlib.util.spec_from_loader(module_name, SourceFileLoader(module_name, where))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    return module
