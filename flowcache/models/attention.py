"""Attention that every family uses."""

import torch
import torch.nn.functional as F
from torch import Tensor

from flowcache.models.base import Grid


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention on [B, S, heads, head_dim]; k and v may have fewer heads, each then serves as many of q."""
    grouped = q.shape[2] != k.shape[2]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=grouped).transpose(1, 2)


def frame_of_token(grid: Grid, device: torch.device) -> Tensor:
    """[S], counted within the grid."""
    return torch.arange(grid.frames, device=device).repeat_interleave(grid.rows * grid.columns)
