"""What stands where a file of ours should be: pipes, devices, folders, terabytes of nothing, and broken bytes."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import stat
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from attrs import evolve, frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splitiot._files import read_bounded, write_atomically, write_new
from splitiot.device import Device
from splitiot.device._profile_cache import ProfileCache
from splitiot.device._spool import Disk, Spool
from splitiot.errors import MalformedModel, ModelError, ProfileError, SplitiotError
from splitiot.functions import tasks
from splitiot.models import load_bundle, load_model, save_bundle
from splitiot.models.part import ModelPart
from splitiot.observation import Observation
from splitiot.pipeline import RuntimeInfo
from splitiot.session._outbox import ObservationOutbox
from splitiot.topology import TierProfile
from splitiot.transports import InMemory
from tests import networks
from tests.share import examples

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pipes and devices as POSIX has them")

INFO = RuntimeInfo("python", "1", "default", "x86_64")
PROFILE = TierProfile(digest="ab" * 32, heads_s=[0.0, 0.1, 0.3], tails_s=[0.3, 0.2, 0.0], runtime=INFO, machine="a pi")
FAR_TOO_LARGE = 20 * 2**30


@pytest.fixture(autouse=True)
def in_time_and_memory() -> Iterator[None]:
    """Whatever waits for ever, or wants gigabytes, fails."""

    def late(number: int, frame: Any) -> None:
        raise AssertionError("it waits, or works without end")

    before = signal.signal(signal.SIGALRM, late)
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else None
    if pages is not None:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 3 * 2**30, most))
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


# what may stand there ---------------------------------------------------------------------------------------


def pipe(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def endless_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def waiting_device(path: Path) -> None:
    path.symlink_to("/dev/tty")


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(FAR_TOO_LARGE)


def loop(path: Path) -> None:
    path.symlink_to(path)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = os.getcwd()
        os.chdir(path.parent)  # its name may have 107 bytes only
        try:
            made.bind(path.name)
        finally:
            os.chdir(here)


def locked(path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("nothing is forbidden to root")
    path.write_bytes(b"{}")
    path.chmod(0)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def writes(data: bytes) -> Callable[[Path], None]:
    return lambda path: [path.write_bytes(data), None][1]


PLACES: dict[str, Callable[[Path], None]] = {
    f.__name__: f for f in (pipe, folder, endless_device, waiting_device, sparse, loop, a_socket, locked)
}
CONTENTS: dict[str, Callable[[Path], None]] = {
    "empty": empty,
    "deep lists": writes(b"[" * 1_000_000),
    "deep objects": writes(b'{"format":' * 200_000),
    "deep in an unknown field": writes(b'{"format":1,"x":' + b"[" * 1_000_000),
    "not UTF-8": writes(b'{"format":"\xff\xfe"}'),
    "not UTF-8 at all": writes(bytes(range(256)) * 10),
    "huge integer": writes(b'{"format":' + b"9" * 10_000 + b"}"),
    "a list": writes(b"[1, 2, 3]"),
    "null": writes(b"null"),
    "zeros": writes(bytes(10_000)),
    "lone surrogate": writes(b'{"format":"\\ud800"}'),
}


@frozen
class Loader:
    """How a file is read, and the one error that may come of it."""

    name: str
    load: Callable[[Path], Any]
    error: type[Exception]


def bundle_of(path: Path) -> Any:
    """Make the manifest of a bundle what stands at this path."""
    there = path.parent / "bundle"
    there.mkdir()
    os.rename(path, there / "manifest.json") if path.name != "loop" else (there / "manifest.json").symlink_to(path)
    return load_bundle(there)


LOADERS = [
    Loader("profile", TierProfile.load, ProfileError),
    Loader("manifest", bundle_of, MalformedModel),
    Loader("model", load_model, ModelError),
    Loader("part", ModelPart.load, MalformedModel),
]


@pytest.mark.parametrize("loader", LOADERS, ids=lambda loader: loader.name)
@pytest.mark.parametrize("what", PLACES | CONTENTS)
def test_one_error_whatever_stands_there(loader: Loader, what: str, tmp_path: Path) -> None:
    path = tmp_path / "there"
    (PLACES | CONTENTS)[what](path)
    with pytest.raises(loader.error) as caught:
        loader.load(path)
    assert "there" in str(caught.value) or "manifest.json" in str(caught.value) or what in CONTENTS
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("loader", LOADERS, ids=lambda loader: loader.name)
def test_a_missing_file_is_pythons_own_error_but_no_bundle(loader: Loader, tmp_path: Path) -> None:
    if loader.name == "manifest":
        with pytest.raises(MalformedModel, match="no bundle"):
            load_bundle(tmp_path)
    else:
        with pytest.raises(FileNotFoundError):
            loader.load(tmp_path / "nothing")


# reading ----------------------------------------------------------------------------------------------------


def read(path: str | os.PathLike[str], most_bytes: int = 1000) -> bytes:
    return read_bounded(path, most_bytes=most_bytes, what="a test", error=ProfileError)


def test_the_bound_itself_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(1000))
    (tmp_path / "b").write_bytes(bytes(1001))
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert read(tmp_path / "a") == read(str(tmp_path / "link")) == bytes(1000)
    with pytest.raises(ProfileError, match=r"b has 1001 bytes or more, at most 1000 are allowed: give a test"):
        read(tmp_path / "b")


@pytest.mark.parametrize("error", [OSError, ValueError, ProfileError, SplitiotError])
@pytest.mark.parametrize("what", PLACES)
def test_the_callers_error_even_where_it_is_one_of_pythons(what: str, error: type[Exception], tmp_path: Path) -> None:
    PLACES[what](tmp_path / "there")
    with pytest.raises(error) as caught:
        read_bounded(tmp_path / "there", most_bytes=1000, what="a test", error=error)
    assert type(caught.value) is error
    assert str(tmp_path / "there") in str(caught.value)


def test_a_name_that_can_be_none() -> None:
    with pytest.raises(ProfileError, match="no name of a file"):
        read("a\0b")
    with pytest.raises(ProfileError, match="File name too long"):
        read("a" * 5000)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here")
def test_a_file_without_a_size() -> None:
    assert read("/proc/self/status", 100_000).startswith(b"Name:")
    with pytest.raises(ProfileError, match="at most 10"):
        read("/proc/self/status", 10)


class Growing:
    """A file that somebody appends to for as long as it is read."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._grows = threading.Event()
        self._thread = threading.Thread(target=self._grow, daemon=True)

    def _grow(self) -> None:
        while not self._grows.is_set():
            self._file.write(bytes(1 << 16))
            if self._file.tell() > 1 << 28:
                return

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._grows.set()
        self._thread.join()
        self._file.close()


