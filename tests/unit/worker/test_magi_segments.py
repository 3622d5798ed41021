"""Segments of MAGI-1 on a tiny random model: lengths, captions, starts, and what one hands to the next."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from flowcache.families.magi.captions import Captions, SpecialTokens
from flowcache.families.magi.config import MagiConfig
from flowcache.families.magi.pipeline import Pipeline
from flowcache.families.magi.transformer import MagiTransformer
from flowcache.families.settings import resolve_policy, settings_of
from flowcache.inputs.segments import plan
from flowcache.models.base import LoadedModel, alone
from flowcache.records import ModelSpec, RenderRequest, Shot
from flowcache.sampling.loop import Texts, denoise
from flowcache.worker.noise import window_noise
from flowcache.worker.renderer import SegmentRenderer, captions, encode_pixels, tail_from_bytes, tail_to_bytes, to_uint8

SPEC = ModelSpec(
    "tiny", "magi", "path", "digest", chunk=2, window=8, overlap=4, channels=3, causal=False, patch=2,
    pipeline=Pipeline(passes=1, distilled=True),
)  # fmt: skip


class Coarse:
    """A codec whose latents are means of 4x8x8 pixels."""

    def encode(self, video):
        if video.shape[1] == 1:
            video = video.expand(-1, 4, -1, -1)
        return torch.nn.functional.avg_pool3d(video, (4, 8, 8))

    def stream(self, share):
        return lambda latents: latents.repeat_interleave(4, 1).repeat_interleave(8, 2).repeat_interleave(8, 3)


class Told:
    """Captions that depend on the prompt and on what remains."""

    def encode(self, prompt):
        return self.caption(prompt, 0)

    def caption(self, prompt, remaining):
        torch.manual_seed(len(prompt) * 100 + remaining)
        return torch.randn(1, 3, 4)


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = MagiConfig(
        dim=16,
        ffn_dim=32,
        heads=8,
        kv_heads=2,
        head_dim=8,
        layers=1,
        channels=3,
        text_dim=4,
        text_len=60,
        condition_dim=8,
    )
    return LoadedModel(SPEC, MagiTransformer(config).requires_grad_(False), Coarse(), Told())


def request(*shots, **fields):
    given = dict(width=16, height=16, fps=12, seed=1, guidance=1.0, steps=4, policy={"name": "off"})
    return RenderRequest("v", shots, model="tiny", **{**given, **fields})


def rendered(model, wanted, segment, conditioning=None):
    renderer = SegmentRenderer(model, wanted, segment, conditioning)
    return list(renderer.chunks()), renderer.tail()


def test_segments_tile_the_video_and_hand_on_clean_latents(model):
    wanted, tail, shown = request(Shot("a", 56)), None, []
    for segment in plan(wanted, SPEC):
        chunks, tail = rendered(model, wanted, segment, tail)
        shown += [(chunk.chunk, chunk.start_frame, len(chunk.frames)) for chunk in chunks]
        assert tail.shape == (3, 4, 2, 2)
        clean = np.concatenate([chunk.frames for chunk in chunks])[-16::4, ::8, ::8]
        again = ((tail.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 3, 0).numpy()
        assert np.array_equal(clean[-2:], again[-2:])
    assert shown == [(n, 8 * n, 8) for n in range(7)]


def test_a_segment_depends_on_its_inputs_alone(model):
    wanted = request(Shot("a", 48))
    first, second = plan(wanted, SPEC)
    _, tail = rendered(model, wanted, first)
    once, _ = rendered(model, wanted, second, tail)
    rendered(model, request(Shot("bb", 8), seed=5), plan(request(Shot("bb", 8)), SPEC)[0])
    again, _ = rendered(model, wanted, second, tail_from_bytes(tail_to_bytes(tail)))
    assert all(np.array_equal(a.frames, b.frames) for a, b in zip(once, again, strict=True))


def test_frames_beyond_whole_chunks_begin_the_output(model):
    """Of a video's start officially: 32 frames are a chunk and a part of the next one."""
    wanted = request(Shot("a", 16, cut=False), video="x.mp4", video_from="start")
    given = torch.randn(3, 3, 2, 2, generator=torch.Generator().manual_seed(0)).tanh()
    chunks, _ = rendered(model, wanted, *plan(wanted, SPEC), given)
    assert [(chunk.start_frame, len(chunk.frames)) for chunk in chunks] == [(0, 8), (8, 8)]
    assert np.array_equal(chunks[0].frames[:4], to_uint8(model.codec.stream(alone)(given[:, 2:])))


