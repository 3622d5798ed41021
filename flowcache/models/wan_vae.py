"""The Wan 2.1 video VAE (diffusers' AutoencoderKLWan) as a `Codec`, from diffusers' files or Wan2.1_VAE.pth.

Computes in the precision of its weights; the official code has float32 weights and decodes under bfloat16 autocast.
"""

import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowcache.models.base import Share, alone
from flowcache.models.build import built
from flowcache.models.part import Part
from flowcache.models.tensors import fault, in_folder, in_pth

RESNETS = 3  # of each level of the decoder, before its upsampler
WIDTH = 96  # channels at full resolution
HISTORY, WORK = 25, 26  # full-resolution frames of that width that decoding remembers, and holds beside them
WEIGHTS = 127 * 2**20  # numbers, of the decoder and the encoder

# Official -> diffusers: as prefixes, then inside a residual block.
TOP = {
    "conv1.": "quant_conv.",
    "conv2.": "post_quant_conv.",
    "encoder.conv1.": "encoder.conv_in.",
    "decoder.conv1.": "decoder.conv_in.",
    "encoder.head.0.": "encoder.norm_out.",
    "decoder.head.0.": "decoder.norm_out.",
    "encoder.head.2.": "encoder.conv_out.",
    "decoder.head.2.": "decoder.conv_out.",
    "encoder.downsamples.": "encoder.down_blocks.",
}
MIDDLE = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}
RESIDUAL = {
    "residual.0.": "norm1.",
    "residual.2.": "conv1.",
    "residual.3.": "norm2.",
    "residual.6.": "conv2.",
    "shortcut.": "conv_shortcut.",
}


