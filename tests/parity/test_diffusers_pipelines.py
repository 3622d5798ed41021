"""Whole videos against diffusers' own pipelines, on a tiny random checkpoint: latents, with the same noise.

Their scheduler gets the official noise levels. Block size 1 means attention both ways there (they mask nothing), larger
ones attention causal by blocks.
"""

from dataclasses import replace

import pytest
import torch
from diffusers import (
    AutoencoderKLWan,
    SkyReelsV2DiffusionForcingImageToVideoPipeline,
    SkyReelsV2DiffusionForcingPipeline,
    SkyReelsV2DiffusionForcingVideoToVideoPipeline,
    UniPCMultistepScheduler,
)

from flowcache.cache.policy import Policy
from flowcache.families.skyreels.config import SkyReelsConfig
from flowcache.families.skyreels.sampler import SamplerSettings
from flowcache.sampling.loop import Texts, denoise
from flowcache.sampling.solver import sigmas, timesteps
from tests.parity.diffusers_models import both

SETTINGS = SamplerSettings(steps=5, shift=4.0, guidance=3.0, ar_step=0, chunk=5, fps=24, condition_noise=20.0)
CHANNELS, SIDE, STRIDE = 4, 32, 8
STAGGERS = pytest.mark.parametrize("ar_step", [0, 2, 9])
BLOCKS = pytest.mark.parametrize("block", [1, 5])


class OfficialLevels(UniPCMultistepScheduler):
    def set_timesteps(self, steps, device=None):
        super().set_timesteps(steps, device)
        self.sigmas = sigmas(steps, SETTINGS.shift)
        self.timesteps = torch.tensor(timesteps(self.sigmas))


@pytest.fixture(scope="module")
def tiny():
    """Our transformer, and the parts of diffusers' pipelines around the same weights."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = SkyReelsConfig(
        dim=24, ffn_dim=32, heads=2, layers=2, in_channels=CHANNELS, out_channels=CHANNELS, text_dim=8, freq_dim=16,
        inject_sample_info=True,
    )  # fmt: skip
    ours, theirs = both(config)
    vae = AutoencoderKLWan(
        base_dim=8, z_dim=CHANNELS, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
        latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[1.5, 0.8, 2.0, 1.0],
    )  # fmt: skip
    scheduler = OfficialLevels(solver_order=2, prediction_type="flow_prediction", use_flow_sigmas=True)
    parts = {"transformer": theirs, "vae": vae.eval(), "scheduler": scheduler, "tokenizer": None, "text_encoder": None}
    return ours, parts


TEXTS = Texts(*torch.randn(2, 1, 6, 8, generator=torch.Generator().manual_seed(3)))


def theirs(kind, parts, settings, frames, **arguments):
    """Latents [C, F, h, w] of one of diffusers' pipelines."""
    pipeline = kind(**parts)
    pipeline.set_progress_bar_config(disable=True)
    torch.manual_seed(11)  # where they draw the noise on a prefix
    with torch.inference_mode():
        return pipeline(
            prompt=None,
            prompt_embeds=TEXTS.positive,
            negative_prompt_embeds=TEXTS.negative,
            height=SIDE,
            width=SIDE,
            num_frames=4 * frames - 3,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            generator=torch.Generator().manual_seed(7),
            output_type="latent",
            causal_block_size=settings.chunk,
            ar_step=settings.ar_step,
            fps=settings.fps,
            return_dict=False,
            **arguments,
        )[0][0]


def ours(model, settings, windows, prefix=None, end=None):
    """Latents of the windows, each of so many frames (and an end), chained by their last five; noise as `theirs`."""
    policy = Policy("vanilla", attention="full" if settings.chunk == 1 else "causal")
    generator, latents = torch.Generator().manual_seed(7), prefix
    torch.manual_seed(11)
    for number, frames in enumerate(windows):
        noise = torch.randn(1, CHANNELS, frames, SIDE // STRIDE, SIDE // STRIDE, generator=generator)[0]
        if end is not None:
            noise = torch.cat([noise, end], dim=1)
        given = latents if number == 0 else latents[:, -5:]
        of_row = None if given is None else in_order(given.shape)
        chunks = denoise(model, noise, TEXTS, settings, policy, given, of_row, end=end)
        new = [chunk.latents for chunk in chunks]
        latents = torch.cat([*([] if latents is None else [latents]), *new], dim=1)
    return latents


def in_order(shape):
    """Noise for each row of the schedule, drawn when it is first asked for."""
    drawn = {}

    def of_row(row):
        if row not in drawn:
            drawn[row] = torch.randn(shape)
        return drawn[row]

    return of_row


def assert_same(result, expected):
    assert result.shape == expected.shape and expected.std() > 0.1
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=0)


