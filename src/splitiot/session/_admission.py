"""What an edge runs, and why it does not run the rest."""

from __future__ import annotations

from splitiot import wire
from splitiot.codecs import RAW
from splitiot.pipeline import Pipeline
from splitiot.session._answers import Key
from splitiot.session._effects import Job
from splitiot.session._peers import Held, Peer
from splitiot.session._received import Received
from splitiot.session._served import ServedPipelines
from splitiot.wire import ErrorCode

__all__ = ["Admission", "Refused"]


class Refused(Exception):
    """A request is not run; `code` is what its device is told."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Admission:
    """Makes a job of a request that fits its pipeline, and what this edge remembers of its device.

    Parameters
    ----------
    served : ServedPipelines
    boot : bytes
        The edge's.
    """

    def __init__(self, served: ServedPipelines, boot: bytes) -> None:
        self._served, self._boot = served, boot

    def job(
        self,
        request: wire.Request,
        received: Received,
        key: Key,
        peer: Peer,
        pipeline: Pipeline | None,
        now_s: float,
    ) -> Job:
        """Return the job that a request asks for.

        Raises
        ------
        Refused
            This edge does not run that.
        """
        if pipeline is None:
            raise Refused(ErrorCode.UNKNOWN_PIPELINE, f"no pipeline with the digest {request.digest.hex()[:12]} here")
        wanted = self._served.with_sink(pipeline, request.sink)
        if wanted is None:
            raise Refused(ErrorCode.BAD_PART, f"results are wanted on the device or on the edge, not {request.sink!r}")
        pipeline = wanted
        start, stop = request.start, request.stop
        if stop != pipeline.n or start not in pipeline.cuts:
            why = pipeline.refused.get(start, f"parts here are [cut, {pipeline.n})")
            raise Refused(ErrorCode.BAD_PART, f"can't run [{start}, {stop}): {why}")
        if others := pipeline.differing(request.implementation):
            raise Refused(ErrorCode.OTHER_CODE, f"here is other code under the same names: {', '.join(others)}")
        boundary = pipeline.boundary(start)
        if request.fingerprint.hex() != boundary.fingerprint:
            raise Refused(ErrorCode.BAD_BOUNDARY, f"at cut {start} other values cross here: {boundary.names}")
        if request.codec != RAW.name:
            raise Refused(ErrorCode.BAD_CODEC, f"this edge knows the codec raw, not {request.codec!r}")
        if request.runtime and request.runtime != self._served.runtime(pipeline.digest):
            ours = self._served.runtimes.get(pipeline.digest)
            raise Refused(
                ErrorCode.INEXACT, f"exact results were asked for: this edge runs {ours}, the device something else"
            )
        remembers = pipeline.remembers_from(start)
        if request.sequence <= peer.forgot and (remembers or pipeline.sink == "edge"):
            raise Refused(
                ErrorCode.FORGOTTEN,
                f"request {request.sequence} may have run here before: its answer is not remembered any more",
            )
        payload = received.payload
        if wrong := received.misfit or boundary.mismatch(payload):
            raise Refused(ErrorCode.BAD_PAYLOAD, wrong)
        whose, held = None, None
        if remembers:
            whose, held = peer.owner, self._claimed(request, peer, pipeline)
        expires_s = None if request.deadline_s is None else now_s + request.deadline_s
        return Job(
            key=key,
            digest=pipeline.digest,
            pipeline=pipeline,
            start=start,
            stop=stop,
            payload=payload,
            owner=whose,
            reset=held is not None and not held.begun,
            received_s=now_s,
            expires_s=expires_s,
        )

    def _claimed(self, request: wire.Request, peer: Peer, pipeline: Pipeline) -> Held:
        """Let a request be the one that runs on what a pipeline remembers of its device."""
        digest = pipeline.digest
        held = peer.held.get(digest)
        if request.holder and request.holder != self._boot:
            raise Refused(
                ErrorCode.STATE_LOST,
                "what this pipeline remembers of the device was kept by another edge: by another process, or by this "
                "one before it was started anew; call reset()",
            )
        if held is None or request.epoch > held.epoch:
            held = self._begin_epoch(request, pipeline)
        elif request.epoch < held.epoch:
            raise Refused(ErrorCode.BAD_ORDER, "a request from before a reset")
        elif pipeline.stateful:
            self._check_order(request, held)
        if request.order is not None:
            held.order = request.order + 1
        peer.held[digest] = held
        peer.running.add(digest)
        return held

    def _begin_epoch(self, request: wire.Request, pipeline: Pipeline) -> Held:
        """Let a request be the first one of its epoch."""
        if request.holder:
            message = "what this pipeline remembered of the device is gone, since it was silent for long; call reset()"
            raise Refused(ErrorCode.STATE_LOST, message)
        if pipeline.stateful and request.order is None:
            raise Refused(ErrorCode.BAD_ORDER, "a stateful pipeline's requests need an order number")
        if pipeline.stateful and request.order != 0:
            raise Refused(
                ErrorCode.STATE_LOST,
                f"request {request.order} of a stateful pipeline, and this edge did not run those before: call reset()",
            )
        return Held(request.epoch)

    def _check_order(self, request: wire.Request, held: Held) -> None:
        if held.order is None:
            raise Refused(ErrorCode.STATE_LOST, "a request of this stateful pipeline was not run: call reset()")
        if request.order != held.order:
            message = f"request {request.order} of a stateful pipeline, expected {held.order}: call reset()"
            raise Refused(ErrorCode.BAD_ORDER, message)
