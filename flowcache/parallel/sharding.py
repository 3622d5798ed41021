"""Weights shared out over the ranks of a gang (FSDP2), for models too large for each rank to hold whole.

Every rank holds an even run of the rows of each tensor of a block. A block's other rows are gathered when it is called,
and dropped when it is through. What lies outside the blocks (embeddings, head) is whole on every rank.
"""

from collections.abc import Callable

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from flowcache.models.base import VideoModel, VideoModule
from flowcache.models.part import Part
from flowcache.parallel.mesh import Mesh


def load_sharded(
    part: Part[VideoModule], device: str, dtype: torch.dtype, keep: Callable[[str], bool], *, ranks: Mesh
) -> VideoModel:
    """As `Part.load`, but of the blocks' weights this rank reads and holds its own rows alone.

    Every rank must call it, and the model's `text` and `transform`, in the same order.
    """
    if ranks.group is None:
        raise ValueError("a rank alone has nobody to share weights with")
    mesh = DeviceMesh.from_group(ranks.group, torch.device(device).type)
    spread(part.module.requires_grad_(False), mesh)
    shards = {name: shard for name, shard in part.module.named_parameters() if isinstance(shard, DTensor)}
    rows = {name: own_rows(len(shard), ranks) for name, shard in shards.items()}
    state = part.tensors(device, dtype, keep, rows.get)
    for name, shard in shards.items():
        whole = {"shape": shard.shape, "stride": shard.stride()}
        state[name] = DTensor.from_local(state[name], mesh, shard.placements, run_check=False, **whole)
    return part.filled(state)


def spread(model: VideoModule, mesh: DeviceMesh) -> None:
    """Makes every block's parameters shards over the mesh, gathered while it runs."""
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
        register_fsdp_forward_method(block, "keys_values")
    outside = {parameter for parameter in model.parameters() if not isinstance(parameter, DTensor)}
    fully_shard(model, mesh=mesh, ignored_params=outside)  # below one root a block is gathered while another computes
    for method in ("text", "transform"):
        register_fsdp_forward_method(model, method)


def own_rows(total: int, ranks: Mesh) -> slice:
    """Which of a tensor's rows this rank holds: FSDP2 cuts runs of one length, and the last ranks get what remains."""
    share = -(-total // ranks.size)
    return slice(min(share * ranks.rank, total), min(share * (ranks.rank + 1), total))
