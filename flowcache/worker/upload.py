"""What an attempt at a segment leaves in the store."""

import socket
import time
from collections.abc import Mapping
from typing import Any

from flowcache.records import ChunkRecord
from flowcache.storage import layout
from flowcache.storage.commits import marker_sha256, put_init
from flowcache.storage.documents import SegmentMarker, sha256
from flowcache.storage.media import encode_chunk
from flowcache.storage.objects.store import Store
from flowcache.storage.stream import stream_of
from flowcache.worker.mark import Marker
from flowcache.worker.renderer import RenderedChunk
from flowcache.worker.task import Task, WorkerSettings


class Upload:
    """Puts one attempt's objects under keys of its own; only the marker makes them count."""

    def __init__(self, store: Store, task: Task, attempt: str, mark: Marker | None = None):
        self.store, self.task, self.attempt, self.mark = store, task, attempt, mark
        self.chunks: list[ChunkRecord] = []
        self.tail: tuple[str, bytes] | None = None
        self.init = b""

    def chunk(self, chunk: RenderedChunk, flaw: str | None) -> ChunkRecord:
        """Marked where the run marks, encoded and put, the video's init before its first one."""
        video, fps = self.task.request.id, self.task.request.fps
        begin, frames = time.perf_counter(), chunk.frames
        if self.mark:
            frames = self.mark(frames, video, self.task.segment.index, chunk.chunk, chunk.start_frame, fps)
        encoded = encode_chunk(frames, chunk.start_frame, fps)
        middle = time.perf_counter()
        if not self.chunks:
            put_init(self.store, video, encoded.init, self.task.init)
            self.init = encoded.init
        key = layout.media_key(video, chunk.chunk, self.attempt)
        self.store.put(key, encoded.data)
        record = ChunkRecord(
            chunk=chunk.chunk,
            key=key,
            sha256=sha256(encoded.data),
            bytes=len(encoded.data),
            frames=len(chunk.frames),
            start_frame=chunk.start_frame,
            steps_computed=chunk.steps_computed,
            steps_reused=chunk.steps_reused,
            denoise_seconds=chunk.denoise_seconds,
            decode_seconds=chunk.decode_seconds,
            encode_seconds=middle - begin,
            upload_seconds=time.perf_counter() - middle,
            flaw=flaw,
            kv_bytes=chunk.kv_bytes,
            decisions="/".join(chunk.decisions),
            forwards=chunk.forwards,
            residuals=list(chunk.residuals) or None,
            residual_ratio=chunk.ratio,
        )
        self.chunks.append(record)
        return record

    def state(self, data: bytes) -> None:
        """What the next segment continues from."""
        segment = self.task.segment
        key = layout.state_key(segment.video_id, segment.index, self.attempt)
        self.store.put(key, data)
        self.tail = key, data

    def marker(
        self,
        settings: WorkerSettings,
        gang: str,
        world: int,
        started: float,
        seconds: dict[str, float],
        hardware: dict[str, str] | None = None,
        schedule: Mapping[str, Any] | None = None,
    ) -> SegmentMarker:
        """What makes the attempt count once it is committed. started: unix seconds; seconds: spent before denoising;
        schedule: see `Guard.told`."""
        task, segment = self.task, self.task.segment
        key, data = self.tail or (None, b"")
        return SegmentMarker(
            video_id=segment.video_id,
            segment=segment.index,
            attempt=self.attempt,
            run_id=settings.run_id,
            spec_hash=task.spec_hash or settings.spec_hash,
            seed=task.request.seed,
            parent_sha256=task.parent and marker_sha256(task.parent),
            init_key=layout.init_key(segment.video_id),
            init_sha256=sha256(self.init),
            state_key=key,
            state_sha256=sha256(data) if key else None,
            state_bytes=len(data),
            chunks=tuple(self.chunks),
            frames=segment.frames,
            start_frame=segment.start_frame,
            fps=task.request.fps,
            policy=task.request.policy,
            host=socket.gethostname(),
            gang=gang,
            world_size=world,
            started=started,
            finished=time.time(),
            seconds=seconds,
            hardware=hardware,
            stream=stream_of(self.init),
            **(schedule or {}),
        )
