"""What a request gives as pictures or a video, loaded as pixels of its size by a process with limits."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from flowcache.errors import MediaError, StoreError, masked
from flowcache.families.known import family
from flowcache.inputs.lengths import shortest_history
from flowcache.inputs.sandbox import Sandbox
from flowcache.records import ModelSpec, RenderRequest


def picture(request: RenderRequest, spec: ModelSpec, sandbox: Sandbox, end: bool = False) -> np.ndarray | None:
    """uint8 [1, H, W, 3]: what the request begins with, or ends with; None: neither.

    MediaError: it is not what it was, or none; StoreError: what holds it refuses it. Both name it.
    """
    url = request.end_image if end else request.image
    sha256 = request.end_image_sha256 if end else request.media_sha256
    if url is None:
        return None
    with naming(url):
        return sandbox.image(url, request.width, request.height, sha256=sha256, fit=_fit(request, spec))


def clip(request: RenderRequest, spec: ModelSpec, sandbox: Sandbox) -> np.ndarray | None:
    """uint8 [T, H, W, 3]: the part of the request's video that is continued; None: it has none. Errors of `picture`."""
    if request.video is None:
        return None
    start, traits = request.video_from == "start", family(spec.family).traits
    frames, least = spec.overlap_frames, shortest_history(spec)
    if start and traits.video_start:
        frames, least = traits.video_start, spec.time_stride
    with naming(request.video):
        return sandbox.clip(
            request.video, frames, request.fps, request.width, request.height, sha256=request.media_sha256,
            least=least, fit=_fit(request, spec), start=start,
        )  # fmt: skip


def _fit(request: RenderRequest, spec: ModelSpec) -> Any:
    return request.fit or family(spec.family).traits.fit


@contextmanager
def naming(url: str) -> Iterator[None]:
    """What goes wrong with a picture or video says which it is."""
    try:
        yield
    except MediaError as error:
        raise MediaError(f"{masked(url)}: {error}") from error
    except StoreError as error:  # it is tried again, and no video pays for it
        raise StoreError(f"{masked(url)}: {error}", error.passing, error.of_machine) from error
