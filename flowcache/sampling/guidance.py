"""Classifier-free guidance."""

from torch import Tensor


def branches(guidance: float) -> int:
    """How many times the model runs for one velocity: conditional, and unconditional where guidance asks for it."""
    return 2 if guidance > 1 else 1


def guide(velocities: list[Tensor], guidance: float) -> Tensor:
    """Combine [conditional] or [conditional, unconditional]."""
    if len(velocities) == 1:
        return velocities[0]
    conditional, unconditional = velocities
    return unconditional + guidance * (conditional - unconditional)
