"""Arithmetic on tokens, one by one, that computes in fp32 and leaves nothing of that size behind.

All broadcast, and [..., F, D] beside [..., S, D] is a row for each of F runs of S / F tokens (F divides S).
"""

from collections.abc import Callable

import torch
from torch import Tensor


def multiply_add(base: Tensor, x: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
    """base + x * factor, in `dtype`."""
    return by_token(torch.addcmul, [base, x, factor], dtype)


def multiply(x: Tensor, factor: Tensor) -> Tensor:
    """In fp32."""
    return by_token(torch.mul, [x, factor], torch.float32)


def add(x: Tensor, y: Tensor) -> Tensor:
    """In the dtype of x."""
    return by_token(torch.add, [x, y], x.dtype)


def by_token(function: Callable[..., Tensor], parts: list[Tensor], dtype: torch.dtype) -> Tensor:
    """One of torch's that computes in the widest dtype of `parts`."""
    if torch.compiler.is_compiling():  # flat tokens, each with a row of its own
        return function(*parts).to(dtype)
    counts = {part.shape[-2] for part in parts if part.dim() > 1} - {1}
    runs, tokens = (min(counts), max(counts)) if counts else (1, 1)
    if runs != tokens:
        parts = [part.unflatten(-2, (runs, -1)) if part.dim() > 1 else part for part in parts]
    if torch.is_grad_enabled() or all(part.dtype == dtype for part in parts):
        result = function(*parts).to(dtype)
    else:
        shape = torch.broadcast_shapes(*(part.shape for part in parts))
        result = torch.empty(shape, dtype=dtype, device=parts[0].device)
        function(*parts, out=result)  # casts on its way
    return result if runs == tokens else result.flatten(-3, -2)
