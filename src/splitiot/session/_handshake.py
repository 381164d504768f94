"""What a device and its edge say of themselves: Hello and Welcome."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from splitiot import wire
from splitiot.errors import ProfileError
from splitiot.pipeline import Pipeline, RuntimeInfo
from splitiot.session._profiles import find_profile
from splitiot.topology import TierProfile

__all__ = ["Handshake"]

_PROCESSES: Final = 64  # that are known of an edge: each may answer, and is greeted once


class Handshake:
    """Makes the hellos, and knows what the last welcome said.

    Parameters
    ----------
    pipeline : Pipeline
    boot : bytes
    number : callable
        Gives the next sequence number.
    runtime : RuntimeInfo, optional
    profile : TierProfile, optional
    parts : sequence of (int, int), optional
    exact : bool
        Refuse an edge whose results may differ.

    Attributes
    ----------
    edge : PipelineHello or None
        What the edge has of this pipeline; None while that is unknown.
    refusal, remedy : str
        Why the edge is of no use although it answers, and what would mend that; empty where it is.
    runtime : bytes
        The fingerprint of what this device runs the pipeline with.
    profile : TierProfile or None
        The device's own.
    edge_wants_profile : bool
        Whether an edge has asked for it.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        boot: bytes,
        number: Callable[[], int],
        runtime: RuntimeInfo | None,
        profile: TierProfile | None,
        parts: Sequence[tuple[int, int]] | None,
        exact: bool,
    ) -> None:
        self._pipeline, self._boot, self._number = pipeline, boot, number
        self._digest = bytes.fromhex(pipeline.digest)
        self._runtime = None if runtime is None else (runtime.name, runtime.version, runtime.kernels, runtime.machine)
        self.runtime = b"" if runtime is None else bytes.fromhex(runtime.fingerprint)
        self.profile = profile
        self._parts = None if parts is None else tuple(parts)
        self._wants_exact = exact
        self.edge: wire.PipelineHello | None = None
        self.refusal = self.remedy = ""
        self._edge_boot: bytes | None = None  # who said welcome last
        self._edge_boots: deque[bytes] = deque(maxlen=_PROCESSES)  # all who answered
        self._want_profile, self.edge_wants_profile, self._gave_profile = True, False, False

    @property
    def met(self) -> bool:
        """Whether an edge has ever answered."""
        return self._edge_boot is not None

    @property
    def welcome(self) -> bool:
        """Whether the edge is there and of use."""
        return self.edge is not None and not self.refusal

    @property
    def exact(self) -> bool:
        """Whether the edge's results agree bit for bit with the device's."""
        return self._runtime is not None and self.edge is not None and self.edge.runtime == self._runtime

    def exact_from(self, runtime: bytes) -> bool:
        """Whether a result does that was made with the runtime of this fingerprint: each answer says its own."""
        return self.runtime != b"" and runtime == self.runtime

    @property
    def owes_profile(self) -> bool:
        """Whether the edge waits for the device's profile, which is there."""
        return self.edge_wants_profile and not self._gave_profile and self.profile is not None

    def said_welcome(self, edge_boot: bytes) -> bool:
        """Whether that is who said welcome last."""
        return edge_boot == self._edge_boot

    def meet(self, edge_boot: bytes) -> bool:
        """An answer bears this boot id; whether it is new: another edge altogether, or another process of this one."""
        if not self._edge_boots or edge_boot in self._edge_boots:
            return False
        self._edge_boots.append(edge_boot)
        return True

    def hello(self) -> wire.Hello:
        """Return what to say."""
        known, own = self._pipeline, self.profile if self.edge_wants_profile else None
        self._gave_profile = own is not None
        return wire.Hello(
            boot=self._boot,
            sequence=self._number(),
            pipelines=(
                wire.PipelineHello(
                    digest=self._digest,
                    n=known.n,
                    sink=known.sink,
                    stateful=known.stateful,
                    parts=self._parts,
                    runtime=self._runtime,
                    implementation=known.implementation,
                ),
            ),
            profiles=() if own is None else (own.to_dict(),),
            want_profiles=(self._digest,) if self._want_profile else (),
        )

    def accept(self, welcome: wire.Welcome) -> TierProfile | None:
        """Take what the edge says; return its profile, if it says that."""
        self._edge_boot = welcome.edge_boot
        if welcome.edge_boot not in self._edge_boots:
            self._edge_boots.append(welcome.edge_boot)
        theirs = next((p for p in welcome.pipelines if p.digest == self._digest), None)
        self.edge = theirs or wire.PipelineHello(digest=self._digest, n=self._pipeline.n)
        self.refusal, self.remedy = self._judge(theirs)
        if self._digest in welcome.want_profiles:
            self.edge_wants_profile = True
        try:
            profile = find_profile(welcome.profiles, self._pipeline)
        except ProfileError:
            return None  # a broken one is none
        if profile is not None:
            self._want_profile = False
        return profile

    def forget(self) -> None:
        """The edge is gone: whoever comes must say welcome."""
        self.edge = None

    def _judge(self, theirs: wire.PipelineHello | None) -> tuple[str, str]:
        """Say why an edge is of no use although it answers, and what would mend that; empty where it is."""
        if theirs is None:
            reason = f"the edge does not serve this pipeline (digest {self._pipeline.digest[:12]})"
            return reason, "give both sides the same model file, tasks and version"
        if others := self._pipeline.differing(theirs.implementation):
            reason = f"the edge has other code under the same names ({', '.join(others)})"
            return reason, "give both sides the same files, or tell them apart with tasks(..., version=...)"
        if self._wants_exact and not self.exact:
            reason = f"exact results were asked for; the edge runs {theirs.runtime}, the device {self._runtime}"
            return reason, "give both sides the same runtime, version and kernels, or do without exact=True"
        return "", ""
