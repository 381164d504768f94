"""An edge's address and what it takes to get in: arguments, and the transport made of them."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from splitiot.cli._errors import CommandFailed, UsageError
from splitiot.cli._tokens import read_token_file, read_tokens

if TYPE_CHECKING:
    from splitiot.transports import Transport

__all__ = ["add_edge_arguments", "open_transport", "reaching"]


def add_edge_arguments(parser: Any) -> None:
    """Add --token-file, --ca and --allow-plaintext to a parser or a group of one."""
    parser.add_argument("--token-file", metavar="FILE", help="with this device's token (or set SPLITIOT_TOKEN)")
    parser.add_argument("--ca", metavar="FILE", help="the certificate (PEM) to trust, besides the system's")
    parser.add_argument("--allow-plaintext", action="store_true", help="permit http:// to other machines")


def open_transport(arguments: argparse.Namespace, url: str, *, token: str | None = None) -> Transport:
    """Make a transport to an edge; nothing is connected yet.

    Parameters
    ----------
    arguments : argparse.Namespace
        Those of `add_edge_arguments`.
    url : str
    token : str, optional
        What they say, unless given.

    Raises
    ------
    UsageError
        The address, the certificate or the token can't be used.
    """
    from splitiot.adapters.http import HttpTransport

    context = None
    if arguments.ca is not None:
        import ssl

        try:
            context = ssl.create_default_context()
            context.load_verify_locations(arguments.ca)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"--ca {arguments.ca} can't be used: {error}") from error
    try:
        return HttpTransport(
            url,
            token=_token(arguments) if token is None else token,
            ssl_context=context,
            allow_plaintext=arguments.allow_plaintext,
        )
    except ValueError as error:
        message = str(error).replace("allow_plaintext=True", "--allow-plaintext").replace("token=", "--token-file")
        raise UsageError(message) from error


@contextlib.contextmanager
def reaching(arguments: argparse.Namespace, url: str) -> Iterator[Transport]:
    """Give a transport to an edge, closed in the end; an edge that can't be reached is a failure that names it.

    Raises
    ------
    CommandFailed
        The edge can't be reached, lets nobody in, or speaks something else.
    """
    from splitiot.errors import ProtocolError, RemoteError, TransportError

    with contextlib.closing(open_transport(arguments, url)) as transport:
        try:
            yield transport
        except TransportError as error:
            raise CommandFailed(f"the edge at {url} can't be reached: {error}") from error
        except (ProtocolError, RemoteError) as error:
            raise CommandFailed(f"what is at {url} does not answer as an edge: {error}") from error


def _token(arguments: argparse.Namespace) -> str | None:
    if arguments.token_file is None:
        return os.environ.get("SPLITIOT_TOKEN") or None
    fields = read_token_file(arguments.token_file).split()
    if len(fields) == 1:
        return fields[0]
    tokens = list(read_tokens(arguments.token_file))
    if len(tokens) > 1:
        raise UsageError(f"{arguments.token_file} has {len(tokens)} tokens: give a file with this device's only")
    return tokens[0]
