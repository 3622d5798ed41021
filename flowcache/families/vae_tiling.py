"""Whether a machine has room for whole frames in the video VAE."""

import os
from dataclasses import replace

import torch

from flowcache.families.memory import memory
from flowcache.families.settings import config_of
from flowcache.records import ModelSpec

TILE = 256  # pixels of a side
USABLE = 0.9  # of a device's memory; the rest is the driver's, and lost between blocks


def choose_tile(tiling: str, spec: ModelSpec, size: tuple[int, int], device: str, element: int) -> int | None:
    """The `tile` of `load_model`. tiling: "on", "off", or "auto": where frames of `size` (width, height) leave no room.

    By the estimate of `memory.memory` for one rank and all memory that the device has, whoever uses it now, so that
    the same machine always decides alike, for gangs of every size: tiles change pixels a little. element: bytes of
    a weight.
    """
    if tiling != "auto":
        return TILE if tiling == "on" else None
    width, height = size
    need = memory(replace(spec, width=width, height=height), config_of(spec), ranks=1)  # in bfloat16, but for the codec
    total = (need.total - need.codec) * element // 2 + need.codec
    return TILE if total > USABLE * total_memory(device) else None


def total_memory(device: str) -> int:
    """Bytes of a GPU, or of this machine."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
