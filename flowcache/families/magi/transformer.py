"""The MAGI-1 transformer, with official parameter names (inference/model/dit/dit_module.py).

The modules know no cache, no sampler and no process group: self-attention is the caller's `attend`.
Parameters may be of two precisions (see weights.py): every layer computes in that of its own weights.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowcache.families.magi.config import MagiConfig
from flowcache.families.magi.embedders import CaptionEmbedder, Rope, TimeEmbedder, apply_rope
from flowcache.families.magi.layers import LayerNorm, Linear, Linear32
from flowcache.models.base import Attend, Conditioning, Grid
from flowcache.models.blocks import BlockAttend, Blocks, CutBlock, TextKV
from flowcache.models.pointwise import add, multiply
from flowcache.models.upload import uploaded

NULL_TOKENS = 50  # of the null caption that are seen
PARTS = 8  # into which both attentions' outputs are cut, side by side: the official training's ranks


@dataclass(frozen=True)
class Caption:
    """What the layers take of a caption. adaln: [B or 1, 1, condition_dim]."""

    adaln: Tensor
    words: TextKV


class Projections(nn.Module):
    def __init__(self, config: MagiConfig):
        super().__init__()
        width, kv_width = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.head_dim = config.head_dim
        self.layer_norm = LayerNorm(config.dim, config.eps, plus_one=False)
        self.q, self.qx = (Linear(config.dim, width, bias=False) for _ in range(2))
        self.k, self.v = (Linear(config.dim, kv_width, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """[..., dim] -> q, qx, k, v [..., heads or kv_heads, head_dim]."""
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
        return self.k_layernorm_xattn(k), v

    def qkv(self, x: Tensor, rope: Tensor) -> tuple[Tensor, ...]:
        """q, k, v of self-attention, past RoPE, and q of cross-attention: [..., heads or kv_heads, head_dim] each."""
        q, qx, k, v = self.linear_qkv(x)
        q, k = (apply_rope(norm(y), rope, v.dtype) for norm, y in ((self.q_layernorm, q), (self.k_layernorm, k)))
        return q, k, v, self.q_layernorm_xattn(qx)

    def project(self, own: Tensor, cross: Tensor) -> Tensor:
        """What both gave, [..., width] each, as [..., dim]."""
        return self.linear_proj(torch.cat([x.unflatten(-1, (PARTS, -1)) for x in (own, cross)], dim=-1).flatten(-2))


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

    def forward(self, condition: Tensor, frame_of_token: Tensor | None) -> tuple[Tensor, Tensor]:
        """[..., frames, condition_dim] -> the gates of both sublayers, [..., frames or S, dim] each, in -1..1, fp32."""
        # Row by row: BLAS sums a single row in another order, and a chunk's bits must not depend on its batch.
        rows = condition.split(1) if condition.dim() == 3 else [condition]
        gates = torch.cat([self.proj(F.silu(row)) for row in rows]).float().tanh()
        gate1, gate2 = (gates if frame_of_token is None else gates.index_select(-2, frame_of_token)).chunk(2, dim=-1)
        return gate1, gate2


class Block(CutBlock):
    """See `models.blocks.Blocks`, flat or not. condition: [B, frames, condition_dim] or [n, condition_dim]."""

    units = ("qkv", "finish")

    def __init__(self, config: MagiConfig):
        super().__init__()
        self.ada_modulate_layer = Gates(config)
        self.self_attention = Attention(config)
        self.self_attn_post_norm = LayerNorm(config.dim, config.eps)
        self.mlp = Mlp(config)
        self.mlp_post_norm = LayerNorm(config.dim, config.eps)

    def keys_values(self, text: Tensor) -> tuple[Tensor, Tensor]:
        return self.self_attention.keys_values(text)

    def qkv(self, x: Tensor, rope: Tensor) -> tuple[Tensor, ...]:
        """See `Attention.qkv`."""
        return self.self_attention.qkv(x, rope)

    def finish(self, x: Tensor, own: Tensor, cross: Tensor, condition: Tensor, frame_of_token: Tensor | None) -> Tensor:
        """x with what both attentions gave, and past the feed-forward layers."""
        gate1, gate2 = self.ada_modulate_layer(condition, frame_of_token)
        out = self.self_attention.project(own, cross)
        x = add(x, self.self_attn_post_norm(multiply(out, gate1)))
        return add(x, self.mlp_post_norm(multiply(self.mlp(x), gate2)))

    def forward(
        self,
        x: Tensor,
        condition: Tensor,
        frame_of_token: Tensor | None,
        rope: Tensor,
        attend: BlockAttend,
        attend_text: BlockAttend,
    ) -> Tensor:
        q, k, v, qx = self.qkv(x, rope)
        own, cross = attend(q, k, v).flatten(-2), attend_text(qx).flatten(-2)
        return self.finish(x, own, cross, condition, frame_of_token)


class Trunk(nn.Module):
    def __init__(self, config: MagiConfig):
        super().__init__()
        self.layers = Blocks(Block(config) for _ in range(config.layers))
        self.final_layernorm = LayerNorm(config.dim, config.eps)


class Final(nn.Module):
    def __init__(self, config: MagiConfig):
        super().__init__()
        self.linear = Linear(config.dim, math.prod(config.patch) * config.model_channels, bias=False)


class MagiTransformer(nn.Module):
    """Implements `models.base.VideoModel`; timesteps run from 0 (noise) to 1000 (clean)."""

    timed_signal = False

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
        self.videodit_blocks = Trunk(config)
        self.final_linear = Final(config)

    @property
    def blocks(self) -> Blocks[Block]:
        return self.videodit_blocks.layers

    @property
    def dtype(self) -> torch.dtype:
        """Of what the blocks compute, keys and values included."""
        return next(iter(self.blocks)).self_attention.linear_qkv.q.weight.dtype

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
        tokens = self.x_embedder(latents).flatten(2).transpose(1, 2).contiguous()
        if self.config.positions:
            tokens = tokens + self.position_embedding.repeat(latents.shape[2], 1)
        return tokens

    def condition(self, timesteps: Tensor, grid: Grid, fps: int = 24, distill: float | None = None) -> Conditioning:
        """timesteps [B, F]: 1000 * t; on the CPU they spare the host waiting for the GPU.

        distill: half the number of steps, or 8 / interval where there are 12.
        """
        if bool((timesteps == timesteps[:, :1]).all()):
            timesteps = timesteps[:, :1]
        time = self.t_embedder(uploaded(timesteps, self.device))
        if distill is not None:
            time = time + self.t_embedder(torch.full((), 1000 * distill, device=self.device))
        return Conditioning(time, time)

    def text(self, embeddings: Tensor | None, mask: Tensor | None = None, dropped: Tensor | None = None) -> Caption:
        """For captions [B, L, text_dim], of which `mask` [B, L] counts (None: all of them); None: dropped.

        dropped: [B], which rows' captions are (they hold `null_caption` then, or what takes its place); None: none is.
        """
        if embeddings is None:
            return self.dropped(self.null_caption)
        if dropped is None:
            dropped = torch.zeros(len(embeddings), dtype=torch.bool, device=self.device)
        hidden = self.y_embedder.y_proj_xattn(embeddings)
        words = TextKV(
            [block.keys_values(hidden) for block in self.blocks], None if mask is None else mask[:, None, None]
        )
        return Caption(self.y_embedder.adaln(dropped[:, None]), words)

    def dropped(self, embeddings: Tensor) -> Caption:
        """Of captions that were dropped: [B, L, text_dim] is seen in their place."""
        return self.text(embeddings, dropped=torch.ones(len(embeddings), dtype=torch.bool, device=self.device))

    def transform(
        self,
        tokens: Tensor,
        conditioning: Conditioning,
        texts: Sequence[Caption],
        ropes: Sequence[Tensor],
        attend: Attend,
    ) -> Tensor:
        condition = conditioning.blocks + torch.cat([text.adaln for text in texts])
        words = [text.words for text in texts]
        return self.blocks(tokens.to(self.dtype), condition, conditioning.frame_of_token, words, ropes, attend)

    def project(self, tokens: Tensor, conditioning: Conditioning, grid: Grid) -> Tensor:
        x = self.final_linear.linear(self.videodit_blocks.final_layernorm(tokens))
        pt, ph, pw = self.config.patch
        x = x.view(len(x), grid.frames, grid.rows, grid.columns, pt, ph, pw, -1)
        x = x.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3)
        return x[:, : self.config.channels] / self.config.rescale

    def signal(self, conditioning: Conditioning, tokens: Tensor | None, grid: Grid | None = None) -> Tensor:
        if tokens is None:
            raise ValueError("MAGI-1's signal is that of the tokens")
        return tokens
