"""Loads an example as the command line does: its folder is on the path, its modules have plain names."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def load(folder: str, *names: str) -> list[ModuleType]:
    """Import modules of an example, and forget their names: several examples have an `app`."""
    path = EXAMPLES / folder
    sys.path.insert(0, str(path))
    try:
        return [importlib.import_module(name) for name in names]
    finally:
        sys.path.remove(str(path))
        for name, module in list(sys.modules.items()):
            if Path(getattr(module, "__file__", None) or "/").parent == path:
                del sys.modules[name]
