"""Layers that mind the precision of their weights."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowcache.models.pointwise import multiply_add


class Linear(nn.Linear):
    """In the precision of its weights."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.to(self.weight.dtype))


class Linear32(nn.Linear):
    """Summed up and given in fp32, in whatever precision input and weights are."""

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight
        if weight.device.type == "cuda" and weight.dtype == torch.bfloat16 and not torch.is_grad_enabled():
            # products of bf16 numbers are exact in fp32, so no input need be widened
            rows = input.to(weight.dtype).flatten(0, -2)
            return torch.mm(rows, weight.T, out_dtype=torch.float32).view(*input.shape[:-1], -1)
        return F.linear(input.float(), weight.float())


class LayerNorm(nn.LayerNorm):
    """Computed in fp32, given in the precision of its weights. `plus_one`: the stored weight is the scale minus one."""

    def __init__(self, dim: int, eps: float, plus_one: bool = True):
        super().__init__(dim, eps)
        self.plus_one = plus_one
        if plus_one:
            nn.init.zeros_(self.weight)

    def forward(self, input: Tensor) -> Tensor:
        input, shape = input.to(self.weight.dtype), self.normalized_shape
        if not self.plus_one:
            return F.layer_norm(input, shape, self.weight, self.bias, self.eps)
        if input.dtype == torch.float32:
            return F.layer_norm(input, shape, self.weight + 1, self.bias, self.eps)
        normed = F.layer_norm(input, shape, eps=self.eps)
        return multiply_add(self.bias.float(), normed, self.weight.float() + 1, normed.dtype)
