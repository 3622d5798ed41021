"""MAGI-1 weights on disk (`model.safetensors`, or an index and its shards; the module has the published names)."""

from pathlib import Path

import torch

from flowcache.families.magi.config_file import read_config
from flowcache.families.magi.transformer import MagiTransformer
from flowcache.models.part import Part
from flowcache.models.tensors import in_folder

EMBEDDERS = ("x_embedder.", "t_embedder.", "y_embedder.", "rope.", "final_linear.", "videodit_blocks.final_layernorm.")
NORMS = (".q_layernorm.", ".k_layernorm.", ".self_attn_post_norm.", ".mlp_post_norm.")


def transformer_part(config: Path, folder: Path) -> Part[MagiTransformer]:
    """What a folder of weights holds; InputError where config or files can't be read."""
    with torch.device("meta"):
        module = MagiTransformer(read_config(config))
    return Part(folder, module, in_folder(folder))


def keep_float32(name: str) -> bool:
    """What stays in float32 where the rest is bfloat16, as in the official runs; norms of cross attention do not."""
    return name.startswith(EMBEDDERS) or any(norm in name for norm in NORMS)
