"""An invisible mark in the frames, put there by a function of the user's own or by a library through an adapter.

Frames are marked on their way to the encoder alone: what the next segment continues from (latents, and pixels beside
them) is never marked, so no frame is marked twice and the model never sees a mark of its own.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowcache.errors import FlowcacheError, first_line
from flowcache.inputs.hooks import WATERMARK, function
from flowcache.models.exhausted import ran_out
from flowcache.records import Rate


@dataclass(frozen=True)
class Marked:
    """What a mark is told of the frames. The same frames at the same place must come back the same on every node and
    at every attempt.

    `chunk` and `start_frame` count over the whole video; `payload`: what was asked to be written, None: the function's
    own choice; `device`: cpu or cuda, where the rank computes.
    """

    video: str
    segment: int
    chunk: int
    start_frame: int
    fps: Rate
    payload: str | None
    device: str

    def bits(self, count: int) -> list[int]:
        """So many bits to write: of the SHA-256 of the payload, or where there is none of the video's id."""
        text = self.video if self.payload is None else self.payload
        data, number = b"", 0
        while len(data) * 8 < count:
            data += hashlib.sha256(text.encode() + b"\0" * number).digest()
            number += 1
        return [int(bit) for bit in np.unpackbits(np.frombuffer(data, np.uint8))[:count]]


Mark = Callable[[np.ndarray, Marked], np.ndarray]  # frames uint8 [T, H, W, 3] to the same shape


class MarkFailed(FlowcacheError):
    """The mark's fault, and so its video's."""


class TrustMark:
    """Adobe's TrustMark (package trustmark 0.9), frame by frame: 61 bits under BCH_5, model Q."""

    def __init__(self, device: str):
        from trustmark import TrustMark as Model  # pyright: ignore[reportMissingImports]

        self.model = Model(verbose=False, model_type="Q", device=device, encoding_type=Model.Encoding.BCH_5)

    def __call__(self, frames: np.ndarray, where: Marked) -> np.ndarray:
        from PIL import Image

        bits = "".join(map(str, where.bits(self.model.schemaCapacity())))
        marked = [self.model.encode(Image.fromarray(frame), bits, MODE="binary") for frame in frames]
        return np.stack([np.asarray(picture) for picture in marked])


class VideoSeal:
    """Meta's VideoSeal (package videoseal 1.0), a chunk at a time: 256 bits of its default model."""

    def __init__(self, device: str):
        import videoseal  # pyright: ignore[reportMissingImports]

        self.model, self.device = videoseal.load("videoseal").eval().to(device), device

    def __call__(self, frames: np.ndarray, where: Marked) -> np.ndarray:
        import torch

        bits = where.bits(self.model.get_random_msg().shape[-1])
        clip = torch.from_numpy(frames).permute(0, 3, 1, 2).float().to(self.device) / 255
        with torch.inference_mode():
            marked = self.model.embed(clip, msgs=torch.tensor([bits]).to(self.device), is_video=True)["imgs_w"]
        return (marked.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().contiguous().numpy()


ADAPTERS: dict[str, Callable[[str], Mark]] = {"trustmark": TrustMark, "videoseal": VideoSeal}


class Marker:
    """What a rank marks its frames with: loaded once, before it takes work. MarkFailed where that can't be."""

    def __init__(self, name: str, payload: str | None, device: str):
        self.name, self.payload, self.device = name, payload, device
        try:
            self.mark: Mark = ADAPTERS[name](device) if name in ADAPTERS else function(WATERMARK, name)
        except Exception as error:  # noqa: BLE001 (whatever a library or a stranger's module raises)
            raise MarkFailed(f"watermark {name} can't be loaded: {said(error)}") from error

    def __call__(self, frames: np.ndarray, video: str, segment: int, chunk: int, start: int, fps: Rate) -> np.ndarray:
        """The marked frames, uint8 [T, H, W, 3]; `frames` stay as they are."""
        where = Marked(video, segment, chunk, start, fps, self.payload, self.device)
        place = f"watermark {self.name} on frames {start} to {start + len(frames) - 1}"
        try:
            found: Any = self.mark(frames.copy(), where)
        except Exception as error:
            if ran_out(error):  # which is nobody's fault, and said in words
                raise
            raise MarkFailed(f"{place}: {said(error)}") from error
        if not isinstance(found, np.ndarray) or (found.shape, found.dtype) != (frames.shape, frames.dtype):
            got = f"{found.dtype} {list(found.shape)}" if isinstance(found, np.ndarray) else type(found).__name__
            raise MarkFailed(f"{place}: got {got}; accepted: uint8 {list(frames.shape)}")
        return np.ascontiguousarray(found)


def said(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error)}"
