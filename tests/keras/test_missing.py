"""What `from_keras` says before it needs TensorFlow."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from splitiot.errors import MissingDependencyError
from splitiot.models import from_keras


@pytest.mark.parametrize("granularity", ["operator", "layer"])
def test_without_tensorflow_the_extra_is_named(granularity: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    before = {name for name in sys.modules if name.startswith("keras")}
    with pytest.raises(MissingDependencyError, match=r'pip install "splitiot\[tensorflow\]"'):
        from_keras(tmp_path / "model.keras", granularity=granularity)
    assert before == {name for name in sys.modules if name.startswith("keras")}, "Keras is half imported"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"quantize": "int4"}, "quantize must be"),
        ({"granularity": "block"}, "granularity must be"),
        ({"sink": "cloud"}, "sink must be"),
        ({"quantize": "float16", "granularity": "layer"}, "granularity='operator'"),
        ({"quantize": "int8"}, "representative="),
        ({"representative": []}, "representative="),
        ({"quantize": "float16", "representative": []}, "representative="),
    ],
)
def test_arguments_that_do_not_fit(options: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says):
        from_keras(tmp_path / "model.keras", **options)
