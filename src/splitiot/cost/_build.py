"""Makes the table of a pipeline's placements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from splitiot._expect import expect
from splitiot.cost._costs import (
    CODECS,
    DEVICE,
    DOWN,
    EDGE,
    RTT,
    UP,
    WAIT,
    Costs,
    Power,
    Table,
    checked_factors,
    checked_wait,
    frozen_mask,
)
from splitiot.errors import Infeasible, ProfileError
from splitiot.pipeline import Pipeline, Placement, expect_pipeline
from splitiot.topology import TierProfile, Topology

__all__ = ["costs"]


def costs(
    pipeline: Pipeline,
    topology: Topology,
    *,
    parts: Iterable[tuple[int, int]] | None = None,
    factors: Sequence[float] = (1.0, 1.0),
    wait_s: float = 0.0,
    power: Power | None = None,
) -> Costs:
    """Work out what every legal placement of a pipeline would cost.

    Parameters
    ----------
    pipeline : Pipeline
    topology : Topology
        Two tiers: device and edge.
    parts : iterable of (start, stop), optional
        The parts that the device has; placements that need others are masked. All, unless given.
    factors : (float, float)
        How many times slower than their profiles device and edge are.
    wait_s : float
        Seconds that a request spends on the edge without being computed.
    power : Power, optional
        For ``energy_j``.

    Raises
    ------
    ProfileError
        The profiles are of another pipeline, or bytes that only a run can tell were not measured.
    ValueError
        There are more than two tiers, or a number is out of range.

    Examples
    --------
    >>> from splitiot import Link, tasks
    >>> def double(x): return 2 * x
    >>> def increment(x): return x + 1
    >>> pipeline = tasks([double, increment])
    >>> sizes = dict(sent_bytes=[8, 8, 0], returned_bytes=[8, 8, 0])
    >>> slow = TierProfile.from_steps(pipeline.digest, [0.5, 0.5], **sizes)
    >>> link = Link(rtt_s=0.1, up_bytes_per_s=1000, down_bytes_per_s=1000)
    >>> table = costs(pipeline, Topology(tiers=[slow, slow.scaled(0.1)], links=[link]))
    >>> table.cuts.tolist(), table.latency_s.round(3).tolist()
    ([0, 1, 2], [0.216, 0.666, 1.0])
    """
    expect_pipeline(pipeline)
    expect(topology, Topology, "topology", "Topology(tiers=[device, edge], links=[link])")
    if len(topology.tiers) != 2:
        raise ValueError(f"this version places on two tiers, the topology has {len(topology.tiers)}")
    device, edge = topology.tiers
    for tier in topology.tiers:
        if tier.digest != pipeline.digest or tier.n != pipeline.n:
            raise ProfileError(
                f"a profile is of pipeline {tier.digest[:12]} with {tier.n} steps, "
                f"not of {pipeline.digest[:12]} with {pipeline.n}: profile this one"
            )
    placements = tuple(Placement((cut,), (codec,)) for cut in pipeline.cuts for codec in CODECS)
    if not placements:
        raise Infeasible("this pipeline has no legal cut at all: " + "; ".join(set(pipeline.refused.values())))
    cuts = np.array([p.cut for p in placements], dtype=np.int64)
    terms = np.zeros((len(placements), 6))
    terms[:, DEVICE] = device.heads_s[cuts]
    terms[:, EDGE] = edge.tails_s[cuts]
    for row, placement in enumerate(placements):
        cut = placement.cut
        if cut == pipeline.n and pipeline.sink == "device":
            continue  # nothing is exchanged
        terms[row, UP] = _crossing(pipeline.boundary(cut).nbytes, "sent_bytes", cut, topology.tiers)
        terms[row, DOWN] = _crossing(pipeline.returned(cut).nbytes, "returned_bytes", cut, topology.tiers)
        terms[row, RTT] = terms[row, WAIT] = 1.0
    terms.flags.writeable = cuts.flags.writeable = False
    mask = np.ones(len(placements), dtype=np.bool_)
    if parts is not None:
        has = {(int(start), int(stop)) for start, stop in parts}
        mask = np.array([cut == 0 or (0, cut) in has for cut in cuts.tolist()])
    link = topology.links[0]
    beliefs = np.array(
        [
            *checked_factors(factors),
            1 / link.up_bytes_per_s,
            1 / link.down_bytes_per_s,
            link.rtt_s,
            checked_wait(wait_s),
        ]
    )
    return Costs(Table(pipeline, placements, cuts, terms, power), beliefs, *frozen_mask(mask))


def _crossing(known: int | None, column: str, cut: int, tiers: Sequence[TierProfile]) -> float:
    if known is not None:
        return float(known)
    measured = [float(sizes[cut]) for tier in tiers if (sizes := getattr(tier, column)) is not None]
    if measured:
        return next((size for size in measured if size > 0), 0.0)  # 0: that tier could not measure it
    raise ProfileError(
        f"nobody knows the bytes at cut {cut}: the profiles have no {column}. "
        "Measure them: splitiot.profile(pipeline, sample)"
    )
