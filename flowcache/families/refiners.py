"""What the linear decoder of `PatchCodec` misses, guessed by small networks."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PatchRefiner(nn.Module):
    """A correction of each patch from the latents around it and those one frame earlier."""

    def __init__(self, channels: int, hidden: int, patch: int):
        super().__init__()
        self.mix = nn.Conv2d(2 * channels, hidden, 3, padding=1)
        self.deepen = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.out = nn.Conv2d(hidden, patch, 1)

    def forward(self, latents: Tensor, before: Tensor) -> Tensor:
        """Latents and those one frame earlier, [F, C, h, w] each -> [F, patch, h, w]."""
        x = F.gelu(self.mix(torch.cat([latents, before], dim=1)))
        return self.out(F.gelu(x + self.deepen(x)))


class EdgeRefiner(nn.Module):
    """Takes a picture for one shape on a ground, and redraws how much of the shape's colour each pixel has.

    Both colours are read off the linear decoder's picture, so that the network sees edges alone, whatever their
    colours; what is of neither colour stays, the less of it (noise of the latents) the less.
    """

    EMBEDDING, DEPTH = 48, 3
    SHARPNESS = 6.0  # of the redrawn edge where the network adds nothing
    NOISE = 0.5  # of a third colour: half of such a deviation stays

    def __init__(self, time_stride: int, space_stride: int, hidden: int):
        super().__init__()
        self.stride, patch = space_stride, time_stride * space_stride**2
        self.embed = nn.Conv2d(2 * patch, self.EMBEDDING, 1)
        self.mix = nn.Conv2d(self.EMBEDDING, hidden, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(hidden, hidden, 3, padding=1) for _ in range(self.DEPTH))
        self.out = nn.Conv2d(hidden, patch, 1)

    def forward(self, video: Tensor, before: Tensor) -> Tensor:
        """The linear decoder's frames, and those of the latents one frame earlier: [F, 3, t, H, W] -> alike."""
        ground = shaded_ground(video)
        axis = shape_colour(video - ground)
        mask, mask_before = (share_of(axis, each - ground) for each in (video, before))
        rest = video - ground - mask * axis
        kept = rest.square().sum(1, keepdim=True)
        redrawn = torch.sigmoid(self.SHARPNESS * (mask - 0.5) + self.edges(mask, mask_before))
        return ground + redrawn * axis + rest * kept / (kept + self.NOISE**2)

    def edges(self, mask: Tensor, before: Tensor) -> Tensor:
        """[F, 1, t, H, W] each -> what is added to the redrawn mask's logits."""
        patches = [F.pixel_unshuffle(each[:, 0].clamp(-1, 2), self.stride) for each in (mask, before)]
        x = self.mix(self.embed(torch.cat(patches, dim=1)))
        for block in self.blocks:
            x = x + block(F.gelu(x))
        return F.pixel_shuffle(self.out(F.gelu(x)), self.stride)[:, None]


def shaded_ground(video: Tensor, rounds: int = 4, reach: float = 0.2) -> Tensor:
    """The colour of most pixels, which shades evenly from top to bottom: [F, 3, t, H, W] -> [F, 3, 1, H, 1].

    A line through each colour's rows, fitted again and again with what lies further than `reach` left out (weights of
    Geman and McClure); every second pixel will do.
    """
    rows = video[..., ::2, ::2].transpose(2, 3).flatten(3)  # [F, 3, H / 2, t * W / 2]
    y = torch.linspace(-1, 1, video.shape[3], device=video.device)
    every = y[::2]
    ordered = rows.flatten(2).sort(-1).values
    level, slope = ordered[..., ordered.shape[-1] // 2, None], torch.zeros_like(ordered[..., :1])
    for _ in range(rounds):
        apart = (rows - (level + slope * every)[..., None]).square().sum(1, keepdim=True)
        weight = (1 + apart / reach**2).pow(-2)
        share = weight.sum(-1) / weight.sum((-1, -2))[..., None]  # of each row
        colour = (rows * weight).sum(-1) / weight.sum((-1, -2))[..., None]
        middle = (share * every).sum(-1, keepdim=True)
        slope = (colour * (every - middle)).sum(-1, keepdim=True)
        slope = slope / (share * (every - middle).square()).sum(-1, keepdim=True).clamp(min=1e-3)
        level = colour.sum(-1, keepdim=True) - slope * middle
    return (level + slope * y)[:, :, None, :, None]


def shape_colour(apart: Tensor, rounds: int = 4, reach: float = 0.2) -> Tensor:
    """The commonest of strong deviations from the ground: [F, 3, t, H, W] -> [F, 3, 1, 1, 1]; a mean shift."""
    pixels = apart[..., ::2, ::2].flatten(2)
    strength = pixels.square().sum(1, keepdim=True)
    colour = weighted_mean(pixels, strength.square())
    for _ in range(rounds):
        near = (-(pixels - colour).square().sum(1, keepdim=True) / (2 * reach**2)).exp()
        colour = weighted_mean(pixels, strength * near)
    return colour[..., None, None]


def weighted_mean(pixels: Tensor, weight: Tensor) -> Tensor:
    """[F, 3, N] and [F, 1, N] -> [F, 3, 1]."""
    return (pixels * weight).sum(-1, keepdim=True) / weight.sum(-1, keepdim=True).clamp(min=1e-6)


def share_of(axis: Tensor, apart: Tensor) -> Tensor:
    """How far along the axis deviations lie, [F, 3, t, H, W] -> [F, 1, t, H, W]: 0 the ground, 1 the shape."""
    length = axis.square().sum(1, keepdim=True).clamp(min=0.1)  # of a picture without a shape
    return (apart * axis).sum(1, keepdim=True) / length
