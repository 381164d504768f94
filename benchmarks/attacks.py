"""Attack an edge while an honest device works: ``python benchmarks/attacks.py [--rounds N] [--only WORD]``.

Edge, attackers and device are processes of their own. Phases without an attack, with one, and with as much computing
that touches nobody take turns: what the last ones cost is that processors are shared, whatever the edge does. This is
no test: it exits with 0 when a target is missed, and says so.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import math
import random
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import attackers
import attrs
from attrs import frozen
from children import Child, clean_environment

from splitiot.adapters.http import HttpTransport
from splitiot.errors import TransportError
from splitiot.limits import Limits

MIB = 2**20
LIMITS = Limits()
THINKING_S = 0.002  # between two requests of the honest device
NEW_EACH = 50  # so many requests on a kept connection, then one on a new one
SETTLING_S = 1.0
TIMEOUT_S = 5.0
MOST_LOG_BYTES = MIB
REDIRECTS = "redirects"  # an attack on the device
FLOODS = ("flood, no token", "flood, token")


@frozen
class Phase:
    """What an honest device saw."""

    seconds: tuple[float, ...]
    asked: int
    served: int
    errors: tuple[str, ...]


@frozen
class Row:
    """What one attack did.

    Parameters
    ----------
    kind : str
    quiet_s, attacked_s, burned_s : float
        99th percentiles of the honest device's requests: alone, under attack, and beside as much computing.
    asked, served : int
        The honest device's requests under attack.
    errors : tuple of str
        Why some were not served.
    cpu_share : float
        Of one processor, what the attackers took.
    grown_bytes : int
        The edge's peak, less what it held before.
    log_bytes : int
    end_s : float
        From SIGTERM to the end of the edge, while the attack went on.
    """

    kind: str
    quiet_s: float
    attacked_s: float
    burned_s: float
    asked: int
    served: int
    errors: tuple[str, ...]
    cpu_share: float
    grown_bytes: int
    log_bytes: int
    end_s: float

    @property
    def most_ratio(self) -> float:
        return 5.0 if self.kind in FLOODS else 2.0

    @property
    def missed(self) -> list[str]:
        """Which targets."""
        targets = {
            "served": self.served == self.asked,
            "p99": self.attacked_s <= self.most_ratio * self.quiet_s,
            "memory": self.grown_bytes <= 1.1 * held_bytes(),
            "log": self.log_bytes <= MOST_LOG_BYTES,
            "end": self.end_s <= LIMITS.shutdown_s,
        }
        return [name for name, met in targets.items() if not met]


def held_bytes() -> int:
    """Return what the limits let an edge hold for its peers: bodies, and answers that are remembered."""
    return LIMITS.max_body_bytes + LIMITS.max_answer_bytes


class Honest:
    """A device with a token and small requests, one after the other."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._requests = attackers.Requests(7)
        self._kept = self._transport()

    def _transport(self) -> HttpTransport:
        return HttpTransport(self._url, token="secret-0")

    def work(self, seconds: float) -> Phase:
        """Ask for so long."""
        took: list[float] = []
        errors: list[str] = []
        asked = 0
        gc.collect()
        gc.disable()
        until_s = time.monotonic() + seconds
        try:
            while time.monotonic() < until_s:
                asked += 1
                frame = self._requests.next()
                new = self._transport() if asked % NEW_EACH == 0 else None
                began_s = time.perf_counter()
                try:
                    (new or self._kept).exchange(frame, timeout_s=TIMEOUT_S)
                except TransportError as error:
                    errors.append(str(error))
                else:
                    if new is None:
                        took.append(time.perf_counter() - began_s)
                if new is not None:
                    new.close()
                time.sleep(THINKING_S * random.uniform(0.5, 1.5))
        finally:
            gc.enable()
        return Phase(tuple(took), asked, asked - len(errors), tuple(errors))

    def close(self) -> None:
        self._kept.close()


def percentile_99(phases: list[Phase]) -> float:
    seconds = sorted(each for phase in phases for each in phase.seconds)
    return seconds[math.ceil(0.99 * len(seconds)) - 1] if seconds else math.inf


@contextlib.contextmanager
def edge_process(folder: Path, port: int = 0) -> Iterator[tuple[Child, int]]:
    with Child("attacks_edge.py", str(port), str(folder / "log"), environment=clean_environment(folder)) as edge:
        yield edge, int(edge.line())


@contextlib.contextmanager
def attack(kind: str, argument: float) -> Iterator[Child]:
    with Child("attackers.py", kind, str(argument)) as child:
        child.line()
        yield child


def end(edge: Child) -> tuple[float, int]:
    """Tell an edge to end; return how long that took, and what it held at most."""
    peak_bytes, began_s = edge.peak_bytes() or 0, time.monotonic()
    edge.process.send_signal(signal.SIGTERM)
    while edge.process.poll() is None:
        peak_bytes = max(peak_bytes, edge.peak_bytes() or 0)
        time.sleep(0.01)
    return time.monotonic() - began_s, peak_bytes


