"""Isolated functions, with real processes: whatever happens to the child, the parent goes on."""

from __future__ import annotations

import functools
import importlib.util
import logging
import math
import os
import select
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitiot._child import ChildProcess, _parent
from splitiot.errors import CutError, LocalProtocolError, StepError, TaskKilled
from splitiot.functions import task
from splitiot.isolation import IsolatedFunction, _function, importable
from splitiot.pipeline import DROP
from tests import isolated
from tests.share import FULL, examples
from tests.test_wire import PAYLOADS, same

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="process groups, pidfds and memory limits of Linux")

Make = Callable[..., IsolatedFunction]


@pytest.fixture
def make() -> Iterator[Make]:
    """Make isolated functions that are closed behind the test."""
    made: list[IsolatedFunction] = []

    def one(function: Callable[..., Any], **options: Any) -> IsolatedFunction:
        made.append(IsolatedFunction(function, **{"name": "job", **options}))
        return made[-1]

    yield one
    for each in made:
        each.close()


@pytest.fixture(scope="module")
def mirror() -> Iterator[IsolatedFunction]:
    function = IsolatedFunction(isolated.same, name="mirror")
    yield function
    function.close()


def gone(pid: int | None, timeout_s: float = 20.0) -> bool:
    """Whether a process ends: not whether it was reaped, which is another one's task."""
    assert pid is not None
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watched], [], [], timeout_s)[0])
    finally:
        os.close(watched)


def reaped(pid: int | None) -> bool:
    assert pid is not None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


# values -----------------------------------------------------------------------------------------------------


@settings(max_examples=examples(150 if FULL else 30))
@given(PAYLOADS)
def test_values_cross_unchanged(mirror: IsolatedFunction, payload: object) -> None:
    before = mirror.pid
    assert same(mirror(payload), payload)
    assert before in (None, mirror.pid)


@settings(max_examples=examples(30 if FULL else 10))
@given(st.lists(PAYLOADS, max_size=4))
def test_several_arguments_cross(several: IsolatedFunction, payloads: list[object]) -> None:
    assert same(several(*payloads), tuple(payloads))


@pytest.fixture(scope="module")
def several() -> Iterator[IsolatedFunction]:
    function = IsolatedFunction(isolated.pair, name="several")
    yield function
    function.close()


def test_large_values_cross_both_ways(mirror: IsolatedFunction) -> None:
    array = np.random.default_rng(1).integers(0, 256, 20_000_000, np.uint8)
    text = bytes(array[:3_000_000])
    got = mirror({"array": array, "small": np.float32(1.5), "bytes": text})
    assert np.array_equal(got["array"], array) and got["bytes"] == text
    assert type(got["small"]) is np.float32


def test_arrays_can_be_written_on_both_sides(make: Make) -> None:
    given = np.zeros((2, 3), np.float32)
    got = make(isolated.added)(given)
    assert got.tolist() == [[1.0] * 3] * 2 and not given.any()
    got += 1


def test_a_kept_result_does_not_change(mirror: IsolatedFunction) -> None:
    first = mirror(np.full(10, 1))
    mirror(np.full(10, 2))
    assert first.tolist() == [1] * 10


def test_the_child_is_another_process_and_is_kept(make: Make) -> None:
    function = make(isolated.process)
    assert function.pid is None  # started by the first call
    assert function(None) == function(None) == function.pid != os.getpid()
    assert "job" in repr(function)


def test_dropped_frames(make: Make) -> None:
    function = make(isolated.dropping)
    assert function(1) is DROP
    assert function(2) == 2


def test_coroutines_share_one_loop(make: Make) -> None:
    function = make(isolated.awaited)
    (first, loop), (second, again) = function(1), function(2)
    assert (first, second) == (1, 2) and loop == again


def test_isolated_functions_may_call_isolated_functions(make: Make) -> None:
    assert make(isolated.nested)([1]) == [1]


def test_calls_from_threads_come_one_after_another(mirror: IsolatedFunction) -> None:
    right: list[bool] = []

    def work(number: int) -> None:
        array = np.full(100_000, number)
        right.extend(np.array_equal(mirror(array), array) for _ in range(10))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 40


# errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "argument", "words"),
    [
        (isolated.fail, "no such colour", "job raised ValueError: no such colour"),
        (isolated.fail, "", "job raised ValueError$"),
        (isolated.fail_in_no_language, 1, r"job raised ValueError: \\ud800"),
        (isolated.fail_rudely, 1, r"job raised Rude: \(no message\)"),
        (isolated.leave, 1, "job raised SystemExit: I am off"),
        (isolated.interrupted, 1, "job raised KeyboardInterrupt"),
        (math.sqrt, "text", "job raised TypeError: must be real number"),
    ],
)
def test_exceptions_come_as_words(make: Make, function: Any, argument: object, words: str) -> None:
    job = make(function)
    pids = set()
    for _ in range(2):
        with pytest.raises(StepError, match=words) as raised:
            job(argument)
        assert type(raised.value) is StepError
        pids.add(job.pid)
    assert len(pids) == 1  # it lives on


def test_the_traceback_is_logged(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "splitiot"), pytest.raises(StepError):
        make(isolated.fail)("no")
    assert "in fail" in caplog.text and "isolated.py" in caplog.text


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("set", r"the result of job: \['x'\]\[1\]: a set can't cross"),
        ("text", "the result of job: the payload: text that is no Unicode"),
        ("large", "the result of job: .* does not fit 64 bits"),
    ],
)
def test_results_that_can_not_cross_are_refused(make: Make, how: str, words: str) -> None:
    job = make(isolated.uncrossable)
    with pytest.raises(LocalProtocolError, match=words):
        job(how)
    pid = job.pid
    assert job("plain") == "fine" and job.pid == pid


def test_arguments_that_can_not_cross_are_refused(make: Make) -> None:
    job = make(isolated.pair)
    with pytest.raises(LocalProtocolError, match=r"argument 1 of job: \['x'\]: a set can't cross"):
        job(1, {"x": {1}})
    with pytest.raises(LocalProtocolError, match="no Unicode"):
        job("\ud800")
    assert job(1, 2) == (1, 2)


def test_the_wrong_number_of_arguments(make: Make) -> None:
    with pytest.raises(StepError, match="TypeError: same"):
        make(isolated.same)(1, 2)


