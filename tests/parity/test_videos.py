"""Whole videos, window after window, against the official SkyReels-V2 pipeline, with a codec that loses something.

What random settings found (docs/testing.md): overlaps larger than what a window adds, TeaCache's counter where it is
odd or a window is short, pictures without chunks. Noise is as `worker.noise` draws it for the case's seed.
"""

import pytest
import torch
import torch.nn.functional as F

from flowcache.inputs.segments import plan
from flowcache.models.base import LoadedModel, alone
from flowcache.records import ModelSpec, RenderRequest, Shot
from flowcache.worker.renderer import (
    SegmentRenderer,
    encode_pixels,
    shown_from_bytes,
    tail_from_bytes,
    tail_to_bytes,
    to_pixels,
)
from tests.parity.given import Given
from tests.parity.skyreels_runs import TOLERANCE, compare_calls, policy_of

PROMPTS = {"a thing": "in.prompt", "bad": "in.negative"}


class Codec:
    """Causal and lossy, by five matrices: a frame is the tanh of two latent frames, of 8 by 8 pixels each."""

    def __init__(self, matrices):
        self.matrices = matrices

    def encode(self, video):
        pooled = F.avg_pool2d(video.transpose(0, 1), 8)  # [T, 3, h, w]
        latents = [torch.einsum("dc,chw->dhw", self.matrices["E"], pooled[0])]
        for four in pooled[1:].unflatten(0, (-1, 4)) if len(pooled) > 1 else ():
            new = torch.einsum("dc,chw->dhw", self.matrices["C"], four.transpose(0, 1).flatten(0, 1))
            latents.append(new + torch.einsum("de,ehw->dhw", self.matrices["D"], latents[-1]))
        return torch.stack(latents, 1)

    def stream(self, share=alone):
        before = None

        def decode(latents):
            nonlocal before
            frames = []
            for latent in latents.unbind(1):
                last, parts = (torch.zeros_like(latent), [3]) if before is None else (before, range(4))
                for k in parts:
                    sides = (self.matrices["A"][k], latent), (self.matrices["B"][k], last)
                    frames.append(sum(torch.einsum("cd,dhw->chw", *side) for side in sides).tanh())
                before = latent
            return torch.stack(frames, 1).repeat_interleave(8, 2).repeat_interleave(8, 3)

        return decode


class Texts:
    def __init__(self, data):
        self.data = data

    def encode(self, prompt):
        return self.data[PROMPTS[prompt]]


def request_of(settings, start, seed):
    """A row that asks for what the official program was told."""
    with Given("settings", settings) as said:
        said.skip("inject_sample_info", "num_heads")
        names = (
            "shift",
            "base_num_frames",
            "overlap_history",
            "causal_block_size",
            "ar_step",
            "width",
            "height",
            "fps",
        )
        own = {name: said[name] for name in names}
        frames, continues = said["num_frames"], start == "video"
        shot = Shot("a thing", frames - said["overlap_history"] if continues else frames, cut=not continues)
        return RenderRequest(
            "v", (shot,), seed=seed, guidance=said["guidance"], steps=said["N"], model="m", policy={"name": "off"},
            negative_prompt="bad", addnoise_condition=said["addnoise_condition"], **own,
            **({start: "given"} if start else {}),
        )  # fmt: skip


@pytest.mark.golden("skyreels_videos", "cases")
def test_a_whole_video(golden, case):
    data, name = golden.tensors("skyreels_videos"), case["name"]
    with Given(f"case {name}", case) as said:
        settings, start, seed = (said[key] for key in ("settings", "start", "seed"))
        run = {key: said[key] for key in ("name", "kind", "causal_attention", "tea", "args")}
        said.skip("calls", "calls_cols")
    transformer = golden.model(settings["num_heads"], settings["inject_sample_info"])
    spec = ModelSpec("m", "skyreels", "path", "digest", chunk=5, window=25, overlap=5, channels=16)
    codec = Codec({key.removeprefix("codec."): value for key, value in data.items() if key.startswith("codec.")})
    model = LoadedModel(spec, transformer, codec, Texts(data))
    request, seen = request_of(settings, start, seed), []
    tail, shown = None, None
    if start:
        given = data[f"{name}.in.{start}"].numpy()
        tail, shown = encode_pixels(model, given), to_pixels(given) if start == "video" else None
    segments = plan(request, spec)
    for segment in segments:
        renderer, done = SegmentRenderer(model, request, segment, tail, shown=shown), []
        renderer.policy = policy_of(run, settings)
        watch(renderer, done, seen, segment.index)
        assert sum(len(chunk.frames) for chunk in renderer.chunks()) == segment.frames
        latents = torch.cat(done, dim=1)
        expected = data[f"{name}.x0_seg{segment.index}"]
        assert (latents - expected[:, -latents.shape[1] :]).abs().max() <= TOLERANCE
        if segment is not segments[-1]:
            state = tail_to_bytes(renderer.tail(), renderer.shown_before_next())
            tail, shown = tail_from_bytes(state), shown_from_bytes(state)
    assert f"{name}.x0_seg{len(segments)}" not in data
    compare_calls(case, seen)


def watch(renderer, done, seen, window):
    """Keep the latents of each finished chunk, and the visits."""
    finished = renderer.finished

    def kept():
        for chunk in finished():
            done.append(chunk.latents)
            yield chunk

    renderer.finished = kept
    renderer._heed = lambda visit: seen.append((window, visit))
