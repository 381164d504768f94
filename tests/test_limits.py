"""Limits: values that are checked where they are given."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from attrs import fields

from splitiot import Limits, wire


def test_what_one_name_may_have_follows_what_there_is() -> None:
    limits = Limits(max_in_flight=8, max_bytes_in_flight=1000, max_peers=1)
    assert limits.max_in_flight_per_name == 6
    assert limits.max_bytes_in_flight_per_name == 500
    assert limits.max_peers_per_name == 1
    assert Limits(max_in_flight=8, max_in_flight_per_name=8).max_in_flight_per_name == 8
    assert Limits().max_frame_bytes == wire.MAX_FRAME_BYTES


def test_the_table_names_every_limit() -> None:
    page = Path(__file__).parents[1] / "docs" / "how-to" / "limits.md"
    rows = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall("`(\\w+)`", row.split("|")[1])]
    assert sorted(named) == sorted(each.name for each in fields(Limits))


def test_the_defaults_are_fine() -> None:
    assert Limits() == Limits()
    assert hash(Limits()) == hash(Limits())


@pytest.mark.parametrize("name", [each.name for each in fields(Limits)])
def test_each_is_checked(name: str) -> None:
    bad: list[Any] = [0, -1] + ([] if name.startswith("max_") else [math.inf, math.nan])
    for value in bad:
        with pytest.raises(ValueError, match=name):
            Limits(**{name: value})
    if name.startswith("max_"):
        for value in (1.5, True, "9"):
            with pytest.raises(TypeError, match=name):
                Limits(**{name: value})  # type: ignore[arg-type]
    assert getattr(Limits(**{name: 7}), name) == 7
