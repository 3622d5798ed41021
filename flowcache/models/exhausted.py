"""Whether memory ran out: torch, CUDA's libraries and the host each say so in words of their own."""

import torch

from flowcache.errors import words

SAID = ("out of memory", "alloc_failed", "allocation_failed", "allocate memory", "not enough memory", "bad_alloc")


def ran_out(error: BaseException) -> bool:
    """Of a device or of the host. torch has a type for its own allocator's errors alone."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in words(error).lower() for said in SAID)
