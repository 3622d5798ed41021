"""Video codecs: pixels to latents and back."""

from collections.abc import Callable
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flowcache.families.base import CodecKind
from flowcache.families.known import answers, left_out
from flowcache.families.refiners import EdgeRefiner, PatchRefiner
from flowcache.models.base import Codec, Share, alone
from flowcache.models.build import built
from flowcache.models.json_files import read_object
from flowcache.models.part import Part
from flowcache.models.tensors import fault, in_folder
from flowcache.models.wan_vae import WanCodec, diffusers_part, official_part

WEIGHTS = "diffusion_pytorch_model.safetensors"


class PatchCodec(nn.Module):
    """4x8x8 pixel patches by their strongest directions: an orthonormal linear map, undone with a little help.

    Implements `Codec`. Causal (SkyReels-V2): the first latent frame stands for the first video frame (repeated to
    fill its patches), every further one for `time_stride` frames. Otherwise (MAGI-1) each stands for `time_stride`
    frames; a single frame is repeated. Latents have zero mean and unit variance per channel. Encoding is linear;
    decoding adds what a refiner of `hidden` channels guesses (0: none): an `EdgeRefiner` or, before those, a
    `PatchRefiner`.
    """

    basis: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        channels: int,
        time_stride: int = 4,
        space_stride: int = 8,
        hidden: int = 0,
        causal: bool = True,
        refines: str = "edges",
    ):
        super().__init__()
        self.channels, self.time_stride, self.space_stride, self.hidden = channels, time_stride, space_stride, hidden
        self.causal = causal
        patch = 3 * time_stride * space_stride**2  # ordered (colour, time, row, column)
        self.register_buffer("basis", torch.eye(patch)[:channels].clone())  # rows are orthonormal
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))
        self.refines = refines
        if refines not in ("edges", "patches"):
            raise ValueError(f"refines: got {refines!r}; accepted: edges, patches")
        self.refiner: EdgeRefiner | PatchRefiner | None = None
        if hidden and refines == "edges":
            self.refiner = EdgeRefiner(time_stride, space_stride, hidden)
        elif hidden:
            self.refiner = PatchRefiner(channels, hidden, patch)

    def encode(self, video: Tensor) -> Tensor:
        """[3, T, H, W] -> [channels, F, H / space_stride, W / space_stride].

        T = 1 + (F - 1) * time_stride where causal, else F * time_stride or 1.
        """
        frames = video.shape[1] + self.padding(video)
        if frames % self.time_stride or any(n % self.space_stride for n in video.shape[2:]):
            raise ValueError(f"cannot encode a video of shape {list(video.shape)}")
        return ((self.patches(video) @ self.basis.T - self.mean) / self.scale).permute(3, 0, 1, 2)

    def patches(self, video: Tensor) -> Tensor:
        """[3, T, H, W] -> [F, h, w, patch]."""
        video = video.to(self.basis)
        padded = torch.cat([video[:, :1].expand(-1, self.padding(video), -1, -1), video], dim=1)
        t, s = self.time_stride, self.space_stride
        blocks = padded.unflatten(3, (-1, s)).unflatten(2, (-1, s)).unflatten(1, (-1, t))
        return blocks.permute(1, 3, 5, 0, 2, 4, 6).flatten(3)  # [3, F, t, h, s, w, s] -> [F, h, w, (3, t, s, s)]

    def padding(self, video: Tensor) -> int:
        """How often more the first frame is there for the codec."""
        return self.time_stride - 1 if self.causal or video.shape[1] == 1 else 0

    def decode(self, latents: Tensor, before: Tensor | None = None) -> Tensor:
        """[channels, F, h, w] -> [3, F * time_stride, H, W], not clamped; `before`: the latents one frame earlier."""
        before = shifted(latents, torch.zeros_like(latents[:, :1])) if before is None else before
        latents, before = latents.to(self.basis), before.to(self.basis)
        if isinstance(self.refiner, EdgeRefiner):
            return self.refiner(self.frames(latents), self.frames(before)).transpose(0, 1).flatten(1, 2)
        more = self.refiner(latents.transpose(0, 1), before.transpose(0, 1)) if self.refiner else None
        return self.frames(latents, more).transpose(0, 1).flatten(1, 2)

    def frames(self, latents: Tensor, more: Tensor | None = None) -> Tensor:
        """[channels, F, h, w] -> [F, 3, time_stride, H, W] by the basis alone; more: added, [F, patch, h, w]."""
        t, s = self.time_stride, self.space_stride
        patches = (latents.permute(1, 2, 3, 0) * self.scale + self.mean) @ self.basis
        if more is not None:
            patches = patches + more.permute(0, 2, 3, 1)
        return patches.unflatten(3, (3, t, s, s)).permute(0, 3, 4, 1, 5, 2, 6).flatten(5, 6).flatten(3, 4)

    def stream(self, share: Share = alone) -> Callable[[Tensor], Tensor | None]:
        """Every latent frame on its own, with the one before."""
        last: Tensor | None = None

        @torch.no_grad()
        def decode(latents: Tensor) -> Tensor | None:
            nonlocal last
            latents = latents.to(self.basis)
            first = last is None
            before = shifted(latents, torch.zeros_like(latents[:, :1]) if last is None else last)
            last = latents[:, -1:]
            pairs = list(zip(latents.split(1, dim=1), before.split(1, dim=1), strict=True))
            shape = 3, self.time_stride, *(self.space_stride * side for side in latents.shape[2:])
            parts = share([partial(self.decode, *pair) for pair in pairs], [shape] * len(pairs))
            if parts is None:
                return None
            if first and self.causal:  # it holds one frame, time_stride times
                parts[0] = parts[0].mean(1, keepdim=True)
            return torch.cat(parts, dim=1).clamp(-1, 1)

        return decode


