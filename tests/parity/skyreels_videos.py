"""Whole videos of SkyReels-V2 as `worker.renderer` makes them, of models and codecs that are given as tensors."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from flowcache.cache.policy import Policy
from flowcache.families.skyreels.config import SkyReelsConfig
from flowcache.families.skyreels.transformer import SkyReelsTransformer
from flowcache.inputs.segments import plan
from flowcache.models.base import LoadedModel, Share, alone
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

PROMPTS = {"a thing": "in.prompt", "bad": "in.negative"}
SPEC = ModelSpec("m", "skyreels", "path", "digest", chunk=5, window=25, overlap=5, channels=16)


class Codec:
    """Causal and lossy, by five matrices: a frame is the tanh of two latent frames, of 8 by 8 pixels each."""

    def __init__(self, data: Mapping[str, Tensor]):
        """Those of `data` that are called `codec.`."""
        self.matrices = {key[6:]: value for key, value in data.items() if key.startswith("codec.")}

    def encode(self, video: Tensor) -> Tensor:
        """[3, T, H, W] to [C, F, h, w]."""
        pooled = F.avg_pool2d(video.transpose(0, 1), 8)  # [T, 3, h, w]
        latents = [torch.einsum("dc,chw->dhw", self.matrices["E"], pooled[0])]
        for four in pooled[1:].unflatten(0, (-1, 4)) if len(pooled) > 1 else ():
            new = torch.einsum("dc,chw->dhw", self.matrices["C"], four.transpose(0, 1).flatten(0, 1))
            latents.append(new + torch.einsum("de,ehw->dhw", self.matrices["D"], latents[-1]))
        return torch.stack(latents, 1)

    def stream(self, share: Share = alone):
        """Decodes the next latents with each call."""
        before = None

        def decode(latents: Tensor) -> Tensor:
            nonlocal before
            frames = []
            for latent in latents.unbind(1):
                last, parts = (torch.zeros_like(latent), [3]) if before is None else (before, range(4))
                for k in parts:
                    sides = (self.matrices["A"][k], latent), (self.matrices["B"][k], last)
                    frames.append(torch.stack([torch.einsum("cd,dhw->chw", *side) for side in sides]).sum(0).tanh())
                before = latent
            return torch.stack(frames, 1).repeat_interleave(8, 2).repeat_interleave(8, 3)

        return decode


class Texts:
    def __init__(self, data: Mapping[str, Tensor]):
        self.data = data

    def encode(self, prompt: str) -> Tensor:
        return self.data[PROMPTS[prompt]]


def transformer_of(
    sizes: Mapping[str, Any], heads: int, inject_sample_info: bool, weights: Mapping[str, Tensor] | None
) -> SkyReelsTransformer:
    """A model of the official sizes; `weights` may hold more than it takes, or be random ones."""
    with Given("config", dict(sizes)) as said:
        assert said["model_type"] == "t2v"
        said.skip("num_heads")
        config = SkyReelsConfig(
            dim=said["dim"], ffn_dim=said["ffn_dim"], heads=heads, layers=said["num_layers"],
            in_channels=said["in_dim"], out_channels=said["out_dim"], text_dim=said["text_dim"],
            text_len=said["text_len"], freq_dim=said["freq_dim"], inject_sample_info=inject_sample_info,
        )  # fmt: skip
    model = SkyReelsTransformer(config)
    if weights is not None:
        model.load_state_dict({k: v for k, v in weights.items() if inject_sample_info or not k.startswith("fps_")})
    return model.eval()


def request_of(settings: dict[str, Any], start: str | None, seed: int) -> RenderRequest:
    """A row that asks for what the official program was told."""
    with Given("settings", settings) as said:
        said.skip("inject_sample_info", "num_heads")
        names = "shift", "base_num_frames", "overlap_history", "causal_block_size", "ar_step", "width", "height", "fps"
        own = {name: said[name] for name in names}
        frames, continues = said["num_frames"], start == "video"
        shot = Shot("a thing", frames - said["overlap_history"] if continues else frames, cut=not continues)
        return RenderRequest(
            "v", (shot,), seed=seed, guidance=said["guidance"], steps=said["N"], model="m", policy={"name": "off"},
            negative_prompt="bad", addnoise_condition=said["addnoise_condition"], **own,
            **({start: "given"} if start else {}),
        )  # fmt: skip


def rendered(
    transformer: SkyReelsTransformer, data: Mapping[str, Tensor], request: RenderRequest, policy: Policy, seen: list
) -> Iterator[Tensor]:
    """The latents of each window, without the prefix of another; notes (window, visit) in `seen`.

    data: `codec.`*, `in.prompt`, `in.negative`, and for a request with one `in.image` or `in.video`.
    """
    model = LoadedModel(SPEC, transformer, Codec(data), Texts(data))
    tail, shown = None, None
    if start := next((name for name in ("image", "video") if getattr(request, name)), None):
        given = data[f"in.{start}"].numpy()
        tail, shown = encode_pixels(model, given), to_pixels(given) if start == "video" else None
    segments = plan(request, SPEC)
    for segment in segments:
        renderer, done = SegmentRenderer(model, request, segment, tail, shown=shown), []
        renderer.policy = policy
        watch(renderer, done, seen, segment.index)
        assert sum(len(chunk.frames) for chunk in renderer.chunks()) == segment.frames
        yield torch.cat(done, dim=1)
        if segment is not segments[-1]:
            state = tail_to_bytes(renderer.tail(), renderer.shown_before_next())
            tail, shown = tail_from_bytes(state), shown_from_bytes(state)


def watch(renderer: SegmentRenderer, done: list[Tensor], seen: list, window: int) -> None:
    """Keep the latents of each finished chunk, and the visits."""
    finished = renderer.finished

    def kept():
        for chunk in finished():
            done.append(chunk.latents)
            yield chunk

    renderer.finished = kept
    renderer._heed = lambda visit: seen.append((window, visit))
