"""Renders one segment: a pure function of (request, segment, conditioning latents)."""

import time
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from itertools import accumulate
from threading import Event

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from flowcache.families.known import family
from flowcache.families.settings import resolve_policy, settings_of
from flowcache.inputs.segments import continues, plan
from flowcache.models.base import CaptionEncoder, LoadedModel, RequestCaptions
from flowcache.records import ModelSpec, RenderRequest, Segment
from flowcache.sampling.loop import FinishedChunk, Texts, Visit, denoise
from flowcache.worker.guard import Guard, Raised, within
from flowcache.worker.noise import latent_shape, normal, window_noise
from flowcache.worker.prefetch import Abandoned, Beside, prefetch


@dataclass(frozen=True)
class RenderedChunk:
    """`frames` is uint8 [T, H, W, 3]; `chunk` and `start_frame` count over the whole video."""

    chunk: int
    start_frame: int
    frames: np.ndarray
    steps_computed: int
    steps_reused: int
    denoise_seconds: float
    decode_seconds: float
    kv_bytes: int
    decisions: tuple[str, ...]  # as in FinishedChunk
    forwards: int = 0  # alike
    residuals: tuple[float, ...] = ()  # alike
    ratio: float | None = None  # alike


class SegmentRenderer:
    """Iterate over `chunks()` to the end, then `tail()` is what the next segment continues from.

    Every rank of a gang does so; those that decode only a share of the pixels get no chunks and have no tail.

    Whoever may stop before its end closes `chunks()`: denoising runs ahead of it by one chunk, in a thread.

    `conditioning`: latents [C, P, h, w] that the window begins with: whole chunks for a continuation,
    a single frame for an image start, None for a fresh start. `end`: a latent frame [C, 1, h, w] that it ends with.
    `reuse`: False to compute every step, whatever the request's policy says. `shown`: the last pixels [3, T, H, W]
    before it, as far as the next segment's conditioning reaches back beyond this one: see `shown_before_next`.
    `beside`: a worker has one for all. `packed`: see `denoise`. `raised`: by what in place of the request's budget;
    Strayed where the result is not good enough.
    """

    def __init__(
        self,
        model: LoadedModel,
        request: RenderRequest,
        segment: Segment,
        conditioning: Tensor | None,
        end: Tensor | None = None,
        reuse: bool = True,
        shown: Tensor | None = None,
        beside: Beside | None = None,
        packed: bool = True,
        raised: Raised | None = None,
    ):
        self.model, self.request, self.segment, self.conditioning = model, request, segment, conditioning
        self.end = end
        self.spec = spec = model.spec.asked(vars(request))
        self.traits = family(spec.family).traits
        policy = resolve_policy(request.policy, spec)
        self.policy = within(policy, raised) if reuse else policy.exact
        self.guard = Guard(policy, self.policy, raised)
        frames = 0 if conditioning is None else conditioning.shape[1]
        self.given = frames // spec.chunk * spec.chunk  # latent frames of whole chunks, which are not denoised
        self.prefix = self.given if continues(request, segment) else 0  # those of them that are not shown again
        self._shown = shown
        self._recent: Tensor | None = None  # the last pixels, as many as a continuation needs
        self._clean = None if conditioning is None else conditioning[:, : self.given].cpu()  # the last latents, alike
        self.text_seconds = 0.0  # for which denoising waited until its texts were encoded
        self._abandoned, self._packed = Event(), packed
        self._thread = beside.thread if beside else None
        self._beside = (beside or Beside()).stream(model.transformer.device)

    @property
    def reuses(self) -> bool:
        return self.policy != self.policy.exact

    @property
    def spares(self) -> bool:
        """Whether a budget leaves steps of every chunk out, where its decisions need not tell."""
        return self.policy.steps is not None

    def number(self, chunk: int) -> int:
        """The number in the whole video of a chunk of this window."""
        return self.segment.first_chunk + chunk - self.prefix // self.spec.chunk

    def finished(self) -> Iterator[FinishedChunk]:
        """Denoise only: the clean latents of each output chunk, on every rank alike."""
        spec, request, began = self.spec, self.request, time.perf_counter()
        texts = self.texts()
        self.text_seconds = time.perf_counter() - began
        shape = latent_shape(spec, request, self.given)
        if self.conditioning is not None:
            shown = self.conditioning[:, self.prefix : self.given].split(spec.chunk, dim=1)
            yield from (FinishedChunk(i, chunk, 0, 0, 0.0) for i, chunk in enumerate(shown) if chunk.shape[1])
        for done in denoise(
            self.model.transformer,
            window_noise(spec, request, self.segment, self.prefix),
            texts,
            settings_of(request, spec),
            self.policy,
            prefix=self.conditioning,
            condition_noise_of=lambda row: normal(shape, "condition", request.seed, self.segment.index, row),
            observe=self._heed,
            step_noise=self._step_noise,
            end=self.end,
            kv_sharding=self.model.kv_sharding,
            packed=self._packed,
        ):
            self.guard.heed(done)
            self._clean = last_frames(self._clean, done.latents.cpu(), spec.overlap)
            yield done

    def abandon(self) -> None:
        """From another thread: whoever iterates gets Abandoned after the forward that is under way."""
        self._abandoned.set()

    def _step_noise(self, chunk: int, step: int) -> Tensor:
        """For solvers that draw noise between steps."""
        shape = latent_shape(self.spec, self.request, self.spec.chunk)
        return normal(shape, "step", self.request.seed, self.number(chunk), step)

    def _heed(self, visit: Visit) -> None:
        """After each forward: is anybody still waiting for the result?"""
        if self._abandoned.is_set():
            raise Abandoned("the video was cancelled, or nobody waits for it any more")

    @torch.inference_mode()
    def chunks(self) -> Generator[RenderedChunk, None, None]:
        """Denoise and decode: the output chunks in order, while the next one is being denoised."""
        start = self.segment.start_frame
        with prefetch(self.finished(), self._abandoned.set, self._thread) as finished:
            decode = self.model.codec_at(self.request.nominal_fps).stream(self.model.share)
            if self.prefix and self.conditioning is not None:
                # Of a codec that is not causal, no more than the last chunk can reach what follows.
                shown = self.prefix if self.spec.causal else self.spec.chunk
                self._decode(decode, self.conditioning[:, self.prefix - shown : self.prefix])
            if self._shown is not None:  # as official long videos have it: these, and not what is decoded anew
                self._recent = self._shown.cpu()
            for number, done in enumerate(finished):
                begin = time.perf_counter()
                decoded = self._decode(decode, done.latents)
                if decoded is None:
                    continue
                frames = decoded[: self.segment.start_frame + self.segment.frames - start]
                yield RenderedChunk(
                    chunk=self.segment.first_chunk + number,
                    start_frame=start,
                    frames=frames,
                    steps_computed=done.computed,
                    steps_reused=done.reused,
                    denoise_seconds=done.seconds,
                    decode_seconds=time.perf_counter() - begin,
                    kv_bytes=done.kv_bytes,
                    decisions=done.decisions,
                    forwards=done.forwards,
                    residuals=done.residuals,
                    ratio=done.ratio,
                )
                start += len(frames)

    @torch.inference_mode()
    def tail(self) -> Tensor:
        """Latents [C, overlap, h, w]: of the last pixels, encoded anew as official long videos of SkyReels-V2 do.

        Or the clean latents themselves, of which there may be fewer (MAGI-1), by the family's traits.
        """
        latents = self.traits.continues_from == "latents"
        last = self._clean if latents else self._recent
        if last is None:
            raise ValueError("nothing was rendered here that could be continued")
        if latents:
            return last
        with self._beside:
            return self.model.codec_at(self.request.nominal_fps).encode(last).cpu()

    @torch.inference_mode()
    def shown_before_next(self) -> Tensor | None:
        """The last pixels, so many as the segment after the next one is conditioned on; None: on later ones alone."""
        if self.traits.continues_from == "latents" or self._recent is None:
            return None
        segments = plan(self.request, self.spec)
        following = next((one for one in segments if one.after == self.segment.index), None)
        if following is None or all(one.after != following.index for one in segments):
            return None
        frames = self.spec.overlap_frames - following.frames
        return self._recent[:, -frames:].cpu() if frames > 0 else None

    def _decode(self, decode: Callable[[Tensor], Tensor | None], latents: Tensor) -> np.ndarray | None:
        """Pixels of the next latents, which are finished: denoising has looked at their values on the CPU.

        None where another rank gets them.
        """
        with self._beside:
            pixels = decode(latents)
            if pixels is None:
                return None
            self._remember(pixels)
            return to_uint8(pixels)

    def _remember(self, pixels: Tensor) -> None:
        before = None if self._recent is None else self._recent.to(pixels)
        self._recent = last_frames(before, pixels, self.spec.overlap_frames)

    def texts(self) -> Texts:
        request, text = self.request, self.model.text
        guided = self.traits.negative_prompt and request.guidance > 1
        negative = text.encode(request.negative_prompt) if guided else None
        if self.traits.prompt_per == "window":
            return Texts(text.encode(request.shots[self.segment.shot].prompt), negative)
        if not isinstance(text, CaptionEncoder):
            raise TypeError(f"{type(text).__name__} makes no captions, which chunks of {self.spec.name} need")
        null = self.model.transformer.null_caption
        if isinstance(text, RequestCaptions) and null is not None:
            text = text.of(request)
            negative = text.negative(null)
        told = captions(request, self.segment, self.spec)
        given: list[Tensor | None] = [None] * (self.prefix // self.spec.chunk)
        return Texts([*given, *(text.caption(prompt, remaining) for prompt, remaining in told)], negative)


def last_frames(before: Tensor | None, new: Tensor, most: int) -> Tensor:
    """The last frames of both, [C, F, H, W]."""
    return (new if before is None else torch.cat([before, new], dim=1))[:, -most:]


def captions(request: RenderRequest, segment: Segment, spec: ModelSpec) -> list[tuple[str, int]]:
    """Each chunk's prompt, and how many chunks come after it until the next cut or the end."""
    ends = list(accumulate(shot.frames for shot in request.shots))
    cuts = [end for end, shot in zip(ends, request.shots[1:], strict=False) if shot.cut]
    begins = range(segment.start_frame, segment.start_frame + segment.chunks * spec.chunk_frames, spec.chunk_frames)
    stop = next((cut for cut in cuts if cut > segment.start_frame), request.frames)
    return [
        (request.shots[bisect_right(ends, begin)].prompt, (stop - begin - 1) // spec.chunk_frames) for begin in begins
    ]


def encode_pixels(model: LoadedModel, frames: np.ndarray, fps: int | None = None) -> Tensor:
    """Conditioning latents of an image or a video's tail, uint8 [T, H, W, 3]. fps: None: the model's."""
    with torch.inference_mode():
        return model.codec_at(fps or model.spec.fps).encode(to_pixels(frames))


def to_pixels(frames: np.ndarray) -> Tensor:
    """uint8 [T, H, W, 3] to [3, T, H, W] in -1..1."""
    return torch.tensor(frames).permute(3, 0, 1, 2).float() / 127.5 - 1


def encode_end(model: LoadedModel, picture: np.ndarray) -> Tensor:
    """The latent frame that shows a picture, uint8 [1, H, W, 3], to the end: the last one of a still video.

    Not that of the picture alone, since a causal codec's first latent frame stands for one frame and all others for
    several.
    """
    return encode_pixels(model, np.repeat(picture, model.spec.video_frames(2), axis=0))[:, -1:]


def to_uint8(pixels: Tensor) -> np.ndarray:
    """[3, T, H, W] in -1..1 to uint8 [T, H, W, 3]."""
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 3, 0).cpu().contiguous().numpy()


def tail_to_bytes(tail: Tensor, shown: Tensor | None = None) -> bytes:
    """What the next segment continues from: see `SegmentRenderer`."""
    state = {"tail": tail} if shown is None else {"tail": tail, "shown": shown}
    return save({name: values.cpu().contiguous() for name, values in state.items()})


def tail_from_bytes(data: bytes) -> Tensor:
    return load(data)["tail"]


def shown_from_bytes(data: bytes) -> Tensor | None:
    return load(data).get("shown")
