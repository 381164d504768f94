"""A child process that tries models: native code that crashes or never ends takes only the child with it."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, TypeAlias

from splitiot.errors import ModelError

__all__ = ["CODE", "Messages", "start_child"]

CODE = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from splitiot.models._child_main import main; main()"

Messages: TypeAlias = "queue.SimpleQueue[dict[str, Any] | None]"


@contextmanager
def start_child(request: bytes, code: str = CODE) -> Iterator[tuple[Messages, Callable[[], str]]]:
    """Start a child; gives its messages (None: it has ended), and a function that says how it ended.

    Raises
    ------
    ModelError
        It could not be started.
    """
    messages: Messages = queue.SimpleQueue()
    paths = json.dumps(sys.path)
    with tempfile.TemporaryFile() as errors:
        # isolated: only the module path of this process counts, no environment
        try:
            child = subprocess.Popen(
                [sys.executable, "-I", "-c", code, paths],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        except OSError as error:
            raise ModelError(f"no child process can be started with {sys.executable!r}: {error}") from error
        assert child.stdin is not None
        assert child.stdout is not None
        reader = threading.Thread(target=_read, args=(child.stdout, messages), daemon=True)
        reader.start()
        try:
            try:
                with child.stdin:
                    child.stdin.write(request)
            except OSError:  # it has died already: the messages end
                pass
            yield messages, lambda: _ending(child, errors)
        finally:
            child.kill()
            child.wait()
            reader.join()
            child.stdout.close()


def _read(stream: IO[bytes], messages: Messages) -> None:
    for line in stream:
        try:
            messages.put(json.loads(line))
        except ValueError:  # cut short by a crash
            break
    messages.put(None)


def _ending(child: subprocess.Popen[bytes], errors: IO[bytes]) -> str:
    code = child.wait()
    if code < 0:
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"
    errors.seek(0)
    last = errors.read()[-2000:].decode(errors="replace").strip().splitlines()[-1:]
    return f"ended with exit code {code}" + (f": {last[0]}" if last else "")
