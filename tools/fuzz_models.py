#!/usr/bin/env python3
"""Change models at random and see whether splitiot takes them for what they are.

Byte mutants: flips, inserts, deletes, truncations, splices of a file. Structural mutants: one value or table
changed in the parsed tree, written again by our writer. Every mutant must be read, cut and written, or refused
with a ModelError, within a second. With --run those that were accepted are written again and run in children by
an installed interpreter: how many of them kill it is the validator's remaining error.

    python tools/fuzz_models.py --byte 100000 --structural 10000 --jobs 2 --run
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

from splitiot.errors import ModelError  # noqa: E402
from splitiot.models.model import load_model  # noqa: E402
from splitiot.models.tflite.reader import read_model  # noqa: E402
from splitiot.models.tflite.table import SCALAR, STRING, TABLE, UNION, VECTOR, Field, Table  # noqa: E402
from splitiot.models.tflite.writer import write_model  # noqa: E402
from splitiot.pipeline import Runtime  # noqa: E402

SLOW_S = 1.0
RUN_TIMEOUT_S = 5.0
BATCH = 2000


def default_models() -> dict[str, bytes]:
    """Six: two shipped samples, and networks with state, subgraphs, quantisation and branches."""
    from splitiot import samples
    from tests import networks

    made = {f.__name__: f() for f in (networks.counter, networks.loop, networks.svdf, networks.concatenation)}
    return {f"fomo_{p}": samples.fomo(p).read_bytes() for p in ("float32", "int8")} | made


def byte_mutant(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """Change 1 to 4 places of a file."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        size = len(changed)
        if size < 2:
            break
        kind, at = chance.randrange(10), _place(size, chance)
        if kind < 4:
            changed[at] ^= 1 << chance.randrange(8)
        elif kind < 6:
            changed[at] = chance.choice((0, 1, 127, 128, 255, chance.randrange(256)))
        elif kind == 6:
            changed[at:at] = chance.randbytes(chance.choice((1, 2, 4, 8)))
        elif kind == 7:
            del changed[at : at + chance.choice((1, 2, 4, 8))]
        elif kind == 8:
            if chance.random() < 0.2:
                del changed[at:]
            else:  # a wrong offset, length or index
                at -= at % 4
                changed[at : at + 4] = struct.pack("<I", chance.choice((0, 1, size, 2**31 - 1, 2**32 - 1, 2**16)))
        else:
            length = chance.choice((4, 8, 16, 64))
            source = other if chance.random() < 0.3 else data
            begin = chance.randrange(max(1, len(source) - length))
            changed[at : at + length] = source[begin : begin + length]
    return bytes(changed)


def _place(size: int, chance: random.Random) -> int:
    """Half anywhere, half near the beginning or the end, where converters put what is no weight."""
    where = chance.random()
    if where < 0.5:
        return chance.randrange(size)
    near = min(size, 4096)
    return chance.randrange(near) if where < 0.75 else size - 1 - chance.randrange(near)


