"""What MAGI-1 makes of times, captions and places before its blocks."""

import math

import torch
from torch import Tensor, nn

from flowcache.families.magi.config import MagiConfig
from flowcache.families.magi.layers import Linear
from flowcache.models.base import Grid
from flowcache.models.pointwise import multiply_add

FREQUENCIES = 256  # numbers that a timestep is spelled out in


class TimeEmbedder(nn.Module):
    def __init__(self, config: MagiConfig):
        super().__init__()
        dim = config.condition_dim
        self.mlp = nn.Sequential(Linear(FREQUENCIES, dim), nn.SiLU(), Linear(dim, dim))

    def forward(self, position: Tensor) -> Tensor:
        """[...] in 0..1000 -> [..., condition_dim]."""
        half = FREQUENCIES // 2
        steps = torch.arange(half, dtype=torch.float32, device=position.device)
        # in the official order: angles are so large that in fp32 another one shows in the fifth digit
        angle = position.float()[..., None] / 1000 * torch.exp(-math.log(10000) * steps / half) * 1000
        return self.mlp(torch.cat([angle.cos(), angle.sin()], dim=-1))


class CaptionEmbedder(nn.Module):
    """For cross attention; the caption itself never enters `adaln`, only whether it was dropped."""

    def __init__(self, config: MagiConfig):
        super().__init__()
        self.y_proj_xattn = nn.Sequential(Linear(config.text_dim, config.dim), nn.SiLU())
        self.y_proj_adaln = nn.Sequential(Linear(config.text_dim, config.condition_dim))
        self.null_caption_embedding = nn.Parameter(torch.randn(config.text_len, config.text_dim) / config.text_dim**0.5)

    def adaln(self, dropped: Tensor) -> Tensor:
        """[...] bool -> [..., condition_dim]."""
        null = self.null_caption_embedding
        return self.y_proj_adaln(torch.where(dropped[..., None], null[-1], null[-2]))


class Rope(nn.Module):
    """Learned frequencies, the same for time, rows and columns."""

    def __init__(self, config: MagiConfig):
        super().__init__()
        count = config.head_dim // 8
        self.bands = nn.Parameter(10000 ** (-torch.arange(count) / count))

    def forward(self, grid: Grid) -> Tensor:
        """[S, 6 * bands]: sines of time, row and column angles, then their cosines.

        Rows and columns are centred and scaled to what 256 patches span; time is the absolute latent frame.
        """
        ratio = math.sqrt(grid.rows * grid.columns / 256)
        bands, shape = self.bands, (grid.frames, grid.rows, grid.columns, -1)
        first = torch.arange(grid.frames, dtype=bands.dtype, device=bands.device) + grid.first_frame
        time = first[:, None, None, None] * bands
        row = centred(grid.rows, ratio, bands)[:, None, None] * bands
        column = centred(grid.columns, ratio, bands)[:, None] * bands
        angle = torch.cat([x.expand(shape) for x in (time, row, column)], dim=-1).flatten(0, 2)
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


def centred(count: int, ratio: float, like: Tensor) -> Tensor:
    """Positions of `count` patches around 0; a single one lies there."""
    place = torch.arange(count, dtype=like.dtype, device=like.device) - (count - 1) / 2
    return place * (count / ratio - 1) / max(count - 1, 1)


def apply_rope(x: Tensor, rope: Tensor, dtype: torch.dtype) -> Tensor:
    """Rotate the halves of the first channels of [B, S, heads, head_dim] into each other; the rest passes.

    rope: [S, ...], or [B, S, ...] where rows lie in different places.
    """
    sin, cos = rope.unsqueeze(-2).chunk(2, dim=-1)
    turned, rest = x.split([rope.shape[-1], x.shape[-1] - rope.shape[-1]], dim=-1)
    a, b = turned.chunk(2, dim=-1)
    ahead, behind = multiply_add(a * cos, b, -sin, dtype), multiply_add(b * cos, a, sin, dtype)
    return torch.cat([ahead, behind, rest.to(dtype)], dim=-1)
