"""Inputs, tokens and logs from the command line that are no files, or lie about their size."""

from __future__ import annotations

import contextlib
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splitiot.cli import _arrays
from splitiot.cli._arrays import read_arrays
from splitiot.cli._errors import UsageError
from splitiot.cli._tokens import read_tokens
from splitiot.errors import TraceError
from splitiot.sim import load_trace
from tests.cli.helpers import CHAIN, Cli
from tests.share import examples
from tests.sim.logs import logged
from tests.test_files import PLACES, in_time_and_memory, mutated

assert in_time_and_memory  # a fixture for all
pytestmark = pytest.mark.skipif(os.name != "posix", reason="pipes and devices as POSIX has them")


@pytest.mark.parametrize("suffix", ["npy", "npz", "png"])
@pytest.mark.parametrize("what", PLACES)
def test_an_input_that_is_no_file(cli: Cli, tmp_path: Path, what: str, suffix: str) -> None:
    if suffix == "png":
        pytest.importorskip("PIL")
    PLACES[what](path := tmp_path / f"in.{suffix}")
    said = cli("run", CHAIN, "--edge", "none", "--json", "--input", path)
    assert said.code == 2
    assert str(path) in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("what", PLACES)
def test_tokens_and_logs_that_are_no_files(tmp_path: Path, what: str) -> None:
    PLACES[what](path := tmp_path / "there")
    with pytest.raises(UsageError, match="there"):
        read_tokens(str(path))
    with pytest.raises(TraceError, match="there"):
        load_trace(path)


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


LYING = {
    "2 ** 60 bytes": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (144115188075855872,), }"),
    "4 GB": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (4294967296,), }", bytes(100)),
    "negative": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (-1,), }"),
    "two negative ones": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (-2, -2), }", bytes(4)),
    "objects": npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", bytes(8)),
    "wide items": npy("{'descr': '|V2147483647', 'fortran_order': False, 'shape': (1000,), }", bytes(100)),
    "nothing of nothing": npy("{'descr': '|S0', 'fortran_order': False, 'shape': (1152921504606846976,), }"),
    "too little": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (5,), }", bytes(4)),
    "deep": npy("(" * 5000),
}


@pytest.mark.parametrize("case", LYING)
def test_headers_that_lie_take_no_memory(tmp_path: Path, case: str) -> None:
    (path := tmp_path / "in.npy").write_bytes(LYING[case])
    with pytest.raises(UsageError, match=r"in\.npy"):
        read_arrays(str(path))


def test_a_zip_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """8 times 1 MB of zeros, where 4 MB are allowed; and one that is packed in a way whose output has no bound."""
    monkeypatch.setattr(_arrays, "MOST_BYTES", 1 << 22)
    np.savez_compressed(path := tmp_path / "in.npz", **{f"a{k}": np.zeros(1 << 20, np.uint8) for k in range(8)})
    assert path.stat().st_size < 1 << 16
    with pytest.raises(UsageError, match="unpacks to more than"):
        read_arrays(str(path))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.npy", bytes(1 << 20))
    with pytest.raises(UsageError, match=r"numpy\.savez"):
        read_arrays(str(path))


@pytest.mark.parametrize("dtype", ["<f4", ">i2", "?", "c8", "S3", "U2"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3, 4)])
def test_what_numpy_wrote_comes_back(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    array = np.ones(shape, dtype)
    for made in (array, array.copy("F")):
        np.save(tmp_path / "in.npy", made)
        np.savez(tmp_path / "in.npz", a=made, b=made)
        found = read_arrays(str(tmp_path / "in.npy"))
        assert isinstance(found, np.ndarray)
        assert found.dtype == array.dtype
        assert found.shape == shape
        assert (found == array).all()
        assert found.flags.writeable
        both = read_arrays(str(tmp_path / "in.npz"))
        assert isinstance(both, dict)
        assert list(both) == ["a", "b"]


FUZZED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(300))


@FUZZED
@given(st.data())
def test_arrays_of_any_bytes_are_arrays_or_one_error(tmp_path: Path, data: st.DataObject) -> None:
    stream = io.BytesIO()
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    kind = data.draw(st.sampled_from(["npy", "npz", "packed"]))
    if kind == "npy":
        np.save(stream, array)
    else:
        (np.savez if kind == "npz" else np.savez_compressed)(stream, a=array)
    (path := tmp_path / "in").write_bytes(mutated(stream.getvalue(), data))
    with contextlib.suppress(UsageError):
        read_arrays(str(path))


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("log")
    logged(folder, requests=5)
    return (folder / "trace.jsonl").read_bytes()


@FUZZED
@given(st.data())
def test_logs_of_any_bytes_are_traces_or_one_error(log: bytes, tmp_path: Path, data: st.DataObject) -> None:
    (path := tmp_path / "t").write_bytes(mutated(log, data))
    with contextlib.suppress(TraceError):
        load_trace(path)


def test_logs_are_bounded_together(tmp_path: Path, log: bytes) -> None:
    (path := tmp_path / "t").write_bytes(log)
    (tmp_path / "t.1").write_bytes(log)
    assert load_trace(path, max_bytes=2 * len(log)).events
    with pytest.raises(TraceError, match=r"t\.1 has .* at most"):
        load_trace(path, max_bytes=2 * len(log) - 1)