def test_a_file_that_grows_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its size was 10 when it was looked at."""
    path = tmp_path / "grows"
    path.write_bytes(bytes(10))
    stat_of, opened = os.fstat, []

    def then_grow(handle: int) -> os.stat_result:
        found = stat_of(handle)
        if not opened:
            opened.append(handle)
        elif len(opened) == 1:
            opened.append(handle)
            with path.open("ab") as file:
                file.write(bytes(2000))
        return found

    monkeypatch.setattr(os, "fstat", then_grow)
    with pytest.raises(ProfileError, match="has 1001 bytes or more"):
        read(path)
    monkeypatch.undo()
    path.write_bytes(bytes(10))

    def read_on() -> None:
        while True:
            read(path, 1 << 20)

    with Growing(path), pytest.raises(ProfileError, match="bytes or more"):
        read_on()


# writing ----------------------------------------------------------------------------------------------------


def test_written_whole_with_the_usual_rights(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"one")
    (other := tmp_path / "other").write_bytes(b"")
    assert path.read_bytes() == b"one"
    assert path.stat().st_mode == other.stat().st_mode
    path.chmod(0o640)
    write_atomically(str(path), b"two")
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "other"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "link").symlink_to("deep/file")
    for data in (b"one", b"two"):
        write_atomically(tmp_path / "link", data)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "deep" / "file").read_bytes() == data


def test_a_device_is_written_into_and_stays(tmp_path: Path) -> None:
    before = os.stat("/dev/null")
    (tmp_path / "null").symlink_to("/dev/null")
    PROFILE.save("/dev/null")
    PROFILE.save(tmp_path / "null")
    assert os.stat("/dev/null").st_rdev == before.st_rdev
    assert (tmp_path / "null").is_symlink()


def test_a_pipe_is_written_into_where_somebody_reads(tmp_path: Path) -> None:
    os.mkfifo(path := tmp_path / "pipe")
    with pytest.raises(OSError, match="No such device"):
        write_atomically(path, b"nobody reads this")
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_WRONLY)  # so that the reader sees no end before the other writer comes
    os.set_blocking(reader, True)
    heard: list[bytes] = []

    def hear() -> None:
        while len(b"".join(heard)) < 1 << 20:
            heard.append(os.read(reader, 1 << 16))

    thread = threading.Thread(target=hear)
    thread.start()
    write_atomically(path, bytes(1 << 20))
    thread.join()
    os.close(reader)
    os.close(writer)
    assert stat.S_ISFIFO(path.stat().st_mode)


@pytest.mark.parametrize("step", ["fsync", "replace", "chmod"])
def test_a_failure_leaves_the_old_file_and_nothing_beside_it(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    PROFILE.save(path := tmp_path / "profile.json")
    monkeypatch.setattr(os, step, fails)
    with pytest.raises(OSError, match="No space"):
        evolve(PROFILE, machine="another").save(path)
    monkeypatch.undo()
    assert TierProfile.load(path).machine == "a pi"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("what", ["pipe", "endless_device", "loop", "a_socket", "sparse"])
def test_a_new_file_takes_the_place_of_anything_but_a_folder(what: str, tmp_path: Path) -> None:
    PLACES[what](tmp_path / "there")
    write_new(tmp_path / "there", b"new")
    assert not (tmp_path / "there").is_symlink()
    assert (tmp_path / "there").read_bytes() == b"new"


def test_readers_never_see_a_half(tmp_path: Path) -> None:
    """One writes, the other reads: each time a whole profile. With a file that was written in place it takes 10 ms."""
    path = tmp_path / "profile.json"
    long = evolve(PROFILE, machine="x" * 1_000_000)
    PROFILE.save(path)
    ends = threading.Event()

    def write() -> None:
        while not ends.is_set():
            long.save(path)
            PROFILE.save(path)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        seen = {len(TierProfile.load(path).machine) for _ in range(300)}
    finally:
        ends.set()
        thread.join()
    assert seen <= {4, 1_000_000}


# the cache --------------------------------------------------------------------------------------------------


def twice(x: int) -> int:
    return 2 * x


def plus(x: int) -> int:
    return x + 1


PIPELINE = tasks([twice, plus])


def cached(folder: Path) -> Path:
    """Fill the cache; gives its only file."""
    with Device(PIPELINE, InMemory(lambda frame: None), sample=3, cache=folder, connect_s=1e-9) as device:
        assert device.run(3).value == 7
    (path,) = folder.iterdir()
    return path


@pytest.mark.parametrize("what", PLACES | CONTENTS)
def test_a_bad_cache_is_measured_anew_and_mended(what: str, tmp_path: Path) -> None:
    """The device starts, whatever stands there; and next time it has its profile, where that could be replaced."""
    path = cached(tmp_path)
    path.unlink()
    (PLACES | CONTENTS)[what](path)
    assert cached(tmp_path) == path
    found = ProfileCache(tmp_path).load(PIPELINE, _info(PIPELINE))
    assert (found is None) == (what in ("pipe", "folder", "endless_device", "waiting_device", "loop", "a_socket"))


def _info(pipeline: Any) -> RuntimeInfo:
    info: RuntimeInfo = pipeline.runtime_info()
    return info


def test_no_changed_byte_of_the_cache_is_believed(tmp_path: Path) -> None:
    """Each bit of each byte, and each length: the same profile, or none."""
    path = cached(tmp_path)
    sound = path.read_bytes()
    cache, info = ProfileCache(tmp_path), _info(PIPELINE)
    kept = cache.load(PIPELINE, info)
    assert kept is not None
    for at in range(len(sound)):
        for bit in range(8):
            path.write_bytes(sound[:at] + bytes([sound[at] ^ 1 << bit]) + sound[at + 1 :])
            found = cache.load(PIPELINE, info)
            assert found is None or found.to_dict() == kept.to_dict()
        path.write_bytes(sound[:at])
        assert cache.load(PIPELINE, info) is None


# the spool --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", PLACES)
def test_a_spool_that_is_none_is_begun_anew_and_said_once(
    what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    PLACES[what](tmp_path / "spool")
    PLACES[what](tmp_path / "spool.new")
    spool = Spool(Disk(tmp_path), "spool")
    assert spool.load() == b""
    assert spool.failures == 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert spool.save(b"new", 0.0) == (what != "folder")
    assert spool.load() == (b"" if what == "folder" else b"new")


def spooled() -> bytes:
    outbox = ObservationOutbox()
    for number in range(3):
        outbox.add(Observation(plan_id=number + 1, cut=1, head_s=0.25), 0.0)
    return outbox.dump()


SPOOLED = spooled()


@given(st.data())
def test_spools_of_any_bytes_are_nothing_or_observations(data: st.DataObject) -> None:
    """Also those whose checksum is right."""
    start = len(SPOOLED) - len(msgspec.msgpack.encode([o for o, _ in _loaded(SPOOLED)]))
    head, body = SPOOLED[: start - 4], mutated(SPOOLED[start:], data)
    outbox = ObservationOutbox()
    last = outbox.load(head + zlib.crc32(body).to_bytes(4, "little") + body)
    assert last >= 0
    assert len(outbox) <= 128
    ObservationOutbox().load(outbox.dump())


def _loaded(data: bytes) -> Any:
    outbox = ObservationOutbox()
    outbox.load(data)
    return outbox._ring


# mutations --------------------------------------------------------------------------------------------------


HOSTILE = [b"", b"\0", b"\xff", b"-1", b"1e999", b"NaN", b"9" * 400, b"9" * 5000, b"1" + b"0" * 30, b"null", b"[]"]
HOSTILE += [b"{}", b"true", b'"\\ud800"', b'""', b'"/dev/zero"', b'"../../x"', b"[" * 3000, b'{"a":' * 3000, b"-0"]
HOSTILE += [b"1.5", b"\x1b[2J", b"18446744073709551616", b"9223372036854775808", b"\xdf\xff\xff\xff\xff", b"\xc1"]


def mutated(sound: bytes, data: st.DataObject) -> bytes:
    """Change some bytes: flipped, lost, doubled, hostile words in place of others."""
    made = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, max(0, len(made) - 1)))
        to = min(len(made), at + data.draw(st.integers(0, 12)))
        made[at:to] = data.draw(st.sampled_from(HOSTILE) | st.binary(max_size=4) | st.just(bytes(made[at:to]) * 2))
    return bytes(made)


def replaced(tree: Any, data: st.DataObject) -> Any:
    """Put something hostile in place of one value anywhere in a JSON document."""
    hostile = st.sampled_from(
        [None, True, -1, 0, 2**31, 2**63, 2**64, 10**30, 1e308, -1e308, "", "\x1b[2J", "/dev/zero", "../x", "a\0b",
         [], {}, [[]], [None], {"a": 1}, "x" * 10_000, [0] * 1000, float("1e-320")]
    )  # fmt: skip
    if isinstance(tree, dict) and tree and data.draw(st.integers(0, 4)):
        key = data.draw(st.sampled_from(sorted(tree)))
        if not data.draw(st.integers(0, 5)):
            return {k: v for k, v in tree.items() if k != key}
        return {**tree, key: replaced(tree[key], data)}
    if isinstance(tree, list) and tree and data.draw(st.integers(0, 4)):
        at = data.draw(st.integers(0, len(tree) - 1))
        if not data.draw(st.integers(0, 5)):
            return tree[:at] + tree[at:] * 2
        return [*tree[:at], replaced(tree[at], data), *tree[at + 1 :]]
    return data.draw(hostile)


FUZZED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(400))


@FUZZED
@given(st.data())
def test_profiles_of_any_bytes_are_profiles_or_one_error(tmp_path: Path, data: st.DataObject) -> None:
    text = msgspec.json.encode(PROFILE.to_dict())
    if data.draw(st.booleans()):
        text = mutated(text, data)
    else:
        text = json.dumps(replaced(json.loads(text), data)).encode()
    (path := tmp_path / "profile.json").write_bytes(text)
    try:
        found = TierProfile.load(path)
    except ProfileError:
        return
    found.save(path)
    assert TierProfile.load(path).to_dict() == found.to_dict()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    (folder / "net.tflite").write_bytes(networks.early_output())
    return save_bundle(load_model(folder / "net.tflite"), folder / "bundle")


@FUZZED
@given(st.data())
def test_manifests_of_any_bytes_are_bundles_or_one_error(bundle: Path, data: st.DataObject) -> None:
    path = bundle / "manifest.json"
    sound = path.read_bytes()
    try:
        if data.draw(st.booleans()):
            path.write_bytes(mutated(sound, data))
        else:
            path.write_text(json.dumps(replaced(json.loads(sound), data)))
        try:
            found = load_bundle(bundle)
            for cut in found.cuts:
                found.boundary(cut)
                found.returned(cut)
            for start, stop in found.parts:
                found.part(start, stop)
        except ModelError:
            return
        assert all(file.parent == bundle for file in found.files.values())
    finally:
        path.write_bytes(sound)


@pytest.mark.parametrize("what", PLACES)
def test_a_part_that_is_no_file(what: str, bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "bundle")
    found = load_bundle(tmp_path / "bundle")
    ends, path = next(iter(found.files.items()))
    path.unlink()
    PLACES[what](path)
    assert ends not in load_bundle(tmp_path / "bundle").parts or what == "sparse"
    with pytest.raises(MalformedModel, match=path.name):
        found.part(*ends)


def test_a_manifest_of_many_steps_and_cuts_takes_no_square_of_them(bundle: Path, tmp_path: Path) -> None:
    """60,000 of each: the sum of all is a second; looking each up in the other took minutes."""
    document = json.loads((bundle / "manifest.json").read_text())
    n = 60_000
    document |= {"n": n, "steps": [["", ""]] * n, "parts": [], "refused": []}
    document["cuts"] = [{"cut": cut, "sent": None, "returned": None, "kept": []} for cut in range(n)]
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    found = load_bundle(tmp_path)
    assert found.cuts == (0,)
    assert len(found.refused) == n
