"""The pipelines that an edge serves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from splitiot.pipeline import Pipeline, RuntimeInfo

__all__ = ["ServedPipelines"]


class ServedPipelines:
    """Pipelines by digest, each with what it is run with, and with its results wanted on either side.

    Parameters
    ----------
    pipelines : iterable of Pipeline
    runtimes : mapping of str to RuntimeInfo
        By digest.

    Raises
    ------
    ValueError
        Two have the same digest.
    """

    def __init__(self, pipelines: Iterable[Pipeline], runtimes: Mapping[str, RuntimeInfo]) -> None:
        self.by_digest: dict[str, Pipeline] = {}
        for pipeline in pipelines:
            if self.by_digest.setdefault(pipeline.digest, pipeline) is not pipeline:
                names = ", ".join(step.name for step in pipeline.steps[:5])
                raise ValueError(
                    f"two pipelines can't be told apart, both have the digest {pipeline.digest[:12]} (steps {names}"
                    f"{', ...' if pipeline.n > 5 else ''}): where they are different ones, say so on both sides with "
                    "tasks(..., version='...'); else leave one out"
                )
        self.runtimes = dict(runtimes)
        self._turned: dict[str, Pipeline] = {}  # the same with their results wanted on the other side

    def get(self, digest: str) -> Pipeline | None:
        """Return a pipeline, if it is served."""
        return self.by_digest.get(digest)

    def runtime(self, digest: str) -> bytes:
        """Return the fingerprint of what a pipeline is run with."""
        info = self.runtimes.get(digest)
        return b"" if info is None else bytes.fromhex(info.fingerprint)

    def with_sink(self, pipeline: Pipeline, sink: str) -> Pipeline | None:
        """Return the same pipeline with its results wanted there, None where there is no such place."""
        if sink == pipeline.sink:
            return pipeline
        if sink not in ("device", "edge"):
            return None
        turned = self._turned.get(pipeline.digest)
        if turned is None:
            turned = self._turned[pipeline.digest] = pipeline.with_sink("edge" if sink == "edge" else "device")
        return turned