def attacked(kind: str, *, rounds: int, seconds: float) -> Row:
    """Attack one edge, again and again."""
    quiet: list[Phase] = []
    under: list[Phase] = []
    beside: list[Phase] = []
    cpu_s = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with edge_process(folder) as (edge, port):
            honest = Honest(port)
            honest.work(SETTLING_S)
            before_bytes = edge.peak_bytes() or 0
            for _ in range(rounds):
                quiet.append(honest.work(seconds))
                with attack(kind, port) as hostile:
                    began_s = hostile.cpu_s() or 0.0
                    under.append(honest.work(seconds))
                    used_s = (hostile.cpu_s() or 0.0) - began_s
                    cpu_s += used_s
                honest.work(SETTLING_S)
                with attack("burn", used_s / seconds / 2), attack("burn", used_s / seconds / 2):
                    beside.append(honest.work(seconds))
            quiet.append(honest.work(seconds))
            honest.close()
            with attack(kind, port):
                time.sleep(SETTLING_S)
                end_s, peak_bytes = end(edge)
        log_bytes = (folder / "log").stat().st_size
    return Row(
        kind=kind,
        quiet_s=percentile_99(quiet),
        attacked_s=percentile_99(under),
        burned_s=percentile_99(beside),
        asked=sum(each.asked for each in under),
        served=sum(each.served for each in under),
        errors=tuple(error for each in under for error in each.errors),
        cpu_share=cpu_s / rounds / seconds,
        grown_bytes=peak_bytes - before_bytes,
        log_bytes=log_bytes,
        end_s=end_s,
    )


@frozen
class Return:
    """How a device fares once an honest edge is there again."""

    back_s: float
    grown_bytes: int
    asked: int
    served: int

    @property
    def missed(self) -> list[str]:
        """Which targets."""
        targets = {
            "back": self.back_s <= 10.0,
            "memory": self.grown_bytes <= 20 * MIB,
            "served": self.served == self.asked,
        }
        return [name for name, met in targets.items() if not met]


def redirected(seconds: float) -> Return:
    """Let a device ask an edge that redirects it and never stops saying so; then an honest one at the same address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    honest = Honest(port)
    with tempfile.TemporaryDirectory() as name:
        with edge_process(Path(name), port):
            honest.work(SETTLING_S)
        before_bytes = _own_peak_bytes()
        with attack("redirect", port):
            honest.work(seconds)
        with edge_process(Path(name), port):
            began_s = time.monotonic()
            while not honest.work(THINKING_S).served:
                pass
            back_s = time.monotonic() - began_s
            phase = honest.work(seconds)
    honest.close()
    return Return(back_s, _own_peak_bytes() - before_bytes, phase.asked, phase.served)


def _own_peak_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not tell how much memory a process holds")


HEADER = (
    f"{'attack':21} {'served':>13} {'p99 ms: quiet':>14} {'attacked':>9} {'ratio':>7} {'target':>7} {'burned':>7} "
    f"{'cpu':>5} {'grown MiB':>10} {'log kB':>7} {'end s':>6}  missed"
)


def line(row: Row) -> str:
    """One line of the table."""
    return (
        f"{row.kind:21} {row.served:>6}/{row.asked:<6} {row.quiet_s * 1e3:14.2f} {row.attacked_s * 1e3:9.2f} "
        f"{row.attacked_s / row.quiet_s:6.1f}x {'<=' + format(row.most_ratio, '.0f') + 'x':>7} "
        f"{row.burned_s / row.quiet_s:6.1f}x {row.cpu_share:5.2f} {row.grown_bytes / MIB:10.0f} "
        f"{row.log_bytes / 1e3:7.1f} {row.end_s:6.1f}  {', '.join(row.missed)}"
    )


def line_of_return(returned: Return) -> str:
    """The same for a device that was redirected."""
    return (
        f"back after {returned.back_s:.2f} s (<= 10), {returned.grown_bytes / MIB:.1f} MiB more (<= 20), "
        f"then {returned.served} of {returned.asked} served  {', '.join(returned.missed)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4, help="phases of each sort (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of a phase (default: %(default)s)")
    parser.add_argument("--only", action="append", metavar="WORD", help="attacks whose names hold it; can be repeated")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there, too")
    arguments = parser.parse_args()
    chosen = [kind for kind in [*attackers.KINDS, REDIRECTS] if any(word in kind for word in arguments.only or [""])]
    rows = []
    print(HEADER)
    for kind in chosen:
        if kind == REDIRECTS:
            continue
        rows.append(attacked(kind, rounds=arguments.rounds, seconds=arguments.seconds))
        print(line(rows[-1]), flush=True)
        for error in sorted(set(rows[-1].errors))[:3]:
            print(f"    not served: {error}")
    most_mib = held_bytes() / MIB
    print(f"Targets: grown <= {most_mib:.0f} MiB + 10 %, log <= 1 MiB, end <= {LIMITS.shutdown_s:g} s")
    print("burned: without an attack, beside as much computing as the attackers did")
    if REDIRECTS in chosen:
        returned = redirected(arguments.seconds)
        print(f"{REDIRECTS}: {line_of_return(returned)}")
    if arguments.json:
        arguments.json.write_text(json.dumps([attrs.asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
