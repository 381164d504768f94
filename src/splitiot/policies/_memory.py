"""What a policy remembers of one device, with types."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import msgspec

from splitiot._log import logger

__all__ = ["PolicyMemory", "plain_memory"]


class PolicyMemory(msgspec.Struct, frozen=True):
    """What a policy remembers of one device: subclass it, with a field for each thing.

    A policy's memory lies in ``context.memory``, beside those of the policies around it, under the name of its class.
    It is stored as JSON with the planner's state, so fields are numbers, strings, tuples and dicts with str keys. It
    is frozen: keep another one instead.

    Examples
    --------
    >>> class Visits(PolicyMemory, frozen=True):
    ...     count: int = 0
    >>> memory = {}
    >>> visits = Visits.of(memory) or Visits()
    >>> msgspec.structs.replace(visits, count=visits.count + 1).keep(memory)
    >>> Visits.of(memory)
    Visits(count=1)
    """

    _name: ClassVar[str]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._name = f"{cls.__module__}.{cls.__qualname__}"

    @classmethod
    def of(cls, memory: dict[str, Any]) -> Self | None:
        """Return what was kept in a memory, None where nothing was (or something else, which is logged)."""
        kept = memory.get(cls._name)
        if kept is None or type(kept) is cls:
            return kept
        try:  # plain data, after a restart
            kept = memory[cls._name] = msgspec.convert(kept, cls)
        except msgspec.ValidationError as error:
            del memory[cls._name]
            logger.warning("what %s remembered can't be read, so it begins anew: %s", cls._name, error)
            return None
        return kept

    def keep(self, memory: dict[str, Any]) -> None:
        """Put it into a memory, instead of what was kept there before."""
        memory[self._name] = self

    @classmethod
    def forget(cls, memory: dict[str, Any]) -> None:
        """Keep nothing any more."""
        memory.pop(cls._name, None)


def plain_memory(memory: dict[str, Any]) -> dict[str, Any]:
    """Return all that policies remember as plain data, the same that JSON brings back."""
    return {key: _plain(kept) for key, kept in memory.items()}


def _plain(kept: Any) -> Any:
    if isinstance(kept, PolicyMemory):
        return msgspec.json.decode(msgspec.json.encode(kept))  # lists for tuples, which `msgspec.to_builtins` keeps
    return plain_memory(kept) if type(kept) is dict else kept
