"""MAGI-1 weights on disk (`model.safetensors`, or an index and its shards; the module has the published names)."""

from pathlib import Path

from flowcache.families.magi.config_file import read_config
from flowcache.families.magi.transformer import MagiTransformer
from flowcache.models.build import built
from flowcache.models.part import Part
from flowcache.models.tensors import fault, in_folder

EMBEDDERS = ("x_embedder.", "t_embedder.", "y_embedder.", "rope.", "final_linear.", "videodit_blocks.final_layernorm.")
STACKED = tuple(f"videodit_blocks.layers.{part}" for part in ("self_attention.", "mlp.", "ada_modulate_layer."))
NORMS = (".q_layernorm.", ".k_layernorm.", ".self_attn_post_norm.", ".mlp_post_norm.")


def transformer_part(config: Path, folder: Path) -> Part[MagiTransformer]:
    """What a folder of weights holds; InputError where config or files can't be read."""
    sizes = read_config(config)
    module = built(lambda: MagiTransformer(sizes), config, vars(sizes))
    stored = in_folder(folder)
    if any(entry.name.startswith(STACKED) for entry in stored):
        message = (
            "holds the tensors of all blocks stacked, as MAGI-1.1's 24B base was published in June 2026: in what order "
            "its linear_qkv is packed is not public (github.com/SandAI-org/MAGI-1, issue 123), so it can't be read; "
            "accepted: MAGI-1, or a MAGI-1.1 with the tensors of each block"
        )
        raise fault(folder, message)
    return Part(folder, module, stored)


def keep_float32(name: str) -> bool:
    """What stays in float32 where the rest is bfloat16, as in the official runs; norms of cross attention do not."""
    return name.startswith(EMBEDDERS) or any(norm in name for norm in NORMS)
