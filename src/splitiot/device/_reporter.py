"""What the log is told of the edge."""

from __future__ import annotations

import re
from typing import Final

from splitiot._log import logger
from splitiot.errors import TransportBug
from splitiot.session import DeviceSession, Trouble

__all__ = ["Reporter"]

_MOST: Final = 32  # a bound: the other side may word each trouble differently


class Reporter:
    """Tells when the edge goes and when it returns, and warns once of each trouble that can't end by itself.

    Attributes
    ----------
    known : Trouble, optional
        The trouble that was looked at last.
    bug_message : str
        What the transport last did that it must not; empty where it never did.
    """

    def __init__(self) -> None:
        self.known: Trouble | None = None
        self._gone = False
        self._warned: set[str] = set()
        self.bug_message = ""

    def look(self, session: DeviceSession, now_s: float) -> None:
        """See whether something has changed, and tell it."""
        trouble, before = session.trouble, self.known
        self.known = trouble
        gone = trouble is not None and not session.reached
        if gone and trouble is not None and trouble != before:
            if not trouble.heals and trouble.reason != self.bug_message and self._first(_key(trouble)):
                logger.warning("the edge can't be used, all runs here: %s", trouble)
            elif session.met and not self._gone:
                logger.info("the edge is gone, all runs here: %s", trouble)
        elif not gone:
            if self._gone and before is not None:
                logger.info("the edge can be used again, after %.1f s", now_s - before.since_s)
            if trouble is not None and self._first(_key(trouble)):
                logger.warning("the edge can't be used for all: %s", trouble)
        self._gone = gone

    def absent(self, trouble: Trouble | None) -> None:
        """Nothing answered when the device began."""
        reason = "no answer" if trouble is None else str(trouble)
        if trouble is None or trouble.heals:  # `look` has reported the others
            logger.warning("no edge yet: %s. The device begins alone, and goes on trying", reason)

    def bug(self, error: TransportBug) -> None:
        """A transport did what it must not."""
        self.bug_message = str(error)
        cause = error.__cause__
        if self._first(_key_of(self.bug_message)):
            logger.warning("%s: all runs here while it does", error, exc_info=cause)

    def _first(self, key: str) -> bool:
        if key in self._warned or len(self._warned) >= _MOST:
            return False
        self._warned.add(key)
        return True


def _key(trouble: Trouble) -> str:
    return f"{_key_of(trouble.reason)} {trouble.remedy}"


def _key_of(message: str) -> str:
    return re.sub(r"[0-9]+", "", message)  # a port, a count, an address in memory
