"""What a machine has room for: whole frames in the video VAE, a model at all."""

import os
from dataclasses import replace

import torch

from flowcache.families.base import Config
from flowcache.families.memory import GIB, GPU, Memory, memory
from flowcache.families.settings import config_of
from flowcache.records import ModelSpec, Precision

TILE = 256  # pixels of a side
USABLE = 0.9  # of a device's memory; the rest is the driver's, and lost between blocks


def choose_tile(
    tiling: str, spec: ModelSpec, size: tuple[int, int], device: str, precision: Precision = GPU
) -> int | None:
    """The `tile` of `load_model`. tiling: "on", "off", or "auto": where frames of `size` (width, height) leave no room.

    By all memory that the device has, whoever uses it now.
    """
    width, height = size
    sized = replace(spec, width=width, height=height)
    return tile_for(tiling, sized, config_of(spec), precision.on(device), total_memory(device))


def tile_for(tiling: str, spec: ModelSpec, config: Config, precision: Precision, room: float) -> int | None:
    """The same for a device of `room` bytes.

    "auto" goes by the estimate of `memory.memory` for one rank with weights whole, so that the same machine always
    decides alike, for gangs of every size: tiles change pixels a little.
    """
    if tiling != "auto":
        return TILE if tiling == "on" else None
    return TILE if memory(spec, config, 1, precision=precision).total > USABLE * room else None


def what_fits(spec: ModelSpec, device: str, ranks: int, sharded: bool = False, precision: Precision = GPU) -> str:
    """A sentence for who has run out of memory with that many ranks: what plan counts, and what would do."""
    config, room, precision = config_of(spec), total_memory(device), precision.on(device)
    need = memory(spec, config, ranks, sharded, precision)
    said = f"{spec.name} at {spec.width}x{spec.height} is planned with {need}; this device has {room / GIB:.1f}"
    others: dict[str, Memory] = {}
    if precision.weights == "auto" and not sharded:
        eight = replace(precision, weights="int8")
        others["--weights int8"] = memory(spec, config, ranks, False, eight, TILE)
    for more in (size for size in (2, 4, 8) if size > ranks):
        others[f"--gang {more}"] = memory(spec, config, more, sharded, precision, TILE)
        if not sharded and precision.weights == "auto":
            others[f"--gang {more} and --shard-weights"] = memory(spec, config, more, True, precision, TILE)
    fitting = [f"{how}, with {each.total / GIB:.1f} GiB per rank" for how, each in others.items()
               if each.total <= USABLE * room]  # fmt: skip
    if fitting:
        return f"{said}. Would fit, decoding in tiles: {'; or '.join(fitting[:2])}"
    return f"{said}. Would fit: a budget for K/V (policy, `kv`), smaller frames or larger GPUs"


def total_memory(device: str) -> int:
    """Bytes of a GPU, or of this machine."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