def shifted(latents: Tensor, before: Tensor) -> Tensor:
    """Each latent frame's predecessor, the first one's being `before` [C, 1, h, w]."""
    return torch.cat([before, latents[:, :-1]], dim=1)


def load_codec(
    path: str | Path, device: str | torch.device = "cpu", tile: int | None = None, dtype: str = "auto"
) -> Codec:
    """The codec of a checkpoint: its `vae` folder, by `_class_name` in its config.json, or Wan2.1_VAE.pth.

    tile: see WanCodec and MagiCodec. dtype: "bf16", "fp32" or "auto": bf16 on a GPU where the official program does so.
    InputError names each damaged tensor.
    """
    part, kind = _opened(Path(path))
    half = dtype == "bf16" or (dtype == "auto" and kind.half and str(device).startswith("cuda"))
    return kind.codec(part.load(device, torch.bfloat16 if half else torch.float32), tile)


def codec_part(path: Path) -> Part:
    """The codec's module and files: Wan2.1_VAE.pth, or a folder."""
    return _opened(path)[0]


def latent_grid(path: Path, module: Any) -> tuple[int, int, int] | None:
    """Channels, and video frames and pixels of a latent one, of a codec's module; None: its kind does not tell."""
    grid = _kind(path)[0].grid
    return grid and grid(module)


def _opened(path: Path) -> tuple[Part, CodecKind]:
    """The module, and what it is."""
    kind, config = _kind(path)
    return kind.part(path, config) if path.is_dir() else official_part(path), kind


def _kind(path: Path) -> tuple[CodecKind, dict[str, Any]]:
    """Of what lies there, and what its config says."""
    if not path.is_dir():
        return KINDS["AutoencoderKLWan"], {}
    config = read_object(path / "config.json", "codec config")
    name, known = config.get("_class_name"), dict(KINDS)
    for _, own in answers(lambda family: dict(family.codecs())) if name not in [*known] else ():  # it may be anything
        known |= own
        if name in [*known]:
            break
    if name not in [*known]:
        message = f"has codec {name!r}; accepted: {', '.join(known)}{left_out()}"
        raise fault(path / "config.json", message, "_class_name")
    return known[name], config


def _patch_part(path: Path, config: dict) -> Part:
    def make() -> PatchCodec:
        shape = (config[key] for key in ("latent_channels", "time_stride", "space_stride", "hidden"))
        return PatchCodec(*shape, causal=config.get("causal", True), refines=config.get("refines", "patches"))

    return Part(path, built(make, path / "config.json", config), in_folder(path))


# Of no one family; by `_class_name`.
PATCHES: Callable[[Any], tuple[int, int, int]] = attrgetter("channels", "time_stride", "space_stride")
KINDS = {
    "PatchCodec": CodecKind(_patch_part, lambda codec, tile: codec, grid=PATCHES),
    "AutoencoderKLWan": CodecKind(diffusers_part, WanCodec, grid=lambda vae: (vae.config.z_dim, 4, 8)),
}