class Tree:
    """A parsed model that is changed in one place, written, and put right again."""

    def __init__(self, data: bytes) -> None:
        self.root = read_model(data)
        self.by_kind: dict[str, list[Table]] = {}
        self._gather(self.root)
        self.kinds = sorted(self.by_kind)

    def _gather(self, table: Table) -> None:
        self.by_kind.setdefault(table.name, []).append(table)
        for value in table.fields.values():
            if isinstance(value, Table):
                self._gather(value)
            elif isinstance(value, list):
                for item in value:
                    self._gather(item)

    def mutant(self, chance: random.Random) -> bytes:
        saved: list[tuple[Table, dict[str, Any]]] = []
        for _ in range(chance.choice((1, 1, 1, 2))):
            table = chance.choice(self.by_kind[chance.choice(self.kinds)])
            saved.append((table, table.fields))
            table.fields = dict(table.fields)
            self._change(table, chance)
        try:
            return write_model(self.root)
        finally:
            for table, fields in reversed(saved):
                table.fields = fields

    def _change(self, table: Table, chance: random.Random) -> None:
        fields = [field for field in table.type.fields if field is not None]
        present = [field for field in fields if field.name in table.fields]
        if not fields:
            return
        field = chance.choice(present if present and chance.random() < 0.7 else fields)
        if field.name in table.fields and chance.random() < 0.15:
            del table.fields[field.name]
            return
        if field.kind == SCALAR:
            if field.name.endswith("_type") and (field.slot + 1) < len(table.type.fields):
                after = table.type.fields[field.slot + 1]
                if after is not None and after.kind == UNION:  # the writer derives it
                    return
            table.fields[field.name] = _number(field, table.fields.get(field.name, field.default), chance)
        elif field.kind == VECTOR:
            old = table.fields.get(field.name)
            table.fields[field.name] = _vector(field, np.zeros(0, field.dtype) if old is None else old, chance)
        elif field.kind == STRING:
            table.fields[field.name] = chance.choice(("", "x", "input", "serving_default", "\u00fc" * 40))
        elif field.kind == TABLE:
            same = self.by_kind.get(field.target)
            table.fields[field.name] = chance.choice(same) if same and chance.random() < 0.7 else Table(field.target)
        elif field.kind == UNION:
            member = field.members[chance.randrange(1, len(field.members))]
            same = self.by_kind.get(member)
            table.fields[field.name] = chance.choice(same) if same else Table(member)
        else:
            self._list(table, field, chance)

    def _list(self, table: Table, field: Field, chance: random.Random) -> None:
        items: list[Table] = list(table.fields.get(field.name) or ())
        kind = chance.randrange(5)
        if kind == 0 and items:
            del items[chance.randrange(len(items))]
        elif kind == 1 and len(items) > 1:
            a, b = chance.sample(range(len(items)), 2)
            items[a], items[b] = items[b], items[a]
        elif kind == 2 and items:
            items.insert(chance.randrange(len(items) + 1), chance.choice(items))
        elif kind == 3 and len(items) > 1:
            items[chance.randrange(len(items))] = chance.choice(items)
        else:
            items.append(chance.choice(self.by_kind.get(field.target) or [Table(field.target)]))
        table.fields[field.name] = items


def _number(field: Field, old: Any, chance: random.Random) -> Any:
    if field.dtype.kind == "b":
        return not old
    if field.dtype.kind == "f":
        return chance.choice((0.0, -1.0, 1.0, 1e30, -1e-30, float("inf"), float("nan"), old * 2))
    info = np.iinfo(field.dtype)
    drawn = chance.choice((0, 1, -1, old + 1, old - 1, 2 * old, info.max, info.min, chance.randrange(-8, 32), 127))
    return min(max(int(drawn), int(info.min)), int(info.max))


def _vector(field: Field, old: np.ndarray[Any, Any], chance: random.Random) -> np.ndarray[Any, Any]:
    kind = chance.randrange(6)
    if kind == 0 or not len(old):
        return np.append(old, old.dtype.type(_number(field, 0, chance))).astype(field.dtype)
    at = chance.randrange(len(old))
    if kind == 1:
        return np.delete(old, at)
    if kind == 2:
        return old[:at].copy()
    new = old.copy()
    if kind == 3 and len(new) > 1:
        other = chance.randrange(len(new))
        new[at], new[other] = old[other], old[at]
    else:
        new[at] = _number(field, old[at].item(), chance)
    return new


