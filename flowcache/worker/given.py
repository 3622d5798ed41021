"""What a request gives as pictures or a video, loaded as pixels of its size by a process with limits."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from flowcache.errors import MediaError, StoreError, masked
from flowcache.families.known import family
from flowcache.inputs.lengths import shortest_history
from flowcache.inputs.sandbox import Sandbox
from flowcache.records import ModelSpec, RenderRequest

PAUSES = (2.0, 10.0, 30.0)  # seconds before a host that does not answer is asked again
LONGEST = 120.0  # seconds after which it is not: others wait for this gang


def picture(request: RenderRequest, spec: ModelSpec, sandbox: Sandbox, end: bool = False) -> np.ndarray | None:
    """uint8 [1, H, W, 3]: what the request begins with, or ends with; None: neither.

    MediaError: it is not what it was, or none; StoreError: what holds it refuses it. Both name it.
    """
    url = request.end_image if end else request.image
    sha256 = request.end_image_sha256 if end else request.media_sha256
    if url is None:
        return None
    size, how = (request.width, request.height), {"sha256": sha256, "fit": _fit(request, spec)}
    return patiently(url, lambda: sandbox.image(url, *size, **how))


def clip(request: RenderRequest, spec: ModelSpec, sandbox: Sandbox) -> np.ndarray | None:
    """uint8 [T, H, W, 3]: the part of the request's video that is continued; None: it has none. Errors of `picture`."""
    if request.video is None:
        return None
    start, traits = request.video_from == "start", family(spec.family).traits
    frames, least = spec.overlap_frames, shortest_history(spec)
    if start and traits.video_start:
        frames, least = traits.video_start, spec.time_stride
    url, size = request.video, (frames, request.fps, request.width, request.height)
    how = {"sha256": request.media_sha256, "least": least, "fit": _fit(request, spec), "start": start}
    return patiently(url, lambda: sandbox.clip(url, *size, **how))


def _fit(request: RenderRequest, spec: ModelSpec) -> Any:
    return request.fit or family(spec.family).traits.fit


def patiently(url: str, load: Callable[[], np.ndarray]) -> np.ndarray:
    """What `load` gives of the picture or video at `url`; what goes wrong says which it is.

    A host on the web that does not answer is asked again for a while. It is no store: the video pays in the end.
    """
    begun = time.monotonic()
    for pause in (*PAUSES, None):
        try:
            return load()
        except MediaError as error:
            if not error.away or pause is None or time.monotonic() - begun > LONGEST:
                raise MediaError(f"{masked(url)}: {error}") from error
            time.sleep(pause)
        except StoreError as error:  # it is tried again, and no video pays for it
            raise StoreError(f"{masked(url)}: {error}", error.passing, error.of_machine) from error
    raise AssertionError("unreachable")
