"""MAGI-1's video VAE as a `Codec`: tiles, normalised latents, every latent frame four video frames."""

import math
from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor

from flowcache.families.magi.tiling import Tiling
from flowcache.families.magi.vae import ViTVAE
from flowcache.families.magi.vae_config import ViTVAEConfig
from flowcache.models.base import Share, alone

SCALE = 0.18215  # `scale_factor` of the official runtime configs
FRAMES = 12  # of a temporal tile at 24 fps, for which the VAE is published
HIDDEN = 11  # states of `embed_dim` that a tile's tokens have at once, those inside a feed-forward layer included


def tile_frames(fps: int, latent: int = 4) -> int:
    """Of a temporal tile at `fps`: the official half a second, in whole latent frames of `latent` video frames.

    The official code drops frames where half a second holds one latent frame (below 16 fps: decoding), so there it is
    as at 24 fps; and in encoding what is left of a tile beyond whole latent frames (such as 3 of 15 at 30 fps).
    """
    whole = fps // 2 // latent * latent
    return whole if whole > latent else FRAMES


def decoding_bytes(width: int, height: int, chunk: int, fps: int, tile: int | None, element: int) -> int:
    """Of `chunk` video frames by the published VAE, the weights included (benchmarks/roofline.py counts the same).

    tile: as in `MagiCodec`; element: bytes of a number of the weights. What was decoded is float32: all tiles wait for
    the last one, and are then joined, run by run of frames.
    """
    config = ViTVAEConfig()
    side, frames = tile or config.video_size, tile_frames(fps, config.patch_length)
    tokens = math.prod(
        -(-min(most, given) // each)
        for most, given, each in zip((frames, side, side), (chunk, height, width), config.patch, strict=True)
    )
    starts = Tiling(frames, side, side).starts
    area = math.prod(sum(min(side, extent - at) for at in starts(extent, side)) for extent in (height, width))
    pixel = 4 * config.in_chans
    shown, tiles, run = pixel * chunk * width * height, pixel * chunk * area, min(frames / chunk, 1)
    joining = shown + run * (shown + tiles)
    return element * numbers(config) + tiles + max(element * HIDDEN * tokens * config.embed_dim, int(joining))


@cache
def numbers(config: ViTVAEConfig) -> int:
    """Of a VAE's weights."""
    with torch.device("meta"):
        return sum(x.numel() for x in ViTVAE(config).parameters())


class MagiCodec:
    """Implements `Codec`, not causal: F latent frames are 4 F video frames. Latents are the mean times `SCALE`.

    The VAE computes in the precision of its weights; what goes in and comes out is float32.

    tile: edge of the square spatial tiles in pixels; None: that for which the VAE learned positions (256), as in the
    official pipeline. frames: of a temporal tile, see `at`. The transformers see one tile at a time, so other tiles
    give other pixels; frames of up to three quarters of a tile are one tile.

    The official `decode` keeps one frame of a tile that holds one latent frame, so that the 4 latent frames left of
    a chunk beside a prefix of 2 (tiles of 3 + 1) give 13 frames and not 16. Here such a tile gives all its 4 frames.
    """

    def __init__(self, vae: ViTVAE, tile: int | None = None, frames: int = FRAMES):
        config = vae.config
        tile = config.video_size if tile is None else tile
        # A quarter of a tile must be whole latent pixels, or the fading of latents and pixels would not match.
        self.check(tile, 4 * config.patch_size, "tile")
        self.check(frames, config.patch_length, "frames")
        self.vae, self.tile = vae, (frames, tile, tile)

    def at(self, fps: int) -> "MagiCodec":
        """With the temporal tiles of a video of so many frames a second."""
        return MagiCodec(self.vae, self.tile[1], tile_frames(fps, self.vae.config.patch_length))

    @staticmethod
    def check(value: int, step: int, name: str) -> None:
        if value % step or value < step:
            raise ValueError(f"{name} must be a multiple of {step}, not {value}")

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        """[3, T, H, W], T a multiple of 4 or 1 -> the posterior's mean, [z, ceil(T / 4), H / 8, W / 8].

        A single picture is shown for four frames, of which latent frame 0 is kept.
        """
        patch = self.vae.config.patch
        if video.shape[1] == 1:
            video = video.expand(-1, patch[0], -1, -1)
        if not video.numel() or any(n % p for n, p in zip(video.shape[1:], patch, strict=True)):
            raise ValueError(f"cannot encode a video of shape {list(video.shape)}")
        tiling = Tiling(*self.tile, chained=True)
        return tiling.run(lambda x: self.vae.mean(x[None])[0].float(), video.to(self._like)) * SCALE

    @torch.no_grad()
    def decode(self, latents: Tensor, share: Share = alone) -> Tensor | None:
        """[z, F, h, w] -> [3, 4 F, 8 h, 8 w], not clamped; None where `share` gives None."""
        config = self.vae.config
        frames, rows, columns = (n // p for n, p in zip(self.tile, config.patch, strict=True))
        tiling = Tiling(frames, rows, columns)
        tiles = tiling.cut((latents.to(self._like.device, torch.float32) / SCALE).to(self._like))
        shapes = [(1, config.in_chans, *(n * p for n, p in zip(z.shape[1:], config.patch, strict=True))) for z in tiles]
        decoded = share([partial(self._decoded, z[None]) for z in tiles], shapes)
        return None if decoded is None else tiling.join([pixels[0] for pixels in decoded], latents.shape)

    def _decoded(self, tile: Tensor) -> Tensor:
        return self.vae.decoder(tile).float()

    def stream(self, share: Share = alone) -> Callable[[Tensor], Tensor | None]:
        """Nothing is remembered: a chunk's tiles are its own, as in the official pipeline.

        So latents in runs of whole temporal tiles (at 24 fps 3 latent frames) give what they give at once.
        """

        def decode(latents: Tensor) -> Tensor | None:
            pixels = self.decode(latents, share)
            return None if pixels is None else pixels.clamp(-1, 1)

        return decode

    @property
    def _like(self) -> Tensor:
        return self.vae.encoder.cls_token
