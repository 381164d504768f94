"""Functions that run in a child process: one that hangs, crashes or leaks takes only the child with it.

A thread can't be killed, a process can. There is no pickle: the child imports the function by its name, and arguments
and results cross as payloads do.
"""

from __future__ import annotations

from splitiot.isolation._function import IsolatedFunction
from splitiot.isolation._names import importable

__all__ = ["IsolatedFunction", "importable"]
