"""Limits: values that are checked where they are given."""

from __future__ import annotations

import math
from typing import Any

import pytest
from attrs import fields

from splitiot import Limits


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
