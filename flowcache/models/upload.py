"""From the host to a GPU."""

import torch
from torch import Tensor


def uploaded(x: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """x there; the host does not wait, where a plain copy would until the GPU has done all that it was given."""
    x = x.to(dtype or x.dtype)
    if device.type == "cuda" and x.device.type == "cpu":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)