def test_what_it_prints_goes_to_standard_error(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    job = make(isolated.chatter)
    assert job([1]) == [1] and job(2) == 2
    job.close()
    out, err = capfd.readouterr()
    assert out == ""
    assert err == "printed\nwritten\nto the descriptor\nnothing to read\n" * 2


# hangs, crashes, leaks --------------------------------------------------------------------------------------


def test_a_hanging_function_is_stopped(make: Make) -> None:
    job = make(isolated.hang, timeout_s=0.3)
    for _ in range(2):
        with pytest.raises(TaskKilled, match=r"job hung for more than 0\.3 s, and was stopped") as raised:
            job(None)
        assert raised.value.reason == "hung"
        assert job.pid is None


@LINUX
def test_a_stopped_child_is_really_gone(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    pids = started(monkeypatch)
    job = make(isolated.hang, timeout_s=0.3)
    for _ in range(2):
        with pytest.raises(TaskKilled):
            job(None)
    assert len(set(pids)) == 2 and all(map(reaped, pids))


def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that the ids of all children started from now on are put in."""
    pids: list[int] = []

    class Noted(ChildProcess):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            pids.append(self.pid)

    monkeypatch.setattr(_function, "ChildProcess", Noted)
    return pids


@LINUX
def test_what_it_started_goes_with_it(make: Make, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    with pytest.raises(TaskKilled):
        make(isolated.hang_with_a_helper, timeout_s=1.0)(str(file))
    assert gone(int(file.read_text()))


@LINUX
def test_a_fork_does_not_hide_that_it_died(make: Make) -> None:
    with pytest.raises(TaskKilled, match="job died: exit code 7"):
        make(isolated.fork_and_die)(None)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("exit", "exit code 3"),
        ("abort", "killed by SIGABRT"),
        ("SIGSEGV", "killed by SIGSEGV"),
        ("SIGKILL", "killed by SIGKILL"),
        ("SIGRTMIN", "killed by SIGRTMIN|killed by signal 34"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_crash_takes_only_the_child(make: Make, how: str, words: str) -> None:
    job = make(isolated.end)
    with pytest.raises(TaskKilled, match=f"job died: {words}") as raised:
        job(how)
    assert raised.value.reason == "died"


def test_the_next_call_has_a_new_child(make: Make) -> None:
    job = make(isolated.end_quietly)
    for number in range(3):
        assert job(number) == number
        with pytest.raises(TaskKilled, match="job died: exit code 0"):
            job(-1)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_child_that_died_idle_is_replaced_without_an_error(make: Make) -> None:
    job = make(isolated.process)
    pid = job(None)
    os.kill(pid, signal.SIGKILL)
    if sys.platform == "linux":
        assert gone(pid)
        assert job(None) not in (pid, os.getpid())


@LINUX
def test_a_leak_ends_with_its_child(make: Make) -> None:
    job = make(isolated.leak, max_bytes=200 * 2**20)
    for _ in range(2):
        counts: list[int] = []
        with pytest.raises(TaskKilled, match="job wanted more memory than its limit of 209715200 bytes") as raised:
            counts.extend(job(20 * 2**20) for _ in range(50))
        assert raised.value.reason == "memory"
        assert counts in ([*range(1, 10)], [*range(1, 11)])  # its own 200 MiB, whatever the interpreter takes
        assert job.pid is None
    assert job(1) == 1


@LINUX
def test_one_without_a_byte_left_can_still_say_so(make: Make) -> None:
    with pytest.raises(TaskKilled, match="job wanted more memory") as raised:
        make(isolated.fill, max_bytes=20 * 2**20)(None)
    assert raised.value.reason == "memory"


@LINUX
def test_an_argument_can_be_too_large_for_the_limit(make: Make) -> None:
    job = make(isolated.same, max_bytes=50 * 2**20)
    with pytest.raises(TaskKilled) as raised:
        job(np.zeros(60 * 2**20, np.uint8))
    assert raised.value.reason == "memory"
    assert job(1) == 1


def test_limits_that_are_none() -> None:
    for timeout_s in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="timeout_s"):
            IsolatedFunction(isolated.same, name="job", timeout_s=timeout_s)
    with pytest.raises(ValueError, match="max_bytes"):
        IsolatedFunction(isolated.same, name="job", max_bytes=0)


def test_memory_can_be_limited_on_linux_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_function.sys, "platform", "darwin")
    with pytest.raises(CutError, match="needs Linux"):
        IsolatedFunction(isolated.same, name="job", max_bytes=1)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_ends_the_child_and_is_raised(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    pids = started(monkeypatch)
    job = make(isolated.hang)
    job._started()
    asked = threading.Event()

    class Asked(threading.Thread):
        def run(self) -> None:
            asked.wait()
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    receive = ChildProcess.receive

    def received(child: ChildProcess, timeout_s: float) -> Any:
        asked.set()
        return receive(child, timeout_s)

    monkeypatch.setattr(ChildProcess, "receive", received)
    interrupter = Asked()
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        job(None)
    interrupter.join()
    assert job.pid is None
    assert len(pids) == 1 and reaped(pids[0])


@LINUX
def test_ctrl_c_at_a_terminal_leaves_no_word_of_the_child(tmp_path: Path) -> None:
    # a terminal sends it to the whole foreground group
    code = """
import os, signal, threading
from splitiot.isolation import IsolatedFunction
from tests import isolated
job = IsolatedFunction(isolated.hang, name="job")
job._started()
print(job.pid, flush=True)
try:
    job(None)
except KeyboardInterrupt:
    print("interrupted", job.pid)
"""
    with python(code, start_new_session=True) as parent:
        assert parent.stdout is not None and parent.stderr is not None
        pid = int(parent.stdout.readline())
        assert parent.stderr.readline() == b"hanging\n"
        os.killpg(parent.pid, signal.SIGINT)
        assert parent.stdout.read() == b"interrupted None\n"
        assert parent.stderr.read() == b""
    assert parent.returncode == 0 and gone(pid)


def python(code: str, **options: Any) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(filter(None, sys.path))
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        **options,
    )


@LINUX
@pytest.mark.parametrize("idle", [False, True])
def test_no_orphan_is_left(idle: bool) -> None:
    code = f"""
from splitiot.isolation import IsolatedFunction
from tests import isolated
job = IsolatedFunction(isolated.hang, name="job")
job._started()
print(job.pid, flush=True)
{"input" if idle else "job"}(None)
"""
    with python(code) as parent:
        assert parent.stdout is not None and parent.stderr is not None
        pid = int(parent.stdout.readline())
        assert idle or parent.stderr.readline() == b"hanging\n"
        parent.kill()
    assert gone(pid)


@LINUX
def test_no_orphan_is_left_that_lets_no_thread_run(monkeypatch: pytest.MonkeyPatch) -> None:
    late = f"import {_parent.__name__}; {_parent.__name__}._LATE_S = 1.0"  # instead of 10 s
    code = f"""
from splitiot.isolation import IsolatedFunction, _function
_function.CODE = "{late}; " + _function.CODE
from tests import isolated
job = IsolatedFunction(isolated.hang_holding_the_interpreter, name="job", timeout_s=1.0)
job._started()
print(job.pid, flush=True)
job(None)
"""
    with python(code) as parent:
        assert parent.stdout is not None and parent.stderr is not None
        pid = int(parent.stdout.readline())
        assert parent.stderr.readline() == b"hanging\n"
        parent.kill()
    assert gone(pid)


# messages that can't be read or sent ------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["os.write(1, b'x' * 99)", "Parent().send(b'x')", "Parent().send()"])
def test_a_garbled_answer_ends_the_child(make: Make, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = "import os, time; from splitiot._child import Parent"
    monkeypatch.setattr(_function, "CODE", f"{waiting}; {code}; time.sleep(60)")
    pids = started(monkeypatch)
    job = make(isolated.same)
    with pytest.raises(TaskKilled, match="job answered with garbled bytes while it was starting") as raised:
        job(1)
    assert raised.value.reason == "died" and job.pid is None
    if sys.platform != "win32":
        assert reaped(pids[0])


def test_too_large_a_message_is_not_sent(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_function, "ChildProcess", functools.partial(ChildProcess, max_bytes=100))
    job = make(isolated.same)
    assert job(1) == 1
    pid = job.pid
    for value in (np.zeros(101, np.uint8), "x" * 101):
        with pytest.raises(LocalProtocolError, match="too many to cross"):
            job(value)
    assert job(2) == 2 and job.pid == pid


# resources, start and end -----------------------------------------------------------------------------------


@pytest.fixture
def diary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPLITIOT_TEST_ISOLATED", str(tmp_path / "diary"))
    return tmp_path / "diary"


def test_a_resource_is_entered_once_and_left_at_the_end(make: Make, diary: Path) -> None:
    job = make(isolated.noted, resource=isolated.diary)
    assert not diary.exists()
    assert job(1) == 1 and job(2) == 2
    pid = job.pid
    assert diary.read_text() == f"entered {pid}\nran 1\nran 2\n"
    job.close()
    assert diary.read_text() == f"entered {pid}\nran 1\nran 2\nleft {pid}\n"
    job.close()
    if sys.platform != "win32":
        assert reaped(pid)
    with pytest.raises(LocalProtocolError, match="job was closed"):
        job(3)


def test_an_async_resource_lives_on_the_loop_of_the_function(make: Make, diary: Path) -> None:
    job = make(isolated.looped, resource=isolated.AsyncDiary)
    assert job(1) is True
    job.close()
    assert diary.read_text() == "entered\nleft\n"


def test_a_resource_is_left_when_the_interpreter_ends(diary: Path) -> None:
    code = """
from splitiot.isolation import IsolatedFunction
from tests import isolated
job = IsolatedFunction(isolated.noted, name="job", resource=isolated.diary)
job(1)
"""
    with python(code) as parent:
        assert parent.communicate() == (b"", b"")
    assert diary.read_text().splitlines()[-1].startswith("left")


def test_one_that_is_forgotten_is_ended(diary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pids = started(monkeypatch)
    job = IsolatedFunction(isolated.noted, name="job", resource=isolated.diary)
    job(1)
    del job
    assert diary.read_text().splitlines()[-1] == f"left {pids[0]}"


def test_a_tear_down_that_raises_is_logged(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    job = make(isolated.held, resource=isolated.unleavable)
    assert job(2) == 1
    job.close()
    assert "job: leaving its resource raised OSError: the lens is stuck" in caplog.text


@LINUX
@pytest.mark.parametrize("calls", [True, False])
def test_a_forked_process_has_a_child_of_its_own(make: Make, calls: bool) -> None:
    job = make(isolated.process)
    mine = job(None)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            other = job(None) if calls else 0
            job.close()
            os.write(write, str(other).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as stream:
        other = int(stream.read())
    os.waitpid(pid, 0)
    assert other != mine and job(None) == mine


def test_a_set_up_that_raises(make: Make) -> None:
    job = make(isolated.held, resource=isolated.unenterable)
    with pytest.raises(StepError, match="job could not be started in a process of its own: OSError: no camera"):
        job(1)
    assert job.pid is None


def script(tmp_path: Path, text: str, name: str = "script.py") -> str:
    (tmp_path / name).write_text(text)
    done = subprocess.run(
        [sys.executable, str(tmp_path / name)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    return done.stdout + done.stderr


SCRIPT = """
import sys
from splitiot.isolation import IsolatedFunction, importable

def double(value):
    return 2 * value, __name__

{0}

if __name__ == "__main__":
    print(importable(double)[1])
    job = IsolatedFunction(double, name="double")
    print(job(3))
    job.close()
"""


@pytest.mark.parametrize("name", ["script.py", "numpy.py.txt", "script"])
def test_functions_of_a_script(tmp_path: Path, name: str) -> None:
    stem = Path(name).stem
    assert script(tmp_path, SCRIPT.format(""), name) == f"double\n(6, 'splitiot_target_{stem}')\n"


def test_a_script_that_can_not_be_imported(tmp_path: Path) -> None:
    said = script(tmp_path, SCRIPT.format("if __name__ != '__main__': 1 / 0"))
    assert "double could not be started in a process of its own: ZeroDivisionError: division by zero" in said


def test_a_script_that_dies_when_it_is_imported(tmp_path: Path) -> None:
    said = script(tmp_path, SCRIPT.format("import os\nif __name__ != '__main__': os._exit(5)"))
    assert "TaskKilled: double died while it was starting: exit code 5" in said


def test_a_script_that_never_ends_to_start(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_function, "START_S", 0.001)
    job = make(isolated.same)
    with pytest.raises(TaskKilled, match=r"hung for more than 0\.001 s while it was starting"):
        job(1)
    monkeypatch.undo()
    assert job(1) == 1


def test_a_script_without_a_guard(tmp_path: Path) -> None:
    said = script(tmp_path, SCRIPT.replace("__name__ ==", "'__main__' =="))
    assert "put what a script does under `if __name__ == '__main__':`" in said
    assert said.count("Traceback") == 1


def test_a_function_that_stands_under_the_guard(tmp_path: Path) -> None:
    text = SCRIPT.format("if __name__ == '__main__':\n    def double(value): return value")
    said = script(tmp_path, text.replace("def double(value):\n    return 2 * value, __name__\n", "", 1))
    assert "has no double: does it stand under `if __name__ == '__main__':`?" in said


def test_functions_of_a_module_that_is_run(tmp_path: Path) -> None:
    package = tmp_path / "package_of_a_test"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "inside.py").write_text("from . import __name__ as there\n" + SCRIPT.format(""))
    done = subprocess.run(
        [sys.executable, "-m", "package_of_a_test.inside"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.stdout + done.stderr == "double\n(6, 'package_of_a_test.inside')\n"


def test_an_interactive_session_is_refused(tmp_path: Path) -> None:
    with python(SCRIPT.format("").replace("    return 2", "    return 3")) as session:
        _, said = session.communicate()
    assert b"can't run in a process of its own from an interactive session or an archive: put it into a file" in said


def test_a_file_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("of_no_file")
    module.__file__ = os.path.abspath("of_no_file.zip/inside.py")
    exec("def function(value): return value", vars(module))  # noqa: S102  (a function without a file)
    monkeypatch.setitem(sys.modules, "of_no_file", module)
    with pytest.raises(CutError, match="put it into a file"):
        importable(module.function)


def loaded(path: Path) -> Any:
    """As the command line loads a file."""
    name = f"splitiot_target_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def two_files(tmp_path: Path) -> Iterator[tuple[Any, Any]]:
    """A function and a resource of two files with one name, which is a package's too."""
    texts = {
        "a": "import numpy, sys\ndef size(held, x): return held, numpy.size(x), sys.modules[__name__].__file__\n",
        "b": "import contextlib\n@contextlib.contextmanager\ndef resource(): yield 'held'\n",
    }
    for folder, text in texts.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "numpy.py").write_text(text)
    one = loaded(tmp_path / "a" / "numpy.py")
    two = sys.modules.pop(one.__name__) and loaded(tmp_path / "b" / "numpy.py")
    sys.modules["another"] = one
    yield one.size, two.resource
    del sys.modules[one.__name__], sys.modules["another"]


def test_functions_of_files_that_the_command_line_loaded(make: Make, tmp_path: Path, two_files: Any) -> None:
    size, resource = two_files
    assert importable(size) == (str(tmp_path / "a" / "numpy.py"), "size")
    assert importable(resource) == (str(tmp_path / "b" / "numpy.py"), "resource")
    assert make(size, resource=resource)([1, 2]) == ("held", 2, str(tmp_path / "a" / "numpy.py"))


# names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (isolated.same, "same"),
        (isolated.doubler, "doubler"),
        (isolated.named, "named"),
        (isolated.renamed, "renamed"),
        (isolated.Doubler.method, "Doubler.method"),
        (isolated.Doubler.static, "Doubler.static"),
        (isolated.Doubler.of_class, "Doubler.of_class"),
        (isolated.diary, "diary"),
    ],
)
def test_importable(function: Any, name: str) -> None:
    assert importable(function) == ("tests.isolated", name)


