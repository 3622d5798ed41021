"""The ranks that run one model together."""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Mesh:
    """A process group and what is exchanged over it; every rank must call the same methods in the same order."""

    group: dist.ProcessGroup

    @property
    def rank(self) -> int:
        return dist.get_rank(self.group)

    @property
    def size(self) -> int:
        return dist.get_world_size(self.group)

    def exchange(self, parts: Tensor) -> Tensor:
        """[size, ...]: part j goes to rank j; the result's part j is what rank j sent here."""
        parts = parts.contiguous()
        received = torch.empty_like(parts)
        dist.all_to_all_single(received, parts, group=self.group)
        return received

    def gather(self, part: Tensor) -> Tensor:
        """Every rank's part, as [size, ...]."""
        parts = part.new_empty((self.size, *part.shape))
        dist.all_gather(list(parts), part.contiguous(), group=self.group)
        return parts
