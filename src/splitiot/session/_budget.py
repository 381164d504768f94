"""How often requests may be sent again."""

from __future__ import annotations

from typing import Final

__all__ = ["RetryBudget"]

_CAP: Final = 10.0  # so that a long calm does not allow a storm


class RetryBudget:
    """Tokens: some at the start, a share of one for each request, one less for each retry.

    So there are never more than ``first + share * requests`` retries, however bad the link is: retries must not be what
    keeps it bad.

    Examples
    --------
    >>> budget = RetryBudget(first=1.0, share=0.5)
    >>> budget.take(), budget.take()
    (True, False)
    >>> budget.earn(); budget.earn(); budget.take()
    True
    """

    def __init__(self, *, first: float = 3.0, share: float = 0.2) -> None:
        self._tokens, self._share = first, share

    def earn(self) -> None:
        """A request began."""
        self._tokens = min(self._tokens + self._share, max(_CAP, self._tokens))

    @property
    def left(self) -> bool:
        """Whether there is a token."""
        return self._tokens >= 1.0

    def take(self) -> bool:
        """Take a token, if there is one."""
        if not self.left:
            return False
        self._tokens -= 1.0
        return True
