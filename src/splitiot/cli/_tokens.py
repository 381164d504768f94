"""Files of tokens: who may connect to an edge, and with which token a device does."""

from __future__ import annotations

from typing import Final

from splitiot._files import read_bounded
from splitiot.cli._errors import UsageError

__all__ = ["read_token_file", "read_tokens"]

_MOST_BYTES: Final = 1 << 24  # of a file of tokens


def read_token_file(path: str) -> str:
    """Return what a file of tokens says; UsageError where it can't be read."""
    try:
        return read_bounded(path, most_bytes=_MOST_BYTES, what="a file with tokens", error=UsageError).decode()
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} can't be read: {getattr(error, 'strerror', None) or error}") from error


def read_tokens(path: str) -> dict[str, str]:
    """Read who may connect: lines ``NAME TOKEN``, empty ones and those that begin with ``#`` aside.

    Returns
    -------
    dict of str to str
        Names by token.

    Raises
    ------
    UsageError
        It can't be read, says something else, or says nothing.
    """
    lines = read_token_file(path).splitlines()
    tokens: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        if len(fields) != 2:
            raise UsageError(f'{path}, line {number}: expected "NAME TOKEN"')
        name, token = fields
        if token in tokens:
            raise UsageError(f"{path}, line {number}: {name} has the token of {tokens[token]}")
        tokens[token] = name
    if not tokens:
        raise UsageError(f"{path} has no tokens: nobody could connect")
    return tokens
