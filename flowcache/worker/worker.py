"""One rank of a gang: holds the model, renders segments, and on rank 0 stores and commits them."""

import gc
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from flowcache.errors import OutOfMemory, first_line
from flowcache.families.registry import find, load_model, load_texts, precision
from flowcache.families.vae_tiling import choose_tile, what_fits
from flowcache.inputs.hooks import FINISH, function
from flowcache.inputs.sandbox import Sandbox
from flowcache.models.base import LoadedModel
from flowcache.models.exhausted import ran_out
from flowcache.sampling.records import NotFinite
from flowcache.storage.commits import commit_segment, new_attempt, read_state
from flowcache.storage.documents import sha256
from flowcache.storage.objects.store import Store
from flowcache.worker.finish import finish
from flowcache.worker.given import clip, picture
from flowcache.worker.guard import Strayed
from flowcache.worker.hardware import hardware_of
from flowcache.worker.mark import Marker
from flowcache.worker.prefetch import Abandoned, Beside
from flowcache.worker.quality import flaw
from flowcache.worker.rank import Rank
from flowcache.worker.renderer import (
    SegmentRenderer,
    encode_end,
    encode_pixels,
    shown_from_bytes,
    tail_from_bytes,
    tail_to_bytes,
    to_pixels,
)
from flowcache.worker.task import Again, Event, Flawed, Task, WorkerSettings
from flowcache.worker.text_cache import TextCache, texts_of
from flowcache.worker.upload import Upload

# Models whose graphs are kept: torch makes eight of one function and fails at the next; a model may need two.
COMPILED = 4