def test_all_in_one_segment_is_one_walk_with_a_caption_for_each_chunk(model):
    wanted = request(Shot("a", 40), Shot("bb", 16, cut=False), Shot("c", 8), segment="all")
    first, last = plan(wanted, SPEC)
    assert (first.chunks, first.frames, last.shot, last.chunks) == (7, 56, 2, 1)
    told = captions(wanted, first, SPEC)
    assert told == [("a", 6), ("a", 5), ("a", 4), ("a", 3), ("a", 2), ("bb", 1), ("bb", 0)]
    texts = Texts([model.text.caption(*each) for each in told])
    renderer = SegmentRenderer(model, wanted, first, None)
    noise = window_noise(SPEC, wanted, first, 0)
    official = denoise(
        model.transformer, noise, texts, settings_of(wanted, SPEC), resolve_policy({"name": "off"}, SPEC)
    )
    for ours, chunk in zip(renderer.finished(), official, strict=True):
        assert torch.equal(ours.latents, chunk.latents)


@pytest.mark.parametrize(
    "fields", [{"special_tokens": ("2d",)}, {"negative_prompt": "official"}, {"prev_chunks_scale": 0.2}, {}]
)
def test_what_a_row_says_of_captions_and_guidance_reaches_the_model(model, fields):
    """As the loop gives it with texts and settings made by hand."""
    torch.manual_seed(0)
    words, rows, null = torch.randn(1, 3, 4), torch.randn(100, 4), model.transformer.null_caption
    special = SpecialTokens(rows, negative=torch.randn(4, 4))
    # The one layer of this model leaves K/V that no text enters: only guidance by three passes shows the negative one.
    spec = replace(SPEC, pipeline=Pipeline()) if "negative_prompt" in fields else SPEC
    told = replace(model, text=Captions(lambda prompt: words, special), spec=spec)
    plain = request(Shot("a", 24), guidance=7.5)
    wanted = replace(plain, **fields)
    (segment,) = plan(wanted, spec)
    ours = [chunk.latents for chunk in SegmentRenderer(told, wanted, segment, None).finished()]
    marks = [rows[[16]]] * 3 if "special_tokens" in fields else [rows[[7 + left, 1]] for left in (2, 1, 0)]
    negative = torch.cat([special.negative[None], null], 1)[:, :50] if "negative_prompt" in fields else None
    texts = Texts([torch.cat([mark[None], words], 1) for mark in marks], negative)
    settings = replace(settings_of(plain, spec), prev_chunks_scale=fields.get("prev_chunks_scale", 0.7))
    noise, off = window_noise(spec, wanted, segment, 0), resolve_policy({"name": "off"}, spec)
    by_hand = [chunk.latents for chunk in denoise(model.transformer, noise, texts, settings, off)]
    assert all(torch.equal(one, other) for one, other in zip(ours, by_hand, strict=True))
    unsaid = [chunk.latents for chunk in SegmentRenderer(told, plain, segment, None).finished()]
    assert all(torch.equal(one, other) for one, other in zip(ours, unsaid, strict=True)) == (not fields)


def test_a_length_that_ends_inside_a_chunk(model):
    wanted = request(Shot("a", 37))
    chunks, _ = rendered(model, wanted, *plan(wanted, SPEC)[:1])
    assert [len(chunk.frames) for chunk in chunks] == [8, 8, 8, 8]
    (short,) = plan(request(Shot("a", 21)), SPEC)
    assert [len(chunk.frames) for chunk in rendered(model, request(Shot("a", 21)), short)[0]] == [8, 8, 5]
    assert [segment.frames for segment in plan(wanted, SPEC)] == [32, 5]


def test_a_picture_and_a_video_to_start_from(model):
    picture = np.full((1, 16, 16, 3), (250, 10, 10), np.uint8)
    wanted = request(Shot("a", 16), image="x.png")
    chunks, _ = rendered(model, wanted, *plan(wanted, SPEC), encode_pixels(model, picture))
    assert np.array_equal(chunks[0].frames[:4], picture.repeat(4, 0)) and not (chunks[0].frames[4:] == picture).all()
    video = np.random.default_rng(0).integers(0, 255, (16, 16, 16, 3), np.uint8)
    wanted = request(Shot("a", 16, cut=False), video="x.mp4")
    one, other = (
        rendered(model, wanted, *plan(wanted, SPEC), encode_pixels(model, v))[0] for v in (video, 255 - video)
    )
    assert len(one) == 2 and not np.array_equal(one[0].frames, other[0].frames)
