"""Layers that mind the precision of their weights."""

import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """In the precision of its weights."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.to(self.weight.dtype))


class Linear32(nn.Linear):
    """In fp32, in whatever precision the weights are held."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input.float(), self.weight.float())


class LayerNorm(nn.LayerNorm):
    """Computed in fp32, and fp32 out. `plus_one`: the stored weight is the scale minus one."""

    def __init__(self, dim: int, eps: float, plus_one: bool = True):
        super().__init__(dim, eps)
        self.plus_one = plus_one
        if plus_one:
            nn.init.zeros_(self.weight)

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight.float() + 1 if self.plus_one else self.weight.float()
        return F.layer_norm(input.float(), self.normalized_shape, weight, self.bias.float(), self.eps)
