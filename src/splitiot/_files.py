"""Files whose contents nobody has checked yet: read within a bound, and written so that no half of them is left."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from typing import Final, TypeVar

import msgspec

__all__ = ["open_regular", "read_bounded", "read_json", "sync_folder", "write_atomically", "write_new"]

# Where the system has them. Without O_NONBLOCK it would wait at a named pipe for somebody who writes.
_READ: Final = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"))
_WRITE: Final = os.O_WRONLY | sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"))
_NEW: Final = _WRITE | os.O_CREAT | os.O_EXCL
_PIECE: Final = 1 << 16

T = TypeVar("T")

_KINDS: Final = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


class _Unfit(Exception):
    """It is no regular file, or too large."""


def read_bounded(path: str | os.PathLike[str], *, most_bytes: int, what: str, error: type[Exception]) -> bytes:
    """Return what a regular file holds, if that is not too much. It never waits for anybody.

    A link counts as what it leads to, and a sparse file as large as it says. Of a file that grows meanwhile no more
    than the bound is read.

    Parameters
    ----------
    path : path
    most_bytes : int
    what : str
        What the file should be, for the message: ``"a profile"``.
    error : type of exception
        What is raised for a file that is no regular one, too large, or can't be read.

    Raises
    ------
    FileNotFoundError
        There is none.
    """
    with _told(path, what, error), _opened(path, most_bytes) as file:
        data = file.read(os.fstat(file.fileno()).st_size)
        # files of /proc have no size, and others grow
        while more := file.read(min(max(_PIECE, len(data)), most_bytes + 1 - len(data))):
            data += more
        if len(data) > most_bytes:
            raise _Unfit(_too_large(len(data), most_bytes))
        return data


def read_json(
    path: str | os.PathLike[str], *, kind: type[T], most_bytes: int, what: str, error: type[Exception]
) -> T:
    """Return what a file holds as JSON, of this type; else as `read_bounded`."""
    text = read_bounded(path, most_bytes=most_bytes, what=what, error=error)
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as reason:
        raise error(f"{os.fspath(path)} is not JSON, or not {what}: {reason}") from reason


@contextlib.contextmanager
def open_regular(
    path: str | os.PathLike[str], *, most_bytes: int, what: str, error: type[Exception]
) -> Iterator[BufferedReader]:
    """Give a regular file of at most this size, to read it in pieces; it may grow meanwhile. Else as `read_bounded`."""
    with _told(path, what, error), _opened(path, most_bytes) as file:
        yield file


@contextlib.contextmanager
def _told(path: str | os.PathLike[str], what: str, error: type[Exception]) -> Iterator[None]:
    """Raise `error` for what the system, and `_opened`, find wrong."""
    try:
        yield
    except FileNotFoundError:
        raise
    except _Unfit as unfit:
        raise error(f"{os.fspath(path)} {unfit}: give {what}") from None
    except OSError as reason:
        raise error(f"{os.fspath(path)} can't be read: {reason.strerror or reason}") from reason


def _opened(path: str | os.PathLike[str], most_bytes: int) -> BufferedReader:
    try:
        _check(os.stat(path), most_bytes)  # first, since some devices act when they are opened
        file = os.fdopen(os.open(path, _READ), "rb")
    except ValueError as reason:  # a name with a NUL
        raise _Unfit(f"is no name of a file ({reason})") from reason
    try:
        _check(os.fstat(file.fileno()), most_bytes)
    except BaseException:
        file.close()
        raise
    return file


def _check(status: os.stat_result, most_bytes: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _Unfit(f"is {_KINDS.get(stat.S_IFMT(status.st_mode), 'something else')}, and no regular file")
    if status.st_size > most_bytes:
        raise _Unfit(_too_large(status.st_size, most_bytes))


def _too_large(size: int, most: int) -> str:
    return f"has {size} bytes or more, at most {most} are allowed"


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that, whatever happens, its old contents or the new ones stand there, and never a half.

    A link stays, and the file that it leads to is written. What is no regular file (``/dev/stdout``) can't be replaced
    and is written into.

    Raises
    ------
    OSError
        It can't be written. What stood there before stands there still.
    """
    path = os.fspath(path)
    if os.path.exists(path) and not os.path.isfile(path):
        handle = os.open(path, _WRITE)  # of a pipe that nobody reads: at once an error
        os.set_blocking(handle, True)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        return
    path = os.path.realpath(path)
    folder, name = os.path.split(path)
    beside = os.path.join(folder, f".{name[:50]}.{os.urandom(6).hex()}")
    try:
        write_new(beside, data)
        with contextlib.suppress(FileNotFoundError):
            os.chmod(beside, stat.S_IMODE(os.stat(path).st_mode))  # as the one before
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise
    sync_folder(folder)


def write_new(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a new file in place of what stands there, link or pipe, and return when it is on the disk.

    Raises
    ------
    OSError
        It can't be written.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with os.fdopen(os.open(path, _NEW, 0o666), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Return when the names in a folder are on the disk, where the system can tell."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
