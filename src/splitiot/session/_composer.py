"""A request's message and frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from splitiot import wire
from splitiot.codecs import RAW
from splitiot.errors import PayloadTooLarge
from splitiot.pipeline import Payload, Pipeline
from splitiot.plan import Plan
from splitiot.session._outbox import ObservationOutbox
from splitiot.session._pending import RequestContent
from splitiot.session._remote_state import RemoteState

__all__ = ["RequestComposer"]

_NO_PAYLOAD: Final = wire.pack(None)


class RequestComposer:
    """Writes the requests of one device about one pipeline.

    Parameters
    ----------
    pipeline : Pipeline
    state : RemoteState
    outbox : ObservationOutbox
        Whose observations go along.
    boot : bytes
    number : callable
        Gives the next sequence number.
    runtime : bytes
        What the edge must run it with; empty for whatever is there.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        state: RemoteState,
        outbox: ObservationOutbox,
        *,
        boot: bytes,
        number: Callable[[], int],
        runtime: bytes,
    ) -> None:
        self._pipeline, self._state, self._outbox = pipeline, state, outbox
        self._boot, self._number, self._runtime = boot, number, runtime
        self._digest = bytes.fromhex(pipeline.digest)
        self._fingerprints = {
            cut: bytes.fromhex(pipeline.boundary(cut).fingerprint)
            for cut in pipeline.cuts
            if cut < pipeline.n or pipeline.sink == "edge"
        }

    def crosses(self, cut: int) -> bool:
        """Whether there is anything to ask the edge for at this cut."""
        return cut in self._fingerprints

    def compose(
        self,
        plan: Plan,
        payload: Payload,
        order: int | None,
        left_s: float | None,
        telemetry: Mapping[str, float] | None,
        now_s: float,
    ) -> tuple[RequestContent, bytes, PayloadTooLarge | None]:
        """Make a request's content and its frame; or say why there is no frame."""
        pipeline, cut, state = self._pipeline, plan.cut, self._state
        sent, kept = pipeline.divide(cut, payload)
        unsendable: PayloadTooLarge | None = None
        try:
            packed = wire.pack(sent, RAW)
        except PayloadTooLarge as error:
            packed, unsendable = _NO_PAYLOAD, error
        remembers = pipeline.remembers_from(cut)
        message = wire.Request(
            boot=self._boot,
            sequence=self._number(),
            digest=self._digest,
            start=cut,
            stop=pipeline.n,
            fingerprint=self._fingerprints[cut],
            names=packed.names,
            payload=packed.payload,
            arrays=packed.arrays,
            codec=plan.codec,
            sink=pipeline.sink,
            deadline_s=left_s,
            plan_id=plan.id,
            probe=plan.probe,
            propensity=plan.propensity,
            observations=self._outbox.take(now_s),
            telemetry={} if telemetry is None else wire.finite(telemetry),
            order=order,
            epoch=state.epoch if remembers else 0,
            holder=state.holder if remembers else b"",
            runtime=self._runtime,
            implementation=pipeline.implementation,
        )
        try:
            frame = wire.encode(message, packed.buffers)
        except PayloadTooLarge as error:
            frame, unsendable = b"", error
        return RequestContent(message, packed.buffers, sent, kept, message.observations), frame, unsendable