@BLOCKS
@STAGGERS
@pytest.mark.parametrize(("guidance", "fps"), [(3.0, 24), (1.0, 16)])
def test_text_to_video(tiny, block, ar_step, guidance, fps):
    model, parts = tiny
    settings = replace(SETTINGS, chunk=block, ar_step=ar_step, guidance=guidance, fps=fps)
    expected = theirs(SkyReelsV2DiffusionForcingPipeline, parts, settings, 10)
    assert_same(ours(model, settings, [10]), expected)


@BLOCKS
@pytest.mark.parametrize("ar_step", [0, 3])
@pytest.mark.parametrize("condition_noise", [0.0, 20.0])
def test_long_text_to_video(tiny, block, ar_step, condition_noise):
    """Three windows, each after the first beginning with the five last latents of the one before; the last is shorter.

    They chain latents where official long videos (and our segments) encode decoded pixels anew.
    """
    model, parts = tiny
    settings = replace(SETTINGS, chunk=block, ar_step=ar_step, condition_noise=condition_noise)
    expected = theirs(
        SkyReelsV2DiffusionForcingPipeline, parts, settings, 35,
        base_num_frames=57, overlap_history=17, addnoise_condition=condition_noise,
    )  # fmt: skip
    assert_same(ours(model, settings, [15, 15, 15]), expected)
    expected = theirs(
        SkyReelsV2DiffusionForcingPipeline, parts, settings, 20,
        base_num_frames=57, overlap_history=17, addnoise_condition=condition_noise,
    )  # fmt: skip
    assert_same(ours(model, settings, [15, 10]), expected)


def encoded(parts, pixels):
    """Normalised latents [C, F, h, w] of pixels [3, T, H, W]."""
    vae = parts["vae"]
    mean, std = (torch.tensor(x)[:, None, None, None] for x in (vae.config.latents_mean, vae.config.latents_std))
    with torch.inference_mode():
        return (vae.encode(pixels[None]).latent_dist.mode()[0] - mean) / std


def picture(seed):
    """[3, H, W] in -1..1."""
    return torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def shown(image):
    """As the pipelines take it: [1, 3, H, W] in 0..1."""
    return (image[None] + 1) / 2


@STAGGERS
@pytest.mark.parametrize("with_end", [False, True])
def test_image_to_video(tiny, ar_step, with_end):
    """At block size 1 the picture is a frame of its own, given at timestep 0; so is an end, one frame more than asked.

    That frame is cut off before decoding there, but not from latents.
    """
    model, parts = tiny
    settings = replace(SETTINGS, chunk=1, ar_step=ar_step, condition_noise=0.0)
    start, end = picture(1), picture(2) if with_end else None
    images = {"image": shown(start), "last_image": None if end is None else shown(end)}
    expected = theirs(SkyReelsV2DiffusionForcingImageToVideoPipeline, parts, settings, 6, **images)
    first, last = (None if image is None else encoded(parts, image[:, None]) for image in (start, end))
    assert_same(ours(model, settings, [6], first, last), expected)


@pytest.mark.parametrize("ar_step", [0, 3])
def test_image_to_video_by_blocks_is_wrong_there(tiny, ar_step):
    """A picture that fills no block is only the noise that its frame starts with there, and is then denoised away."""
    model, parts = tiny
    settings, start = replace(SETTINGS, ar_step=ar_step), picture(1)
    expected = theirs(SkyReelsV2DiffusionForcingImageToVideoPipeline, parts, settings, 10, image=shown(start))
    first = encoded(parts, start[:, None])
    assert (expected[:, :1] - first).abs().max() > 0.1
    noise = torch.randn(1, CHANNELS, 10, 4, 4, generator=torch.Generator().manual_seed(7))[0]
    noise[:, :1] = first
    chunks = denoise(model, noise, TEXTS, settings, Policy("off"))
    assert_same(torch.cat([chunk.latents for chunk in chunks], dim=1), expected)


@BLOCKS
@pytest.mark.parametrize("ar_step", [0, 3])
def test_video_continuation(tiny, block, ar_step):
    """The last 17 frames of a video, encoded, are the first five latents; two windows."""
    model, parts = tiny
    settings = replace(SETTINGS, chunk=block, ar_step=ar_step)
    video = torch.stack([picture(seed) for seed in range(20)])
    frames = [shown(frame)[0].permute(1, 2, 0).numpy() for frame in video]
    arguments = {"base_num_frames": 37, "overlap_history": 17, "addnoise_condition": 20}
    kind = SkyReelsV2DiffusionForcingVideoToVideoPipeline
    prefix = encoded(parts, video[-17:].transpose(0, 1))
    for total, windows in ((10, [10]), (15, [10, 10])):
        expected = theirs(kind, parts, settings, total, video=frames, **arguments)
        assert_same(ours(model, settings, windows, prefix), expected)
