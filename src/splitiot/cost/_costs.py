"""A table of costs: columns, beliefs and masks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from splitiot.errors import CutError, Infeasible
from splitiot.pipeline import Pipeline, Placement
from splitiot.topology import Link

__all__ = [
    "CODECS",
    "DEVICE",
    "DOWN",
    "EDGE",
    "RTT",
    "UP",
    "WAIT",
    "Costs",
    "Floats",
    "Objective",
    "Power",
    "Table",
    "check_objective",
    "checked_factors",
    "checked_wait",
    "frozen_mask",
    "name_of",
]

Floats: TypeAlias = NDArray[np.float64]

# what a vector of beliefs holds at each place, and the columns of the terms
DEVICE: Final = 0
EDGE: Final = 1
UP: Final = 2
DOWN: Final = 3
RTT: Final = 4
WAIT: Final = 5

CODECS: Final = ("raw",)


@frozen
class Power:
    """What the device draws, in watts.

    Parameters
    ----------
    busy_w : float
        While it computes.
    send_w, receive_w : float
        While bytes go up or come down.
    idle_w : float
        While it waits for the link and the edge.
    """

    busy_w: float
    send_w: float = 0.0
    receive_w: float = 0.0
    idle_w: float = 0.0

    def __attrs_post_init__(self) -> None:
        for watts in (self.busy_w, self.send_w, self.receive_w, self.idle_w):
            if not 0 <= watts < math.inf:
                raise ValueError(f"watts must be finite numbers >= 0, got {watts}")


@frozen(eq=False)
class Table:
    """What does not change with beliefs."""

    pipeline: Pipeline
    placements: tuple[Placement, ...]
    cuts: NDArray[np.int64]
    terms: Floats  # (rows, 6)
    power: Power | None
    row_of: dict[int, int] = field(init=False)
    serialized: NDArray[np.bool_] | None = field(init=False)  # rows whose requests reach the edge one after another

    @row_of.default
    def _index(self) -> dict[int, int]:
        return {placement.cut: row for row, placement in enumerate(self.placements)}

    @serialized.default
    def _serialized_rows(self) -> NDArray[np.bool_] | None:
        rows = np.array([self.pipeline.remembers_from(placement.cut) for placement in self.placements])
        rows &= self.terms[:, RTT] > 0
        return rows if rows.any() else None


class Costs:
    """What every legal placement would cost under one set of beliefs.

    Made by `costs`; a value, never changed.
    Columns are computed when they are asked for, from arrays that all `at` and `masked` copies share. Rows go
    from the least to the most steps on the device.
    """

    __slots__ = ("_beliefs", "_penalty", "_table", "_terms", "mask")

    mask: NDArray[np.bool_]
    """Which rows are allowed, shape (rows,), bool."""

    def __init__(
        self, table: Table, beliefs: Floats, mask: NDArray[np.bool_], penalty: Floats, terms: Floats | None = None
    ) -> None:
        self._table = table
        self._terms = table.terms if terms is None else terms
        self._beliefs = beliefs  # device factor, edge factor, 1/up, 1/down, rtt_s, wait_s
        self._penalty = penalty  # 0 where allowed, inf elsewhere
        self.mask = mask

    # other beliefs ------------------------------------------------------------------------------------------

    def at(
        self, *, link: Link | None = None, factors: Sequence[float] | None = None, wait_s: float | None = None
    ) -> Costs:
        """Return the same rows under other beliefs; what is not given stays.

        Parameters
        ----------
        link : Link, optional
        factors : (float, float), optional
            How many times slower than their profiles the device and the edge are.
        wait_s : float, optional
            Seconds that a request spends on the edge without being computed.

        Examples
        --------
        >>> from splitiot import TierProfile, Topology, costs, tasks
        >>> def double(x): return 2 * x
        >>> pipeline = tasks([double])
        >>> sizes = dict(sent_bytes=[100, 0], returned_bytes=[50, 0])
        >>> profile = TierProfile.from_steps(pipeline.digest, [0.5], **sizes)
        >>> fast, slow = Link(0.1, 1000, 1000), Link(0.1, 100, 100)
        >>> table = costs(pipeline, Topology(tiers=[profile, profile.scaled(0.1)], links=[fast]))
        >>> table.latency_s.round(6).tolist(), table.at(link=slow).latency_s.round(6).tolist()
        ([0.3, 0.5], [1.65, 0.5])
        """
        beliefs = self._beliefs.copy()
        if factors is not None:
            beliefs[DEVICE], beliefs[EDGE] = checked_factors(factors)
        if link is not None:
            beliefs[UP], beliefs[DOWN] = 1 / link.up_bytes_per_s, 1 / link.down_bytes_per_s
            beliefs[RTT] = link.rtt_s
        if wait_s is not None:
            beliefs[WAIT] = checked_wait(wait_s)
        return Costs(self._table, beliefs, self.mask, self._penalty, self._terms)

    def with_beliefs(self, vector: Floats) -> Costs:
        """Return the same rows under a vector of beliefs, not checked: what a planner calls on each decision.

        Parameters
        ----------
        vector : array of float, shape (6,)
            Device factor, edge factor, 1/up, 1/down, rtt_s, wait_s. Kept, so it must not be changed.
        """
        return Costs(self._table, vector, self.mask, self._penalty, self._terms)

    def with_curves(self, heads_s: Floats, tails_s: Floats) -> Costs:
        """Return the same rows with other seconds at factor 1, not checked: what a planner calls when it learns them.

        Parameters
        ----------
        heads_s, tails_s : array of float, shape (n + 1,)
            Of [0, k) on the device and [k, n) on the edge.
        """
        terms = self._terms.copy()
        terms[:, DEVICE] = heads_s[self._table.cuts]
        terms[:, EDGE] = tails_s[self._table.cuts]
        terms.setflags(write=False)
        return Costs(self._table, self._beliefs, self.mask, self._penalty, terms)

    def under(self, vectors: Floats, objective: Objective = "latency_s") -> Floats:
        """Return what an objective says under several vectors of beliefs at once, inf where a row is not allowed.

        Parameters
        ----------
        vectors : array of float, shape (m, 6)
            See `with_beliefs`.
        objective : Objective

        Returns
        -------
        array of float, shape (m, rows)
        """
        if objective == "latency_s":
            values: Floats = vectors.dot(self._terms.T)
        else:
            values = np.array([self.with_beliefs(vector).values(objective) for vector in vectors])
            values[np.isnan(values)] = math.inf
        return values + self._penalty

    def masked(self, mask: NDArray[np.bool_]) -> Costs:
        """Return the same rows, allowing those in this mask and in `mask`, shape (rows,)."""
        mask = np.asarray(mask, dtype=np.bool_)
        if mask.shape != self.mask.shape:
            raise ValueError(f"a mask for these costs has shape {self.mask.shape}, got {mask.shape}")
        return Costs(self._table, self._beliefs, *frozen_mask(self.mask & mask), self._terms)

    @property
    def beliefs(self) -> Floats:
        """Device factor, edge factor, 1/up, 1/down, rtt_s, wait_s; shape (6,).

        `splitiot.cost.DEVICE`, `EDGE`, `UP`, `DOWN`, `RTT` and `WAIT` name the places.
        """
        return _read_only(self._beliefs)

    @property
    def terms(self) -> Floats:
        """What each belief is multiplied with: seconds on the device, on the edge, bytes up, down, and 0 or 1 twice.

        Shape (rows, 6): ``latency_s == terms @ beliefs``. The columns have the names of the places in `beliefs`.
        """
        return self._terms  # read-only as it is

    # rows ---------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._table.placements)

    @property
    def pipeline(self) -> Pipeline:
        """What is placed."""
        return self._table.pipeline

    @property
    def power(self) -> Power | None:
        """What the device draws, None where it was not given."""
        return self._table.power

    @property
    def placements(self) -> tuple[Placement, ...]:
        """One for each row."""
        return self._table.placements

    @property
    def cuts(self) -> NDArray[np.int64]:
        """The number of steps on the device, shape (rows,), ascending."""
        return self._table.cuts

    @property
    def local_row(self) -> int | None:
        """The row of the placement with all steps on the device, None if it is not legal."""
        return self._table.row_of.get(self._table.pipeline.n)

    def row_of(self, cut: int) -> int | None:
        """Return the row of a cut, None where it is not legal."""
        return self._table.row_of.get(cut)

    def at_cut(self, cut: int) -> int:
        """Return the row of a cut.

        Raises
        ------
        CutError
            The cut is not in 0..n, or not legal; the message says why.
        """
        row = self._table.row_of.get(cut)
        if row is None:
            cut = self.pipeline.check_cut(cut)
            why = self.pipeline.refused.get(cut, "the pipeline does not allow it")
            raise CutError(f"cut {cut} is not legal: {why}. Legal cuts: {_few(self.cuts.tolist())}")
        return row

    # columns ------------------------------------------------------------------------------------------------

    @property
    def latency_s(self) -> Floats:
        """Seconds from the input to the result, one request alone; shape (rows,)."""
        result: Floats = self._terms.dot(self._beliefs)
        return result

    @property
    def period_s(self) -> Floats:
        """Seconds between results of a pipelined run: the slowest of device, uplink, edge and downlink.

        Where the tail remembers something, link and edge work on one request at a time, and count together.
        """
        busy = self._terms * self._beliefs
        result: Floats = busy[:, :RTT].max(axis=1)
        if self._table.serialized is not None:
            result = np.where(self._table.serialized, np.maximum(busy[:, DEVICE], busy[:, EDGE:].sum(axis=1)), result)
        return result

    def paced_s(self, window: int) -> Floats:
        """Return the seconds between results with at most `window` requests under way; shape (rows,).

        ``max(period_s, latency_s / window)``: by Little's law, where the window is too small to keep the slowest
        resource at work.
        """
        result: Floats = np.maximum(self.period_s, self.latency_s / window)
        return result

    @property
    def energy_j(self) -> Floats:
        """Joules that the device spends on one request; NaN unless powers were given."""
        power = self._table.power
        if power is None:
            return np.full(len(self), math.nan)
        terms, beliefs = self._terms, self._beliefs
        watts = np.array([power.busy_w, power.idle_w, power.send_w, power.receive_w, power.idle_w, power.idle_w])
        result: Floats = terms.dot(beliefs * watts)
        return result

    @property
    def device_s(self) -> Floats:
        """Seconds of computing on the device."""
        return self._term(DEVICE)

    @property
    def edge_s(self) -> Floats:
        """Seconds of computing on the edge."""
        return self._term(EDGE)

    @property
    def up_s(self) -> Floats:
        """Seconds of sending, without the round trip."""
        return self._term(UP)

    @property
    def down_s(self) -> Floats:
        """Seconds of receiving, without the round trip."""
        return self._term(DOWN)

    @property
    def rtt_s(self) -> Floats:
        """Seconds of the round trip, 0 where nothing is exchanged."""
        return self._term(RTT)

    @property
    def wait_s(self) -> Floats:
        """Seconds on the edge without being computed, 0 where nothing is exchanged."""
        return self._term(WAIT)

    @property
    def sent_bytes(self) -> Floats:
        """Bytes of the payload that goes up."""
        return self._terms[:, UP]

    @property
    def returned_bytes(self) -> Floats:
        """Bytes of the payload that comes back."""
        return self._terms[:, DOWN]

    @property
    def serialized(self) -> bool:
        """Whether any tail remembers something, so that its requests reach the edge one after another."""
        return self._table.serialized is not None

    @property
    def exchanges(self) -> NDArray[np.bool_]:
        """Which rows need the edge."""
        return self._terms[:, RTT] > 0

    def _term(self, column: int) -> Floats:
        result: Floats = self._terms[:, column] * self._beliefs[column]
        return result

    # choosing -----------------------------------------------------------------------------------------------

    def values(self, objective: Objective) -> Floats:
        """Return what an objective says of every row, masked or not; shape (rows,).

        Raises
        ------
        ValueError
            It is ``"energy_j"`` and no powers were given, no objective at all, or a callable that gave
            another shape.
        """
        if objective == "latency_s":
            return self.latency_s
        if callable(objective):
            values: Floats = np.asarray(objective(self), dtype=np.float64)
            if values.shape != (len(self),):
                raise ValueError(f"{name_of(objective)} gave shape {values.shape}, expected ({len(self)},)")
            return values
        if objective == "energy_j":
            if self._table.power is None:
                raise ValueError("energy_j needs the device's watts: costs(..., power=Power(busy_w=...))")
            return self.energy_j
        if objective == "period_s":
            return self.period_s
        check_objective(objective)
        raise AssertionError(f"the objective {objective!r} is known and has no values")

    def allowed_values(self, objective: Objective) -> Floats:
        """Return what an objective says of every row, inf where a row is not allowed; shape (rows,). See `values`."""
        values: Floats
        if objective == "latency_s":
            values = self._terms.dot(self._beliefs) + self._penalty
        else:
            values = self.values(objective) + self._penalty
        values.setflags(write=False)
        return values

    def best(self, objective: Objective = "latency_s") -> int:
        """Return the allowed row with the least value; of equals the one with most steps on the device.

        Raises
        ------
        Infeasible
            No row is allowed, or the objective is not finite on any of them.
        ValueError
            See `values`.
        """
        values = self.allowed_values(objective)
        if objective != "latency_s":
            values = np.where(np.isnan(values), math.inf, values)
        row = len(values) - 1 - int(values[::-1].argmin())
        if values[row] == math.inf:
            raise Infeasible(
                f"none of the {len(self)} legal placements is allowed (is the edge down? are parts missing?)"
                if not self.mask.any()
                else f"{name_of(objective)} is finite on none of {int(self.mask.sum())} allowed placements"
            )
        return row

    def _repr_html_(self) -> str:
        from splitiot._html import costs_html

        return costs_html(self)

    def __repr__(self) -> str:
        return f"<Costs of {len(self)} placements, {int(self.mask.sum())} allowed>"


Objective: TypeAlias = Literal["latency_s", "period_s", "energy_j"] | Callable[[Costs], Floats]
"""What to make small: a column, or a callable that makes one number a row (NaN and inf: never)."""


def check_objective(objective: Objective) -> Objective:
    """Return what is to be made small; raise ValueError where there is no such thing."""
    if not callable(objective) and objective not in ("latency_s", "period_s", "energy_j"):
        raise ValueError(f"no objective {objective!r}: latency_s, period_s, energy_j, or a callable(costs)")
    return objective


def name_of(objective: Objective) -> str:
    """Return the name of an objective, for messages."""
    return objective if isinstance(objective, str) else getattr(objective, "__name__", repr(objective))


def frozen_mask(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], Floats]:
    """Return a mask and what to add to forbidden rows, neither to be changed any more."""
    penalty = np.where(mask, 0.0, math.inf)
    mask.flags.writeable = penalty.flags.writeable = False
    return mask, penalty


def _read_only(array: Floats) -> Floats:
    view = array.view()
    view.flags.writeable = False
    return view


def checked_factors(factors: Sequence[float]) -> tuple[float, float]:
    """Return both factors, or say what is wrong with them."""
    device, edge = (float(f) for f in factors)
    if not (0 < device < math.inf and 0 < edge < math.inf):
        raise ValueError(f"factors must be finite numbers > 0, got {device} and {edge}")
    return device, edge


def checked_wait(wait_s: float) -> float:
    """Return the seconds, or say what is wrong with them."""
    wait_s = float(wait_s)
    if not 0 <= wait_s < math.inf:
        raise ValueError(f"wait_s must be a finite number >= 0, got {wait_s}")
    return wait_s


def _few(cuts: Sequence[int]) -> str:
    names = [str(cut) for cut in cuts]
    return ", ".join(names if len(names) <= 12 else [*names[:6], "...", *names[-3:]])
