"""How the forwards of one row are run: one by one, packed into batches, or all chunks attending to one another."""

from collections.abc import Iterator, Mapping, Sequence
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


@dataclass(frozen=True)
class Unit:
    """Forwards whose tokens a step cache keeps as one. owner: their chunk; None: all of the window.

    tokens: [S, D], before all layers, on this rank.
    """

    owner: int | None
    forwards: Sequence[ChunkForward]
    tokens: Tensor


class Executor(Protocol):
    """Runs what was decided to be computed; it takes no decision itself."""

    def units(self, forwards: Sequence[ChunkForward]) -> Iterator[Unit]:
        """One for each row of `Batch.hidden`, in their order."""
        ...

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

    def units(self, forwards: Sequence[ChunkForward]) -> Iterator[Unit]:
        for forward in forwards:
            yield Unit(forward.chunk, [forward], self.inputs.tokens(forward.chunk)[0])

    def transform(self, row: SamplingStep, forwards: Sequence[ChunkForward]) -> Iterator[Batch]:
        for start in range(0, len(forwards), self.most):
            yield self._run(row, forwards[start : start + self.most])  # and keep nothing of it here

    def _run(self, row: SamplingStep, forwards: Sequence[ChunkForward]) -> Batch:
        """As one batch."""
        attend, seen = self._attend(row, forwards)
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

    def _attend(self, row: SamplingStep, batch: Sequence[ChunkForward]) -> tuple[Attend, list[int]]:
        """Attention of the batch's rows, and how many tokens each sees."""
        starts = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(batch)) if not a.can_batch_with(b)), len(batch)]
        views: list[tuple[slice, Attend]] = []
        seen: list[int] = []
        for begin, end in pairwise(starts):
            attend, tokens = self._view(row, batch[begin:end])
            views.append((slice(begin, end), attend))
            seen += [tokens] * (end - begin)
        return one_after_another(views), seen

    def _view(self, row: SamplingStep, group: Sequence[ChunkForward]) -> tuple[Attend, int]:
        """Of forwards that differ in text and K/V branch alone."""
        forward = group[0]
        if forward.kv_branch is None:
            tokens = self.inputs.grids[forward.chunk].tokens
            return self_only(self.store.sharding, tokens), tokens
        branches = range(forward.kv_branch, forward.kv_branch + len(group))
        clean = min(row.clean, forward.chunk)
        return self.store.view(branches, forward.chunk, forward.first, clean, row.late)


class Bidirectional:
    """All chunks of the window, started or not, attend to one another: the official model's default."""

    def __init__(self, model: VideoModel, inputs: ChunkInputs, sharding: KVSharding):
        self.model, self.inputs, self.sharding = model, inputs, sharding
        self._embedded: tuple[Mapping[int, Tensor], Tensor] | None = None  # latents of a row, their tokens

    def units(self, forwards: Sequence[ChunkForward]) -> Iterator[Unit]:
        tokens = self._tokens()[0]
        for branch in sorted({forward.branch for forward in forwards}):
            yield Unit(None, [forward for forward in forwards if forward.branch == branch], tokens)

    def transform(self, row: SamplingStep, forwards: Sequence[ChunkForward]) -> Iterator[Batch]:
        grid = self.inputs.whole
        conditioning, rope = self._conditioning(row), self.model.rope(grid)
        attend = self_only(self.sharding, grid.tokens)
        for unit in self.units(forwards):
            own = unit.forwards
            hidden = self.model.transform(unit.tokens[None], conditioning, self.inputs.text_of(own[:1]), [rope], attend)
            yield Batch(own, hidden, [grid.tokens] * len(own))

    def project(self, row: SamplingStep, batch: Batch) -> list[Tensor | None]:
        velocity = self.model.project(batch.hidden, self._conditioning(row), self.inputs.whole)[0].float()
        parts = velocity.split(self.inputs.grids[0].frames, dim=1)
        return [parts[forward.chunk] if forward.step >= 0 else None for forward in batch.forwards]

    def _tokens(self) -> Tensor:
        seen = self.inputs.seen
        if self._embedded is None or self._embedded[0] is not seen:
            self._embedded = seen, self.model.embed(torch.cat(list(seen.values()), dim=1)[None])
        return self._embedded[1]

    def _conditioning(self, row: SamplingStep) -> Conditioning:
        return self.inputs.conditioning_of_all([f.timestep for f in row.forwards if f.branch == 0])


def executor_of(
    model: VideoModel, inputs: ChunkInputs, store: KVStore, bidirectional: bool, packed: bool = True
) -> Executor:
    """Chosen by size: see `Packed`. packed: False for one forward at a time."""
    if bidirectional:
        return Bidirectional(model, inputs, store.sharding)
    return Packed(model, inputs, store, most_packed(inputs.grids[0].tokens) if packed else 1)


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
