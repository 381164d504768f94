"""What a machine's load is: cores, memory, temperature, battery (extra ``telemetry``)."""

from __future__ import annotations

import contextlib
import importlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, SupportsFloat

from splitiot import _fork
from splitiot._expect import described
from splitiot.errors import MissingDependencyError

__all__ = ["DeviceLoad", "as_numbers"]

_LEAST_CPU_S = 0.1  # kernels count in ticks of 10 ms: a share of less is mostly chance
_PLAUSIBLE_C = (-60.0, 150.0)  # a sensor that is broken or absent says 255, or -128, or thousands


def as_numbers(telemetry: Mapping[str, float]) -> dict[str, float]:
    """Return telemetry as plain floats by name, as policies and the wire expect it.

    Raises
    ------
    TypeError
        It is no mapping, or something in it is no number.

    Examples
    --------
    >>> as_numbers({"battery": 0.5, "charging": True})
    {'battery': 0.5, 'charging': 1.0}
    >>> as_numbers({"battery": "low"})
    Traceback (most recent call last):
    TypeError: telemetry 'battery' must be a number, got the str 'low'
    """
    if not isinstance(telemetry, Mapping):
        raise TypeError(f"telemetry must be numbers by name, such as {{'battery': 0.4}}, got {described(telemetry)}")
    numbers: dict[str, float] = {}
    for name, value in telemetry.items():
        if not isinstance(name, str):
            raise TypeError(f"telemetry must have names, got {described(name)}")
        if not isinstance(value, SupportsFloat):
            raise TypeError(f"telemetry {name!r} must be a number, got {described(value)}")
        numbers[name] = float(value)
    return numbers


class DeviceLoad:
    """Reads this machine's load, for `Device.run` to hand to policies, to the edge and to logs.

    Call it for each request: it reads the machine at most once per `interval_s`, which takes a few milliseconds at
    worst, and returns what it read last in between, which takes none. Any thread may.

    ================= =========================================================================
    ``cpu``           busy share of all cores since the reading before, 0..1
    ``memory``        share of the memory that is in use, 0..1
    ``process_bytes`` what of it is this process's
    ``temperature_c`` of the hottest sensor
    ``battery``       its charge, 0..1
    ``on_mains``      1 with external power, 0 on battery; only where there is a battery
    ================= =========================================================================

    What the machine does not have, or can't tell now, is left out.

    Parameters
    ----------
    interval_s : float
        How old a reading may get.
    clock : callable
        Monotonic seconds.

    Raises
    ------
    MissingDependencyError
        The extra ``telemetry`` is not installed.

    Examples
    --------
    >>> load = DeviceLoad()
    >>> 0 < load()["memory"] < 1
    True
    >>> load() is load()
    True
    """

    def __init__(self, interval_s: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        if not interval_s >= 0:
            raise ValueError(f"interval_s must be at least 0, got {interval_s}")
        try:
            self._psutil: Any = importlib.import_module("psutil")
        except ImportError as error:
            raise MissingDependencyError("psutil", "telemetry") from error
        self._interval_s, self._clock = interval_s, clock
        self._due_s = -math.inf
        self._latest: Mapping[str, float] = MappingProxyType({})
        self._cpu: float | None = None
        self._counted: tuple[float, float] | None = None
        self._new_lock()
        _fork.in_child(self._new_lock)
        with contextlib.suppress(Exception):
            self._counted = self._count()

    def _new_lock(self) -> None:
        self._reading = threading.Lock()

    def __call__(self) -> Mapping[str, float]:
        """Return the load as it was at most `interval_s` ago."""
        now_s = self._clock()
        if now_s < self._due_s or not self._reading.acquire(blocking=False):
            return self._latest  # one thread reads; the others get the last readings and don't wait
        try:
            self._latest = MappingProxyType(dict(self._read()))
            self._due_s = now_s + self._interval_s
        finally:
            self._reading.release()
        return self._latest

    def _read(self) -> Iterator[tuple[str, float]]:
        readers: dict[str, Callable[[], float | None]] = {
            "cpu": self._cpu_share,
            "memory": self._memory_share,
            "process_bytes": self._process_bytes,
            "temperature_c": self._temperature_c,
            "battery": self._battery_share,
            "on_mains": self._on_mains,
        }
        for name, read in readers.items():
            try:
                value = read()
                reading = math.nan if value is None else float(value)
            except Exception:  # no such sensor, or one that can't be read: psutil raises whatever the system did
                continue
            if math.isfinite(reading):
                yield name, reading

    def _cpu_share(self) -> float | None:
        # not psutil.cpu_percent(): it remembers for each thread, and shares what it remembers with all who ask
        counted = self._count()
        before = self._counted or counted
        all_s, idle_s = counted[0] - before[0], counted[1] - before[1]
        if all_s >= _LEAST_CPU_S:
            self._cpu = max(min(1.0 - idle_s / all_s, 1.0), 0.0)
        elif all_s < 0:  # the system's counters began anew
            self._cpu = None
        else:
            counted = before
        self._counted = counted
        return self._cpu

    def _count(self) -> tuple[float, float]:
        """Return the seconds that all cores have existed, and have been idle."""
        counted = self._psutil.cpu_times()._asdict()
        # a guest's time is part of the user's
        all_s = sum(seconds for name, seconds in counted.items() if name not in ("guest", "guest_nice"))
        return all_s, counted["idle"] + counted.get("iowait", 0.0)

    def _memory_share(self) -> float:
        memory = self._psutil.virtual_memory()
        return 1.0 - float(memory.available) / float(memory.total)

    def _process_bytes(self) -> float:
        return float(self._psutil.Process().memory_info().rss)

    def _temperature_c(self) -> float | None:
        low, high = _PLAUSIBLE_C
        readings = [sensor.current for chip in self._psutil.sensors_temperatures().values() for sensor in chip]
        return max((float(c) for c in readings if c is not None and low < c < high), default=None)

    def _battery_share(self) -> float | None:
        battery = self._psutil.sensors_battery()
        return None if battery is None else float(battery.percent) / 100.0

    def _on_mains(self) -> float | None:
        battery = self._psutil.sensors_battery()
        return None if battery is None else battery.power_plugged
