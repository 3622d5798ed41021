"""FLOPs of the SkyReels-V2 transformer (matrix products and attention, 2 for a multiply-add), and its bytes."""

import math

from flowcache.families.skyreels.config import SkyReelsConfig


def block_flops(config: SkyReelsConfig, tokens: int, seen: int) -> int:
    """All blocks for `tokens` tokens that attend to `seen`; those of the text are projected elsewhere."""
    attention = 8 * tokens * config.dim**2 + 4 * tokens * seen * config.dim
    cross_attention = 4 * tokens * config.dim**2 + 4 * tokens * config.text_len * config.dim
    return config.layers * (attention + cross_attention + 4 * tokens * config.dim * config.ffn_dim)


def text_flops(config: SkyReelsConfig) -> int:
    """Embedding one text and projecting it to every block's keys and values: once for each prompt and window."""
    embedding = 2 * config.text_len * config.dim * (config.text_dim + config.dim)
    return embedding + config.layers * 4 * config.text_len * config.dim**2


def embed_flops(config: SkyReelsConfig, tokens: int) -> int:
    return 2 * tokens * config.dim * config.in_channels * math.prod(config.patch)


def head_flops(config: SkyReelsConfig, tokens: int) -> int:
    return 2 * tokens * config.dim * config.out_channels * math.prod(config.patch)


def kv_bytes(config: SkyReelsConfig, tokens: int, element: int) -> int:
    """Keys and values of `tokens` tokens in every layer; element: bytes of a value."""
    return 2 * config.layers * tokens * config.dim * element


def working_bytes(config: SkyReelsConfig, tokens: int) -> int:
    """What a window holds in bfloat16 while a block runs its feed-forward layers, beside K/V (benchmarks/roofline.py
    counts the same within a tenth).

    Hidden states such as the chunk's tokens, the last forward's and the block's, some of them in fp32, and the layers'
    own; K/V of both texts.
    """
    return tokens * (25 * config.dim + 2 * config.ffn_dim) + 2 * kv_bytes(config, config.text_len, 2)


def reuse_bytes(
    config: SkyReelsConfig, tokens: int, ranks: int, kv_branches: int, chunks_in_flight: int, element: int
) -> int:
    """On a rank, for chunks of so many tokens: the residual of each guidance branch."""
    return chunks_in_flight * kv_branches * math.ceil(tokens / ranks) * config.dim * element
