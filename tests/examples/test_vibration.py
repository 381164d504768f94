"""The example without pictures: the fault is found, wherever the pipeline is cut."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest

import splitiot as si
from tests.examples.loading import EXAMPLES, load

(app,) = load("vibration", "app")


@pytest.fixture(scope="module")
def expected() -> list[dict[str, object]]:
    return app.original()


def test_the_signal_is_the_same_each_time_and_the_fault_is_in_it() -> None:
    assert np.array_equal(app.vibration(3), app.vibration(3))
    assert not np.array_equal(app.vibration(3), app.vibration(4))
    sound, broken = (app.vibration(app.WINDOWS - 1, fault=fault) for fault in (app.WINDOWS, 0))
    spectra = [np.abs(np.fft.rfft(signal)) for signal in (sound, broken)]
    ringing = int(app.RING_HZ * app.WINDOW / app.RATE_HZ)
    near = slice(ringing - 20, ringing + 20)
    assert spectra[1][near].sum() > 2 * spectra[0][near].sum()


def test_the_fault_is_found_and_nothing_else(expected: list[dict[str, object]]) -> None:
    found = app.score(expected)
    assert found["false_alarms"] == 0
    assert found["missing"] == 0
    assert 0 < found["delay_windows"] < app.GROWTH / 2, found  # before it is half as strong as it gets
    assert all(value["alarm"] for value in expected[-50:])


@pytest.mark.parametrize("seed", range(3))
def test_a_sound_machine_gives_no_alarm(seed: int) -> None:
    memory = app.Debounce()
    for number in range(200):
        signal = app.vibration(number, seed=100 + seed, fault=200)
        assert not app.alarm(memory, app.unusual(app.features(*app.spectrum(app.window(signal)))))["alarm"]


def test_one_unusual_window_is_no_alarm_and_most_of_the_last_ones_are() -> None:
    memory, far = app.Debounce(), app.limit() + 1
    said = [app.alarm(memory, far if k in (3, 20, 21, 22, 23, 24, 25) else 0.0)["alarm"] for k in range(40)]
    assert [k for k, on in enumerate(said) if on] == [24, 25, 26, 27, 28]


@pytest.mark.parametrize("cut", app.pipeline.cuts)
def test_every_cut_gives_what_the_loop_gives(cut: int, expected: list[dict[str, object]]) -> None:
    with si.EdgeService([app.pipeline]) as service:
        transport = si.InMemory(lambda frame: service.handle(frame, peer="machine"))
        some_bytes = [100.0] * (app.pipeline.n + 1)  # any profile does: the cut is fixed
        profile = si.TierProfile.from_steps(
            app.pipeline.digest, [0.001] * app.pipeline.n, sent_bytes=some_bytes, returned_bytes=some_bytes
        )
        with si.Device(app.pipeline, transport, policy=si.Fixed(cut), profile=profile) as device:
            outcomes = [device.run(number) for number in app.inputs()]
    assert {outcome.source for outcome in outcomes} == {"edge"}
    assert [outcome.value for outcome in outcomes] == expected


def test_each_machine_has_an_alarm_of_its_own() -> None:
    some_bytes = [100.0] * (app.pipeline.n + 1)
    profile = si.TierProfile.from_steps(
        app.pipeline.digest, [0.001] * app.pipeline.n, sent_bytes=some_bytes, returned_bytes=some_bytes
    )
    with si.EdgeService([app.pipeline]) as service:
        devices = [
            si.Device(
                app.pipeline,
                si.InMemory(lambda frame, name=name: service.handle(frame, peer=name)),
                policy=si.Fixed(3),
                profile=profile,
            )
            for name in ("sound", "broken")
        ]
        said = [
            [device.run(k + first).unwrap() for device, first in zip(devices, (0, 490), strict=True)] for k in range(10)
        ]
        for device in devices:
            device.close()
    sound, broken = said[-1]
    assert (sound["alarm"], sound["since"]) == (False, -1)
    assert (broken["alarm"], broken["since"]) == (True, app.ENOUGH - 1)


def test_the_sensor_is_on_the_device_and_the_alarm_on_the_edge() -> None:
    assert app.pipeline.cuts == (1, 2, 3, 4, 5)


def test_the_score_counts_late_false_and_missing() -> None:
    def values(on: set[int], missing: set[int] = frozenset()) -> list[dict[str, object] | None]:
        return [None if k in missing else {"alarm": k in on} for k in range(app.FAULT + 20)]

    assert app.score(values({app.FAULT + 4}))["delay_windows"] == 4
    never = app.score(values({3, 4, 5, 9, 12, 13}, missing={7}))
    assert math.isnan(never["delay_s"])
    assert never["false_alarms"] == 3
    assert never["missing"] == pytest.approx(1 / (app.FAULT + 20))


def test_the_file_runs_by_itself() -> None:
    command = [sys.executable, "-W", "error", str(EXAMPLES / "vibration" / "app.py")]
    ran = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "500 windows of 80 ms" in ran.stdout
    assert "false_alarms   0" in ran.stdout
