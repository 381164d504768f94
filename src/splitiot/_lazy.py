"""Names that a package imports when they are first used, from the one list that its stub is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

__all__ = ["attach_stub"]


def attach_stub(package: str, *own: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return `__getattr__`, `__dir__` and `__all__` for a package, as its ``__init__.pyi`` lists its names.

    Type checkers and editors read the same file, as SPEC 1 of Scientific Python has it. A name is one line there:
    ``from MODULE import NAME as NAME``; a module of the package itself ``from PACKAGE import NAME as NAME``.

    Parameters
    ----------
    package : str
        Its `__name__`, while it is being imported.
    *own : str
        What it exports besides, and has itself.

    Examples
    --------
    >>> fetch, _, names = attach_stub("splitiot")
    >>> "Link" in names, fetch("Link")
    (True, <class 'splitiot.topology.Link'>)
    """
    module = sys.modules[package]
    loader: Any = module.__spec__ and module.__spec__.loader  # reads in a zip file, too
    stub: bytes = loader.get_data(f"{module.__path__[0]}/__init__.pyi")
    homes = {}
    for line in stub.decode().splitlines():
        if line.startswith("from "):
            _, home, _, name, _, _ = line.split()
            homes[name] = home
    names = sorted([*homes, *own], key=lambda name: (not name.isupper(), not name[0].isupper(), name))

    def fetch(name: str) -> Any:
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = import_module(f"{home}.{name}") if home == package else getattr(import_module(home), name)
        setattr(module, name, value)
        return value

    def listing() -> list[str]:
        return sorted({*vars(module), *names})

    return fetch, listing, names
