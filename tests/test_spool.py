"""Observations that wait in a file for an edge that can't be reached."""

from __future__ import annotations

import errno
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitiot import wire
from splitiot.device import Device
from splitiot.device._spool import Disk, Spool
from splitiot.edge import EdgeService
from splitiot.observation import Observation
from splitiot.policies import Fixed
from splitiot.transports import InMemory
from tests.session.support import numbers, planner_of, profile_of, read

PIPELINE = numbers()


class Crash(Exception):
    """The machine loses its power."""


class Ram:
    """Files that fail on demand: a disk that is full, a write that is torn, a crash between any two steps."""

    def __init__(self, fails_at: int = -1, how: str = "") -> None:
        self.files: dict[str, bytes] = {}
        self.steps = 0
        self.fails_at, self.how = fails_at, how

    def _step(self) -> bool:
        self.steps += 1
        return self.steps == self.fails_at

    def read(self, name: str) -> bytes:
        if name not in self.files:
            raise FileNotFoundError(name)
        return self.files[name]

    def write(self, name: str, data: bytes) -> None:
        if self._step():
            self.files[name] = data[: len(data) // 2]
            raise Crash if self.how == "crash" else OSError(errno.ENOSPC, "no space left")
        self.files[name] = data

    def rename(self, old: str, new: str) -> None:
        if self._step():
            raise Crash if self.how == "crash" else OSError(errno.EIO, "broken")
        self.files[new] = self.files.pop(old)


def test_real_files(tmp_path: Path) -> None:
    spool = Spool.at(tmp_path / "deep" / "observations")
    assert spool.load() == b""
    assert spool.save(b"one", 0.0)
    assert spool.save(b"two", 1.0)
    assert Spool.at(tmp_path / "deep" / "observations").load() == b"two"
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["observations"]
    assert not spool.due(2.9)
    assert spool.due(3.0)


def test_a_folder_that_can_not_be_made_is_no_reason_to_fail(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_bytes(b"")
    spool = Spool(Disk(tmp_path / "file" / "below"), "x")
    with caplog.at_level(logging.WARNING, "splitiot"):
        assert not spool.save(b"one", 0.0)
        assert not spool.save(b"one", 5.0)
    assert spool.failures == 2
    assert len(caplog.records) == 1
    assert spool.load() == b""


@given(
    st.lists(st.binary(min_size=2, max_size=9), min_size=1, max_size=6),
    st.integers(1, 12),
    st.sampled_from(["crash", "error"]),
)
def test_what_was_saved_survives_any_failure(saves: list[bytes], fails_at: int, how: str) -> None:
    ram = Ram(fails_at, how)
    spool = Spool(ram, "observations")
    kept = b""
    for number, data in enumerate(saves):
        try:
            if spool.save(data, float(number)):
                kept = data
        except Crash:
            break
    assert Spool(ram, "observations").load() == kept


class Bench:
    def __init__(self, path: Path) -> None:
        self.heard: list[wire.Request] = []
        self.up = True
        self.service = EdgeService([PIPELINE])
        self.path = path
        self.now_s = 0.0

    def device(self, *, own_planner: bool = False) -> Device:
        planned: dict[str, Any] = {"profile": profile_of(PIPELINE, 1e-6), "policy": Fixed(1)}
        if own_planner:
            planned = {"planner": planner_of(PIPELINE, 1, 1e-6)}
        return Device(
            PIPELINE,
            InMemory(self._answer),
            **planned,
            spool=self.path,
            clock=lambda: self.now_s,
            connect_s=1e-9,
            patience_s=1e-3,
        )

    def _answer(self, frame: bytes) -> bytes | None:
        if not self.up:
            return None
        message = read(frame)
        if isinstance(message, wire.Request):
            self.heard.append(message)
        return self.service.handle(frame, peer="me")


@pytest.mark.parametrize("own_planner", [False, True])
def test_a_restart_loses_nothing_that_the_edge_has_not_heard(tmp_path: Path, own_planner: bool) -> None:
    b = Bench(tmp_path / "observations")
    with b.device(own_planner=own_planner) as device:
        for _ in range(5):
            assert device.run(20).source == "edge"
        for k in range(10):  # these ran here alone, and no request has told of them since
            device._core.session.ran_alone(Observation(plan_id=100 + k, cut=3, head_s=0.5), 0.0)
        waiting = [seen.plan_id for seen, _ in device._core.session.outbox._ring]
        assert waiting[-10:] == list(range(100, 110))
    assert b.path.is_file()
    b.heard.clear()
    with b.device(own_planner=own_planner) as device:
        outcome = device.run(20)
        assert outcome.plan is not None
        assert outcome.plan.id > max(waiting)  # of each plan an edge takes an observation once
        told = [seen.plan_id for request in b.heard for seen in request.observations]
        assert told[: len(waiting)] == waiting


def test_a_torn_file_is_begun_anew(tmp_path: Path) -> None:
    b = Bench(tmp_path / "observations")
    with b.device() as device:
        device.run(20)
    whole = b.path.read_bytes()
    b.path.write_bytes(whole[:-3])
    with b.device() as device:
        assert device.run(20).value == 39
        assert len(device._core.session.outbox) == 1
    assert len(b.path.read_bytes()) == len(whole)
