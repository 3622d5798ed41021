"""The shape of `tiny-magi` and where its training begins."""

import math

import torch
from torch import nn

from flowcache.families.magi.captions import ROWS
from flowcache.families.magi.config import MagiConfig
from flowcache.families.magi.transformer import MagiTransformer
from training.codec import CHANNELS
from training.text import build_t5

FPS = 12
CONFIG = MagiConfig(
    dim=128, ffn_dim=512, heads=4, kv_heads=2, head_dim=32, layers=4, channels=CHANNELS, text_dim=96,
    text_len=64, condition_dim=32, patch=(1, 1, 1), positions=(8, 8),
)  # fmt: skip
BRANCH = 0.4  # how much of each branch's unit variance is added at first


class Tiny(nn.Module):
    """Transformer, text encoder and special tokens, trained jointly."""

    def __init__(self, words: int):
        super().__init__()
        self.transformer = MagiTransformer(CONFIG)
        self.text_encoder = build_t5(words, CONFIG.text_dim)
        self.special_tokens = nn.Parameter(torch.randn(ROWS, CONFIG.text_dim))
        initialise(self.transformer)


def initialise(model: MagiTransformer) -> None:
    """Xavier and a zero head; gates half open, since a gate before a norm tells nothing by its size alone."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if name.endswith("post_norm"):
            nn.init.constant_(module.weight, BRANCH - 1)
    for layer in model.videodit_blocks.layers:
        gate = layer.ada_modulate_layer.proj[0]
        nn.init.normal_(gate.weight, std=0.1)
        nn.init.constant_(gate.bias, 0.6)
    nn.init.xavier_uniform_(model.x_embedder.weight.flatten(1))
    nn.init.normal_(model.position_embedding, std=0.3)
    nn.init.zeros_(model.final_linear.linear.weight)
    nn.init.normal_(model.y_embedder.null_caption_embedding)
    nn.init.xavier_uniform_(model.t_embedder.mlp[2].weight)
    nn.init.normal_(model.t_embedder.mlp[0].weight, std=0.05)
    bands = model.rope.bands
    with torch.no_grad():
        bands.copy_(torch.logspace(0, math.log10(0.04), len(bands)))
