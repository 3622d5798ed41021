"""What differs between the families of models, where all of them are read, loaded or counted."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from torch import nn

from flowcache.models.layouts import Layout
from flowcache.models.magi import config_file as magi_config
from flowcache.models.magi import flops as magi_flops
from flowcache.models.magi import weights as magi_weights
from flowcache.models.magi.config import MagiConfig
from flowcache.models.magi.transformer import MagiTransformer
from flowcache.models.part import Part
from flowcache.models.skyreels import flops as skyreels_flops
from flowcache.models.skyreels import weights as skyreels_weights
from flowcache.models.skyreels.config import SkyReelsConfig
from flowcache.models.skyreels.transformer import SkyReelsTransformer

Config = SkyReelsConfig | MagiConfig  # both: dim, ffn_dim, heads, layers, text_dim, text_len, patch


@dataclass(frozen=True)
class Family:
    """config, part: of a checkpoint's transformer; both raise InputError for a damaged one.

    build: an untrained one. keep_float32: by its name, whether a parameter stays so in a model of half precision.
    flops: module of block_flops, text_flops, embed_flops, head_flops and kv_bytes.
    """

    config: Callable[[Layout], Config]
    part: Callable[[Layout], Part]
    build: Callable[[Config], nn.Module]
    keep_float32: Callable[[str], bool]
    flops: ModuleType


FAMILIES = {
    "skyreels": Family(
        lambda layout: skyreels_weights.read_config(layout.transformer),
        lambda layout: skyreels_weights.transformer_part(layout.transformer),
        SkyReelsTransformer,
        skyreels_weights.keep_float32,
        skyreels_flops,
    ),
    "magi": Family(
        lambda layout: magi_config.read_config(layout.config),
        lambda layout: magi_weights.transformer_part(layout.config, layout.transformer),
        MagiTransformer,
        magi_weights.keep_float32,
        magi_flops,
    ),
}


def family_of(config: Config) -> Family:
    return FAMILIES["magi" if isinstance(config, MagiConfig) else "skyreels"]
