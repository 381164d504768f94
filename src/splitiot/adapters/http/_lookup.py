"""The addresses of a host, by a deadline."""

from __future__ import annotations

import ipaddress
import queue
import socket
import threading
import time
from typing import Any, Final, TypeAlias

from splitiot import _fork

__all__ = ["Address", "Lookup"]

Address: TypeAlias = tuple[socket.AddressFamily, Any]

_MOST: Final = 4  # addresses that are tried
_Result: TypeAlias = "list[Address] | OSError | UnicodeError"


class Lookup:
    """Finds addresses, in a thread: the system's resolver waits for as long as it is set up to, and can't be ended.

    There is one such thread at a time, whoever asks meanwhile; addresses in numbers need none.
    """

    def __init__(self) -> None:
        self._renew()
        _fork.in_child(self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._asking: list[queue.SimpleQueue[_Result]] | None = None
        """Who waits for the thread, where there is one."""

    def __call__(self, host: str, port: int, until_s: float) -> list[Address]:
        """Return the addresses of a host.

        Raises
        ------
        OSError
            There are none, or they are not known in time (TimeoutError).
        """
        try:
            ipaddress.ip_address(host)
        except ValueError:
            pass
        else:
            return _addresses(host, port)
        answer: queue.SimpleQueue[_Result] = queue.SimpleQueue()
        with self._lock:
            if self._asking is None:
                self._asking = []
                threading.Thread(target=self._look, args=(host, port), name="splitiot lookup", daemon=True).start()
            self._asking.append(answer)
        try:
            result = answer.get(timeout=max(0.0, until_s - time.monotonic()))
        except queue.Empty:
            raise TimeoutError(f"the addresses of {host} are not known in time") from None
        if isinstance(result, Exception):
            raise result
        return result

    def _look(self, host: str, port: int) -> None:
        result: _Result
        try:
            result = _addresses(host, port)
        except (OSError, UnicodeError) as error:
            result = error
        with self._lock:
            asking, self._asking = self._asking or [], None
        for answer in asking:
            answer.put(result)


def _addresses(host: str, port: int) -> list[Address]:
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if not infos:
        raise OSError(f"{host} has no address")
    return [(family, address) for family, _, _, _, address in infos[:_MOST]]
