"""What the loop trains: one small class a task."""

from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple, Protocol

import torch
from torch import Generator, Tensor, nn

from training.plan import Stage


class Loss(NamedTuple):
    """Summed errors and how many: their quotient is the mean, over whatever processes drew rows."""

    total: Tensor
    number: Tensor


@dataclass(frozen=True)
class Length:
    """A window of so many chunks of so many latent frames each."""

    chunks: int
    size: int

    @property
    def frames(self) -> int:
        return self.chunks * self.size


class Task(Protocol):
    """model: with what is trained in it. lengths: cost of a row of each length that a stage's batch may name."""

    lengths: dict[str, int]

    @property
    def model(self) -> nn.Module: ...

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Each group has a `share` of the learning rate."""
        ...

    def loss(self, length: str, rows: list[Random], stage: Stage, room: float) -> Loss:
        """Of freshly drawn rows, each by its own random numbers."""
        ...

    def probe(self, model: nn.Module) -> dict[str, Any]:
        """What a model like `model` has learned, on rows that are always the same."""
        ...


def generator(rng: Random) -> Generator:
    """Tensors' random numbers, following from Python's."""
    return Generator().manual_seed(rng.getrandbits(60))
