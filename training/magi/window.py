"""The transformer on whole windows at once: chunks as batch rows, each attending to itself and those before."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowcache.families.magi.captions import DURATION, LONGEST, MARKS
from flowcache.families.magi.transformer import NULL_TOKENS, Caption, MagiTransformer
from flowcache.models.attention import attention
from training.magi.data import Windows
from training.text import encode_batch

WORDS = 16  # no caption has more


def caption_embeddings(tiny: nn.Module, tokenizer, captions: list[str], remaining: list[int]) -> tuple[Tensor, Tensor]:
    """[chunks, NULL_TOKENS, D] and which of these are there: the special tokens, then the caption's own."""
    unique = list(dict.fromkeys(captions))
    words, there = encode_batch(tiny.text_encoder, tokenizer, unique, WORDS)
    place = torch.tensor([unique.index(text) for text in captions])
    duration = DURATION + torch.tensor(remaining).clamp(max=LONGEST)
    special = tiny.special_tokens[torch.stack([duration, torch.full_like(duration, MARKS["hq"])], 1)]
    empty = NULL_TOKENS - WORDS - special.shape[1]
    there = F.pad(F.pad(there[place], (special.shape[1], 0), value=True), (0, empty))
    return F.pad(torch.cat([special, words[place]], 1), (0, 0, 0, empty)), there


def conditions(tiny: nn.Module, tokenizer, windows: Windows) -> Caption:
    """What the transformer takes as text, for all chunks row by row; finished chunks have the null caption."""
    embeddings, there = caption_embeddings(tiny, tokenizer, windows.captions, windows.remaining)
    rows = windows.rows
    chunks = len(windows.captions) // len(rows.clean)
    finished = rows.clean[:, None] & (torch.arange(chunks) == 0)
    dropped = (rows.dropped[:, None] | finished).flatten()
    embeddings = torch.where(dropped[:, None, None], tiny.transformer.null_caption, embeddings)
    return tiny.transformer.text(embeddings, there | dropped[:, None], dropped)


def velocity(model: MagiTransformer, noisy: Tensor, levels: Tensor, text: Caption, alone: Tensor) -> Tensor:
    """Of windows [B, C, N * size, h, w] with a level for each chunk [B, N]; alone: rows whose chunks see no other."""
    batch, chunks = levels.shape
    parts = noisy.unflatten(2, (chunks, -1)).transpose(1, 2).flatten(0, 1)
    grid, whole = model.grid(parts), model.grid(noisy)
    rope = model.rope(whole).unflatten(0, (chunks, grid.tokens)).repeat(batch, 1, 1)
    mask = window_mask(chunks, grid.tokens, alone)

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.unflatten(0, (batch, chunks)).flatten(1, 2) for x in (q, k, v))
        return attention(q, k, v, mask).unflatten(1, (chunks, grid.tokens)).flatten(0, 1)

    conditioning = model.condition(levels.flatten()[:, None] * 1000, grid)
    tokens = model.transform(model.embed(parts), conditioning, [text], [rope], attend)
    velocities = model.project(tokens, conditioning, grid)
    return velocities.unflatten(0, (batch, chunks)).transpose(1, 2).flatten(2, 3)


def window_mask(chunks: int, size: int, alone: Tensor) -> Tensor:
    """[B, 1, S, S], True where a token may look: its chunk, and those before unless it is alone."""
    chunk = torch.arange(chunks).repeat_interleave(size)
    own, before = chunk[:, None] == chunk, chunk[:, None] > chunk
    return (own | before & ~alone[:, None, None])[:, None]