def examine(data: bytes) -> tuple[str, float, str]:
    """What becomes of a model: a refusal's type, "accepted", or another exception; seconds of reading; details."""
    began = time.perf_counter()
    read_s = 0.0
    try:
        model = load_model(data)
        read_s = time.perf_counter() - began
        # no shape is asked for from an interpreter here: that is a child's work
        model._anatomy._answer = "not asked"
        cuts = model.cuts
        if cuts:
            cut = cuts[len(cuts) // 2]
            model.boundary(cut), model.returned(cut)
            for part in model.split(cut):
                if part.start < part.stop:
                    part.to_bytes()
        return "accepted", max(read_s, time.perf_counter() - began), ""
    except ModelError as error:
        return type(error).__name__, time.perf_counter() - began, ""
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return "other", time.perf_counter() - began, f"{type(error).__name__}: {error} ({where.name}:{where.lineno})"


def mutants(models: dict[str, bytes], kind: str, numbers: range, seed: int) -> Iterator[tuple[str, int, bytes]]:
    """The mutants of some numbers; each depends on its number, the seed and the models only."""
    names = sorted(models)
    trees: dict[str, Tree] = {}
    for number in numbers:
        chance = random.Random(f"{seed} {kind} {number}")
        name = names[number % len(names)]
        if kind == "byte":
            yield name, number, byte_mutant(models[name], models[chance.choice(names)], chance)
            continue
        if name not in trees:
            trees[name] = Tree(models[name])
        yield name, number, trees[name].mutant(chance)


# --- running what was accepted, in children ---


def child() -> None:
    """Run each model that comes in; say which is begun, and how it ended."""
    import resource

    from splitiot.models.interpreters import pick

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    backend = pick("auto")
    answers.write("ready\n")
    answers.flush()
    stream = sys.stdin.buffer
    while head := stream.read(4):
        data = stream.read(struct.unpack("<I", head)[0])
        answers.write("begin\n")
        answers.flush()
        try:
            raw = backend.make(data, Runtime())
            draw = np.random.default_rng(0)
            for _ in range(2):
                for details in raw.get_input_details():
                    values = draw.integers(0, 9, details["shape"]) if 0 not in details["shape"] else None
                    if np.dtype(details["dtype"]).kind in "OSU":
                        raw.set_tensor(details["index"], np.full(details["shape"], b"word", np.object_))
                    elif values is not None:
                        raw.set_tensor(details["index"], values.astype(details["dtype"]))
                raw.invoke()
                for details in raw.get_output_details():
                    raw.get_tensor(details["index"])
            how = "ran"
            raw = None
        except (ModelError, ValueError, RuntimeError, TypeError):
            how = "refused"
        except MemoryError:
            how = "memory"
        answers.write(f"{how}\n")
        answers.flush()
    os._exit(0)


CHILD = [sys.executable, str(Path(__file__).resolve()), "--child"]
"""The command that runs models from stdin."""


def run_batch(batch: list[bytes]) -> list[str]:
    """How each model ended: ran, refused, memory, killed by a signal, or hung. A death restarts behind it."""
    ended: list[str] = []
    while len(ended) < len(batch):
        ended += _one_child(batch[len(ended) :])
    return ended


def _one_child(batch: list[bytes]) -> list[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with tempfile.TemporaryFile() as file:
        for data in batch:
            file.write(struct.pack("<I", len(data)) + data)
        file.seek(0)
        process = subprocess.Popen(
            CHILD, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        )
        assert process.stdout is not None  # closed below, when all of it has been read
        said: list[str] = []
        hung = threading.Event()

        def stop() -> None:
            hung.set()
            process.kill()

        timer = threading.Timer(120.0, stop)  # to start
        timer.start()
        for line in process.stdout:
            timer.cancel()
            timer = threading.Timer(RUN_TIMEOUT_S, stop)
            timer.start()
            said.append(line.strip())
        timer.cancel()
        process.stdout.close()
        code = process.wait()
    if not said:
        raise RuntimeError(f"the child that runs models did not start: exit code {code}")
    ended = [line for line in said if line not in ("ready", "begin")]
    if len(ended) < len(batch):
        ended.append("hung" if hung.is_set() else f"killed {code}")
    return ended


# --- the whole ---

_State = tuple[dict[str, bytes], int, bool, "Path | None"]
_SHARED: list[_State] = []


def _start(state: _State) -> None:
    _SHARED[:] = [state]


def work(task: tuple[str, int, int]) -> dict[str, Any]:
    """Examine a range of mutants and run those that were accepted."""
    models, seed, run, keep = _SHARED[0]
    kind, first, last = task
    counts: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    slowest, bad, batch, who = (0.0, ""), [], [], []
    for name, number, data in mutants(models, kind, range(first, last), seed):
        verdict, seconds, details = examine(data)
        if seconds > SLOW_S:  # a busy machine stops anything for a second, hardly twice
            seconds = min(seconds, examine(data)[1])
        counts[verdict] += 1
        slowest = max(slowest, (seconds, f"{kind} {number} of {name}"))
        if verdict == "other" or seconds > SLOW_S:
            bad.append(f"{kind} {number} of {name}: {details or f'{seconds:.2f} s'}")
            _keep(keep, f"{'other' if verdict == 'other' else 'slow'}-{kind}-{number}-{name}", data)
        if verdict == "accepted" and run:
            batch.append(write_model(read_model(data)))
            who.append((number, name))
    for (number, name), data, end in zip(who, batch, run_batch(batch), strict=True):
        ends[end] += 1
        if end not in ("ran", "refused"):
            bad.append(f"{kind} {number} of {name}: {end} in the interpreter")
            _keep(keep, f"{end.replace(' ', '')}-{kind}-{number}-{name}", data)
    return {"kind": kind, "counts": counts, "ends": ends, "slowest": slowest, "bad": bad}


def _keep(folder: Path | None, name: str, data: bytes) -> None:
    if folder is not None:
        (folder / f"{name}.tflite").write_bytes(data)


def fuzz(
    models: dict[str, bytes],
    byte: int,
    structural: int,
    seed: int = 0,
    *,
    jobs: int = 1,
    run: bool = False,
    keep: Path | None = None,
    progress: Callable[[int, dict[str, dict[str, Any]]], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Examine mutants of `models`; returns what was found, by kind of mutant."""
    tasks = [
        (kind, first, min(first + BATCH, count))
        for kind, count in (("byte", byte), ("structural", structural))
        for first in range(0, count, BATCH)
    ]
    empty = {"counts": Counter(), "ends": Counter(), "slowest": (0.0, ""), "bad": []}
    found: dict[str, dict[str, Any]] = {
        kind: {k: type(v)(v) for k, v in empty.items()} for kind in ("byte", "structural")
    }
    state: _State = (models, seed, run, keep)
    for done, result in enumerate(_results(tasks, state, jobs), 1):
        into = found[result["kind"]]
        into["counts"] += result["counts"]
        into["ends"] += result["ends"]
        into["slowest"] = max(into["slowest"], result["slowest"])
        into["bad"] += result["bad"]
        if progress is not None:
            progress(100 * done // len(tasks), found)
    return found


def _results(tasks: list[tuple[str, int, int]], state: _State, jobs: int) -> Iterator[dict[str, Any]]:
    if jobs == 1:
        _start(state)
        yield from map(work, tasks)
        return
    with multiprocessing.get_context("spawn").Pool(jobs, _start, (state,)) as pool:
        yield from pool.imap_unordered(work, tasks)


def table(found: dict[str, dict[str, Any]]) -> str:
    """The figures, one row a kind of mutant."""
    rows = [
        f"{'mutants':<12} {'all':>8} {'Malformed':>10} {'Unsupported':>12} {'other refusals':>15} {'accepted':>9} "
        f"{'exceptions':>11} {'slowest':>9} {'ran':>8} {'refused':>8} {'killed':>7} {'hung':>5} {'killed':>8}"
    ]
    for kind, result in found.items():
        counts, ends = result["counts"], result["ends"]
        known = ("MalformedModel", "UnsupportedModel", "accepted", "other")
        rest = sum(n for name, n in counts.items() if name not in known)
        killed = sum(n for end, n in ends.items() if end.startswith("killed"))
        share = f"{100 * killed / ends.total():.3f} %" if ends else "-"
        rows.append(
            f"{kind:<12} {counts.total():>8} {counts['MalformedModel']:>10} {counts['UnsupportedModel']:>12} "
            f"{rest:>15} {counts['accepted']:>9} {counts['other']:>11} {result['slowest'][0] * 1e3:>6.0f} ms "
            f"{ends['ran']:>8} {ends['refused']:>8} {killed:>7} {ends['hung'] + ends['memory']:>5} {share:>8}"
        )
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--byte", type=int, default=20_000, metavar="N", help="byte mutants")
    parser.add_argument("--structural", type=int, default=2_000, metavar="N", help="structural mutants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, choices=(1, 2))
    parser.add_argument("--run", action="store_true", help="run what was accepted in children")
    parser.add_argument("--models", type=Path, metavar="DIR", help="a folder of models, beside our own")
    parser.add_argument("--only", metavar="NAMES", help="of all these, only some: names, separated by commas")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="write what went wrong to this folder")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child()
    models = default_models()
    if args.models is not None:
        files = sorted(args.models.rglob("*.tflite"))
        models |= {file.stem: file.read_bytes() for file in files}
    if args.only:
        models = {name: models[name] for name in args.only.split(",")}
    if args.run:  # a model that kills the interpreter as it is says nothing about the validator
        for name, end in zip(list(models), run_batch(list(models.values())), strict=True):
            if end not in ("ran", "refused"):
                print(f"left out: {name}, which is {end} unchanged")
                del models[name]
    if args.keep is not None:
        args.keep.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()

    def shown(percent: int, found: dict[str, dict[str, Any]]) -> None:
        if sys.stderr.isatty():
            print(f"\r{percent:3d} %", end="", file=sys.stderr)
        if args.keep is not None:
            (args.keep / "table.txt").write_text(f"{percent} %\n{table(found)}\n")

    found = fuzz(
        models, args.byte, args.structural, args.seed, jobs=args.jobs, run=args.run, keep=args.keep, progress=shown
    )
    print(f"{len(models)} models, seed {args.seed}, {time.perf_counter() - began:.0f} s")
    print(table(found))
    bad = [line for result in found.values() for line in result["bad"]]
    for line in bad[:40]:
        print(line)
    wrong = any(r["counts"]["other"] or r["slowest"][0] > SLOW_S for r in found.values())
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
