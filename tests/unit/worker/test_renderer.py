"""On the bundled model, with so few steps that it is quick and the pictures are coarse."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from flowcache.families.magi.vae import ViTVAE
from flowcache.families.magi.vae_codec import MagiCodec
from flowcache.families.magi.vae_config import ViTVAEConfig
from flowcache.families.registry import load_model
from flowcache.inputs.segments import plan
from flowcache.models.base import alone
from flowcache.planner.cost import cost
from flowcache.planner.price import cost_model
from flowcache.planner.workload import workload
from flowcache.records import RenderRequest, Shot
from flowcache.worker.renderer import (
    SegmentRenderer,
    encode_end,
    encode_pixels,
    shown_from_bytes,
    tail_from_bytes,
    tail_to_bytes,
    to_uint8,
)


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    return load_model("tiny-skyreels")


def request(*shots: Shot, **fields) -> RenderRequest:
    given = dict(width=64, height=64, fps=12, seed=1, guidance=3.0, steps=3, policy={"name": "off"})
    return RenderRequest("v", shots, model="tiny-skyreels", **{**given, **fields})


def rendered(model, wanted, segment, conditioning=None, end=None):
    renderer = SegmentRenderer(model, wanted, segment, conditioning, end)
    return list(renderer.chunks()), renderer.tail()


LONG = request(Shot("a red circle moving right on a blue background", 57 + 24))


def test_chunks_tile_the_segment(model):
    first, second = plan(LONG, model.spec)
    chunks, tail = rendered(model, LONG, first)
    assert [chunk.frames.shape for chunk in chunks] == [(9, 64, 64, 3)] + [(12, 64, 64, 3)] * 4
    assert [chunk.start_frame for chunk in chunks] == [0, 9, 21, 33, 45]
    assert tail.shape[1] == model.spec.overlap
    chunks, _ = rendered(model, LONG, second, tail)
    assert [(chunk.chunk, chunk.start_frame, len(chunk.frames)) for chunk in chunks] == [(5, 57, 12), (6, 69, 12)]


def test_a_segment_depends_on_its_inputs_alone(model):
    """The second segment from the stored tail, in whatever order things ran: bit for bit."""
    first, second = plan(LONG, model.spec)
    _, tail = rendered(model, LONG, first)
    once, _ = rendered(model, LONG, second, tail)
    rendered(model, request(Shot("a green square", 21), seed=9), plan(request(Shot("x", 21)), model.spec)[0])
    again, _ = rendered(model, LONG, second, tail_from_bytes(tail_to_bytes(tail)))
    assert all(np.array_equal(a.frames, b.frames) for a, b in zip(once, again, strict=True))


class Watched:
    """A codec that keeps what it was asked to encode, and what it decoded, by decoder."""

    def __init__(self, codec):
        self.codec, self.encoded, self.decoded = codec, [], []

    def encode(self, video):
        self.encoded.append(video)
        return self.codec.encode(video)

    def stream(self, share=alone):
        decode = self.codec.stream(share)
        self.decoded.append([])

        def watched(latents):
            self.decoded[-1].append(decode(latents))
            return self.decoded[-1][-1]

        return watched


@pytest.mark.parametrize("start", ["text", "video"])
def test_a_continuation_goes_by_the_pixels_first_shown(model, start):
    """As diffusion_forcing_pipeline.py does: not by what a later window decodes anew of them. 12 frames a window, and
    21 to be conditioned on, which lie in three windows."""
    watched = replace(model, codec=Watched(model.codec), spec=replace(model.spec, window=9, overlap=6))
    video = torch.randn(3, 21, 64, 64, generator=torch.Generator().manual_seed(0)).tanh() if start == "video" else None
    frames, media = (48, {"video": "x.mp4"}) if start == "video" else (33 + 36, {})
    wanted = request(Shot("a red circle", frames, cut=video is None), **media)
    segments = plan(wanted, watched.spec)
    shown = [] if video is None else [video]
    tail, before = None if video is None else model.codec.encode(video), video
    for segment in segments:
        renderer = SegmentRenderer(watched, wanted, segment, tail, shown=before)
        chunks = list(renderer.chunks())
        shown += watched.codec.decoded[-1][-len(chunks) :]
        if segment is not segments[-1]:
            data = tail_to_bytes(renderer.tail(), renderer.shown_before_next())
            tail, before = tail_from_bytes(data), shown_from_bytes(data)
            assert torch.equal(watched.codec.encoded[-1], torch.cat(shown, dim=1)[:, -21:])
            # The state holds no more pixels than are asked for: 9 of the 21, and none where nobody asks.
            assert (before is None) == (segment is segments[-2]) and (before is None or before.shape[1] == 9)
    assert len(segments) == 4


def test_where_a_window_adds_what_the_next_one_needs_no_pixels_are_kept(model):
    first, _ = plan(LONG, model.spec)
    renderer = SegmentRenderer(model, LONG, first, None)
    assert list(renderer.chunks()) and renderer.shown_before_next() is None


def test_a_segment_that_is_resumed_takes_the_same_decisions(model):
    wanted = replace(LONG, steps=5, policy={"name": "flowcache", "preset": "fast", "ret_steps": 1, "threshold": 3.0})
    first, second = plan(wanted, model.spec)
    _, tail = rendered(model, wanted, first)
    once, _ = rendered(model, wanted, second, tail)
    again, _ = rendered(model, wanted, second, tail_from_bytes(tail_to_bytes(tail)))
    decisions = [chunk.decisions for chunk in once]
    assert decisions == [chunk.decisions for chunk in again] and len(decisions) == second.chunks
    for chunk in once:
        steps = "".join(chunk.decisions)
        assert [len(branch) for branch in chunk.decisions] == [5, 5] and chunk.kv_bytes > 0
        assert (steps.count("1"), steps.count("0")) == (chunk.steps_computed, chunk.steps_reused) and "0" in steps


@pytest.mark.parametrize("kv", [{}, {"keep": "recent", "chunks": 2}])
@pytest.mark.parametrize("image", [None, "picture.png"])
def test_all_segments_of_a_budget_take_the_same_steps_and_the_forwards_that_are_planned(model, kv, image):
    """Fresh, from a picture, and continued; K/V kept whole or in part."""
    wanted = replace(
        LONG, steps=6, image=image, policy={"name": "flowcache", "budget": 0.5, **({"kv": kv} if kv else {})}
    )
    tail = torch.zeros(24, 1, 8, 8) if image else None
    found = []
    for segment in plan(wanted, model.spec):
        chunks, tail = rendered(model, wanted, segment, tail)
        found += chunks
    (steps,) = {len(branch) for chunk in found for branch in chunk.decisions}
    assert 1 < steps < 6 and {chunk.steps_computed for chunk in found} == {2 * steps}
    planned = cost(workload([wanted], cost_model({"tiny-skyreels": model.spec})))
    assert sum(chunk.forwards for chunk in found) == planned.most.forwards == planned.least.forwards
    assert planned.sampling == {f"{steps} of 6 steps, UniPC, corrected, not calibrated": 2}


def test_seed_and_prompt_change_the_picture(model):
    (segment,) = plan(request(Shot("a red circle", 21)), model.spec)
    asked = "a red circle moving left on a white background"
    pictures = [
        rendered(model, request(Shot(prompt, 21), seed=seed), segment)[0][0].frames.astype(int)
        for prompt, seed in ((asked, 1), (asked, 2), ("a blue square growing on a black background", 1))
    ]
    assert np.abs(pictures[0] - pictures[1]).mean() > 1 and np.abs(pictures[0] - pictures[2]).mean() > 1


def test_a_picture_becomes_the_first_frame(model):
    picture = np.full((1, 64, 64, 3), (200, 40, 40), np.uint8)
    wanted = request(Shot("a red circle", 21), image="x.png")
    (segment,) = plan(wanted, model.spec)
    chunks, _ = rendered(model, wanted, segment, encode_pixels(model, picture))
    assert np.abs(chunks[0].frames[0].astype(int) - picture[0].astype(int)).mean() < 8


def test_a_picture_that_is_a_whole_chunk_is_shown_too(model):
    """As officially without chunks: the picture, and after it what is denoised. Later windows begin as always."""
    picture = np.full((1, 64, 64, 3), (200, 40, 40), np.uint8)
    fields = dict(causal_block_size=1, base_num_frames=9, overlap_history=5, policy={"name": "dense"}, ar_step=0)
    wanted = request(Shot("a red circle", 17), image="x.png", **fields)
    first, *rest = plan(wanted, model.spec)
    conditioning = encode_pixels(model, picture)
    chunks, tail = rendered(model, wanted, first, conditioning)
    assert [(chunk.start_frame, len(chunk.frames), chunk.steps_computed) for chunk in chunks] == [
        (0, 1, 0), (1, 4, 6), (5, 4, 6)
    ]  # fmt: skip
    shown = model.codec.stream()(conditioning)
    assert (
        np.array_equal(chunks[0].frames, to_uint8(shown)) and np.abs(chunks[0].frames - picture.astype(int)).mean() < 8
    )
    for segment in rest:
        chunks, tail = rendered(model, wanted, segment, tail)
        assert [(chunk.start_frame, len(chunk.frames)) for chunk in chunks] == [(segment.start_frame, 4)]
    assert [segment.frames for segment in (first, *rest)] == [9, 4, 4]


def test_what_a_row_says_of_windows_and_noise_changes_the_picture(model):
    fields = ({}, {"shift": 2.0}, {"causal_block_size": 5}, {"policy": {"name": "dense"}})
    pictures = []
    for each in fields:
        wanted = request(Shot("a red circle", 57), **each)
        (segment,) = plan(wanted, model.spec)
        pictures.append(np.concatenate([chunk.frames for chunk in rendered(model, wanted, segment)[0]]).astype(int))
    assert all(len(frames) == 57 for frames in pictures)
    assert all(np.abs(pictures[0] - frames).mean() > 0.5 for frames in pictures[1:])


def test_a_picture_becomes_the_end(model):
    """The last four frames, of a fresh start and of a continuation alike; not as if there were no end."""
    picture = np.full((1, 64, 64, 3), (200, 40, 40), np.uint8)
    end = encode_end(model, picture)
    assert end.shape == (24, 1, 8, 8)
    for policy in ("off", "dense"):
        wanted = replace(LONG, policy={"name": policy})
        first, second = plan(wanted, model.spec)
        tail = encode_pixels(model, np.full((9, 64, 64, 3), (40, 40, 200), np.uint8))
        for segment, conditioning in ((first, None), (second, tail)):
            chunks, _ = rendered(model, wanted, segment, conditioning, end)
            assert np.abs(chunks[-1].frames[-4:].astype(int) - picture[0].astype(int)).mean() < 8


@pytest.mark.parametrize("policy", ["off", "dense", "paper"])
@pytest.mark.parametrize("fields", [{"ar_step": 0}, {"ar_step": 1000}, {"guidance": 1.0}, {"guidance": 0.0}])
def test_every_mode_renders(model, policy, fields):
    """Together, one after the other, without guidance: one short window, and a shorter last one after it."""
    wanted = request(Shot("a red circle", 57), Shot("a blue square", 12, cut=False), policy={"name": policy}, **fields)
    first, second = plan(wanted, model.spec)
    if "guidance" in fields:
        model = replace(model, text=OnlyPositive(model.text))
    chunks, tail = rendered(model, wanted, first)
    assert sum(len(chunk.frames) for chunk in chunks) == 57
    forwards = 3 if "guidance" in fields else 6
    assert all(chunk.steps_computed + chunk.steps_reused == forwards for chunk in chunks)
    (chunk,), _ = rendered(model, wanted, second, tail)
    assert len(chunk.frames) == 12 and chunk.chunk == 5


class OnlyPositive:
    """A text encoder that is not asked for the negative prompt."""

    def __init__(self, text):
        self.text = text

    def encode(self, prompt):
        assert prompt
        return self.text.encode(prompt)


def test_the_steps_between_chunks_matter(model):
    frames = [
        rendered(model, wanted, *plan(wanted, model.spec))[0][1].frames.astype(int)
        for wanted in (request(Shot("a red circle", 21), ar_step=ar_step) for ar_step in (None, 6, 0))
    ]
    assert np.array_equal(frames[0], frames[1]) and not np.array_equal(frames[0], frames[2])


def test_paper_counts_what_it_reused(model):
    wanted = request(Shot("a red circle", 21), steps=12, policy={"name": "paper", "preset": "slow", "threshold": 100.0})
    (segment,) = plan(wanted, model.spec)
    chunks, _ = rendered(model, wanted, segment)
    assert all(chunk.steps_computed + chunk.steps_reused == 24 and chunk.steps_reused > 0 for chunk in chunks)


def test_a_codec_that_is_not_causal_gives_every_chunk_as_many_frames(model):
    """With MAGI-1's VAE, untrained: 3 latent frames are 12 frames, first or not, after a picture or before one."""
    torch.manual_seed(0)
    vae = ViTVAE(ViTVAEConfig(z_chans=24, embed_dim=256, depth=1, num_heads=4, video_size=64))
    whole = replace(model, codec=MagiCodec(vae), spec=replace(model.spec, causal=False))
    wanted = request(Shot("a red circle", 60 + 24))
    first, second = plan(wanted, whole.spec)
    assert (first.frames, second.frames) == (60, 24)
    picture = encode_pixels(whole, np.full((1, 64, 64, 3), 90, np.uint8))
    chunks, tail = rendered(whole, wanted, first, picture)
    assert [(chunk.start_frame, len(chunk.frames)) for chunk in chunks] == [(12 * n, 12) for n in range(5)]
    assert tail.shape == (24, whole.spec.overlap, 8, 8)
    chunks, _ = rendered(whole, wanted, second, tail, encode_end(whole, np.full((1, 64, 64, 3), 90, np.uint8)))
    assert [(chunk.start_frame, len(chunk.frames)) for chunk in chunks] == [(60, 12), (72, 12)]
