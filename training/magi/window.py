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
    masks = [chunk_mask(chunk, grid.tokens, alone) for chunk in range(chunks)]

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.unflatten(0, (batch, chunks)) for x in (q, k, v))
        seen = ((each[:, : chunk + 1].flatten(1, 2) for each in (k, v)) for chunk in range(chunks))
        found = [attention(q[:, chunk], *kv, masks[chunk]) for chunk, kv in enumerate(seen)]
        return torch.stack(found, 1).flatten(0, 1)

    conditioning = model.condition(levels.flatten()[:, None] * 1000, grid)
    tokens = model.transform(model.embed(parts), conditioning, [text], [rope], attend)
    velocities = model.project(tokens, conditioning, grid)
    return velocities.unflatten(0, (batch, chunks)).transpose(1, 2).flatten(2, 3)


def chunk_mask(chunk: int, size: int, alone: Tensor) -> Tensor | None:
    """[B, 1, 1, S], True where tokens of the chunk may look, of it and those before; None: everywhere, in all rows."""
    if not (chunk and alone.any()):
        return None
    own = torch.arange((chunk + 1) * size) >= chunk * size
    return (own | ~alone[:, None])[:, None, None]
