"""What the edge remembers of a device, as the device knows it."""

from __future__ import annotations

import msgspec

from splitiot.pipeline import Pipeline

__all__ = ["RemoteState"]


class RemoteState(msgspec.Struct, eq=False):
    """Where the state is that a pipeline keeps between requests, and how far it is.

    Parameters
    ----------
    pipeline : Pipeline
    epoch : int
        How often it was reset.
    order : int
        How many requests of a stateful pipeline there were since.
    holder : bytes
        The boot of the edge that has it; empty while none has said so.
    """

    pipeline: Pipeline
    epoch: int = 0
    order: int = 0
    holder: bytes = b""

    def next_order(self) -> int | None:
        """Number a request, which counts whatever becomes of it; None where the order does not matter."""
        if not self.pipeline.stateful:
            return None
        self.order += 1
        return self.order - 1

    def ran(self, cut: int, epoch: int, edge_boot: bytes) -> None:
        """An edge has run a request: what the pipeline remembers of it is there, and nowhere else."""
        if epoch == self.epoch and self.pipeline.remembers_from(cut):
            self.holder = edge_boot

    def reset(self) -> None:
        """Forget it: a request from before must not be taken for one behind this."""
        self.epoch += 1
        self.order, self.holder = 0, b""
