"""A machine's vibration -> windows -> features -> how unusual -> alarm. No pictures, and nothing but numpy.

$ splitiot run examples/vibration/app.py:pipeline --cut 3
$ python examples/vibration/app.py          # the same without splitiot, and what it finds

The machine is made up: a shaft with its harmonics, and noise. Three fifths into the run a bearing begins to break: at
each turn its flaw gives the casing a blow, which rings at a few kilohertz, first hardly to be felt, then harder.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import deque
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

import splitiot as si

Signal: TypeAlias = NDArray[np.float32]
Features: TypeAlias = NDArray[np.float64]

RATE_HZ = 12_800
WINDOW = 1024  # samples: 80 ms
WINDOWS = 500  # 40 s
FAULT = 300  # the window in which the fault begins
GROWTH = 120  # windows until it is as strong as it gets
LEARN = 150  # windows from which the normal state is learnt: these are other ones than the run's
SHAFT_HZ, FLAW_HZ, RING_HZ = 29.5, 105.7, 3_400.0
BANDS_HZ = (0, 100, 400, 1_000, 2_000, 3_000, 4_000, 5_000, 6_400)
FALSE_RATE = 1e-4  # how often a normal window may be called unusual
LAST, ENOUGH = 8, 5  # the alarm: so many of the last windows must be unusual


# the machine ------------------------------------------------------------------------------------------------


def vibration(number: int, *, seed: int = 7, fault: int = FAULT) -> Signal:
    """Return the acceleration in window `number`, in g; the same each time."""
    random = np.random.default_rng((seed, number))
    t = (number * WINDOW + np.arange(WINDOW)) / RATE_HZ
    load = 1 + 0.08 * math.sin(2 * math.pi * number / 61)  # the machine works more and less
    signal = load * sum(a * np.sin(2 * np.pi * SHAFT_HZ * k * t + k) for k, a in ((1, 0.5), (2, 0.2), (3, 0.1)))
    signal = signal + random.normal(0, 0.12, WINDOW)
    strength = min(1.0, max(0.0, (number - fault + 1) / GROWTH))
    if strength:
        since = np.mod(t + random.normal(0, 1e-4), 1 / FLAW_HZ)
        signal = signal + 0.9 * strength * np.exp(-since * 900) * np.sin(2 * np.pi * RING_HZ * since)
    return signal.astype(np.float32)


# the steps --------------------------------------------------------------------------------------------------


def read_sensor(number: int) -> Signal:
    """What the accelerometer gave."""
    return vibration(number)


def window(signal: Signal) -> Signal:
    """Without its mean, and faded in and out."""
    return np.asarray((signal - signal.mean()) * np.hanning(len(signal)), np.float32)


def spectrum(signal: Signal) -> tuple[Signal, Signal]:
    """The signal, and the energy at each frequency."""
    return signal, np.asarray(np.abs(np.fft.rfft(signal)) ** 2 / len(signal), np.float32)


def features(signal: Signal, energy: Signal) -> Features:
    """Eleven numbers: logarithms of RMS and of the energies in eight bands, kurtosis, crest factor."""
    edges = np.searchsorted(np.fft.rfftfreq(len(signal), 1 / RATE_HZ), BANDS_HZ)
    bands = [energy[a:b].sum(dtype=np.float64) for a, b in itertools.pairwise(edges)]
    x = signal.astype(np.float64)
    rms = math.sqrt(np.mean(x**2))
    shape = [np.mean(x**4) / rms**4, np.abs(x).max() / rms]
    return np.array([math.log(rms), *np.log(np.array(bands) + 1e-12), *shape])


def unusual(found: Features) -> float:
    """Mahalanobis distance from the normal state."""
    middle, whitening = normal()
    return float(np.linalg.norm(whitening @ (found - middle)))


class Debounce:
    """The alarm's memory: which of the last windows were unusual."""

    def __init__(self) -> None:
        self.last: deque[bool] = deque(maxlen=LAST)
        self.windows = 0
        self.since = -1

    def __enter__(self) -> Debounce:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def alarm(memory: Debounce, distance: float) -> dict[str, Any]:
    """Alarm when most of the last windows were unusual: a single one may be chance."""
    memory.last.append(distance > limit())
    on = sum(memory.last) >= ENOUGH
    memory.since = -1 if not on else memory.windows if memory.since < 0 else memory.since
    memory.windows += 1
    return {"alarm": on, "since": memory.since, "distance": distance}


# the normal state -------------------------------------------------------------------------------------------


@functools.cache
def normal() -> tuple[Features, Features]:
    """Mean and whitening matrix of the features of a sound machine, on both sides the same."""
    seen = np.array([features(*spectrum(window(vibration(k, seed=1, fault=LEARN)))) for k in range(LEARN)])
    covariance = np.cov(seen, rowvar=False) + 1e-6 * np.eye(seen.shape[1])
    return seen.mean(axis=0), np.linalg.inv(np.linalg.cholesky(covariance))


@functools.cache
def limit() -> float:
    """The distance that a normal window exceeds at `FALSE_RATE`: chi-square, by Wilson and Hilferty."""
    degrees = len(normal()[0])
    z = 3.719  # of the normal distribution at 1 - FALSE_RATE
    return math.sqrt(degrees * (1 - 2 / (9 * degrees) + z * math.sqrt(2 / (9 * degrees))) ** 3)


# what splitiot takes ----------------------------------------------------------------------------------------

pipeline = si.tasks(
    [
        si.task(read_sensor, tier="device"),
        window,
        spectrum,
        features,
        unusual,
        si.task(alarm, tier="edge", state="own", resource=Debounce),
    ],
    version="1",
)

sample = 0
"""A typical input is a window's number."""


def inputs() -> Iterator[int]:
    """All inputs of a run, in order."""
    return iter(range(WINDOWS))


def score(values: Sequence[dict[str, Any] | None]) -> dict[str, float]:
    """How long the alarm took after the fault began, and how often there was one before."""
    alarms = [value is not None and bool(value["alarm"]) for value in values]
    first = next((number for number in range(FAULT, len(alarms)) if alarms[number]), None)
    before = alarms[:FAULT]
    return {
        "delay_windows": math.nan if first is None else float(first - FAULT),
        "delay_s": math.nan if first is None else (first - FAULT + 1) * WINDOW / RATE_HZ,
        "false_alarms": float(sum(now and not was for was, now in zip([False, *before], before, strict=False))),
        "missing": sum(value is None for value in values) / max(1, len(values)),
    }


def original() -> list[dict[str, Any] | None]:
    """The same as one loop."""
    memory = Debounce()
    results: list[dict[str, Any] | None] = []
    for number in inputs():
        distance = unusual(features(*spectrum(window(read_sensor(number)))))
        results.append(alarm(memory, distance))
    return results


if __name__ == "__main__":
    results = original()
    print(f"{len(results)} windows of {WINDOW / RATE_HZ * 1e3:.0f} ms, the fault begins in window {FAULT}")
    for name, value in score(results).items():
        print(f"{name:<14} {value:g}")
