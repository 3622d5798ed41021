"""The MAGI-1 transformer, with official parameter names (inference/model/dit/dit_module.py).

The modules know no cache, no sampler and no process group: self-attention is the caller's `attend`.
Parameters may be of two precisions (see weights.py): every layer computes in that of its own.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowcache.models.attention import attention, frame_of_token
from flowcache.models.base import Attend, Conditioning, Grid
from flowcache.models.magi.config import MagiConfig

FREQUENCIES = 256  # numbers that a timestep is spelled out in
NULL_TOKENS = 50  # of the null caption that are seen
PARTS = 8  # into which both attentions' outputs are cut, side by side: the official training's ranks


class Linear(nn.Linear):
    """In the precision of its weights."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


class Linear32(nn.Linear):
    """In fp32, in whatever precision the weights are held."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.float(), self.weight.float())


class LayerNorm(nn.LayerNorm):
    """Computed in fp32, and fp32 out. `plus_one`: the stored weight is the scale minus one."""

    def __init__(self, dim: int, eps: float, plus_one: bool = True):
        super().__init__(dim, eps)
        self.plus_one = plus_one
        if plus_one:
            nn.init.zeros_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.float() + 1 if self.plus_one else self.weight.float()
        return F.layer_norm(x.float(), self.normalized_shape, weight, self.bias.float(), self.eps)


@dataclass(frozen=True)
class Caption:
    """What the layers take of a caption.

    adaln: [B or 1, 1, condition_dim]; keys_values: of each layer, [B or 1, L, kv_heads, head_dim];
    mask: [B, 1, 1, L], True where a token counts; None: everywhere.
    """

    adaln: Tensor
    keys_values: list[tuple[Tensor, Tensor]]
    mask: Tensor | None = None


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


class Projections(nn.Module):
    def __init__(self, config: MagiConfig):
        super().__init__()
        width, kv_width = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.head_dim = config.head_dim
        self.layer_norm = LayerNorm(config.dim, config.eps, plus_one=False)
        self.q, self.qx = (Linear(config.dim, width, bias=False) for _ in range(2))
        self.k, self.v = (Linear(config.dim, kv_width, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """[B, S, dim] -> q, qx, k, v [B, S, heads or kv_heads, head_dim]."""
        x = self.layer_norm(x)
        return tuple(project(x).unflatten(-1, (-1, self.head_dim)) for project in (self.q, self.qx, self.k, self.v))


class Attention(nn.Module):
    """Self- and cross-attention side by side, of the same normed input."""

    def __init__(self, config: MagiConfig):
        super().__init__()
        width, eps, head_dim = config.heads * config.head_dim, config.eps, config.head_dim
        self.linear_qkv = Projections(config)
        self.linear_kv_xattn = Linear(config.dim, 2 * config.kv_heads * head_dim, bias=False)
        self.linear_proj = Linear32(2 * width, config.dim, bias=False)
        self.q_layernorm, self.k_layernorm = LayerNorm(head_dim, eps), LayerNorm(head_dim, eps)
        self.q_layernorm_xattn, self.k_layernorm_xattn = LayerNorm(head_dim, eps), LayerNorm(head_dim, eps)

    def keys_values(self, caption: Tensor) -> tuple[Tensor, Tensor]:
        """Of cross attention, for a caption [B, L, dim]."""
        kv = self.linear_kv_xattn(caption).unflatten(-1, (-1, 2 * self.linear_qkv.head_dim))
        k, v = kv.chunk(2, dim=-1)
        return self.k_layernorm_xattn(k).to(v.dtype), v

    def forward(self, x: Tensor, caption: Caption, rope: Tensor, layer: int, attend: Attend) -> Tensor:
        q, qx, k, v = self.linear_qkv(x)
        q, k = (apply_rope(norm(y), rope).to(v.dtype) for norm, y in ((self.q_layernorm, q), (self.k_layernorm, k)))
        own = attend(layer, q, k, v)
        keys, values = (y.expand(len(x), -1, -1, -1) for y in caption.keys_values[layer])
        cross = attention(self.q_layernorm_xattn(qx).to(v.dtype), keys, values, caption.mask)
        both = torch.stack([own.flatten(2), cross.flatten(2)], dim=2)
        return self.linear_proj(both.unflatten(-1, (PARTS, -1)).transpose(2, 3).flatten(2))


class Mlp(nn.Module):
    def __init__(self, config: MagiConfig):
        super().__init__()
        self.gated = config.gated
        self.layer_norm = LayerNorm(config.dim, config.eps, plus_one=False)
        self.linear_fc1 = Linear(config.dim, config.ffn_dim * (2 if config.gated else 1), bias=False)
        self.linear_fc2 = Linear(config.ffn_dim, config.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear_fc1(self.layer_norm(x))
        if self.gated:
            gate, x = x.chunk(2, dim=-1)
            return self.linear_fc2(F.silu(gate) * x)
        return self.linear_fc2(F.gelu(x))


class Gates(nn.Module):
    def __init__(self, config: MagiConfig):
        super().__init__()
        self.proj = nn.Sequential(Linear(config.condition_dim, 2 * config.dim))

    def forward(self, condition: Tensor, of_token: Tensor | None) -> tuple[Tensor, Tensor]:
        """[B, frames, condition_dim] -> the gates of both sublayers, [B, S or 1, dim] each, in -1..1, fp32."""
        gates = self.proj(F.silu(condition)).float().tanh()
        return (gates if of_token is None else gates[:, of_token]).chunk(2, dim=-1)


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


class Block(nn.Module):
    def __init__(self, config: MagiConfig):
        super().__init__()
        self.ada_modulate_layer = Gates(config)
        self.self_attention = Attention(config)
        self.self_attn_post_norm = LayerNorm(config.dim, config.eps)
        self.mlp = Mlp(config)
        self.mlp_post_norm = LayerNorm(config.dim, config.eps)

    def forward(self, x, condition, of_token, caption, rope, layer: int, attend: Attend) -> Tensor:
        gate1, gate2 = self.ada_modulate_layer(condition, of_token)
        out = self.self_attention(x, caption, rope, layer, attend)
        x = (x.float() + self.self_attn_post_norm(gate1 * out.float())).to(x.dtype)
        return (x.float() + self.mlp_post_norm(gate2 * self.mlp(x).float())).to(x.dtype)


class MagiTransformer(nn.Module):
    """Implements `models.base.VideoModel`; timesteps run from 0 (noise) to 1000 (clean)."""

    def __init__(self, config: MagiConfig):
        super().__init__()
        self.config = config
        self.layers, self.heads, self.kv_heads = config.layers, config.heads, config.kv_heads
        self.head_dim = config.head_dim
        self.x_embedder = nn.Conv3d(config.model_channels, config.dim, config.patch, stride=config.patch, bias=False)
        if config.positions:
            self.position_embedding = nn.Parameter(torch.zeros(math.prod(config.positions), config.dim))
        self.t_embedder = TimeEmbedder(config)
        self.y_embedder = CaptionEmbedder(config)
        self.rope = Rope(config)
        self.videodit_blocks = nn.Module()
        self.videodit_blocks.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.videodit_blocks.final_layernorm = LayerNorm(config.dim, config.eps)
        self.final_linear = nn.Module()
        self.final_linear.linear = Linear(config.dim, math.prod(config.patch) * config.model_channels, bias=False)

    @property
    def dtype(self) -> torch.dtype:
        """Of what the blocks compute, keys and values included."""
        return self.videodit_blocks.layers[0].self_attention.linear_qkv.q.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.x_embedder.weight.device

    @property
    def null_caption(self) -> Tensor:
        """Embeddings [1, L, text_dim] that stand for no caption: `text(None)` sees them and says it was dropped."""
        return self.y_embedder.null_caption_embedding[None, :NULL_TOKENS]

    def grid(self, latents: Tensor, first_frame: int = 0) -> Grid:
        _, rows, columns = self.config.patch
        return Grid(latents.shape[2], latents.shape[3] // rows, latents.shape[4] // columns, first_frame)

    def embed(self, latents: Tensor) -> Tensor:
        latents = latents.to(self.x_embedder.weight.dtype) * self.config.rescale
        if self.config.half_channel:
            latents = torch.cat([latents, latents], dim=1)
        tokens = self.x_embedder(latents).flatten(2).transpose(1, 2)
        if self.config.positions:
            tokens = tokens + self.position_embedding.repeat(latents.shape[2], 1)
        return tokens

    def condition(self, timesteps: Tensor, grid: Grid, fps: int = 24, distill: float | None = None) -> Conditioning:
        """timesteps [B, F]: 1000 * t. distill: half the number of steps, or 8 / interval where there are 12."""
        shared = bool((timesteps == timesteps[:, :1]).all())
        time = self.t_embedder(timesteps[:, :1] if shared else timesteps)
        if distill is not None:
            time = time + self.t_embedder(torch.tensor(1000 * distill, device=timesteps.device))
        return Conditioning(time, time, None if shared else frame_of_token(grid, timesteps.device))

    def text(self, embeddings: Tensor | None, mask: Tensor | None = None, dropped: Tensor | None = None) -> Caption:
        """For captions [B, L, text_dim], of which `mask` [B, L] counts (None: all of them); None: dropped.

        dropped: [B], which rows' captions are (they must hold `null_caption` then); None: none is.
        """
        if embeddings is None:
            embeddings, dropped = self.null_caption, torch.ones(1, dtype=torch.bool, device=self.device)
        if dropped is None:
            dropped = torch.zeros(len(embeddings), dtype=torch.bool, device=self.device)
        hidden = self.y_embedder.y_proj_xattn(embeddings)
        keys_values = [block.self_attention.keys_values(hidden) for block in self.videodit_blocks.layers]
        return Caption(
            self.y_embedder.adaln(dropped[:, None]), keys_values, None if mask is None else mask[:, None, None]
        )

    def transform(
        self, tokens: Tensor, conditioning: Conditioning, text: Caption, rope: Tensor, attend: Attend
    ) -> Tensor:
        x, condition = tokens.to(self.dtype), conditioning.blocks + text.adaln
        for layer, block in enumerate(self.videodit_blocks.layers):
            x = block(x, condition, conditioning.frame_of_token, text, rope, layer, attend)
        return x

    def project(self, tokens: Tensor, conditioning: Conditioning, grid: Grid) -> Tensor:
        x = self.final_linear.linear(self.videodit_blocks.final_layernorm(tokens))
        pt, ph, pw = self.config.patch
        x = x.view(len(x), grid.frames, grid.rows, grid.columns, pt, ph, pw, -1)
        x = x.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3)
        return x[:, : self.config.channels] / self.config.rescale

    def signal(self, conditioning: Conditioning, tokens: Tensor, grid: Grid | None = None) -> Tensor:
        return tokens


def centred(count: int, ratio: float, like: Tensor) -> Tensor:
    """Positions of `count` patches around 0; a single one lies there."""
    place = torch.arange(count, dtype=like.dtype, device=like.device) - (count - 1) / 2
    return place * (count / ratio - 1) / max(count - 1, 1)


def apply_rope(x: Tensor, rope: Tensor) -> Tensor:
    """Rotate the halves of the first channels of [B, S, heads, head_dim] into each other; the rest passes.

    rope: [S, ...], or [B, S, ...] where rows lie in different places.
    """
    sin, cos = rope.unsqueeze(-2).chunk(2, dim=-1)
    turned, rest = x.split([rope.shape[-1], x.shape[-1] - rope.shape[-1]], dim=-1)
    a, b = turned.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], dim=-1)
