"""How the forwards of one row are run: one by one, packed into batches, or all chunks attending to one another."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from flowcache.cache.kv_cache import KVStore
from flowcache.models.base import Attend, Conditioning, KVSharding, VideoModel
from flowcache.sampling.chunk_inputs import LARGE_CHUNK, ChunkInputs
from flowcache.sampling.plan import ChunkForward, SamplingStep

PACKED_CHUNK = LARGE_CHUNK  # chunks of so many tokens or fewer leave processors idle when they are run one by one
PACKED_BATCH = 32768  # tokens of a batch, at the most


@dataclass(frozen=True)
class Batch:
    """Forwards that ran together. hidden: their tokens after all layers, on this rank; seen: tokens of K/V that each
    attended to, its own included."""

    forwards: Sequence[ChunkForward]
    hidden: Tensor
    seen: Sequence[int]


class Executor(Protocol):
    """Runs what was decided to be computed; it takes no decision itself."""

    def transform(self, row: SamplingStep, forwards: Sequence[ChunkForward]) -> Iterator[Batch]:
        """Through all layers, in an order that leaves the K/V of the forwards' own order."""
        ...

    def project(self, row: SamplingStep, batch: Batch) -> list[Tensor | None]:
        """Velocities [C, f, H, W] in fp32; None for forwards without a step."""
        ...


class Packed:
    """Batches of up to `most` forwards; with 1 it runs them one by one.

    What is the same for every token (projections, feed-forward, cross attention) runs once for a batch. Attention
    runs forward by forward, each against the K/V that the ones before it left, so what is seen, written and cut is
    the same as one by one. Pays for small chunks; of large ones a forward alone fills a device.
    """

    def __init__(self, model: VideoModel, inputs: ChunkInputs, store: KVStore, most: int):
        self.model, self.inputs, self.store, self.most = model, inputs, store, most

    def transform(self, row: SamplingStep, forwards: Sequence[ChunkForward]) -> Iterator[Batch]:
        last = max((i for i, forward in enumerate(forwards) if forward.kv_branch is not None), default=-1)
        for start in range(0, len(forwards), self.most):
            yield self._run(row, forwards[start : start + self.most], last - start)  # and keep nothing of it here

    def _run(self, row: SamplingStep, forwards: Sequence[ChunkForward], last: int) -> Batch:
        """As one batch. last: see `_attend`."""
        attend, seen = self._attend(row, forwards, last)
        tokens = [self.inputs.tokens(forward.chunk) for forward in forwards]
        hidden = self.model.transform(
            tokens[0] if len(tokens) == 1 else torch.cat(tokens),
            self._conditioning(row, forwards),
            self.inputs.text_of(forwards),
            [self.inputs.rope(forward) for forward in forwards],
            attend,
        )
        return Batch(forwards, hidden, seen)

    def project(self, row: SamplingStep, batch: Batch) -> list[Tensor | None]:
        steps = [i for i, forward in enumerate(batch.forwards) if forward.step >= 0]
        velocities: list[Tensor | None] = [None] * len(batch.forwards)
        if steps:
            whole = len(steps) == len(batch.forwards)
            forwards = [batch.forwards[i] for i in steps]
            hidden = batch.hidden if whole else torch.stack([batch.hidden[i] for i in steps])  # a list is uploaded
            grid = self.inputs.grids[forwards[0].chunk]
            outs = self.model.project(hidden, self._conditioning(row, forwards), grid).float()
            for i, velocity in zip(steps, outs, strict=True):
                velocities[i] = velocity
        return velocities

    def _conditioning(self, row: SamplingStep, forwards: Sequence[ChunkForward]) -> Conditioning:
        return Conditioning.join([self.inputs.conditioning(forward, row.distill) for forward in forwards])

    def _attend(self, row: SamplingStep, batch: Sequence[ChunkForward], last: int) -> tuple[Attend, list[int]]:
        """Attention of the batch's rows, and how many tokens each sees. last: place of the row's last forward with K/V,
        after which clean tokens are cut."""
        starts = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(batch)) if not a.can_batch_with(b)), len(batch)]
        views: list[tuple[slice, Attend]] = []
        seen: list[int] = []
        for begin, end in pairwise(starts):
            attend, tokens = self._view(row, batch[begin:end], cut=begin <= last < end)
            views.append((slice(begin, end), attend))
            seen += [tokens] * (end - begin)
        return one_after_another(views), seen

    def _view(self, row: SamplingStep, group: Sequence[ChunkForward], cut: bool) -> tuple[Attend, int]:
        """Of forwards that differ in text and K/V branch alone."""
        forward = group[0]
        if forward.kv_branch is None:
            tokens = self.inputs.grids[forward.chunk].tokens
            return self_only(self.store.sharding, tokens), tokens
        branches = range(forward.kv_branch, forward.kv_branch + len(group))
        clean = min(row.clean, forward.chunk)
        return self.store.view(branches, forward.chunk, forward.first, clean, row.cut_after if cut else 0)


class Bidirectional:
    """All chunks of the window, started or not, attend to one another: the official model's default."""

    def __init__(self, model: VideoModel, inputs: ChunkInputs, sharding: KVSharding):
        self.model, self.inputs, self.sharding = model, inputs, sharding

    def transform(self, row: SamplingStep, forwards: Sequence[ChunkForward]) -> Iterator[Batch]:
        grid = self.inputs.whole
        tokens = self.model.embed(torch.cat(list(self.inputs.seen.values()), dim=1)[None])
        conditioning, rope = self._conditioning(row), self.model.rope(grid)
        attend = self_only(self.sharding, grid.tokens)
        for branch in sorted({forward.branch for forward in forwards}):
            own = [forward for forward in forwards if forward.branch == branch]
            hidden = self.model.transform(tokens, conditioning, self.inputs.text_of(own[:1]), [rope], attend)
            yield Batch(own, hidden, [grid.tokens] * len(own))

    def project(self, row: SamplingStep, batch: Batch) -> list[Tensor | None]:
        velocity = self.model.project(batch.hidden, self._conditioning(row), self.inputs.whole)[0].float()
        parts = velocity.split(self.inputs.grids[0].frames, dim=1)
        return [parts[forward.chunk] if forward.step >= 0 else None for forward in batch.forwards]

    def _conditioning(self, row: SamplingStep) -> Conditioning:
        return self.inputs.conditioning_of_all([f.timestep for f in row.forwards if f.branch == 0])


def executor_of(model: VideoModel, inputs: ChunkInputs, store: KVStore, bidirectional: bool) -> Executor:
    """Chosen by size: see `Packed`."""
    if bidirectional:
        return Bidirectional(model, inputs, store.sharding)
    return Packed(model, inputs, store, most_packed(inputs.grids[0].tokens))


def most_packed(tokens: int) -> int:
    """Forwards of one batch, of chunks of so many tokens."""
    return max(PACKED_BATCH // tokens, 1) if tokens <= PACKED_CHUNK else 1


def self_only(sharding: KVSharding, tokens: int) -> Attend:
    """Each of so many tokens sees all of them, and nothing else."""

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return sharding.attention(q, k, v, tokens)

    return attend


def one_after_another(views: Sequence[tuple[slice, Attend]]) -> Attend:
    """Each view attends for its rows of the batch, in order."""
    if len(views) == 1:
        return views[0][1]

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.cat([view(layer, q[rows], k[rows], v[rows]) for rows, view in views])

    return attend
