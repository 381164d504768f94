"""What the tests of isolated functions run in child processes: importable, and quick to import."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from splitiot.functions import task
from splitiot.isolation import IsolatedFunction
from splitiot.pipeline import DROP

KEPT: list[Any] = []
FILE = Path(os.environ.get("SPLITIOT_TEST_ISOLATED", os.devnull))


def same(value: Any) -> Any:
    return value


def pair(*values: Any) -> tuple[Any, ...]:
    return values


def process(_: Any) -> int:
    return os.getpid()


def added(array: Any) -> Any:
    array += 1  # what a function is given may be written
    return array


def fail(words: str) -> NoReturn:
    raise ValueError(words)


def fail_in_no_language(_: Any) -> NoReturn:
    raise ValueError("\ud800")


class Rude(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def fail_rudely(_: Any) -> NoReturn:
    raise Rude


def leave(_: Any) -> NoReturn:
    sys.exit("I am off")


def interrupted(_: Any) -> NoReturn:
    raise KeyboardInterrupt


def nap(seconds: float) -> float:
    time.sleep(seconds)  # noqa: TID251 (a slow step)
    return seconds


def hang(_: Any) -> None:
    os.write(2, b"hanging\n")
    while True:
        time.sleep(60)  # noqa: TID251 (it is killed)


def hang_holding_the_interpreter(_: Any) -> None:
    os.write(2, b"hanging\n")
    ctypes.PyDLL(None).pause()  # unlike CDLL this lets no other thread run


def hang_with_a_helper(file: str) -> None:
    pid = os.fork()
    if pid:
        Path(file).write_text(str(pid))
    hang(None)


def fork_and_die(_: Any) -> None:
    if os.fork():
        os._exit(7)
    hang(None)


def end(how: str) -> None:
    if how == "exit":
        os._exit(3)
    if how == "abort":
        os.abort()
    os.kill(os.getpid(), getattr(signal, how))


def end_quietly(what: int) -> int:
    if what < 0:
        os._exit(0)
    return what


def leak(nbytes: int) -> int:
    KEPT.append(np.ones(nbytes, np.uint8))
    return len(KEPT)


def fill(_: Any) -> NoReturn:
    while True:  # to the last byte, and no less than that is kept
        KEPT.append([None] * 4)


def chatter(value: Any) -> Any:
    print("printed")
    sys.stdout.buffer.write(b"written\n")
    sys.stdout.flush()
    os.write(1, b"to the descriptor\n")
    try:
        input()
    except EOFError:
        print("nothing to read")
    return value


def uncrossable(how: str) -> Any:
    return {
        "set": {"x": [1, {2}]},
        "text": "\ud800",
        "large": 2**70,
        "plain": "fine",
    }[how]


def dropping(value: int) -> Any:
    return DROP if value % 2 else value


async def awaited(value: Any) -> Any:
    await asyncio.sleep(0)
    return value, id(asyncio.get_running_loop())


class Doubler:
    def __call__(self, value: Any) -> Any:
        return 2 * value

    def method(self, value: Any) -> Any:
        return 2 * value

    @staticmethod
    def static(value: Any) -> Any:
        return 2 * value

    @classmethod
    def of_class(cls, value: Any) -> Any:
        return 2 * value


class Holder:
    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, value: Any) -> Any:
        return 2 * self.function(value)


@task(isolated=True)
def decorated(value: Any) -> Any:
    return 2 * value


doubler = Doubler()
holder = Holder(doubler)
named = doubler.method
renamed = lambda value: 2 * value  # noqa: E731  (it is a module's attribute)


@contextmanager
def diary() -> Iterator[Path]:
    with FILE.open("a") as file:
        file.write(f"entered {os.getpid()}\n")
    try:
        yield FILE
    finally:
        with FILE.open("a") as file:
            file.write(f"left {os.getpid()}\n")


class AsyncDiary:
    async def __aenter__(self) -> int:
        FILE.write_text("entered\n")
        return id(asyncio.get_running_loop())

    async def __aexit__(self, *error: Any) -> None:
        FILE.write_text(FILE.read_text() + "left\n")


@contextmanager
def unleavable() -> Iterator[int]:
    yield 1
    raise OSError("the lens is stuck")


@contextmanager
def unenterable() -> Iterator[int]:
    raise OSError("no camera")
    yield 1


def noted(file: Path, value: Any) -> Any:
    with file.open("a") as stream:
        stream.write(f"ran {value}\n")
    return value


async def looped(loop: int, _: Any) -> bool:
    return id(asyncio.get_running_loop()) == loop


def held(value: int, _: Any) -> int:
    return value


def nested(value: Any) -> Any:
    inner = IsolatedFunction(same, name="inner")
    try:
        return inner(value)
    finally:
        inner.close()


def delicate(value: int) -> Any:
    """Of each value what its last digit says: it dies, hangs, raises, drops; or doubles."""
    kind = value % 10
    if kind == 1:
        os._exit(3)
    if kind == 2:
        time.sleep(600)  # noqa: TID251 (it is killed)
    if kind == 3:
        raise ValueError("three")
    return DROP if kind == 4 else 2 * value
