"""The answers that an edge remembers, so that a request that comes again is not run again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

import msgspec

__all__ = ["Answer", "Answers", "Key"]

Key = tuple[str, bytes, int]
"""Name, boot and sequence: which request it was."""

_H = TypeVar("_H", bound=Hashable)


class Answer(msgspec.Struct, frozen=True, eq=False):
    """An answer, and the fingerprint of the request that it belongs to."""

    fingerprint: int
    frame: bytes


class Answers:
    """A bounded table of answers, in which each name has a share, and in it each of its boots.

    When it is full, the name that holds most gives way, of it the boot that holds most, of that the oldest answer. So
    one of k names keeps its answers while it has no more than a k-th of the table, whatever the others do.

    An answer takes as many units as it needs of the table's: bytes / number.

    Parameters
    ----------
    most, most_bytes : int
        How many answers, and how many bytes they may have together.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most: Final = max(1, most)
        self._unit_bytes: Final = max(1, most_bytes // self._most)
        self._units = 0
        self._names: _Held[str] = _Held()
        self._boots: dict[str, _Held[bytes]] = {}
        self._answers: dict[tuple[str, bytes], OrderedDict[int, Answer]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._answers.values()))

    @property
    def nbytes(self) -> int:
        """What they take together."""
        return sum(len(answer.frame) for kept in self._answers.values() for answer in kept.values())

    def get(self, key: Key) -> Answer | None:
        """Return the answer to a request, if it is remembered."""
        kept = self._answers.get(key[:2])
        return None if kept is None else kept.get(key[2])

    def add(self, key: Key, answer: Answer) -> list[Key]:
        """Remember an answer; return which requests' are forgotten for it, itself maybe."""
        name, boot, sequence = key
        units = self._units_of(answer)
        if units > self._most:
            return [key]
        self._answers.setdefault((name, boot), OrderedDict())[sequence] = answer
        self._change(name, boot, units)
        dropped = []
        while self._units > self._most:
            dropped.append(self._drop())
        return dropped

    def _drop(self) -> Key:
        name = self._names.most()
        boot = self._boots[name].most()
        kept = self._answers[name, boot]
        sequence, answer = kept.popitem(last=False)
        if not kept:
            del self._answers[name, boot]
        self._change(name, boot, -self._units_of(answer))
        return name, boot, sequence

    def _change(self, name: str, boot: bytes, units: int) -> None:
        self._units += units
        self._names.change(name, units)
        boots = self._boots.setdefault(name, _Held())
        boots.change(boot, units)
        if not boots:
            del self._boots[name]

    def _units_of(self, answer: Answer) -> int:
        return max(1, -(-len(answer.frame) // self._unit_bytes))


class _Held(Generic[_H]):
    """How many units each one holds; who holds most is known at once."""

    __slots__ = ("_top", "_units", "_who")

    def __init__(self) -> None:
        self._units: dict[_H, int] = {}
        self._who: dict[int, dict[_H, None]] = {}  # by units, in the order in which they came to hold so many
        self._top = 0

    def __len__(self) -> int:
        return len(self._units)

    def change(self, who: _H, by: int) -> None:
        """Let somebody hold more, or less; with nothing it is not known any more."""
        before = self._units.pop(who, 0)
        after = before + by
        if before:
            del self._who[before][who]
            if not self._who[before]:
                del self._who[before]
        if after:
            self._units[who] = after
            self._who.setdefault(after, {})[who] = None
        self._top = max(self._top, after)
        while self._top and self._top not in self._who:  # as many turns as it rose before
            self._top -= 1

    def most(self) -> _H:
        """Who holds most; of several the one that has held so many for longest."""
        return next(iter(self._who[self._top]))
