"""How many bytes are held at once, in all and for one name."""

from __future__ import annotations

__all__ = ["Budget", "Share"]


class Budget:
    """Counts bytes against a bound.

    Parameters
    ----------
    total : int
        What may be held at once.
    per_name : int
        What one name may hold of it.

    Examples
    --------
    >>> budget = Budget(total=100, per_name=60)
    >>> ours = budget.share("camera")
    >>> ours.take(50), ours.take(20)
    (True, False)
    >>> ours.release()
    >>> budget.held
    0
    """

    def __init__(self, total: int, per_name: int) -> None:
        self.total, self.per_name = total, per_name
        self.held = 0
        self._of_name: dict[str, int] = {}

    def share(self, name: str) -> Share:
        """Return a share for one request of a name, with nothing in it yet."""
        return Share(self, name)

    def change(self, name: str, more: int) -> None:
        """Count bytes that are held whether or not there is room; negative when they are let go."""
        self.held += more
        of_name = self._of_name.get(name, 0) + more
        if of_name:
            self._of_name[name] = of_name
        else:
            self._of_name.pop(name, None)

    def has_room(self, name: str, more: int) -> bool:
        """Whether so many bytes more may be held."""
        return self.held + more <= self.total and self._of_name.get(name, 0) + more <= self.per_name


class Share:
    """What one request holds of a budget.

    Parameters
    ----------
    budget : Budget
    name : str
    """

    __slots__ = ("_budget", "_held", "_name")

    def __init__(self, budget: Budget, name: str) -> None:
        self._budget, self._name, self._held = budget, name, 0

    def has_room(self, more: int) -> bool:
        """Whether so many bytes more may be held."""
        return self._budget.has_room(self._name, more)

    def take(self, more: int) -> bool:
        """Hold so many bytes more, if there is room."""
        if not self.has_room(more):
            return False
        self._budget.change(self._name, more)
        self._held += more
        return True

    def swap(self, held: int) -> None:
        """Hold so many bytes instead, whether or not there is room: they are there."""
        self._budget.change(self._name, held - self._held)
        self._held = held

    def release(self) -> None:
        """Hold nothing any more."""
        self.swap(0)
