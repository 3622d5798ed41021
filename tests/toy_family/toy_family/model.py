"""The toy in torch: transformer, codec and texts."""

import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flowcache.models.base import Attend, Conditioning, Grid, Share, alone
from flowcache.models.part import Part
from flowcache.models.tensors import in_folder

from .config import ToyConfig, read_config

CELL = 4, 8, 8  # frames, rows and columns that one latent pixel stands for


class Block(nn.Module):
    def __init__(self, config: ToyConfig):
        super().__init__()
        self.shape = config.heads, config.head_dim
        self.qkv, self.out = nn.Linear(config.dim, 3 * config.dim), nn.Linear(config.dim, config.dim)

    def forward(self, tokens: Tensor, attend: Attend) -> Tensor:
        q, k, v = (part.unflatten(-1, self.shape) for part in self.qkv(tokens).chunk(3, dim=-1))
        return tokens + self.out(attend(0, q, k, v).flatten(2))


class ToyTransformer(nn.Module):
    """Implements `VideoModel`."""

    null_caption, timed_signal = None, True

    def __init__(self, config: ToyConfig):
        super().__init__()
        self.config, self.layers = config, config.layers
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim
        self.patch, self.words = nn.Linear(config.channels, config.dim), nn.Linear(config.text_dim, config.dim)
        self.time, self.head = nn.Linear(1, config.dim), nn.Linear(config.dim, config.channels)
        self.blocks = nn.ModuleList([Block(config)])

    @property
    def dtype(self) -> torch.dtype:
        return self.head.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.head.weight.device

    def grid(self, latents: Tensor, first_frame: int = 0) -> Grid:
        return Grid(*latents.shape[2:], first_frame)

    def embed(self, latents: Tensor) -> Tensor:
        return self.patch(latents.flatten(2).mT.to(self.dtype))

    def condition(self, timesteps: Tensor, grid: Grid, fps: int, distill: float | None = None) -> Conditioning:
        told = self.time(timesteps[:, :1, None].to(self.device, self.dtype) / 1000)
        return Conditioning(told, told, None)

    def text(self, embeddings: Tensor | None) -> Tensor:
        if embeddings is None:
            raise ValueError("a toy has learned nothing that takes a text's place")
        return self.words(embeddings.to(self.dtype)).mean(1, keepdim=True)

    def rope(self, grid: Grid) -> Tensor:
        return torch.zeros(grid.tokens, 0, device=self.device)

    def transform(
        self,
        tokens: Tensor,
        conditioning: Conditioning,
        texts: Sequence[Tensor],
        ropes: Sequence[Tensor],
        attend: Attend,
    ) -> Tensor:
        return self.blocks[0](tokens + conditioning.blocks + torch.cat(list(texts)), attend)

    def project(self, tokens: Tensor, conditioning: Conditioning, grid: Grid) -> Tensor:
        return self.head(tokens).mT.unflatten(2, (grid.frames, grid.rows, grid.columns))

    def signal(self, conditioning: Conditioning, tokens: Tensor | None, grid: Grid) -> Tensor:
        return conditioning.blocks


def transformer_part(config: Path, folder: Path) -> Part:
    with torch.device("meta"):
        return Part(folder, ToyTransformer(read_config(config)), in_folder(folder))


class ToyCodec(nn.Module):
    """Implements `Codec`: a latent pixel is the mean colour of its cell, times a learned number."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def encode(self, video: Tensor) -> Tensor:
        whole = video.expand(-1, CELL[0], -1, -1) if video.shape[1] == 1 else video
        return nn.functional.avg_pool3d(whole.to(self.gain), CELL) * self.gain

    def decode(self, latents: Tensor) -> Tensor:
        colours = latents.to(self.gain) / self.gain
        for axis, times in enumerate(CELL, 1):
            colours = colours.repeat_interleave(times, dim=axis)
        return colours.clamp(-1, 1)

    def stream(self, share: Share = alone) -> Callable[[Tensor], Tensor | None]:
        def decode(latents: Tensor) -> Tensor | None:
            shape = latents.shape[0], *(times * n for times, n in zip(CELL, latents.shape[1:], strict=True))
            parts = share([partial(self.decode, latents)], [shape])
            return parts and parts[0]

        return decode


def codec_part(folder: Path, config: dict[str, Any]) -> Part:
    with torch.device("meta"):
        return Part(folder, ToyCodec(), in_folder(folder))


class ToyWords:
    """Implements `WordEncoder` without weights: a word's numbers come from its letters."""

    def __init__(self, config: ToyConfig):
        self.config = config

    def words(self, prompt: str) -> Tensor:
        told = prompt.split()[: self.config.text_len] or [""]
        return torch.stack([self.word(word) for word in told])[None]

    def word(self, word: str) -> Tensor:
        return torch.randn(self.config.text_dim, generator=torch.Generator().manual_seed(zlib.crc32(word.encode())))
