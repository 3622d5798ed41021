"""Video codecs: pixels to latents and back."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from flowcache.models.base import Codec


class PatchCodec:
    """A fixed orthonormal linear map of 4x8x8 pixel patches onto their strongest directions. Implements `Codec`.

    Causal: the first latent frame stands for the first video frame (repeated to fill its patch),
    every further one for `time_stride` frames. Latents have zero mean and unit variance per channel.

    `basis`: [channels, 3 * time_stride * space_stride**2], rows orthonormal, ordered (colour, time, row, column);
    `mean`, `scale`: [channels].
    """

    def __init__(self, basis: Tensor, mean: Tensor, scale: Tensor, time_stride: int = 4, space_stride: int = 8):
        self.basis, self.mean, self.scale = basis, mean, scale
        self.time_stride, self.space_stride = time_stride, space_stride

    def encode(self, video: Tensor) -> Tensor:
        """[3, T, H, W] with T = 1 + n * time_stride -> [channels, 1 + n, H / space_stride, W / space_stride]."""
        if (video.shape[1] - 1) % self.time_stride or any(n % self.space_stride for n in video.shape[2:]):
            raise ValueError(f"cannot encode a video of shape {list(video.shape)}")
        patches = self.patches(video)
        return ((patches @ self.basis.T - self.mean) / self.scale).permute(3, 0, 1, 2)

    def patches(self, video: Tensor) -> Tensor:
        """[3, T, H, W] -> [F, H / 8, W / 8, 3 * 4 * 8 * 8]."""
        first = video[:, :1].expand(-1, self.time_stride - 1, -1, -1)
        padded = torch.cat([first, video.to(self.basis)], dim=1)
        t, s = self.time_stride, self.space_stride
        blocks = padded.unflatten(3, (-1, s)).unflatten(2, (-1, s)).unflatten(1, (-1, t))
        return blocks.permute(1, 3, 5, 0, 2, 4, 6).flatten(3)  # [3, F, t, h, s, w, s] -> [F, h, w, 3 t s s]

    def decode(self, latents: Tensor) -> Tensor:
        """[channels, F, h, w] -> [3, F * time_stride, H, W], not clamped."""
        t, s = self.time_stride, self.space_stride
        patches = (latents.to(self.basis).permute(1, 2, 3, 0) * self.scale + self.mean) @ self.basis
        blocks = patches.unflatten(3, (3, t, s, s)).permute(3, 0, 4, 1, 5, 2, 6)
        return blocks.flatten(5, 6).flatten(3, 4).flatten(1, 2)

    def stream(self) -> Callable[[Tensor], Tensor]:
        started = False

        def decode(latents: Tensor) -> Tensor:
            nonlocal started
            video = self.decode(latents)
            if not started:  # the first latent frame holds one frame four times
                video = torch.cat([video[:, : self.time_stride].mean(1, keepdim=True), video[:, self.time_stride :]], 1)
                started = True
            return video.clamp(-1, 1)

        return decode


def load_codec(folder: str | Path) -> Codec:
    """The codec of a checkpoint's `vae` folder, chosen by `_class_name` in its config.json."""
    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text())
    name = config["_class_name"]
    if name != "PatchCodec":
        raise ValueError(f"{folder}: unknown codec {name!r}, known: PatchCodec")
    tensors = load_file(folder / "diffusion_pytorch_model.safetensors")
    tensors = {key: tensor.float() for key, tensor in tensors.items()}
    return PatchCodec(**tensors, time_stride=config["time_stride"], space_stride=config["space_stride"])
