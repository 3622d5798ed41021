"""FLOPs of the MAGI-1 transformer (matrix products and attention, 2 for a multiply-add), and its bytes."""

import math

from flowcache.families.magi.config import MagiConfig

CAPTION = 128  # tokens of a caption taken for granted: special tokens and a prompt of about 90 words (limit: 800)


def caption_tokens(config: MagiConfig) -> int:
    return min(CAPTION, config.text_len)


def block_flops(config: MagiConfig, tokens: int, seen: int, caption: int | None = None) -> int:
    """All blocks for `tokens` tokens that attend to `seen`, and to those of the caption, which are projected elsewhere.

    caption: how many there are; None: as many as `caption_tokens` says.
    """
    caption = caption_tokens(config) if caption is None else caption
    width, kv_width = config.heads * config.head_dim, config.kv_heads * config.head_dim
    projections = 2 * config.dim * (2 * width + 2 * kv_width + 2 * width)  # q, qx; k, v; out, of both attentions
    attention = 4 * width * (seen + caption)
    mlp = 2 * config.dim * config.ffn_dim * (3 if config.gated else 2)
    return config.layers * tokens * (projections + attention + mlp)


def text_flops(config: MagiConfig, caption: int | None = None) -> int:
    """Embedding one caption and projecting it to every block's keys and values."""
    caption = caption_tokens(config) if caption is None else caption
    embedding = 2 * caption * config.text_dim * config.dim
    return embedding + config.layers * 4 * caption * config.dim * config.kv_heads * config.head_dim


def embed_flops(config: MagiConfig, tokens: int) -> int:
    return 2 * tokens * config.dim * config.model_channels * math.prod(config.patch)


def head_flops(config: MagiConfig, tokens: int) -> int:
    return 2 * tokens * config.dim * config.model_channels * math.prod(config.patch)


def kv_bytes(config: MagiConfig, tokens: int, element: int) -> int:
    """Keys and values of `tokens` tokens in every layer; element: bytes of a value."""
    return 2 * config.layers * tokens * config.kv_heads * config.head_dim * element


def working_bytes(config: MagiConfig, tokens: int) -> int:
    """What a window holds in bfloat16 while a block runs its feed-forward layers, beside K/V (benchmarks/roofline.py
    counts the same within a tenth).

    The chunk's tokens in fp32, hidden states such as the last forward's and the block's, both attentions' queries,
    outputs, keys and values, and the layers' own; K/V of the captions of the chunks under way.
    """
    width, kv_width = config.heads * config.head_dim, config.kv_heads * config.head_dim
    hidden, attention = 6 * config.dim, 4 * width + 2 * kv_width
    mlp = config.ffn_dim * (4 if config.gated else 2)
    return tokens * (hidden + attention + mlp) * 2 + 5 * kv_bytes(config, caption_tokens(config), 2)


def reuse_bytes(
    config: MagiConfig, tokens: int, ranks: int, kv_branches: int, chunks_in_flight: int, element: int
) -> int:
    """On a rank, for chunks of so many tokens: the signal, which is all tokens, and latents, whole on every rank.

    Both are in float32.
    """
    own = math.ceil(tokens / ranks) * config.dim
    return chunks_in_flight * 4 * (own + tokens * math.prod(config.patch) * config.channels)
