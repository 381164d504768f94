"""Words from outside - an edge, a file, a model - as they may be shown to a person."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["escaped", "escaped_json"]

# Control characters (C0 but for tab and newline, DEL, C1), what turns the direction of writing, what breaks lines
# where nobody looks for it, and halves of surrogate pairs.
_ACTING: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def escaped(text: str) -> str:
    r"""Return a text without characters that make a terminal act, or that hide what it says; newlines and tabs stay.

    Examples
    --------
    >>> print(escaped("\x1b[2J ok \x07\r \u202e"))
    \x1b[2J ok \x07\x0d \u202e
    """
    return _ACTING.sub(_python, text) if _ACTING.search(text) else text


def escaped_json(text: str) -> str:
    r"""Return a JSON document that holds the same, without such characters.

    Examples
    --------
    >>> print(escaped_json('"\x9b2J"'))
    "\u009b2J"
    """
    return _ACTING.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _python(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
