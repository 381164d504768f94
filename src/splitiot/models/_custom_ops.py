"""Custom operators of one's own: how what registers them reaches an interpreter, here and in a child process."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, TypeAlias

from splitiot.errors import UnsupportedModel
from splitiot.pipeline import Runtime

__all__ = ["for_child", "registerers", "version_suffix"]

Registerer: TypeAlias = str | Callable[[int], object]


def registerers(runtime: Runtime) -> list[Registerer]:
    """Return what an interpreter takes: names of C symbols, whose libraries are loaded now, and functions.

    Raises
    ------
    UnsupportedModel
        A library can't be loaded.
    """
    taken: list[Registerer] = []
    for each in runtime.custom_ops:
        if isinstance(each, str):
            library, _, symbol = each.rpartition(":")
            if library:
                try:
                    ctypes.CDLL(library, ctypes.RTLD_GLOBAL)  # the interpreter looks in all that is loaded so
                except OSError as error:
                    raise UnsupportedModel(
                        f"the library of custom operators {library} can't be loaded: {error}"
                    ) from error
            taken.append(symbol)
        else:
            taken.append(each)
    return taken


def for_child(runtime: Runtime) -> list[Any]:
    """Return a runtime as JSON can hold it, for ``Runtime(*...)``.

    Raises
    ------
    UnsupportedModel
        A custom operator is registered by a function, which no other process has.
    """
    if not all(isinstance(each, str) for each in runtime.custom_ops):
        raise UnsupportedModel(
            "models are tried in a child process, which can't be given functions that register custom operators: "
            "name the library and the symbol, custom_ops=('libmine.so:RegisterMine',)"
        )
    return [runtime.name, runtime.kernels, runtime.threads, list(runtime.custom_ops)]


def version_suffix(runtime: Runtime) -> str:
    """Return what tells custom operators apart in a runtime's version; empty where there are none."""
    names = sorted(
        each.rpartition(":")[2] if isinstance(each, str) else getattr(each, "__name__", "function")
        for each in runtime.custom_ops
    )
    return f"+{','.join(names)}" if names else ""
