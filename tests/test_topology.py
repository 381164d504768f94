from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitiot.errors import ProfileError
from splitiot.pipeline import RuntimeInfo
from splitiot.topology import Link, TierProfile, Topology

steps = st.lists(st.floats(0, 1e6), min_size=1, max_size=20)


def test_link() -> None:
    link = Link.from_mbit_per_s(8, 4, rtt_s=0.1)
    assert (link.up_bytes_per_s, link.down_bytes_per_s) == (1e6, 5e5)
    assert link.transfer_s(1e6, 1e6) == 3.1
    assert Link.from_mbit_per_s(8, rtt_s=0).down_bytes_per_s == 1e6
    assert Link(0, math.inf, math.inf).transfer_s(1e9, 1e9) == 0


@pytest.mark.parametrize(
    "numbers",
    [(-1, 1, 1), (math.nan, 1, 1), (math.inf, 1, 1), (0, 0, 1), (0, 1, -1), (0, math.nan, 1), (0, 1, math.nan)],
)
def test_impossible_links(numbers: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Link(*numbers)


@given(steps, st.floats(0.01, 100))
def test_profiles_of_steps(seconds: list[float], factor: float) -> None:
    profile = TierProfile.from_steps("ab", seconds)
    n = profile.n
    assert n == len(seconds)
    for k in range(n + 1):
        whole = profile.part_s(0, k) + profile.part_s(k, n)
        assert whole == pytest.approx(sum(seconds), rel=1e-9, abs=1e-9)
    assert profile.scaled(factor).whole_s == pytest.approx(profile.whole_s * factor)
    assert not profile.heads_s.flags.writeable


@given(steps, st.booleans())
def test_profiles_survive_json(seconds: list[float], full: bool) -> None:
    more: dict[str, Any] = {}
    if full:
        more = {
            "sent_bytes": range(len(seconds) + 1),
            "returned_bytes": range(len(seconds) + 1),
            "runtime": RuntimeInfo("litert", "2.3", "default", "x86_64"),
            "machine": "a board",
            "startup_s": 0.5,
            "spread": 0.1,
            "noise": 0.05,
        }
    profile = TierProfile.from_steps("ab", seconds, **more)
    again = TierProfile.from_dict(json.loads(json.dumps(profile.to_dict(), allow_nan=False)))
    assert again.to_dict() == profile.to_dict()
    assert again.runtime == profile.runtime
    assert np.array_equal(again.tails_s, profile.tails_s)
    assert again.steps_s is not None
    assert again.steps_s.tolist() == seconds


def test_files_from_before_noise_and_steps_still_load() -> None:
    old = TierProfile.from_steps("ab", [0.5, 0.25]).to_dict()
    del old["noise"], old["steps_s"]
    found = TierProfile.from_dict(old)
    assert (found.noise, found.steps_s) == (0.0, None)
    assert found.scaled(2).whole_s == 1.5


def test_save_and_load(tmp_path: Path) -> None:
    profile = TierProfile.from_steps("ab", [0.5, 0.25])
    profile.save(tmp_path / "profile.json")
    assert TierProfile.load(tmp_path / "profile.json").to_dict() == profile.to_dict()
    (tmp_path / "other.json").write_text("[1, 2]")
    with pytest.raises(ProfileError, match="not a profile"):
        TierProfile.load(tmp_path / "other.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ProfileError, match="not JSON"):
        TierProfile.load(tmp_path / "broken.json")


@pytest.mark.parametrize(
    "broken",
    [
        {"heads_s": [0, 2, 1], "tails_s": [2, 1, 0]},
        {"heads_s": [0, 1, 2], "tails_s": [1, 2, 0]},
        {"heads_s": [0, 1], "tails_s": [2, 1, 0]},
        {"heads_s": [0], "tails_s": [0]},
        {"heads_s": [0.1, 1, 2], "tails_s": [2, 1, 0]},
        {"heads_s": [0, 1, 2], "tails_s": [2, 1, 0.1]},
        {"heads_s": [0, 1, math.inf], "tails_s": [2, 1, 0]},
        {"heads_s": [0, math.nan, 2], "tails_s": [2, 1, 0]},
        {"heads_s": [0, 1, 2], "tails_s": [2, 1, 0], "sent_bytes": [1, 2]},
        {"heads_s": [0, 1, 2], "tails_s": [2, 1, 0], "sent_bytes": [1, -2, 3]},
        {"heads_s": [0, 1, 2], "tails_s": [2, 1, 0], "returned_bytes": [1, math.nan, 3]},
        {"heads_s": [0, 1, 2], "tails_s": [2, 1, 0], "startup_s": -1},
        {"heads_s": [0, 1, 2], "tails_s": [2, 1, 0], "spread": math.nan},
        {"heads_s": [0, 1, 2], "tails_s": [2, 1, 0], "noise": -0.1},
        {"heads_s": [0, 1, 2], "tails_s": [2, 1, 0], "steps_s": [1, 2, 3]},
        {"heads_s": [0, 1, 2], "tails_s": [2, 1, 0], "steps_s": [1, -2]},
        {"heads_s": [0, 1, 2], "tails_s": [2, 1, 0], "steps_s": [1, math.inf]},
    ],
)
def test_broken_profiles_are_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(ProfileError):
        TierProfile("ab", **broken)
    with pytest.raises(ProfileError):
        TierProfile.from_dict({"format": 1, "digest": "ab", **broken})


@pytest.mark.parametrize(
    "data", [{}, {"format": 2}, {"format": 1}, {"format": 1, "digest": "a", "heads_s": 3, "tails_s": 3}]
)
def test_other_data_is_no_profile(data: dict[str, Any]) -> None:
    with pytest.raises(ProfileError):
        TierProfile.from_dict(data)


def test_topology() -> None:
    profile, other = TierProfile.from_steps("ab", [1]), TierProfile.from_steps("cd", [1])
    link = Link(0, 1, 1)
    assert len(Topology([profile, profile], [link]).tiers) == 2
    with pytest.raises(ValueError, match="1 tiers and 0 links"):
        Topology([profile], [])
    with pytest.raises(ValueError, match="2 tiers and 2 links"):
        Topology([profile, profile], [link, link])
    with pytest.raises(ProfileError, match="different pipelines"):
        Topology([profile, other], [link])
