"""What differs between the families of models, where all of them are read, loaded or counted."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import nn

from flowcache.families.layouts import Layout
from flowcache.families.magi import config_file as magi_config
from flowcache.families.magi import flops as magi_flops
from flowcache.families.magi import weights as magi_weights
from flowcache.families.magi.captions import Captions, read_special_tokens
from flowcache.families.magi.config import MagiConfig
from flowcache.families.magi.transformer import MagiTransformer
from flowcache.families.skyreels import flops as skyreels_flops
from flowcache.families.skyreels import weights as skyreels_weights
from flowcache.families.skyreels.config import SkyReelsConfig
from flowcache.families.skyreels.transformer import SkyReelsTransformer
from flowcache.models.base import TextEncoder
from flowcache.models.part import Part
from flowcache.models.prompts import clean_magi, clean_wan

if TYPE_CHECKING:
    from flowcache.models.text import EncodedTexts

Config = SkyReelsConfig | MagiConfig  # both: dim, ffn_dim, heads, kv_heads, head_dim, layers, text_dim, ...


@dataclass(frozen=True)
class Family:
    """config, part: of a checkpoint's transformer; both raise InputError for a damaged one.

    build: an untrained one. keep_float32: by its name, whether a parameter stays so in a model of half precision.
    flops: module of block_flops, text_flops, embed_flops, head_flops, kv_bytes and working_bytes.
    clean: what is done to prompts. text_dtype: of the text encoder; None: the transformer's. text: what a
    `LoadedModel` has as such, made of a `text.EncodedTexts`.
    """

    config: Callable[[Layout], Config]
    part: Callable[[Layout], Part]
    build: Callable[[Config], nn.Module]
    keep_float32: Callable[[str], bool]
    flops: ModuleType
    clean: Callable[[str], str]
    text_dtype: torch.dtype | None
    text: Callable[[Layout, Config, "EncodedTexts"], TextEncoder]


def _captions(layout: Layout, config: MagiConfig, texts: "EncodedTexts") -> Captions:
    special = layout.special_tokens and read_special_tokens(layout.special_tokens, config.text_dim)
    return Captions(texts.tokens, special, config.text_len)


FAMILIES = {
    "skyreels": Family(
        lambda layout: skyreels_weights.read_config(layout.transformer),
        lambda layout: skyreels_weights.transformer_part(layout.transformer),
        SkyReelsTransformer,
        skyreels_weights.keep_float32,
        skyreels_flops,
        clean_wan,
        None,
        lambda layout, config, texts: texts,
    ),
    "magi": Family(
        lambda layout: magi_config.read_config(layout.config),
        lambda layout: magi_weights.transformer_part(layout.config, layout.transformer),
        MagiTransformer,
        magi_weights.keep_float32,
        magi_flops,
        clean_magi,
        torch.float32,  # as the official code runs T5
        _captions,
    ),
}


def family_of(config: Config) -> Family:
    return FAMILIES["magi" if isinstance(config, MagiConfig) else "skyreels"]
