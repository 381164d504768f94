"""Tiers, and the links between them: plain values."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec
import numpy as np
from attrs import evolve, field, frozen
from numpy.typing import NDArray

from splitiot._expect import described, expect
from splitiot._files import read_json, write_atomically
from splitiot.errors import ProfileError
from splitiot.pipeline import RuntimeInfo

__all__ = ["DEFAULT_LINK", "Link", "TierProfile", "Topology"]

_FORMAT = 1
MOST_BYTES = 1 << 24  # of a file: 100,000 steps take less

T = TypeVar("T")


def _positive(value: float, name: str) -> float:
    value = float(value)
    if not (value > 0 and not math.isnan(value)):
        raise ValueError(f"{name} must be a positive number, got {value}")
    return value


@frozen
class Link:
    """The network between two neighbouring tiers.

    Parameters
    ----------
    rtt_s : float
        Round-trip time of a tiny message, in seconds.
    up_bytes_per_s, down_bytes_per_s : float
        Towards the edge and back; ``inf`` is allowed.

    Raises
    ------
    ValueError
        A number is negative, zero (rates) or not a number.

    Examples
    --------
    >>> link = Link(rtt_s=0.02, up_bytes_per_s=125e3, down_bytes_per_s=500e3)
    >>> round(link.transfer_s(12_500, 500), 6)
    0.121
    """

    rtt_s: float = field(converter=float)
    up_bytes_per_s: float = field(converter=float)
    down_bytes_per_s: float = field(converter=float)

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.rtt_s < math.inf:
            raise ValueError(f"rtt_s must be a number of seconds >= 0, got {self.rtt_s}")
        _positive(self.up_bytes_per_s, "up_bytes_per_s")
        _positive(self.down_bytes_per_s, "down_bytes_per_s")

    @classmethod
    def from_mbit_per_s(cls, up: float, down: float | None = None, *, rtt_s: float) -> Link:
        """Make a link from megabits a second (10**6 bits); `down` is `up` unless given."""
        return cls(rtt_s, up * 125e3, (up if down is None else down) * 125e3)

    def transfer_s(self, sent_bytes: float, received_bytes: float = 0.0) -> float:
        """Seconds for one exchange: round trip, bytes up, bytes down."""
        return self.rtt_s + sent_bytes / self.up_bytes_per_s + received_bytes / self.down_bytes_per_s


DEFAULT_LINK: Final = Link.from_mbit_per_s(10, rtt_s=0.02)
"""Believed of a link of which nobody says anything, until there are samples."""


def _seconds(values: Iterable[float]) -> NDArray[np.float64]:
    array = np.array(list(values), dtype=np.float64)
    array.flags.writeable = False
    return array


def _opt_array(values: Iterable[float] | None) -> NDArray[np.float64] | None:
    return None if values is None else _seconds(values)


@frozen(eq=False)
class TierProfile:
    """What a pipeline's parts cost on one tier.

    Parameters
    ----------
    digest : str
        Of the pipeline.
    heads_s : array of float, shape (n + 1,)
        Seconds of [0, k) for every k, 0 at k = 0, never falling.
    tails_s : array of float, shape (n + 1,)
        Seconds of [k, n) for every k, 0 at k = n, never rising.
    startup_s : float
        What one more part costs (the difference between head + tail and the whole).
    spread : float
        Typical relative spread of a run (median absolute deviation over the median, scaled to sigma).
    sent_bytes, returned_bytes : array of float, shape (n + 1,), optional
        Measured medians where boundaries have no bytes of their own (Python functions).
    runtime : RuntimeInfo, optional
    machine : str
        Words for people.
    noise : float
        How far off the seconds may be, relative, since the machine was unsteady while they were measured: `spread`
        is that of single runs, this is what is left of it in the medians, or what the machine's speed changed by.
    steps_s : array of float, shape (n,), optional
        Seconds of each step run alone, with the start-up and the copies of a part of its own: for shares. Their sums
        are up to 3 times too high. Steps between which no cut is legal share the seconds of their group.

    Raises
    ------
    ProfileError
        Shapes differ, numbers are negative or not finite, or the curves do not run one way.

    Examples
    --------
    >>> profile = TierProfile.from_steps("ab", [0.1, 0.2, 0.3])
    >>> profile.heads_s.round(6).tolist(), round(profile.part_s(1, 2), 6)
    ([0.0, 0.1, 0.3, 0.6], 0.2)
    """

    digest: str
    heads_s: NDArray[np.float64] = field(converter=_seconds)
    tails_s: NDArray[np.float64] = field(converter=_seconds)
    startup_s: float = 0.0
    spread: float = 0.0
    sent_bytes: NDArray[np.float64] | None = field(converter=_opt_array, default=None)
    returned_bytes: NDArray[np.float64] | None = field(converter=_opt_array, default=None)
    runtime: RuntimeInfo | None = None
    machine: str = ""
    noise: float = 0.0
    steps_s: NDArray[np.float64] | None = field(converter=_opt_array, default=None)

    def __attrs_post_init__(self) -> None:
        heads, tails = self.heads_s, self.tails_s
        if heads.ndim != 1 or heads.shape != tails.shape or len(heads) < 2:
            raise ProfileError(f"heads_s and tails_s need n + 1 numbers each, got {heads.shape} and {tails.shape}")
        for name, array in (("heads_s", heads), ("tails_s", -tails)):
            if not np.isfinite(array).all():
                raise ProfileError(f"{name} holds a number that is not finite: measure again")
            if (np.diff(array) < 0).any():
                raise ProfileError(f"{name} does not run one way: longer parts can't cost less")
        if heads[0] != 0 or tails[-1] != 0:
            raise ProfileError("heads_s must start and tails_s must end with 0: empty parts cost nothing")
        for extra in (self.sent_bytes, self.returned_bytes):
            if extra is not None and (extra.shape != heads.shape or not np.isfinite(extra).all() or (extra < 0).any()):
                raise ProfileError("sent_bytes and returned_bytes need n + 1 finite numbers >= 0")
        steps = self.steps_s
        if steps is not None and (steps.shape != (self.n,) or not np.isfinite(steps).all() or (steps < 0).any()):
            raise ProfileError("steps_s needs n finite numbers >= 0")
        for name, value in (("startup_s", self.startup_s), ("spread", self.spread), ("noise", self.noise)):
            if not (math.isfinite(value) and value >= 0):
                raise ProfileError(f"{name} must be a finite number >= 0, got {value}")

    @classmethod
    def from_steps(cls, digest: str, steps_s: Sequence[float], **more: Any) -> TierProfile:
        """Make a profile of seconds a step, for published figures; measure with `profile()` where you can.

        Sums of single steps are up to 3 times too high for real interpreters: they fuse operators.
        """
        steps = np.asarray(steps_s, dtype=np.float64)
        heads = np.concatenate([[0.0], np.cumsum(steps)])
        tails = np.concatenate([np.cumsum(steps[::-1])[::-1], [0.0]])
        return cls(digest, heads.tolist(), tails.tolist(), steps_s=steps.tolist(), **more)

    @property
    def n(self) -> int:
        """The number of steps."""
        return len(self.heads_s) - 1

    @property
    def whole_s(self) -> float:
        """Seconds of the whole pipeline."""
        return float(self.heads_s[-1])

    def part_s(self, start: int, stop: int) -> float:
        """Seconds of [start, stop): measured at the ends, a difference of heads (and a start-up) between."""
        if start == 0:
            return float(self.heads_s[stop])
        if stop == self.n:
            return float(self.tails_s[start])
        return float(self.heads_s[stop] - self.heads_s[start]) + (self.startup_s if stop > start else 0.0)

    def scaled(self, factor: float) -> TierProfile:
        """The profile of a machine that is `factor` times slower."""
        _positive(factor, "factor")
        return evolve(
            self,
            heads_s=self.heads_s * factor,
            tails_s=self.tails_s * factor,
            startup_s=self.startup_s * factor,
            steps_s=None if self.steps_s is None else self.steps_s * factor,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON and for the wire."""
        return {
            "format": _FORMAT,
            "digest": self.digest,
            "heads_s": self.heads_s.tolist(),
            "tails_s": self.tails_s.tolist(),
            "startup_s": self.startup_s,
            "spread": self.spread,
            "noise": self.noise,
            "steps_s": None if self.steps_s is None else self.steps_s.tolist(),
            "sent_bytes": None if self.sent_bytes is None else self.sent_bytes.tolist(),
            "returned_bytes": None if self.returned_bytes is None else self.returned_bytes.tolist(),
            "runtime": None if self.runtime is None else [*_runtime_words(self.runtime)],
            "machine": self.machine,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TierProfile:
        """Make a profile of what `to_dict` gave, checking all of it.

        Raises
        ------
        ProfileError
            Something is missing, or of the wrong type or version.
        """
        try:
            if data["format"] != _FORMAT:
                raise ProfileError(f"this profile has format {data['format']!r}, this version reads {_FORMAT}")
            runtime = data.get("runtime")
            return cls(
                digest=str(data["digest"]),
                heads_s=data["heads_s"],
                tails_s=data["tails_s"],
                startup_s=float(data.get("startup_s", 0.0)),
                spread=float(data.get("spread", 0.0)),
                noise=float(data.get("noise", 0.0)),
                steps_s=data.get("steps_s"),
                sent_bytes=data.get("sent_bytes"),
                returned_bytes=data.get("returned_bytes"),
                runtime=None if runtime is None else RuntimeInfo(*map(str, runtime)),
                machine=str(data.get("machine", "")),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            raise ProfileError(f"not a profile: {error!r}. Make one with splitiot.profile()") from error

    def _repr_html_(self) -> str:
        from splitiot._html import profile_html

        return profile_html(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON: all of it, or nothing.

        Raises
        ------
        OSError
            It can't be written; what stood there before stands there still.
        """
        try:
            data = msgspec.json.format(msgspec.json.encode(self.to_dict()))
        except UnicodeEncodeError as error:
            raise ProfileError(f"a word in the profile is not UTF-8, so it can't be kept: {error}") from error
        write_atomically(path, data)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TierProfile:
        """Read what `save` wrote.

        Raises
        ------
        ProfileError
            The file holds something else, is no regular file, or can't be read.
        FileNotFoundError
        """
        data = read_json(path, kind=dict[str, Any], most_bytes=MOST_BYTES, what="a profile", error=ProfileError)
        try:
            return cls.from_dict(data)
        except ProfileError as error:
            raise ProfileError(f"{path}: {error}") from error


def _runtime_words(info: RuntimeInfo) -> tuple[str, str, str, str]:
    return info.name, info.version, info.kernels, info.machine


def _profiles(values: Iterable[TierProfile]) -> tuple[TierProfile, ...]:
    return _each(values, TierProfile, "tiers", "TierProfile.load(path), or splitiot.profile(pipeline, sample)")


def _links(values: Iterable[Link]) -> tuple[Link, ...]:
    return _each(values, Link, "links", "Link.from_mbit_per_s(10, rtt_s=0.02)")


def _each(values: Iterable[T], kind: type[T], name: str, advice: str) -> tuple[T, ...]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list, got {described(values)}: write {name}=[...]")
    return tuple([expect(value, kind, f"each of {name}", advice) for value in values])


@frozen(eq=False)
class Topology:
    """The tiers' profiles, from the device on, and the links between neighbours.

    Parameters
    ----------
    tiers : sequence of TierProfile
    links : sequence of Link
        One fewer than tiers.

    Raises
    ------
    ProfileError
        The profiles are of different pipelines.
    ValueError
        The numbers of tiers and links do not fit.
    """

    tiers: tuple[TierProfile, ...] = field(converter=_profiles)
    links: tuple[Link, ...] = field(converter=_links)

    def __attrs_post_init__(self) -> None:
        if len(self.tiers) < 2 or len(self.links) != len(self.tiers) - 1:
            raise ValueError(
                f"{len(self.tiers)} tiers and {len(self.links)} links: give two or more tiers, and one link fewer"
            )
        digests = {tier.digest for tier in self.tiers}
        if len(digests) > 1:
            raise ProfileError(
                f"the profiles are of {len(digests)} different pipelines: profile the same one on each tier"
            )
