"""The SkyReels-V2 transformer, with official parameter names (skyreels_v2_infer/modules/transformer.py).

The modules know no cache, no sampler and no process group: self-attention is the caller's `attend`.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from flowcache.families.skyreels.config import SkyReelsConfig
from flowcache.models.attention import attention, frame_of_token
from flowcache.models.base import Attend, Conditioning, Grid
from flowcache.models.blocks import BlockAttend, Blocks, CutBlock, TextKV
from flowcache.models.pointwise import multiply_add
from flowcache.models.upload import uploaded


class RMSNorm(nn.Module):
    """RMS norm over the whole width (all heads together), in fp32 inside torch's kernel."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


class LayerNorm(nn.LayerNorm):
    """Layer norm computed in fp32, whatever the input's and the weights' precision."""

    def forward(self, input: Tensor) -> Tensor:
        if self.weight is None or self.weight.dtype == input.dtype:  # in fp32 inside the kernel
            return super().forward(input)
        normed = F.layer_norm(input, self.normalized_shape, eps=self.eps)
        return multiply_add(self.bias, normed, self.weight, normed.dtype)


class Attention(nn.Module):
    """Its projections; attention itself lies outside."""

    def __init__(self, dim: int, heads: int, eps: float):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(dim, eps), RMSNorm(dim, eps)

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1))

    def query(self, x: Tensor) -> Tensor:
        return self.split(self.norm_q(self.q(x)))

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.split(self.norm_k(self.k(x))), self.split(self.v(x))

    def turned(self, x: Tensor, norm: RMSNorm, rope: Tensor) -> Tensor:
        """RMS norm and RoPE of queries or keys [..., S, dim]: [..., S, heads, head_dim], rounded once, as officially.

        A token's length scales the complex numbers that turn it, so that this moves no more bytes than both in bf16 do.
        """
        turns = rope.unflatten(-1, (-1, 2)).unsqueeze(-3)
        if torch.compiler.is_compiling():  # which makes one kernel of it, and knows no complex numbers
            x32 = F.rms_norm(x.float(), (x.shape[-1],), norm.weight.float(), norm.eps)
            return turned_pairs(self.split(x32).unflatten(-1, (-1, 2)), turns).flatten(-2).to(x.dtype)
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        scale = (length.square() / x.shape[-1] + norm.eps).rsqrt()[..., None]
        pairs = self.split(x * norm.weight.float()).unflatten(-1, (-1, 2))
        turned = torch.view_as_complex(pairs) * (torch.view_as_complex(turns) * scale)
        return torch.view_as_real(turned).flatten(-2).to(x.dtype)


class Block(CutBlock):
    """See `models.blocks.Blocks`, flat or not. e: [B, frames, 6, dim] or [n, 6, dim], the time embedding."""

    units = ("qkv", "query", "finish")

    def __init__(self, config: SkyReelsConfig):
        super().__init__()
        dim, eps = config.dim, config.eps
        self.norm1 = LayerNorm(dim, eps, elementwise_affine=False)
        self.self_attn = Attention(dim, config.heads, eps)
        self.norm3 = LayerNorm(dim, eps)
        self.cross_attn = Attention(dim, config.heads, eps)
        self.norm2 = LayerNorm(dim, eps, elementwise_affine=False)
        self.ffn: Any = nn.Sequential(nn.Linear(dim, config.ffn_dim), nn.GELU("tanh"), nn.Linear(config.ffn_dim, dim))
        self.modulation = nn.Parameter(torch.randn(1, 6, dim) / dim**0.5)

    def keys_values(self, text: Tensor) -> tuple[Tensor, Tensor]:
        return self.cross_attn.keys_values(text)

    def qkv(self, x: Tensor, e: Tensor, frame_of_token: Tensor | None, rope: Tensor) -> tuple[Tensor, ...]:
        """Of self-attention, past RoPE: [..., heads, head_dim] each."""
        shift, scale = modulate(self.modulation[:, :2], e[..., :2, :], frame_of_token)
        h = multiply_add(shift, self.norm1(x), 1 + scale, x.dtype)
        own = self.self_attn
        q, k = own.turned(own.q(h), own.norm_q, rope), own.turned(own.k(h), own.norm_k, rope)
        return q, k, own.split(own.v(h))

    def query(self, x: Tensor, out: Tensor, e: Tensor, frame_of_token: Tensor | None) -> tuple[Tensor, Tensor]:
        """x with what self-attention gave, in fp32 within a block, and the query of cross-attention."""
        (gate,) = modulate(self.modulation[:, 2:3], e[..., 2:3, :], frame_of_token)
        x = multiply_add(x, self.self_attn.o(out), gate, torch.float32)
        return x, self.cross_attn.query(self.norm3(x).to(out.dtype))

    def finish(self, x: Tensor, out: Tensor, e: Tensor, frame_of_token: Tensor | None) -> Tensor:
        """x with what cross-attention gave, and past the feed-forward layers."""
        shift, scale, gate = modulate(self.modulation[:, 3:], e[..., 3:, :], frame_of_token)
        x = x + self.cross_attn.o(out)
        h = multiply_add(shift, self.norm2(x), 1 + scale, out.dtype)
        return multiply_add(x, self.feed_forward(h), gate, out.dtype)

    def feed_forward(self, h: Tensor) -> Tensor:
        """`ffn`; on a GPU its GELU is done by the product before it (cuBLAS knows that by tanh)."""
        up, down = self.ffn[0], self.ffn[2]
        traced = torch.is_grad_enabled() or torch.compiler.is_compiling()
        if h.device.type != "cuda" or traced or is_traceable_wrapper_subclass(up.weight):
            return self.ffn(h)
        product = torch._addmm_activation  # pyright: ignore[reportPrivateImportUsage]: no public one fuses them
        return down(product(up.bias, h.flatten(0, -2), up.weight.T, use_gelu=True)).view(h.shape)

    def forward(
        self,
        x: Tensor,
        e: Tensor,
        frame_of_token: Tensor | None,
        rope: Tensor,
        attend: BlockAttend,
        attend_text: BlockAttend,
    ) -> Tensor:
        out = attend(*self.qkv(x, e, frame_of_token, rope))
        x, q = self.query(x, out.flatten(-2), e, frame_of_token)
        return self.finish(x, attend_text(q).flatten(-2), e, frame_of_token)


