"""torch.compile where it pays: what lies between the attentions of a block."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._dynamo import maybe_mark_dynamic

from flowcache.models.base import VideoModel
from flowcache.models.blocks import Blocks, CutBlock


def compile_blocks(model: VideoModel, backend: str | Callable = "inductor") -> None:
    """Compile the blocks of this model, in place; what they give is the same but for rounding.

    One graph for each of a block's `units`, which all layers share. It is made when the unit is first called (seconds
    each); other batches, lengths, texts and timesteps need no other, but a single token does. Of sharded weights: to
    be called after `load_sharded`. backend: of torch.compile. A copy or a pickle of the model compiles anew. TypeError
    for a model whose blocks are no `Blocks`.
    """
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, Blocks):
        raise TypeError(f"{type(model).__name__} has blocks that can't be compiled; accepted: models.blocks.Blocks")
    kind = type(next(iter(blocks)))
    units = {name: CompiledUnit(kind, name, backend) for name in kind.units}
    for block in blocks:
        for name, unit in units.items():
            setattr(block, name, partial(unit, block))
    blocks.flat = True


class CompiledUnit:
    """A method of a kind of blocks, compiled for contiguous tensors of which dimension 0, and no other, varies."""

    def __init__(self, kind: type[CutBlock], name: str, backend: str | Callable):
        self.made_of = kind, name, backend
        # fullgraph: what can't be one graph, or needs too many, is an error; torch would go on uncompiled, silently
        self._compiled = torch.compile(getattr(kind, name), fullgraph=True, backend=backend)

    def __reduce__(self) -> tuple:
        return CompiledUnit, self.made_of

    def __call__(self, block: CutBlock, *tensors: Tensor) -> Any:
        tensors = tuple(tensor.contiguous() for tensor in tensors)  # other strides would be compiled for
        for tensor in tensors:
            # not `dynamic=True`, which takes sizes that happen to be equal (tokens and width) for one
            maybe_mark_dynamic(tensor, 0)
        return self._compiled(block, *tensors)
