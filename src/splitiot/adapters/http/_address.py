"""What both sides of HTTP say: where frames are posted to, as what, and which addresses stay on this machine."""

from __future__ import annotations

import ipaddress

__all__ = ["FRAME_TYPE", "PATH", "is_loopback"]

PATH = "/splitiot/v1"
"""Where frames are posted to, unless told otherwise."""

FRAME_TYPE = "application/vnd.splitiot"


def is_loopback(host: str) -> bool:
    """Whether a host name or address stays on this machine.

    Examples
    --------
    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
