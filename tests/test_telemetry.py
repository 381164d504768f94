"""The machine's load, as a fake psutil tells it, and as the real one does."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections import namedtuple
from types import ModuleType
from typing import Any

import pytest

import splitiot as si
from splitiot.errors import MissingDependencyError

Cpu = namedtuple("Cpu", "user system idle iowait guest")
Memory = namedtuple("Memory", "total available")
Sensor = namedtuple("Sensor", "label current")
Battery = namedtuple("Battery", "percent power_plugged")
Process = namedtuple("Process", "rss")


class Machine(ModuleType):
    """A psutil that says what a test wants, and counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__("psutil")
        self.cpu = Cpu(user=10.0, system=5.0, idle=80.0, iowait=5.0, guest=3.0)
        self.memory = Memory(total=1000, available=400)
        self.chips: dict[str, list[Sensor]] = {"soc": [Sensor("", 41.5), Sensor("", 52.25)], "nvme": [Sensor("", 30.0)]}
        self.battery: Battery | None = Battery(percent=40.0, power_plugged=False)
        self.reads = 0

    def spend(self, *, busy_s: float, idle_s: float, waiting_s: float = 0.0) -> None:
        self.cpu = self.cpu._replace(
            user=self.cpu.user + busy_s,
            guest=self.cpu.guest + busy_s,  # is in the user's time already
            idle=self.cpu.idle + idle_s,
            iowait=self.cpu.iowait + waiting_s,
        )

    def cpu_times(self) -> Cpu:
        return self.cpu

    def virtual_memory(self) -> Memory:
        self.reads += 1
        return self.memory

    def Process(self) -> Any:  # noqa: N802  (as psutil calls it)
        return type("Own", (), {"memory_info": lambda _: Process(rss=2**20)})()

    def sensors_temperatures(self) -> dict[str, list[Sensor]]:
        return self.chips

    def sensors_battery(self) -> Battery | None:
        return self.battery


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setitem(sys.modules, "psutil", fake := Machine())
    return fake


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_all_that_a_machine_has(machine: Machine) -> None:
    load = si.DeviceLoad(clock=Clock())
    machine.spend(busy_s=1.0, idle_s=2.5, waiting_s=0.5)
    assert dict(load()) == {
        "cpu": 0.25,
        "memory": 0.6,
        "process_bytes": 2**20,
        "temperature_c": 52.25,
        "battery": 0.4,
        "on_mains": 0.0,
    }
    assert {type(value) for value in load().values()} == {float}


def test_it_is_read_once_an_interval_and_frozen(machine: Machine) -> None:
    clock = Clock()
    load = si.DeviceLoad(interval_s=2.0, clock=clock)
    first = load()
    machine.memory = Memory(total=1000, available=100)
    clock.now_s += 1.999
    assert load() is first
    assert machine.reads == 1
    clock.now_s += 0.001
    assert load()["memory"] == 0.9
    assert machine.reads == 2
    assert first["memory"] == 0.6
    with pytest.raises(TypeError):
        first["memory"] = 0.0  # type: ignore[index]


def test_cores_since_the_reading_before(machine: Machine) -> None:
    clock = Clock()
    load = si.DeviceLoad(interval_s=0.0, clock=clock)
    assert "cpu" not in load()  # nothing has passed
    shares = []
    for busy_s, idle_s in ((3.0, 1.0), (0.0, 4.0), (0.01, 0.0), (0.1, 0.1)):
        machine.spend(busy_s=busy_s, idle_s=idle_s)
        shares.append(load()["cpu"])
    # 0.01 s says nothing yet: it counts with what follows
    assert shares == pytest.approx([0.75, 0.0, 0.0, 0.11 / 0.21])
    machine.cpu = Cpu(0.0, 0.0, 0.0, 0.0, 0.0)
    assert "cpu" not in load()
    machine.spend(busy_s=1.0, idle_s=1.0)
    assert load()["cpu"] == 0.5


def test_no_such_sensors(machine: Machine) -> None:
    machine.chips, machine.battery = {}, None
    load = si.DeviceLoad(clock=Clock())
    assert set(load()) == {"memory", "process_bytes"}


def test_sensors_that_are_broken(machine: Machine, capfd: pytest.CaptureFixture[str]) -> None:
    def broken(*_: object) -> Any:
        raise OSError("no such file")

    machine.sensors_temperatures = broken  # type: ignore[method-assign]
    machine.virtual_memory = broken  # type: ignore[method-assign]
    machine.cpu_times = broken  # type: ignore[method-assign]
    machine.battery = Battery(percent=math.nan, power_plugged=None)
    load = si.DeviceLoad(interval_s=0.0, clock=Clock())
    assert dict(load()) == {"process_bytes": 2**20}
    del machine.cpu_times
    machine.spend(busy_s=1.0, idle_s=1.0)
    assert "cpu" not in load()  # there is nothing before
    machine.spend(busy_s=1.0, idle_s=1.0)
    assert load()["cpu"] == 0.5
    assert capfd.readouterr() == ("", "")


def test_a_platform_without_sensors(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Machine, "sensors_temperatures")  # as on macOS and Windows
    monkeypatch.delattr(Machine, "sensors_battery")
    assert set(si.DeviceLoad(clock=Clock())()) == {"memory", "process_bytes"}


def test_impossible_temperatures(machine: Machine) -> None:
    machine.chips = {"a": [Sensor("", 255.0), Sensor("", -128.0), Sensor("", math.nan), Sensor("", None)]}
    load = si.DeviceLoad(interval_s=0.0, clock=Clock())
    assert "temperature_c" not in load()
    machine.chips["b"] = [Sensor("", -12.5)]
    assert load()["temperature_c"] == -12.5


def test_a_thread_does_not_wait_for_another_s_reading(machine: Machine) -> None:
    clock = Clock()
    load = si.DeviceLoad(interval_s=1.0, clock=clock)
    first = load()
    clock.now_s += 1.0
    inside, go_on = threading.Event(), threading.Event()

    def slow() -> Memory:
        inside.set()
        assert go_on.wait(60)
        return Memory(total=1000, available=0)

    machine.virtual_memory = slow  # type: ignore[method-assign]
    reader = threading.Thread(target=load)
    reader.start()
    try:
        assert inside.wait(60)
        assert load() is first
    finally:
        go_on.set()
        reader.join()
    assert load()["memory"] == 1.0


def test_without_psutil(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(MissingDependencyError, match=r"psutil is not installed.*splitiot\[telemetry\]"):
        si.DeviceLoad()


def test_a_negative_interval(machine: Machine) -> None:
    for interval_s in (-1.0, math.nan):
        with pytest.raises(ValueError, match="interval_s"):
            si.DeviceLoad(interval_s)


@pytest.mark.extra("telemetry")
def test_this_machine() -> None:
    load = si.DeviceLoad(interval_s=0.0)
    until_s = time.monotonic() + 60
    while "cpu" not in load():  # busy meanwhile
        assert time.monotonic() < until_s
    found = load()
    assert 0 < found["cpu"] <= 1
    assert 0 < found["memory"] < 1
    assert 2**22 < found["process_bytes"] < 2**40
    assert found.keys() <= {"cpu", "memory", "process_bytes", "temperature_c", "battery", "on_mains"}
    kept = si.DeviceLoad(interval_s=3600.0)
    first = kept()
    began_s, n = time.perf_counter(), 20_000
    assert all(kept() is first for _ in range(n))
    assert (time.perf_counter() - began_s) / n < 20e-6  # 0.2 us, if nobody else wants the core