class RankWorker(Rank):
    """Becomes a Ray actor in `gang.py`; knows nothing of Ray itself."""

    def __init__(self, store: Store, settings: WorkerSettings, gang: str, rank: int, world: int):
        super().__init__(settings.options, settings.device, rank, world)
        self.store, self.settings, self.gang = store, settings, gang
        self._model: LoadedModel | None = None
        self._name, self._frugal = "", False
        self._compiled: set[str] = set()  # digests of the models that there are graphs of
        self._beside = Beside()
        self._tail: tuple[str, bytes] | None = None  # key and bytes of the last state, which may be asked for next
        self._unwanted: tuple[str, int] | None = None  # video and segment that nobody waits for any more
        self._rendering: tuple[tuple[str, int], SegmentRenderer] | None = None
        self._mark: Marker | None = None

    def join_group(self, path: str | None) -> int:
        """See `Rank.join_group`.

        Rank 0 loads the run's own functions first: where it can't, the gang does not start, and no video pays for it.
        """
        if self.rank == 0:
            self._marker()
            if self.settings.options.finish:
                function(FINISH, self.settings.options.finish)
        return super().join_group(path)

    def _marker(self) -> Marker | None:
        """What the run marks its frames with, if anything."""
        options = self.settings.options
        if options.watermark and self._mark is None:
            self._mark = Marker(options.watermark, options.watermark_payload, self.settings.device)
        return self._mark

    def assist(self, task: Task) -> None:
        """Ranks above 0: take part in denoising and decoding; rank 0 stores what comes out."""
        with self._room(task):
            self._texts_first(task)
            renderer = self._renderer(self._load(task.request.model, task.frugal), task)
            try:
                with closing(renderer.chunks()) as chunks:
                    for _ in chunks:
                        pass
            except Strayed:
                pass  # rank 0 says so
            except NotFinite:
                if not renderer.reuses:  # else rank 0 says so, and the gang is as good as before
                    raise

    def render(self, task: Task) -> Iterator[Event]:
        """Rank 0: renders, uploads and commits; yields each chunk's record, then the marker that holds; of a finish
        its marker alone.

        The marker is another attempt's if that one was first. Flawed comes in place of it, where a chunk is spoilt
        and steps were reused, and Again where the quality guard asks for more steps. OutOfMemory says what would fit.
        """
        if task.finish:
            yield finish(self.store, task, self.settings, self.gang)
            return
        try:
            with self._room(task):
                yield from self._rendered(task)
        finally:
            self._rendering = self._unwanted = None

    def end_task(self, video_id: str, segment: int) -> None:
        """From another thread, of a gang of one rank: its task of that segment ends with Abandoned."""
        self._unwanted = video_id, segment
        if self._rendering and self._rendering[0] == self._unwanted:
            self._rendering[1].abandon()

    def _begin(self, task: Task, renderer: SegmentRenderer) -> None:
        """Abandoned where the task is not wanted any more; the renderer is told if that comes later."""
        place = task.segment.video_id, task.segment.index
        self._rendering = place, renderer
        if self._unwanted == place:
            raise Abandoned("the video was cancelled")

    @contextmanager
    def _room(self, task: Task) -> Iterator[None]:
        """What does not fit the GPU is said in words, and its memory given back."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            message = first_line(error)
        else:
            return
        gc.collect()  # here the error is gone, and with it the frames that held tensors
        torch.cuda.empty_cache()
        options, spec = self.settings.options, find(self.settings.models.get(task.request.model, task.request.model))
        sized = replace(spec, width=task.request.width, height=task.request.height)
        how = self.settings.device, self.world, options.shard_weights, options.precision
        raise OutOfMemory(f"{message}. {what_fits(sized, *how)}")

    def _rendered(self, task: Task) -> Iterator[Event]:
        """See `render`."""
        started, begin = time.time(), time.perf_counter()
        self._texts_first(task)
        model = self._load(task.request.model, task.frugal)
        loaded = time.perf_counter()
        renderer = self._renderer(model, task)
        self._begin(task, renderer)
        upload = Upload(self.store, task, new_attempt(), self._marker())
        seconds = {"load": loaded - begin, "conditioning": time.perf_counter() - loaded}
        spoilt: Flawed | Again | None = None
        try:
            with closing(renderer.chunks()) as chunks:
                for chunk in chunks:
                    seen = flaw(chunk.frames)
                    if seen and (chunk.steps_reused or renderer.spares):
                        spoilt = spoilt or Flawed(chunk.chunk, seen)
                    if not spoilt:  # else only to its end, since the other ranks go there too
                        yield upload.chunk(chunk, seen)
        except NotFinite as error:
            if not renderer.reuses:
                raise
            spoilt = Flawed(renderer.number(error.chunk), "not finite")
        except Strayed as error:
            spoilt = spoilt or Again(renderer.number(error.chunk), error.ratio, error.next)
        if spoilt:
            yield spoilt
            return
        if not task.last:
            upload.state(tail_to_bytes(renderer.tail(), renderer.shown_before_next()))
        self._tail = upload.tail
        seconds["text"] = renderer.text_seconds
        told = self.settings, self.gang, self.world, started, seconds, hardware_of(model.transformer)
        marker = upload.marker(*told, schedule=renderer.guard.told)
        yield commit_segment(self.store, marker, self.settings.holder)

    def _texts_first(self, task: Task) -> None:
        """Where memory is short texts are encoded before the transformer comes: their encoder may be as large."""
        if not task.frugal or (self.world > 1 and self._model is not None):  # ranks load a model together
            return
        options, path = self.settings.options, self.settings.models.get(task.request.model, task.request.model)
        embeddings = self._embeddings(path)
        missing = [text for text in texts_of([task.request])[task.request.model] if embeddings.find(text) is None]
        if not missing:
            return
        self._model, self._name = None, ""
        gc.collect()
        encoder = load_texts(path, self.settings.device, options.dtype)
        encoder.prepare(missing)
        for text in missing:
            embeddings.put(text, encoder.words[text])

    def _embeddings(self, path: str) -> TextCache:
        """Of the model that lies there."""
        number = precision(self.settings.options.dtype, self.settings.device)
        return TextCache(self.store, find(path).digest, str(number).removeprefix("torch."))

    def _load(self, name: str, frugal: bool = False) -> LoadedModel:
        if self._model is not None and (name, frugal) == (self._name, self._frugal):
            return self._model
        self._model, self._name = None, ""  # free the old one first
        gc.collect()  # one with sharded weights refers to itself
        model = self.spread(self._open(name, frugal))
        self._model, self._name, self._frugal = model, name, frugal
        return model

    def _open(self, name: str, frugal: bool = False) -> LoadedModel:
        """frugal: decodes in tiles, unless the run was told not to."""
        settings, options, path = self.settings, self.settings.options, self.settings.models.get(name, name)
        spec = find(path)
        size = settings.sizes.get(name, (spec.width, spec.height))
        tiling = "on" if frugal and options.vae_tiling == "auto" else options.vae_tiling
        tile = choose_tile(tiling, spec, size, settings.device, options.precision)
        how = {"tile": tile, "embeddings": self._embeddings(path), "load": self.loader}
        precisions = {"dtype": options.dtype, "weights": options.weights, "vae_dtype": options.vae_dtype}
        model = load_model(path, settings.device, **precisions, **how)
        if options.compile:
            self._compile(model)
        return model

    def _compile(self, model: LoadedModel) -> None:
        from flowcache.models.compile import compile_blocks  # a second of imports

        self._compiled.add(model.spec.digest)
        if len(self._compiled) > COMPILED:
            torch.compiler.reset()
            self._compiled = {model.spec.digest}
        compile_blocks(model.transformer)

    def _renderer(self, model: LoadedModel, task: Task) -> SegmentRenderer:
        conditioning, shown = self._before(model, task)
        end = self._end(model, task)
        how = task.reuse, shown, self._beside, not task.frugal, task.raised
        return SegmentRenderer(model, task.request, task.segment, conditioning, end, *how)

    def _before(self, model: LoadedModel, task: Task) -> tuple[Tensor | None, Tensor | None]:
        """The latents that the segment begins with, and the pixels of before that may still be asked for."""
        request, spec = task.request, model.spec.asked(vars(task.request))
        if task.parent:
            key, data = self._tail or ("", b"")
            if (key, sha256(data)) != (task.parent.state_key, task.parent.state_sha256):  # another attempt's
                data = read_state(self.store, task.parent)
            return tail_from_bytes(data), shown_from_bytes(data)
        if task.segment.shot > 0:
            return None, None
        with self._sandbox() as sandbox:
            if (frames := picture(request, spec, sandbox)) is not None:
                return encode_pixels(model, frames), None
            if (frames := clip(request, spec, sandbox)) is not None:
                return encode_pixels(model, frames, request.nominal_fps), to_pixels(frames)
        return None, None

    def _end(self, model: LoadedModel, task: Task) -> Tensor | None:
        """What the video's last segment ends with."""
        request, segment = task.request, task.segment
        if segment.start_frame + segment.frames < request.frames:
            return None
        with self._sandbox() as sandbox:
            frames = picture(request, model.spec, sandbox, end=True)
        return None if frames is None else encode_end(model, frames)

    def _sandbox(self) -> Sandbox:
        return Sandbox(self.store.options, self.settings.options.allow_private_media, most=1)
