"""What a fault is, and when it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, Self, TypeAlias

from attrs import field, frozen

from splitiot.testing.simulation._heap import Chance, on_grid
from splitiot.testing.simulation._network import Passage

if TYPE_CHECKING:
    from splitiot.testing.simulation._world import World

__all__ = [
    "ALWAYS",
    "Fault",
    "Span",
    "episodes",
    "moments",
]


Span: TypeAlias = tuple[float, float]
"""From when to when it goes on, in seconds of virtual time."""

ALWAYS: Final[tuple[Span, ...]] = ((0.0, float("inf")),)


@frozen
class Fault:
    """Something that goes wrong.

    A kind of your own is a subclass: `draw` makes one that fits a run, `begin` arranges what happens by itself, and
    `meddle` is shown each frame while the fault is on. Tell `World.bit` whenever it had an effect.

    Parameters
    ----------
    spans : tuple of (float, float)
        When it is on.
    """

    kind: ClassVar[str] = ""
    on_wire: ClassVar[bool] = False

    spans: tuple[Span, ...] = field(default=ALWAYS, kw_only=True)

    @classmethod
    def draw(cls, chance: Chance, heal_s: float) -> Self:
        """Make one that ends before `heal_s`."""
        return cls(spans=episodes(chance, heal_s))

    def on(self, now_s: float) -> bool:
        """Whether it goes on at this moment."""
        return any(begin_s <= now_s < end_s for begin_s, end_s in self.spans)

    def begin(self, world: World, chance: Chance) -> None:
        """Arrange what happens by itself; called once, before anything else happens."""

    def meddle(self, world: World, passage: Passage, chance: Chance) -> None:
        """Change what happens to a frame; called while it is on, where `on_wire` says so."""


def episodes(chance: Chance, heal_s: float) -> tuple[Span, ...]:
    """The whole time now and then, else one to three times a while."""
    if chance.hit(0.25):
        return ((0.0, heal_s),)
    spans = []
    for _ in range(chance.whole(1, 3)):
        begin_s = chance.between(0.0, heal_s * 0.85)
        spans.append((on_grid(begin_s), on_grid(min(heal_s, begin_s + chance.between(0.3, heal_s / 2.5)))))
    return tuple(spans)


def moments(chance: Chance, heal_s: float, longest_s: float) -> tuple[Span, ...]:
    """Some short spans, one after another, the last over well before the end."""
    spans: list[Span] = []
    at_s = chance.between(0.2, heal_s / 2)
    for _ in range(chance.whole(1, 4)):
        end_s = at_s + chance.between(0.01, longest_s)
        if end_s > heal_s:
            break
        spans.append((on_grid(at_s), on_grid(end_s)))
        at_s = end_s + chance.between(0.05, heal_s / 3)
    return tuple(spans) or ((heal_s / 2, heal_s / 2 + longest_s / 2),)


# on the wire ------------------------------------------------------------------------------------------------
