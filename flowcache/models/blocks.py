"""The blocks of a transformer, cut at their attentions so that what lies between can be compiled."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Generic, TypeVar, cast

import torch
from torch import Tensor, nn

from flowcache.models.attention import attention
from flowcache.models.base import Attend

BlockAttend = Callable[..., Tensor]  # of one block: (q, k, v) or, where keys and values are the text's, (q) -> out


@dataclass(frozen=True)
class TextKV:
    """What cross-attention sees of a text.

    layers: of each block keys and values [B or 1, L, heads, head_dim]; mask: [B or 1, 1, 1, L], True where a token
    counts; None: everywhere.
    """

    layers: Sequence[tuple[Tensor, Tensor]]
    mask: Tensor | None = None


class CutBlock(nn.Module):
    """What `Blocks` hold; units as there."""

    units: ClassVar[tuple[str, ...]]

    def keys_values(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Of cross-attention, for a text [B, L, dim]: [B, L, heads, head_dim] each."""
        raise NotImplementedError


B = TypeVar("B", bound=CutBlock)


class Blocks(nn.ModuleList, Generic[B]):
    """Blocks that are called in order: block(x, condition, frame_of_token, rope, attend, attend_text) -> x.

    Both attentions are given to a block. `units` of its class names the methods between them, which take and give
    tensors alone: what `compile.compile_blocks` compiles. `flat`: the rows of a batch are laid end to end before they
    come to the blocks, and brought back for attention alone: dimension 0 of all that units take is then tokens, or
    the conditions that they share.
    """

    def __init__(self, blocks: Iterable[B]):
        super().__init__(blocks)
        self.flat = False

    def __iter__(self) -> Iterator[B]:
        return cast(Iterator[B], super().__iter__())

    def forward(
        self,
        x: Tensor,
        condition: Tensor,
        frame_of_token: Tensor | None,
        texts: Sequence[TextKV],
        ropes: Sequence[Tensor],
        attend: Attend,
    ) -> Tensor:
        """Tokens [B, S, D] after all blocks.

        condition: [B or 1, frames, ...]; frame_of_token as in `Conditioning`. texts, ropes ([S, n], or [B, S, n] of all
        rows at once): one for each row, or one for all.
        """
        shape, rows = x.shape, rows_of_texts(texts)
        rope = ropes[0] if all(each is ropes[0] for each in ropes) else torch.stack(list(ropes))
        if self.flat:
            condition, frame_of_token = flat_condition(condition, frame_of_token, *shape[:2])
            x, rope = x.reshape(-1, shape[-1]), flat_rope(rope, len(x))
        for layer, block in enumerate(self):
            own, cross = partial(attend, layer), partial(attend_texts, rows, layer)
            if self.flat:
                own, cross = (partial(in_rows, each, shape[:2]) for each in (own, cross))
            x = block(x, condition, frame_of_token, rope, own, cross)
        return x.view(shape)


def rows_of_texts(texts: Sequence[TextKV]) -> list[tuple[slice, TextKV]]:
    """The rows that see each text: its keys and values, large beside small chunks, are not copied by row."""
    if len(texts) == 1:
        return [(slice(None), texts[0])]
    rows: dict[int, list[int]] = defaultdict(list)
    for row, text in enumerate(texts):
        rows[id(text)].append(row)
    return [(run, texts[own[0]]) for own in rows.values() for run in evenly_spaced(own)]


def evenly_spaced(rows: Sequence[int]) -> Iterator[slice]:
    """Runs of ascending rows: a slice copies nothing and, unlike a list of numbers, needs nothing sent to a GPU."""
    start = 0
    while start < len(rows):
        end = start + 1
        step = rows[end] - rows[start] if end < len(rows) else 1
        while end < len(rows) and rows[end] - rows[end - 1] == step:
            end += 1
        yield slice(rows[start], rows[end - 1] + 1, step)
        start = end


def attend_texts(rows: Sequence[tuple[slice, TextKV]], layer: int, q: Tensor) -> Tensor:
    """Cross attention of q [B, S, heads, head_dim], each row over its own text."""
    if len(rows) == 1:
        return attend_text(rows[0][1], layer, q)
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    for own, text in rows:
        out[own] = attend_text(text, layer, q[own])
    return out


def attend_text(text: TextKV, layer: int, q: Tensor) -> Tensor:
    """Cross attention of q [B, S, heads, head_dim] over one text."""
    keys, values = (each.expand(len(q), -1, -1, -1) for each in text.layers[layer])
    return attention(q, keys, values, text.mask)


def in_rows(attend: BlockAttend, rows: tuple[int, ...], *tensors: Tensor) -> Tensor:
    """Attention, which must know the rows [B, S, ...], of tensors whose rows lie end to end [B * S, ...]."""
    return attend(*(x.unflatten(0, rows) for x in tensors)).flatten(0, 1)


def flat_rope(rope: Tensor, rows: int) -> Tensor:
    """[S, n] of each row alike, or [B, S, n], as [B * S, n]."""
    return rope.repeat(rows, 1) if rope.dim() == 2 else rope.flatten(0, 1)


def flat_condition(condition: Tensor, frame_of_token: Tensor | None, rows: int, tokens: int) -> tuple[Tensor, Tensor]:
    """Conditions of all rows in one list [n, ...], and which of them each token has: [rows * tokens].

    condition: [rows or 1, frames, ...].
    """
    place = torch.arange(condition.shape[0] * condition.shape[1], device=condition.device).view(condition.shape[:2])
    if frame_of_token is not None:
        place = place[:, frame_of_token]
    elif place.shape[1] > 1:
        place = place.repeat_interleave(tokens // place.shape[1], dim=1)
    condition = condition.flatten(0, 1)
    if len(condition) == 1:  # torch compiles anew where a size is 1
        condition = torch.cat([condition, condition])
    return condition, place.expand(rows, tokens).contiguous().flatten()
