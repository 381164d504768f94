"""Profiles of a target: read from a file, or measured here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from splitiot.cli._console import Console
from splitiot.cli._errors import UsageError
from splitiot.cli._inputs import blaming_random_input, read_inputs
from splitiot.cli._target import Target

if TYPE_CHECKING:
    from splitiot.pipeline import Runtime
    from splitiot.topology import TierProfile

__all__ = ["load_profile", "profile_target"]


def load_profile(path: str, target: Target) -> TierProfile:
    """Read a profile, and check that it is this pipeline's.

    Raises
    ------
    UsageError
        It can't be read, or is another pipeline's.
    ProfileError
        It is broken.
    """
    from splitiot.topology import TierProfile

    try:
        profile = TierProfile.load(path)
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}") from None
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror or error}") from error
    if profile.digest != target.pipeline.digest:
        raise UsageError(
            f"{path} is a profile of another pipeline ({profile.digest[:12]}), not of {target.name} "
            f"({target.pipeline.digest[:12]}): make one with `splitiot profile`"
        )
    return profile


def profile_target(
    target: Target,
    runtime: Runtime,
    console: Console,
    *,
    inputs: Sequence[str] = (),
    seed: int = 0,
    budget_s: float = 2.0,
    heads: int = 8,
    tier: str | None = None,
) -> TierProfile:
    """Measure a target on this machine, with a progress bar; a noisy machine is told on stderr.

    What it is measured on is read from a file of `inputs`, or is the target's sample.
    """
    from splitiot.profiling import profile
    from splitiot.runner import Runner

    sample = read_inputs(inputs, target)[0] if inputs else target.sample(seed)
    with (
        blaming_random_input(not inputs and target.draws_sample),
        console.log("splitiot"),
        Runner(target.pipeline, runtime=runtime) as runner,
        console.progress(f"measuring {target.name}") as report,
    ):
        return profile(
            target.pipeline, sample, runner=runner, budget_s=budget_s, heads=heads, progress=report, tier=tier
        )
