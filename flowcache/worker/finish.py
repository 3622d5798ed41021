"""A function of the user's own over each finished video: upscaling, interpolation, sound, a poster."""

import inspect
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from flowcache.errors import FlowcacheError, ObjectError, StoreError, first_line, words
from flowcache.inputs.hooks import FINISH, PLAIN, function, lent
from flowcache.storage import layout
from flowcache.storage.commits import new_attempt
from flowcache.storage.committed import CURE, chunks_of, read_at
from flowcache.storage.documents import SegmentMarker, sha256
from flowcache.storage.finish_marker import FinishedFile, FinishMarker
from flowcache.storage.finishes import commit_finish, committed_finish, made_of
from flowcache.storage.joined import joined, read_marked
from flowcache.storage.keys import FILE
from flowcache.storage.media import decode
from flowcache.storage.objects.store import Store
from flowcache.worker.task import Task, WorkerSettings

MADE = "made"  # the folder that is stored
BROKEN = "CUDA error"  # after which no work on that GPU can be trusted


class FinishFailed(FlowcacheError):
    """The function's fault; the video itself is done."""


class Finishing:
    """What a finishing function is given. It may be called again for the same video, after a rank was lost.

    `id`, `request` (a mapping: the manifest's row with all defaults), `labels`, `width`, `height`, `fps`, `frames`,
    `seconds`: of the video; `device`: cpu or cuda, where the rank computes; `folder`: what lies here when the function
    returns is stored, folders included.
    """

    def __init__(self, store: Store, task: Task, markers: Sequence[SegmentMarker], place: Path, device: str):
        request = task.request
        self.id, self.request, self.labels = request.id, request.to_dict(), dict(request.labels)
        self.width, self.height, self.fps = request.width, request.height, markers[0].fps
        self.frames = sum(marker.frames for marker in markers)
        self.seconds, self.device = float(self.frames / self.fps), device
        self.folder, self._source = place / MADE, place / "video.mp4"
        self.folder.mkdir()
        self._store, self._markers = store, markers

    @cached_property
    def file(self) -> Path:
        """The whole video as one MP4 on this machine, without encoding again."""
        self._source.write_bytes(joined(self._store, self._markers))
        return self._source

    def pictures(self) -> Iterator[np.ndarray]:
        """Every frame, uint8 [H, W, 3], in order; a chunk is held at a time."""
        first = self._markers[0]
        init = read_marked(self._store, first.init_key, first.init_sha256)
        for chunk in chunks_of(self._markers):
            for picture, _ in decode(init, [read_marked(self._store, chunk.key, chunk.sha256)]):
                yield picture


def finish(store: Store, task: Task, settings: WorkerSettings, gang: str) -> FinishMarker:
    """Call the run's function, store what it wrote, commit that. The marker that holds, which may be another attempt's.

    FinishFailed where the function fails or what it is given is damaged; StoreError where the store refuses or is away.
    """
    name, started, attempt = settings.options.finish or "", time.time(), new_attempt()
    call = function(FINISH, name)
    # A process that the function left running may still write there, which is no reason to lose what is stored.
    with TemporaryDirectory(prefix="flowcache-finish-", ignore_cleanup_errors=True) as place:
        try:
            markers = committed(store, task)
            of = made_of(task.request.id, markers)
            if there := committed_finish(store, task.request.id, name, of):  # by an attempt that could not say so
                return there
            video = Finishing(store, task, markers, Path(place), settings.device)
            run(call, video, name)
            files = tuple(put_all(store, Path(place, MADE), layout.finished_key(task.request.id, name, attempt, "")))
        except ObjectError as fault:  # of the video: damaged, or not there
            raise FinishFailed(f"{name}: {fault}") from fault
    marker = FinishMarker(
        video_id=task.request.id,
        finish=name,
        attempt=attempt,
        run_id=settings.run_id,
        done_sha256=of,
        files=files,
        host=socket.gethostname(),
        gang=gang,
        started=started,
        finished=time.time(),
    )
    return commit_finish(store, marker, settings.holder)


def committed(store: Store, task: Task) -> list[SegmentMarker]:
    """The markers of all its segments; ObjectError where one can't be believed."""
    keys = [layout.marker_key(task.request.id, number) for number in range(task.segment.index)]
    found, faults = read_at(store, keys)
    for fault in faults.values():
        raise ObjectError(f"{fault}. {CURE}") from fault
    return [found[key] for key in keys]


def run(call: Callable[[Finishing], Any], video: Finishing, name: str) -> None:
    """FinishFailed for what the function raises; but a store that is away, and a GPU that is broken, are no fault of
    its own."""
    try:
        with lent():
            returned = call(video)
    except StoreError:
        raise
    except Exception as error:
        if BROKEN in words(error):
            raise
        raise FinishFailed(f"{name}: {type(error).__name__}: {first_line(error)}") from error
    if inspect.isawaitable(returned) or inspect.isgenerator(returned):  # of a callable whose kind is not seen before
        raise FinishFailed(f"{name}: it returned a {type(returned).__name__}, and did nothing yet; {PLAIN}")


def put_all(store: Store, folder: Path, prefix: str) -> Iterator[FinishedFile]:
    """Put every file below the folder under names of this attempt. FinishFailed where it is not the one that was given,
    or something in it is no plain file that can be read."""
    if folder.is_symlink() or not folder.is_dir():
        raise FinishFailed("the folder that it was given is gone, or is another one; accepted: files in it")
    for path in sorted(folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            continue
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not path.is_file() or not re.fullmatch(FILE, name):
            raise FinishFailed(
                f"it wrote {name!r}; accepted: plain files, with names of letters, digits, '_', '-' and '.'"
            )
        try:
            data = path.read_bytes()
        except OSError as error:
            raise FinishFailed(f"it wrote {name!r}, which can't be read ({error.strerror or error})") from error
        store.put(prefix + name, data)
        yield FinishedFile(name, prefix + name, sha256(data), len(data))
