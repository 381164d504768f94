"""Measures what a pipeline's parts cost on this machine.

Heads and tails are measured, never sums of steps: fused kernels make such sums wrong by up to three times. A few
heads and tails are run, in interleaved rounds; a monotone curve goes through their medians, shaped between them by
what the steps take one by one, less what they save together (start-ups, and copies of what crosses).
"""

from splitiot.profiling._bytes import payload_bytes
from splitiot.profiling._measure import NOISY, profile

__all__ = ["NOISY", "payload_bytes", "profile"]
