"""The latents of a window, chunk by chunk, and what of them is given."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from flowcache.models.upload import uploaded
from flowcache.sampling.records import NotFinite

NoiseOf = Callable[[int], Tensor]  # row -> fresh noise for the whole prefix chunks [C, P, H, W]


@dataclass(frozen=True)
class Given:
    """Frames that are not denoised: see `loop.denoise`."""

    prefix: Tensor | None = None
    end: Tensor | None = None
    condition_noise_of: NoiseOf | None = None

    @property
    def before(self) -> int:
        """Latent frames given at the front."""
        return 0 if self.prefix is None else self.prefix.shape[1]

    @property
    def after(self) -> int:
        """Latent frames given at the end."""
        return 0 if self.end is None else self.end.shape[1]


class Latents:
    """Of all chunks in fp32. ready: so many chunks at the front are given whole, and are not denoised."""

    def __init__(self, noise: Tensor, given: Given, chunk: int, prefix_timestep: float, device: torch.device):
        """noise: [C, F, H, W]; chunk: in latent frames. ValueError where what is given does not fit."""
        frames, before, after = noise.shape[1], given.before, given.after
        self.chunk, self.ready = chunk, before // chunk
        self._noise_of = given.condition_noise_of if self.ready and prefix_timestep > 0 else None
        self._share = prefix_timestep / 1000
        _check(given, frames, chunk, self.ready > 0 and prefix_timestep > 0)
        parts = [part for part in (given.prefix, noise[:, before : frames - after], given.end) if part is not None]
        start = torch.cat([uploaded(part, device, torch.float32) for part in parts], dim=1)
        self.chunks = list(start.split(chunk, dim=1))
        # Of whole prefix chunks no frame counts as given: they are not denoised at all.
        fixed = [self.ready * chunk <= frame < before or frame >= frames - after for frame in range(frames)]
        self.given = torch.tensor(fixed).split(chunk)  # of each chunk [f], on the CPU
        self._masks = {i: uploaded(mask[:, None, None], device) for i, mask in enumerate(self.given) if mask.any()}

    def __len__(self) -> int:
        return len(self.chunks)

    def seen(self, row: int, chunk: int) -> Tensor:
        """The chunk's latents as the model sees them in this row: a prefix is noised a little."""
        x = self.chunks[chunk]
        if chunk >= self.ready or self._noise_of is None:
            return x
        noise = uploaded(self._noise_of(row)[:, chunk * self.chunk : (chunk + 1) * self.chunk], x.device, x.dtype)
        return noise * self._share + x * (1 - self._share)

    def free(self, chunk: int, values: Tensor) -> Tensor:
        """Values of the chunk's frames, alike; 0 for those that are given."""
        return values.masked_fill(self._masks[chunk], 0) if chunk in self._masks else values

    def replace(self, chunk: int, result: Tensor, last: bool) -> None:
        """Take a step's result, of which given frames stay as they are. NotFinite where the last one is not."""
        if chunk in self._masks:
            result = torch.where(self._masks[chunk], self.chunks[chunk], result)
        self.chunks[chunk] = result
        if last and not result.isfinite().all():
            raise NotFinite(chunk)


def _check(given: Given, frames: int, chunk: int, noised: bool) -> None:
    if given.after > chunk:
        raise ValueError(f"an end of {given.after} latent frames is longer than a chunk of {chunk}")
    if given.before + given.after >= frames:
        raise ValueError(
            f"{given.before} given latent frames before and {given.after} after leaves nothing of {frames}"
        )
    if noised and given.condition_noise_of is None:
        raise ValueError("a prefix with condition_noise > 0 needs condition_noise_of")