@pytest.mark.parametrize("function", [isolated.doubler, isolated.named, isolated.renamed, isolated.Doubler.of_class])
def test_what_is_no_plain_function_but_has_a_name_is_found(make: Make, function: Any) -> None:
    assert make(function)(21) == 42


def test_a_task_under_the_name_of_its_function(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    function = isolated.same
    monkeypatch.setattr(isolated, "same", task(function, isolated=True))
    assert importable(function) == ("tests.isolated", "same.function")
    assert make(function)(21) == 21  # the child has no task there


def test_a_decorated_function(make: Make) -> None:
    assert importable(isolated.decorated.function) == ("tests.isolated", "decorated.function")
    assert make(isolated.decorated.function)(21) == 42
    assert isolated.decorated(21) == 42


def test_what_has_an_attribute_of_that_name_is_no_task(make: Make) -> None:
    assert make(isolated.holder)(21) == 84


def local() -> Callable[..., Any]:
    def inner(value: Any) -> Any:
        return value

    return inner


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda value: value, "no lambda"),
        (local(), "no function within a function"),
        (isolated.Doubler().method, "no bound method"),
        (isolated.Doubler(), "Doubler object"),
        (functools.partial(isolated.same, 1), "functools.partial"),
    ],
)
def test_what_can_not_be_imported_is_refused(function: Any, words: str) -> None:
    with pytest.raises(CutError, match=words) as refused:
        IsolatedFunction(function, name="job")
    assert "can't run in a process of its own" in str(refused.value)
    with pytest.raises(CutError, match=words):
        IsolatedFunction(isolated.same, name="job", resource=function)


def test_a_function_whose_name_another_one_has(monkeypatch: pytest.MonkeyPatch) -> None:
    function = isolated.same
    monkeypatch.setattr(isolated, "same", isolated.added)
    with pytest.raises(CutError, match="another object, a function: call that something else"):
        importable(function)