class Head(nn.Module):
    def __init__(self, config: SkyReelsConfig):
        super().__init__()
        self.norm = LayerNorm(config.dim, config.eps, elementwise_affine=False)
        self.head = nn.Linear(config.dim, math.prod(config.patch) * config.out_channels)
        self.modulation = nn.Parameter(torch.randn(1, 2, config.dim) / config.dim**0.5)

    def forward(self, x: Tensor, conditioning: Conditioning) -> Tensor:
        shift, scale = modulate(self.modulation, conditioning.head.unsqueeze(2), conditioning.frame_of_token)
        return self.head(multiply_add(shift, self.norm(x.float()), 1 + scale, self.head.weight.dtype))


class SkyReelsTransformer(nn.Module):
    """Implements `models.base.VideoModel`."""

    null_caption, timed_signal = None, True

    def __init__(self, config: SkyReelsConfig):
        super().__init__()
        self.config = config
        dim = config.dim
        self.layers, self.heads, self.head_dim = config.layers, config.heads, config.head_dim
        self.kv_heads = config.heads
        self.patch_embedding = nn.Conv3d(config.in_channels, dim, config.patch, stride=config.patch)
        self.text_embedding = nn.Sequential(nn.Linear(config.text_dim, dim), nn.GELU("tanh"), nn.Linear(dim, dim))
        self.time_embedding = nn.Sequential(nn.Linear(config.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        if config.inject_sample_info:
            self.fps_embedding = nn.Embedding(2, dim)
            self.fps_projection = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, 6 * dim))
        if config.positions:
            self.position_embedding = nn.Parameter(torch.zeros(math.prod(config.positions), dim))
        self.blocks = Blocks(Block(config) for _ in range(config.layers))
        self.head = Head(config)

    @property
    def dtype(self) -> torch.dtype:
        return self.patch_embedding.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.patch_embedding.weight.device

    def grid(self, latents: Tensor, first_frame: int = 0) -> Grid:
        _, rows, columns = self.config.patch
        return Grid(latents.shape[2], latents.shape[3] // rows, latents.shape[4] // columns, first_frame)

    def embed(self, latents: Tensor) -> Tensor:
        tokens = self.patch_embedding(latents.to(self.dtype)).flatten(2).transpose(1, 2).contiguous()
        if self.config.positions:
            tokens = tokens + self.position_embedding.repeat(latents.shape[2], 1)
        return tokens

    def condition(
        self, timesteps: Tensor, grid: Grid, fps: int | Tensor = 24, distill: float | None = None
    ) -> Conditioning:
        """`fps`: frames per second, or the index of its embedding for each batch row and frame.

        Timesteps on the CPU spare the host waiting for the GPU.
        """
        if isinstance(fps, int) and bool((timesteps == timesteps[:, :1]).all()):
            timesteps = timesteps[:, :1]
        timesteps = uploaded(timesteps, self.device)
        dtype = next(self.time_embedding.parameters()).dtype
        e = self.time_embedding(sinusoids(timesteps, self.config.freq_dim).to(dtype))
        e0 = self.time_projection(e).unflatten(-1, (6, -1))
        if self.config.inject_sample_info:
            table = self.fps_embedding.weight
            rate = table[0 if fps == 16 else 1] if isinstance(fps, int) else table[fps.to(self.device)]
            e0 = e0 + self.fps_projection(rate).unflatten(-1, (6, -1))
        return Conditioning(e.float(), e0.float())

    def text(self, embeddings: Tensor | None) -> TextKV:
        """For embeddings [B, text_len, text_dim]; None: ValueError."""
        if embeddings is None:
            raise ValueError("SkyReels-V2 has learned nothing that takes a caption's place")
        hidden = self.text_embedding(embeddings.to(self.dtype))
        return TextKV([block.keys_values(hidden) for block in self.blocks])

    def rope(self, grid: Grid) -> Tensor:
        """[S, head_dim], see `rope_angles`."""
        return rope_angles(grid, self.head_dim, self.device)

    def transform(
        self,
        tokens: Tensor,
        conditioning: Conditioning,
        texts: Sequence[TextKV],
        ropes: Sequence[Tensor],
        attend: Attend,
    ) -> Tensor:
        return self.blocks(tokens, conditioning.blocks, conditioning.frame_of_token, texts, ropes, attend)

    def project(self, tokens: Tensor, conditioning: Conditioning, grid: Grid) -> Tensor:
        x = self.head(tokens, conditioning)
        pt, ph, pw = self.config.patch
        x = x.view(len(x), grid.frames, grid.rows, grid.columns, pt, ph, pw, self.config.out_channels)
        return x.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3)

    def signal(self, conditioning: Conditioning, tokens: Tensor | None = None, grid: Grid | None = None) -> Tensor:
        return conditioning.blocks

    def forward(
        self, latents: Tensor, timesteps: Tensor, embeddings: Tensor, fps: int | Tensor = 24, chunk: int = 0
    ) -> Tensor:
        """Velocity of a whole window at once; chunk > 0: attention is causal by chunks of that many frames.

        latents [B, C, F, H, W], timesteps [B, F], embeddings [B, L, Dt].
        """
        grid = self.grid(latents)
        conditioning = self.condition(timesteps, grid, fps)
        mask = block_causal_mask(grid, chunk, latents.device) if chunk else None

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return attention(q, k, v, mask)

        tokens = self.transform(self.embed(latents), conditioning, [self.text(embeddings)], [self.rope(grid)], attend)
        return self.project(tokens, conditioning, grid)


