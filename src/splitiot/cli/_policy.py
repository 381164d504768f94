"""Policies by name, for --policy."""

from __future__ import annotations

from typing import Any

from splitiot.cli._errors import UsageError
from splitiot.cli._target import load_object
from splitiot.policies import Fixed, LeastLatency, Policy, adaptive

__all__ = ["POLICY", "load_policy"]

POLICY = "adaptive, least-latency, the name of an installed one, or package.module:CLASS or file.py:CLASS"
_GROUP = "splitiot.policies"


def load_policy(text: str, *, n: int | None = None) -> Policy:
    """Make the policy of a name.

    Parameters
    ----------
    text : str
        ``adaptive``, ``least-latency``, ``local`` (where `n` is given), an entry point of the group
        ``splitiot.policies``, or where a class or a ready policy is. Our own names come first.
    n : int, optional
        The number of steps.

    Raises
    ------
    UsageError
        There is none, or it can't be made without arguments.

    Examples
    --------
    >>> load_policy("least-latency"), load_policy("local", n=7)
    (LeastLatency(), Fixed(cut=7))
    """
    if text == "adaptive":
        return adaptive()
    if text == "least-latency":
        return LeastLatency()
    if text == "local" and n is not None:
        return Fixed(n)
    if ":" in text:
        return _ready(load_object(text), text)
    from importlib.metadata import entry_points

    installed = entry_points(group=_GROUP)
    for point in installed:
        if point.name == text:
            try:
                return _ready(point.load(), text)
            except UsageError:
                raise
            except Exception as error:  # whatever that package raises when it is imported
                raise UsageError(f"policy {text} ({point.value}) can't be loaded: {error!r}") from error
    own = ["adaptive", "least-latency", *(["local"] if n is not None else [])]
    names = [*own, *sorted(installed.names - set(own))]
    raise UsageError(f"there is no policy {text!r}: give one of {', '.join(names)}, or package.module:CLASS")


def _ready(thing: Any, text: str) -> Policy:
    if isinstance(thing, type) and issubclass(thing, Policy):
        try:
            thing = thing()
        except TypeError as error:
            raise UsageError(
                f"policy {text} can't be made without arguments ({error}): name a ready one, such as file.py:my_policy"
            ) from error
    if not isinstance(thing, Policy):
        raise UsageError(f"{text} is no policy: expected a subclass of splitiot.Policy, or an instance of one")
    return thing
