"""What a simulation found."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import field, frozen

from splitiot.testing.simulation._faults import Fault

__all__ = ["Report", "Violation"]


@frozen
class Violation:
    """A promise that was broken.

    Parameters
    ----------
    promise : str
        Which one, in two or three words: the same for all seeds.
    detail : str
        What happened.
    at_s : float
        When, in virtual seconds.
    whose : str
        Which device's, or the edge's.
    """

    promise: str
    detail: str
    at_s: float
    whose: str

    def __str__(self) -> str:
        return f"{self.promise} at {self.at_s:.6f} s ({self.whose}): {self.detail}"


@frozen(kw_only=True)
class Report:
    """How one simulated run went.

    Parameters
    ----------
    seed : int
    faults : tuple of Fault
        What went wrong in it.
    violations : tuple of Violation
        What should not have happened; empty unless there is a bug.
    requests : int
        How many requests were made. Each has ended, but for those that died with their device.
    bites : mapping of str to int
        How often each kind of fault had an effect.
    counts : mapping of str to int
        How requests ended: where values came from, which errors there were, what excused a failure.
    resumed_s : mapping of str to float
        How long after everything was well again each device had its first value from the edge.
    later : mapping of str to str
        The devices that had it later than promised, and their reason: they did not want the edge, were told that it was
        busy, and so on. Such ones ask on until they have one, or have asked 300 times: then a promise was broken.
    digest : str
        SHA-256 of all that happened: the same seed gives the same one, on every Python.
    plans : str
        SHA-256 of all plans, with what was believed when they were made.
    """

    seed: int
    faults: tuple[Fault, ...]
    violations: tuple[Violation, ...]
    requests: int
    bites: Mapping[str, int]
    counts: Mapping[str, int]
    resumed_s: Mapping[str, float]
    later: Mapping[str, str]
    digest: str
    plans: str
    _again: Callable[[tuple[Fault, ...], bool], tuple[Report, list[str]]] = field(repr=False, eq=False)

    @property
    def ok(self) -> bool:
        """Whether all promises were kept."""
        return not self.violations

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of faults that were in it."""
        return tuple(fault.kind for fault in self.faults)

    def trace(self) -> list[str]:
        """Run it again and return a line for each thing that happened."""
        return self._again(self.faults, True)[1]

    def smallest(self) -> Report:
        """Leave out faults as long as the same promise is broken without them.

        Returns
        -------
        Report
            Of a run in which no fault can be left out; this one if nothing was wrong.
        """
        report = self
        while not report.ok:
            promise = report.violations[0].promise
            for index in range(len(report.faults)):
                fewer, _ = self._again(report.faults[:index] + report.faults[index + 1 :], False)
                if any(violation.promise == promise for violation in fewer.violations):
                    report = fewer
                    break
            else:
                break
        return report

    def explain(self, *, lines: int = 25) -> str:
        """Say what was wrong, with which faults, what had happened just before, and how to run it again.

        Parameters
        ----------
        lines : int
            How many of the trace.
        """
        if self.ok:
            return f"seed {self.seed}: all promises were kept in {self.requests} requests, with {', '.join(self.kinds)}"
        first = self.violations[0]
        trace = self.trace()
        end = next((at for at, line in enumerate(trace) if "VIOLATION" in line), len(trace) - 1)
        relevant = [
            line for line in trace[: end + 1] if f" {first.whose}:" in line or " world:" in line or " edge:" in line
        ]
        excerpt = "\n".join(f"  {line}" for line in relevant[-lines:])
        faults = "\n".join(f"  {fault}" for fault in self.faults) or "  none"
        kinds = f" --faults {','.join(self.kinds)}" if self.kinds else " --faults none"
        command = f"splitiot torture --first-seed {self.seed} --seeds 1{kinds}"
        return f"seed {self.seed}: {first}\nFaults:\n{faults}\nBefore that:\n{excerpt}\nTo run it again: {command}"
