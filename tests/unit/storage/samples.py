"""A small simulate run for storage tests: real encoded chunks, no model. Loaded by the conftests."""

from dataclasses import dataclass, field
from functools import cache

import numpy as np

from flowcache.records import ChunkRecord, Rate, RenderRequest, Segment, Shot
from flowcache.storage import layout
from flowcache.storage.commits import (
    SegmentMarker,
    commit_segment,
    mark_done,
    marker_sha256,
    new_attempt,
    new_run,
    put_init,
    put_playlist,
    read_commits,
    success,
)
from flowcache.storage.documents import sha256
from flowcache.storage.media import EncodedChunk, encode_chunk
from flowcache.storage.objects.store import Store
from flowcache.storage.runs import begin_run
from flowcache.storage.stream import stream_of
from flowcache.storage.tables import write_tables

FPS, WIDTH, HEIGHT, CHUNK = 8, 32, 16, 4
MAP = "1101/1110"  # decisions of every chunk
DIGESTS = {"tiny": "d" * 64}


def pixels(seed: int, start: int, frames: int) -> np.ndarray:
    """Something that moves, and that a wrong seed or place would change. uint8 [T, H, W, 3]."""
    row, column = np.mgrid[:HEIGHT, :WIDTH]
    times = np.arange(start, start + frames)[:, None, None]
    red, green = (column * 6 + times * 5) % 256, (row * 12 + 31 * seed) % 256
    return np.stack(np.broadcast_arrays(red, green, 40 + times), -1).astype(np.uint8)


@cache
def encoded(seed: int, start: int, frames: int, fps: Rate = FPS) -> EncodedChunk:
    return encode_chunk(pixels(seed, start, frames), start, fps)


def request(video_id: str, segments: int = 3, **changes) -> RenderRequest:
    """`segments` segments of two chunks of four frames."""
    fields = {
        "id": video_id,
        "shots": (Shot(f"a {video_id} moves", segments * 2 * CHUNK),),
        "width": WIDTH,
        "height": HEIGHT,
        "fps": FPS,
        "seed": sum(video_id.encode()) % 100,
        "guidance": 3.0,
        "steps": 4,
        "model": "tiny",
        "policy": {"name": "paper", "preset": "slow"},
        "labels": {"team": "red", "shelf": "3"},
    }
    return RenderRequest(**{**fields, **changes})


def plan(requests) -> list[Segment]:
    length = 2 * CHUNK
    return [
        Segment(r.id, i, 0, 2 * i, 2, length * i, length, i - 1 if i else None)
        for r in requests
        for i in range(r.frames // length)
    ]


SCHEDULE = {
    "budget": 0.6, "calibrated_guidance": 2.5, "calibrated_target": "converged", "predicted_error": 1e-4, "repeats": 1,
    "dropped_forwards": 30,
}  # fmt: skip
HARDWARE = {"device": "a GPU", "attention": "flash_attention", "torch": "2.13"}


@dataclass(frozen=True)
class Studio:
    """Plays driver and worker over a store; each write is one that a crash can hit."""

    store: Store
    requests: tuple[RenderRequest, ...]
    later: tuple = (4096, MAP, None, 7, [0.01, 0.02, 0.005], 0.75)  # fields of a ChunkRecord that older versions lack
    hardware: dict | None = field(default_factory=lambda: dict(HARDWARE))  # alike, of a marker

    def record(self):
        return new_run(self.requests, DIGESTS, plan(self.requests), "0.1.0")

    def render(self, segment: Segment, parent: SegmentMarker | None) -> SegmentMarker:
        """One attempt: upload, then commit. The winner's marker."""
        request = next(r for r in self.requests if r.id == segment.video_id)
        attempt, record = new_attempt(), self.record()
        chunks, init = [], b""
        for i in range(segment.chunks):
            start = segment.start_frame + i * CHUNK
            piece = encoded(request.seed, start, CHUNK, request.fps)
            init, key = piece.init, layout.media_key(request.id, segment.first_chunk + i, attempt)
            self.store.put(key, piece.data)
            size, digest = len(piece.data), sha256(piece.data)
            number = segment.first_chunk + i
            chunks.append(ChunkRecord(number, key, digest, size, CHUNK, start, 6, 2, 0.5, 0.1, 0.1, 0.1, *self.later))
        state = f"tail {request.seed} {segment.index}".encode()
        state_key = layout.state_key(request.id, segment.index, attempt)
        self.store.put(state_key, state)
        marker = SegmentMarker(
            video_id=request.id,
            segment=segment.index,
            attempt=attempt,
            run_id=record.run_id,
            spec_hash=record.spec_hash,
            seed=request.seed,
            parent_sha256=marker_sha256(parent) if parent else None,
            init_key=put_init(self.store, request.id, init),
            init_sha256=sha256(init),
            state_key=state_key,
            state_sha256=sha256(state),
            state_bytes=len(state),
            chunks=tuple(chunks),
            frames=segment.frames,
            start_frame=segment.start_frame,
            fps=request.fps,
            policy=request.policy,
            host="here",
            gang="gang-0",
            world_size=1,
            started=100.0,
            finished=102.5,
            seconds={"denoise": 1.0, "encode": 0.5},
            hardware=self.hardware,
            stream=stream_of(init) if self.hardware else None,
            **(SCHEDULE if self.hardware else {}),
        )
        return commit_segment(self.store, marker)

    def run(self) -> None:
        """Take up what is there and finish it, as the driver does."""
        record = begin_run(self.store, self.record())
        commits = read_commits(self.store)
        for request in self.requests:
            markers = list(commits.markers.get(request.id, ()))
            for segment in plan([request])[len(markers) :]:
                markers.append(self.render(segment, markers[-1] if markers else None))
                put_playlist(self.store, request.id, markers)
            if request.id not in commits.done:
                put_playlist(self.store, request.id, markers, done=True)
                mark_done(self.store, request.id, markers)
        write_tables(self.store, record)
        success(self.store, {"run_id": record.run_id, "videos": len(self.requests)})


def outcome(store: Store) -> dict:
    """What must be the same after any interruption: bytes of the media in order, and the rows (timings and
    attempts aside)."""
    commits = read_commits(store)
    video = {
        video_id: [(c.chunk, c.start_frame, c.frames, store.get(c.key)) for m in markers for c in m.chunks]
        for video_id, markers in commits.markers.items()
    }
    inits = {video_id: store.get(layout.init_key(video_id)) for video_id in video}
    return {"video": video, "init": inits, "done": commits.done, "success": store.get(layout.SUCCESS)}
