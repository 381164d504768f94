"""Cutting a large network takes seconds and little memory: weights are not copied more often than they are written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from splitiot.models.tflite.table import Table
from tests.networks import Net

LAYERS, UNITS = 13, 1000

CODE = """
import json, sys, time
from pathlib import Path
from splitiot.models import load_model

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

before = peak()
began = time.perf_counter()
model = load_model(sys.argv[1])
head, tail = model.split(model.n // 2)
sizes = [len(part) for part in (head.to_bytes(), tail.to_bytes())]  # both at once
print(json.dumps({"seconds": time.perf_counter() - began, "before": before, "peak": peak(), "sizes": sizes}))
"""


def large() -> bytes:
    net = Net()
    x = net.input((1, UNITS))
    for _ in range(LAYERS):
        weights = net.constant(net.random.standard_normal((UNITS, UNITS), np.float32))
        options = Table("FullyConnectedOptions")
        x = net.op("FULLY_CONNECTED", [x, weights, -1], (1, UNITS), options=options)
    return net.write(x)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_cutting_50_megabytes(tmp_path: Path) -> None:
    file = tmp_path / "large.tflite"
    file.write_bytes(large())
    size = file.stat().st_size
    assert size > 50e6
    done = subprocess.run([sys.executable, "-c", CODE, str(file)], capture_output=True, check=False, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    print(f"{size / 1e6:.1f} MB: {found['seconds']:.3f} s, {(found['peak'] - found['before']) / size:.2f} x the file")
    assert sum(found["sizes"]) == pytest.approx(size, rel=0.01)
    assert found["peak"] - found["before"] <= 3 * size
    assert found["seconds"] < 10
