"""Child processes and the messages to and from them, whatever they carry."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitiot._child import ChildDied, ChildHung, ChildProcess, Garbled, _messages
from splitiot.errors import LocalProtocolError

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="process groups and pidfds of Linux")

CONNECT = "import os, sys, time; from splitiot._child import Parent; parent = Parent()\n"
MIRROR = CONNECT + "while True: parent.send(*parent.receive())"
NEVER = "time.sleep(600)"
SOON_S = 60.0

Make = Callable[..., ChildProcess]


@pytest.fixture
def make() -> Iterator[Make]:
    """Start children that are killed behind the test."""
    children: list[ChildProcess] = []

    def start(code: str, *arguments: str, **options: Any) -> ChildProcess:
        children.append(ChildProcess("test", code, arguments, **options))
        return children[-1]

    yield start
    for child in children:
        child.kill()


# messages ---------------------------------------------------------------------------------------------------


def parsed(data: bytes, folder: Path, **options: int) -> list[bytes]:
    (folder / "bytes").write_bytes(data)
    with (folder / "bytes").open("rb") as stream:
        return [bytes(piece) for piece in _messages.read(stream, **options)]


def test_garbled_messages_are_refused(tmp_path: Path) -> None:
    pieces = [b"first", b"", b"third one"]
    whole = b"".join(_messages.frame(pieces))
    assert parsed(whole, tmp_path) == pieces
    for stop in range(len(whole)):
        with pytest.raises(EOFError):
            parsed(whole[:stop], tmp_path)
    for at in range(8 + 3 * 8):
        for value in (0x00, 0x7F, 0xC1, 0xFF):
            with contextlib.suppress(EOFError, Garbled):
                parsed(whole[:at] + bytes([value]) + whole[at + 1 :], tmp_path)


@pytest.mark.parametrize("sizes", [[2**62], [2**64 - 1], [2**30, 1], [2**20] * 1025])
def test_lengths_are_checked_before_memory_is_taken(sizes: list[int], tmp_path: Path) -> None:
    head = _messages._PREFIX.pack(b"SIch", len(sizes)) + np.array(sizes, np.uint64).tobytes()
    with pytest.raises(Garbled, match="impossible lengths"):
        parsed(head, tmp_path)
    with pytest.raises(Garbled):
        parsed(b"SIch\xff\xff\xff\xff", tmp_path)
    assert parsed(b"".join(_messages.frame([b"12"])), tmp_path, max_bytes=2) == [b"12"]
    with pytest.raises(Garbled):
        parsed(b"".join(_messages.frame([b"12"])), tmp_path, max_bytes=1)


def test_too_large_a_message_is_not_sent(make: Make) -> None:
    child = make(MIRROR, max_bytes=100)
    for pieces in ([b"x" * 101], [b"x" * 50, np.zeros(51, np.uint8)], [b""] * (2**20 + 1)):
        with pytest.raises(LocalProtocolError, match="too many to cross: at most 100 can"):
            child.send(*pieces)
    child.send(b"x" * 50, np.zeros(50, np.uint8))
    assert list(map(bytes, child.receive(SOON_S))) == [b"x" * 50, bytes(50)]


@given(st.lists(st.binary(max_size=30), max_size=5))
def test_messages_cross_unchanged(mirror: ChildProcess, pieces: list[bytes]) -> None:
    mirror.send(*pieces)
    assert list(map(bytes, mirror.receive(SOON_S))) == pieces


@pytest.fixture(scope="module")
def mirror() -> Iterator[ChildProcess]:
    child = ChildProcess("mirror", MIRROR)
    yield child
    child.kill()


@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3), (3_000_000,)])
def test_arrays_cross_as_their_bytes(mirror: ChildProcess, shape: tuple[int, ...]) -> None:
    array = np.full(shape, 1.5, np.float16)
    mirror.send(b"head", array, array.T)
    head, *pieces = mirror.receive(SOON_S)
    assert bytes(head) == b"head" and list(map(bytes, pieces)) == [array.tobytes()] * 2
    assert not any(piece.readonly for piece in pieces)


def test_several_messages_come_for_one(make: Make) -> None:
    child = make(CONNECT + "for n in range(int(parent.receive()[0])): parent.send(str(n).encode())")
    child.send(b"100")
    assert [int(child.receive(SOON_S)[0]) for _ in range(100)] == [*range(100)]
    with pytest.raises(ChildDied, match="exit code 0"):
        child.receive(SOON_S)
    with pytest.raises(ChildDied):  # and again
        child.receive(SOON_S)


# how it ends ------------------------------------------------------------------------------------------------


def test_one_that_says_nothing_hung(make: Make) -> None:
    child = make(CONNECT + NEVER)
    child.send(bytes(2**20))
    with pytest.raises(ChildHung, match=r"hung for more than 0\.1 s"):
        child.receive(0.1)
    with pytest.raises(ChildHung, match=r"did not end within 0\.1 s"):
        child.wait(0.1)
    assert child.alive
    child.kill()
    assert not child.alive


def test_how_one_died_is_said(make: Make) -> None:
    child = make(CONNECT + "sys.exit(7)")
    with pytest.raises(ChildDied, match="exit code 7") as raised:
        child.receive(SOON_S)
    assert raised.value.exit_code == 7
    if sys.platform != "win32":
        with pytest.raises(ChildDied, match="killed by SIGABRT") as raised:
            make(CONNECT + "os.abort()").receive(SOON_S)
        assert raised.value.exit_code is None
        with pytest.raises(ChildDied, match="it closed its pipe"):
            make("import os, time; os.close(1); " + NEVER).receive(SOON_S)


def test_one_that_can_not_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(OSError, match="no child process can be started with '/nowhere/python'"):
        ChildProcess("test", MIRROR)


@LINUX
@pytest.mark.parametrize("how", ["hang_up", "killed"])
def test_it_has_time_to_end_when_its_parent_does(how: str, tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(
        "import signal, sys, time\n"
        "from splitiot._child import Parent\n"
        "def end(*_):\n    print('ending', flush=True); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "parent = Parent(grace_s=60.0)\n"
        "parent.send(b'ready')\n"
        "time.sleep(600)\n"
    )
    code = (
        "import os, signal, sys; from splitiot._child import ChildProcess\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "child = ChildProcess('test', 'import child'); child.receive(60); print(child.pid, flush=True)\n"
    )
    code += "child.hang_up(); child.wait(60)" if how == "hang_up" else "os.kill(os.getpid(), signal.SIGKILL)"
    path = os.pathsep.join(filter(None, sys.path))
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env={**os.environ, "PYTHONPATH": path}, check=False
    )
    assert ran.stderr == b"ending\n"  # and the pipe is closed: it has ended
    assert ran.returncode == (0 if how == "hang_up" else -9)


@LINUX
def test_its_grace_has_an_end(make: Make, tmp_path: Path) -> None:
    """Whatever it is doing, and with all that it has started."""
    os.mkfifo(tmp_path / "alive")
    alive = os.open(tmp_path / "alive", os.O_RDONLY | os.O_NONBLOCK)
    try:
        child = make(
            "import os, signal, subprocess, time; from splitiot._child import Parent\n"
            "signal.signal(signal.SIGTERM, signal.SIG_IGN); parent = Parent(grace_s=0.2)\n"
            f"file = open({str(tmp_path / 'alive')!r}, 'w')\n"
            "subprocess.Popen(['sleep', '600'], stdout=file); parent.send(); " + NEVER
        )
        assert child.receive(SOON_S) == []
        child.hang_up()
        assert select.select([alive], [], [], SOON_S)[0] and os.read(alive, 1) == b""
    finally:
        os.close(alive)


# what it prints ---------------------------------------------------------------------------------------------


def test_what_it_prints_comes_line_by_line(make: Make) -> None:
    lines: list[str] = []
    code = "print('one'); print('zwölf €', file=sys.stderr); os.write(1, b'\\xff'); print('x' * 9999 + '\\n\\n')"
    child = make(CONNECT + "sys.stdout.reconfigure(encoding='utf-8')\n" + code, on_stderr=lines.append)
    with pytest.raises(ChildDied):
        child.receive(SOON_S)
    assert child.last_line() == "x" * 2000
    assert lines[:2] == ["one", "zwölf €"]
    assert lines[2] == "\ufffd" + "x" * 9999 and lines[3:] == ["", ""]


def test_one_that_never_ends_a_line_takes_no_memory(make: Make) -> None:
    sizes: list[int] = []
    child = make(CONNECT + "print(end='x' * 1_000_000)", on_stderr=lambda line: sizes.append(len(line)))
    with pytest.raises(ChildDied):
        child.receive(SOON_S)
    child.last_line()
    assert sum(sizes) == 1_000_000 and max(sizes) <= 2**16


def test_a_reader_that_raises_does_not_stop_it(make: Make) -> None:
    code = "for _ in range(100): print('x' * 9999)\nparent.send(b'done')"
    child = make(CONNECT + code, on_stderr=lambda line: [][1])
    assert bytes(child.receive(SOON_S)[0]) == b"done"


def test_nothing_comes_from_standard_input(make: Make) -> None:
    child = make(CONNECT + "parent.send(sys.stdin.read().encode(), str(os.getpid()).encode())")
    child.send(b"for the parent's side only")
    assert list(map(bytes, child.receive(SOON_S))) == [b"", str(child.pid).encode()]


# forks ------------------------------------------------------------------------------------------------------


@LINUX
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_it_is_no_child_of_a_forked_process(make: Make) -> None:
    child = make(MIRROR, on_stderr=lambda line: None)
    child.send(b"1")
    child.receive(SOON_S)
    if (forked := os.fork()) == 0:
        with contextlib.suppress(BaseException):
            child.hang_up()
            child.kill()
            os._exit(child.ours)
        os._exit(9)
    assert os.waitpid(forked, 0)[1] == 0
    child.send(b"2")
    assert bytes(child.receive(SOON_S)[0]) == b"2"