def block_causal_mask(grid: Grid, chunk: int, device: torch.device) -> Tensor:
    """[S, S], True where a token may look: its own chunk and all before."""
    block = frame_of_token(grid, device) // chunk
    return block[:, None] >= block[None, :]


def modulate(table: Tensor, e: Tensor, frame_of_token: Tensor | None) -> tuple[Tensor, ...]:
    """Shifts, scales and gates of each frame or, where it is said which one it has, each token: [..., F or S, D] each,
    in fp32. e: [..., F, n or 1, D]."""
    mixed = table.float() + e
    if frame_of_token is not None:
        mixed = mixed.index_select(-3, frame_of_token)
    return mixed.unbind(-2)


def sinusoids(position: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding, cosines first, computed in float64 as the official code does."""
    half = dim // 2
    frequency = torch.pow(10000, -torch.arange(half, device=position.device, dtype=torch.float64) / half)
    angle = position.double()[..., None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def rope_angles(grid: Grid, head_dim: int, device: torch.device) -> Tensor:
    """[S, head_dim]: cosine and sine, side by side, of each of the time, row and column angles (theta 10000)."""
    side = 2 * (head_dim // 6)
    bands = []
    for start, count, dim in (
        (grid.first_frame, grid.frames, head_dim - 2 * side),
        (0, grid.rows, side),
        (0, grid.columns, side),
    ):
        frequency = 10000.0 ** (-torch.arange(0, dim, 2, dtype=torch.float64, device=device) / dim)
        position = torch.arange(start, start + count, dtype=torch.float64, device=device)
        bands.append(torch.outer(position, frequency))
    shape = (grid.frames, grid.rows, grid.columns, -1)
    time, row, column = bands
    angles = torch.cat(
        [time[:, None, None].expand(shape), row[None, :, None].expand(shape), column[None, None].expand(shape)], dim=-1
    )
    angles = angles.flatten(0, 2)
    return torch.stack([angles.cos(), angles.sin()], dim=-1).flatten(-2).float()


def turned_pairs(pairs: Tensor, turns: Tensor) -> Tensor:
    """[..., 2] as complex numbers, times those of `turns`."""
    (real, imaginary), (cos, sin) = pairs.unbind(-1), turns.unbind(-1)
    return torch.stack([real * cos - imaginary * sin, imaginary * cos + real * sin], dim=-1)