def decoding_bytes(width: int, height: int, tile: int | None, element: int) -> int:
    """Of frames, the weights included (benchmarks/roofline.py counts the same). element: bytes of a number.

    tile: side of the squares in which it is done, as in WanCodec; each remembers a history of its own.
    """
    size = tile or max(width, height)
    rows, columns = (
        sum(min(size, side - at) for at in starts(side, size, size - size // 8)) for side in (height, width)
    )
    frames = HISTORY * rows * columns + WORK * min(size, height) * min(size, width)
    return element * (WIDTH * frames + WEIGHTS)


class WanCodec:
    """Implements `Codec`. Latents are normalised with the config's `latents_mean` and `latents_std`.

    tile: decode squares of so many pixels on their own, each an eighth into the next and blended with it: needs less
    memory, can be shared, and gives slightly different pixels. None: the whole frame at once.
    """

    def __init__(self, vae: Any, tile: int | None = None):
        if tile is not None and (tile % 64 or tile < 64):
            raise ValueError(f"tile must be a multiple of 64 pixels, not {tile}")
        self.vae, self.tile = vae, tile
        shape, device = (1, -1, 1, 1, 1), next(vae.parameters()).device
        self.dtype = next(vae.parameters()).dtype
        self.mean = torch.tensor(vae.config.latents_mean, device=device).view(shape)
        self.std = torch.tensor(vae.config.latents_std, device=device).view(shape)

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        """[3, T, H, W] with T = 1 + 4 n -> the posterior's mean, [C, 1 + n, H / 8, W / 8]."""
        if (video.shape[1] - 1) % 4 or any(side % 8 for side in video.shape[2:]):
            raise ValueError(f"cannot encode a video of shape {list(video.shape)}")
        moments = self.vae.encode(video[None].to(self.mean.device, self.dtype)).latent_dist
        return ((moments.mode().float() - self.mean) / self.std)[0]

    def stream(self, share: Share = alone) -> Callable[[Tensor], Tensor | None]:
        """Frame by frame with the causal convolutions' history, so the same however the latents are cut.

        A tile has a history of its own, so `share` can divide tiles, but not a whole frame.
        """
        caches: dict[tuple[int, int], list] = {}
        begun = False

        @torch.no_grad()
        def decode(latents: Tensor) -> Tensor | None:
            nonlocal begun
            z = self.vae.post_quant_conv((latents[None].to(self.mean) * self.std + self.mean).to(self.dtype))
            size, overlap = (self.tile // 8, self.tile // 64) if self.tile else (max(z.shape[3:]), 0)
            rows, columns = (starts(side, size, size - overlap) for side in z.shape[3:])
            cuts = {(r, c): z[..., r : r + size, c : c + size] for r in rows for c in columns}
            frames, begun = 4 * z.shape[2] - (0 if begun else 3), True
            shapes = [(1, 3, frames, *(8 * side for side in cut.shape[3:])) for cut in cuts.values()]
            tiles = share([partial(self._tile, cut, caches, place) for place, cut in cuts.items()], shapes)
            if tiles is None:
                return None
            bands = [joined(tiles[i : i + len(columns)], 8 * overlap, 4) for i in range(0, len(tiles), len(columns))]
            return joined(bands, 8 * overlap, 3)[0].clamp(-1, 1)

        return decode

    def _tile(self, z: Tensor, caches: dict[tuple[int, int], list], place: tuple[int, int]) -> Tensor:
        """Pixels [1, 3, t, 8 h, 8 w] of the next latents [1, C, f, h, w] of a tile."""
        from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d

        first = place not in caches
        if first:
            convolutions = sum(isinstance(module, WanCausalConv3d) for module in self.vae.decoder.modules())
            caches[place] = [None] * convolutions
        frames = [
            self.vae.decoder(frame, feat_cache=caches[place], feat_idx=[0], first_chunk=first and i == 0)
            for i, frame in enumerate(z.split(1, dim=2))
        ]
        return torch.cat(frames, dim=2).float()


def starts(side: int, size: int, stride: int) -> list[int]:
    """Where tiles begin; the last may be smaller than `size`."""
    return [0, *(at for at in range(stride, side, stride) if at + size - stride < side)]


def joined(tiles: list[Tensor], overlap: int, dim: int) -> Tensor:
    """Neighbouring tiles, faded linearly into each other where they overlap."""
    result = tiles[0]
    for tile in tiles[1:]:
        keep = result.shape[dim] - overlap
        shape = [1] * tile.ndim
        shape[dim] = overlap
        weight = ((torch.arange(overlap, device=tile.device) + 0.5) / overlap).view(shape)
        seam = torch.lerp(result.narrow(dim, keep, overlap), tile.narrow(dim, 0, overlap), weight)
        rest = tile.narrow(dim, overlap, tile.shape[dim] - overlap)
        result = torch.cat([result.narrow(dim, 0, keep), seam, rest], dim=dim)
    return result


def diffusers_name(name: str) -> str:
    """The diffusers name of a tensor of Wan2.1_VAE.pth."""
    for old, new in TOP.items():
        if name.startswith(old):
            name = new + name[len(old) :]
            break
    if match := re.match(r"(encoder|decoder)\.middle\.(\d)\.", name):
        name = f"{match[1]}.mid_block.{MIDDLE[match[2]]}.{name[match.end() :]}"
    if match := re.match(r"decoder\.upsamples\.(\d+)\.", name):
        level, place = divmod(int(match[1]), RESNETS + 1)
        inner = f"resnets.{place}" if place < RESNETS else "upsamplers.0"
        name = f"decoder.up_blocks.{level}.{inner}.{name[match.end() :]}"
    for old, new in RESIDUAL.items():
        name = name.replace(f".{old}", f".{new}")
    return name


def official_part(file: Path) -> Part:
    """Wan2.1_VAE.pth; the widths are read off its tensors, the rest is as published."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    stored = in_pth(file)
    shapes = {entry.name: entry.shape for entry in stored}
    try:
        base, latent = shapes["encoder.conv1.weight"][0], shapes["conv2.weight"][0]
    except (KeyError, IndexError):
        raise fault(file, "is no Wan VAE: encoder.conv1.weight or conv2.weight is missing") from None
    if latent != 16:
        raise fault(file, f"has {latent} latent channels; accepted: 16, as Wan 2.1", "conv2.weight")
    module = built(lambda: AutoencoderKLWan(base_dim=base), file, {})
    return Part(file, module, stored, diffusers_name)


def diffusers_part(folder: Path, config: dict) -> Part:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    # `from_config` gives a pair only where it is asked to
    make: Any = AutoencoderKLWan.from_config
    module = built(lambda: make(config), folder / "config.json", config)
    for name, least in (("latents_mean", -math.inf), ("latents_std", 0)):
        values, channels = getattr(module.config, name), module.config.z_dim
        sound = isinstance(values, list | tuple) and all(type(value) in (int, float) for value in values)
        if not sound or len(values) != channels or not all(least < value < math.inf for value in values):
            accepted = f"{channels} numbers{' above 0' if least == 0 else ''}, one for each latent channel"
            raise fault(folder / "config.json", f"got {str(values)[:60]}; accepted: {accepted}", name)
    return Part(folder, module, in_folder(folder))
