"""Curves over all cuts, laid through a few measured parts.

A step costs more alone than among others: each part has its start-up, and copies what goes in and out. So sums of
single pieces are far too high (by 85 % for a small network), and not everywhere alike. Joining two pieces saves a
start-up and the copies at their joint::

    seconds of a part = factor * sum(pieces) - joint_s * joints - copy_s_per_byte * bytes at the joints

The three numbers are fitted to the measured heads and tails. What is still left between that and a measured part is
interpolated, so that the curve goes through all that was measured.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

__all__ = ["Joints", "curve", "fit_joints", "never_falling"]

_LEAST_SHARE = 0.02  # of what a piece costs alone: joined to others it still costs something


class Joints(msgspec.Struct, frozen=True):
    """What pieces cost together.

    Parameters
    ----------
    factor : float
        Seconds together for one second alone.
    joint_s : float
        Saved where two pieces are joined.
    copy_s_per_byte : float
        Saved for each byte that crosses there.
    """

    factor: float = 1.0
    joint_s: float = 0.0
    copy_s_per_byte: float = 0.0

    def heads_s(self, pieces_s: Sequence[float], joint_bytes: Sequence[float]) -> NDArray[np.float64]:
        """Return the seconds of [0, k) pieces for k = 1..K, always rising where pieces take time.

        Parameters
        ----------
        pieces_s : sequence of float, length K
            Alone.
        joint_bytes : sequence of float, length K - 1
        """
        pieces = np.asarray(pieces_s, dtype=np.float64)
        saved = self.joint_s + self.copy_s_per_byte * np.asarray(joint_bytes, dtype=np.float64)
        added = self.factor * pieces
        added[1:] = np.maximum(added[1:] - saved, _LEAST_SHARE * added[1:])
        total: NDArray[np.float64] = np.cumsum(added)
        return total


def fit_joints(
    pieces_s: Sequence[float], joint_bytes: Sequence[float], parts_s: Mapping[tuple[int, int], float]
) -> Joints:
    """Fit to measured parts, by least squares of relative errors; none of the three numbers is below 0.

    Parameters
    ----------
    pieces_s : sequence of float, length K
    joint_bytes : sequence of float, length K - 1
    parts_s : mapping of (int, int) to float
        Seconds of the parts [i, j), in pieces.

    Examples
    --------
    >>> pieces_s, sizes = [0.3, 0.4, 0.5], [0, 1000]
    >>> joints = fit_joints(pieces_s, sizes, {(0, 2): 0.6, (0, 3): 0.8, (1, 3): 0.6})
    >>> round(joints.factor, 6), round(joints.joint_s, 6), round(joints.copy_s_per_byte, 6)
    (1.0, 0.1, 0.0002)
    """
    done = np.concatenate([[0.0], np.cumsum(np.asarray(pieces_s, dtype=np.float64))])
    crossed = np.concatenate([[0.0, 0.0], np.cumsum(np.asarray(joint_bytes, dtype=np.float64))])
    rows = [
        ((done[j] - done[i]) / s, -(j - i - 1) / s, -(crossed[j] - crossed[i + 1]) / s)
        for (i, j), s in parts_s.items()
        if s > 0 and done[j] > done[i] and j > i + 1  # a single piece tells nothing of joints
    ]
    if not rows:
        return Joints()
    table = np.array(rows)
    best, least = Joints(), np.inf
    for more in itertools.chain.from_iterable(itertools.combinations((1, 2), k) for k in range(3)):
        columns = [0, *more]
        used = table[:, columns]
        scale = np.abs(used).max(axis=0)
        if (scale <= 0).any():
            continue
        solution: Any = np.linalg.lstsq(used / scale, np.ones(len(table)), rcond=1e-9)[0] / scale
        error = float(np.square(used @ solution - 1).sum())
        if solution[0] > 0 and (solution >= 0).all() and error < least:
            numbers = [0.0, 0.0, 0.0]
            for column, value in zip(columns, solution, strict=True):
                numbers[column] = float(value)
            best, least = Joints(*numbers), error
    return best


def curve(model_s: NDArray[np.float64], measured_s: Mapping[int, float], whole_s: float) -> NDArray[np.float64]:
    """Lay a curve through what was measured, shaped by a model between; it never falls, nor exceeds `whole_s`.

    Parameters
    ----------
    model_s : array of float, shape (K,)
        Rising seconds of 1..K pieces.
    measured_s : mapping of int to float
        Seconds by number of pieces.

    Examples
    --------
    >>> curve(np.array([1.0, 2.0, 3.0, 4.0]), {2: 3.0, 4: 6.0}, 6.0).tolist()
    [1.5, 3.0, 4.5, 6.0]
    """
    at = sorted(measured_s)
    seconds = np.minimum(never_falling([measured_s[k] for k in at]), whole_s)
    if model_s[0] > 0:
        x = model_s[[k - 1 for k in at]]
        # by the model's shares of what lies between two measured parts: so it can't leave their range
        every_s = np.interp(model_s, x, seconds)
        # A single piece has no joints: how well the model fits there says nothing about the others.
        first = 1 if at[0] == 1 and len(at) > 1 else 0
        low = slice(0, at[first] - 1)
        every_s[low] = np.minimum(model_s[low] * seconds[first] / x[first], seconds[first])
        if first:
            every_s[low] = np.maximum(every_s[low], seconds[0])
    else:  # pieces that take no time tell nothing of the shape
        every_s = np.interp(np.arange(1, len(model_s) + 1), at, seconds)
    every_s[[k - 1 for k in at]] = seconds
    every_s[-1] = whole_s
    rising: NDArray[np.float64] = np.minimum(np.maximum.accumulate(every_s), whole_s)
    return rising


def never_falling(values: Sequence[float]) -> NDArray[np.float64]:
    """Return the nearest sequence (least squares) that never falls, by pooling adjacent violators.

    References
    ----------
    Ayer, Brunk, Ewing, Reid, Silverman, "An empirical distribution function for sampling with incomplete
    information", Annals of Mathematical Statistics 26(4), 1955.

    Examples
    --------
    >>> never_falling([1, 3, 2, 5]).tolist()
    [1.0, 2.5, 2.5, 5.0]
    """
    pools: list[tuple[float, int]] = []
    for value in values:
        mean, size = float(value), 1
        while pools and pools[-1][0] > mean:
            before, count = pools.pop()
            mean, size = (before * count + mean * size) / (count + size), count + size
        pools.append((mean, size))
    return np.concatenate([np.full(size, mean) for mean, size in pools])
