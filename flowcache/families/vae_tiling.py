"""What a machine has room for: whole frames in the video VAE, a model at all."""

import os
from dataclasses import replace

import torch

from flowcache.families.memory import GIB, codec_bytes, memory
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


def what_fits(spec: ModelSpec, device: str, ranks: int) -> str:
    """A sentence for who has run out of memory with that many ranks: what plan counts, and which gangs would do."""
    config, room = config_of(spec), total_memory(device)
    need = memory(spec, config, ranks)
    said = f"{spec.name} at {spec.width}x{spec.height} is planned with {need}; this device has {room / GIB:.1f}"
    tiled = codec_bytes(spec, TILE)
    for more in (size for size in (2, 4, 8) if size > ranks):
        for sharded in (False, True):
            each = memory(spec, config, more, sharded)
            if each.total - each.codec + tiled <= USABLE * room:
                how, total = " and --shard-weights" if sharded else "", (each.total - each.codec + tiled) / GIB
                return f"{said}. Would fit: --gang {more}{how}, with {total:.1f} GiB per rank, decoding in tiles"
    return f"{said}. Would fit: a budget for K/V (policy, `kv`), smaller frames or larger GPUs"


def total_memory(device: str) -> int:
    """Bytes of a GPU, or of this machine."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
