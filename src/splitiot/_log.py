"""The library's logger: silent until somebody listens."""

from __future__ import annotations

import logging
import traceback
from numbers import Number
from typing import Any

from splitiot._escape import escaped

__all__ = ["logger"]


class _Shown:
    """A thing whose words are shown, without what would act on a terminal, or look like a line of its own."""

    def __init__(self, thing: Any) -> None:
        self._thing = thing

    def __str__(self) -> str:
        return _on_one_entry(str(self._thing))

    def __repr__(self) -> str:
        return _on_one_entry(repr(self._thing))


def _on_one_entry(text: str) -> str:
    return escaped(text).replace("\n", "\n    ")


def _escape(record: logging.LogRecord) -> bool:
    """Much of what is logged was said by an edge, a device or a file: it shall forge no lines and move no cursor."""
    if isinstance(record.args, tuple):
        record.args = tuple([arg if isinstance(arg, Number) else _Shown(arg) for arg in record.args])
    if record.exc_info and record.exc_info[0] is not None and not record.exc_text:
        record.exc_text = escaped("".join(traceback.format_exception(*record.exc_info)).rstrip("\n"))
    return True


logger = logging.getLogger("splitiot")
logger.addHandler(logging.NullHandler())
logger.addFilter(_escape)
