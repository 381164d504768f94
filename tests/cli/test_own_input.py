"""Networks that do not run on random numbers: commands say so, and take an input of one's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests import networks
from tests.cli.helpers import Cli

RANDOM = "The input was random: give one of your own"


@pytest.mark.extra("litert")
@pytest.mark.parametrize("command", ["verify", "profile", "run"])
def test_commands_take_an_input(cli: Cli, tmp_path: Path, command: str) -> None:
    (path := tmp_path / "words.tflite").write_bytes(networks.lookup(shift=True))
    np.save(good := tmp_path / "good.npy", np.array([[100, 101, 102, 104]], np.float32))
    more = ["--edge", "none", "--count", 2] if command == "run" else []
    said = cli(command, path, *more, "--json")
    assert said.code != 0
    assert RANDOM in said.out + said.err
    said = cli(command, path, "--input", good, *more, "--json")
    assert said.code == 0, said.err
    assert RANDOM not in said.out + said.err
