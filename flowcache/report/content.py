"""What the report says of a run, gathered from its records alone: no media is read here."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from flowcache.records import ChunkRecord
from flowcache.storage.commits import Commits, chunks_of
from flowcache.storage.documents import DeadLetter, RunRecord, SegmentMarker, Stopped
from flowcache.storage.status import StatusReport, VideoStatus, status_of

STAGES = ("denoise", "decode", "encode", "upload")  # the timings of a chunk; besides, a segment has "load" and "other"


@dataclass(frozen=True)
class Totals:
    """Over all committed segments. rank_seconds: of every rank of a gang; kv_bytes: the most that a rank held."""

    stages: dict[str, float]  # seconds by stage
    rank_seconds: float
    video_seconds: float  # length of what was made
    bytes: int
    kv_bytes: int | None
    started: float | None  # unix seconds
    finished: float | None
    hosts: tuple[str, ...]
    models: dict[str, str]  # name -> digest


@dataclass(frozen=True)
class Video:
    """One video with its request (`RenderRequest.to_dict`) and what is committed of it."""

    status: VideoStatus
    request: dict[str, Any]
    markers: tuple[SegmentMarker, ...]
    letter: DeadLetter | None

    @property
    def chunks(self) -> list[ChunkRecord]:
        return chunks_of(self.markers)

    @property
    def playable(self) -> list[ChunkRecord]:
        """From the start on, without a gap."""
        together = [marker for number, marker in enumerate(self.markers) if marker.segment == number]
        return chunks_of(together)

    @property
    def stages(self) -> dict[str, float]:
        return stages(self.markers)

    @property
    def kv_bytes(self) -> int | None:
        return most_kv(self.chunks)

    @property
    def moves(self) -> list[str]:
        """Segments that continue one rendered on other hardware, whose pixels may differ in their last bits."""
        known = [marker for marker in self.markers if marker.hardware]
        return [
            f"segment {after.segment} on {spelled(after)}, after {spelled(before)}"
            for before, after in pairwise(known)
            if after.hardware != before.hardware
        ]

    @property
    def budget(self) -> str:
        """How it was rendered, where its policy has a budget."""
        within = sorted({marker.budget for marker in self.markers if marker.budget is not None})
        if not within:
            return ""
        errors = [marker.predicted_error for marker in self.markers if marker.predicted_error is not None]
        ratios = [chunk.residual_ratio for chunk in self.chunks if chunk.residual_ratio is not None]
        repeats = sum(marker.repeats or 0 for marker in self.markers)
        dropped = sum(marker.dropped_forwards or 0 for marker in self.markers)
        fitted = {marker.calibrated_guidance for marker in self.markers} - {None, self.request["guidance"]}
        parts = [f"budget {', '.join(f'{budget:g}' for budget in within)}"]
        parts += [f"calibrated at guidance {guidance:g}" for guidance in sorted(filter(None, fitted))]
        targets = {marker.calibrated_target for marker in self.markers} - {None, "off"}
        parts += [f"calibrated to the {target} walk" for target in sorted(filter(None, targets))]
        parts += [f"predicted error {max(errors):.2g}"] if errors else []
        parts += [f"residuals up to {max(ratios):.3g} times what calibration saw"] if ratios else []
        parts += [f"renders given up: {repeats}, of {dropped:,} forwards"] if repeats else []
        return ", ".join(parts)

    @property
    def kept(self) -> str:
        """What the policy keeps of finished chunks, as it was asked for."""
        kv = {"keep": "all", **self.request["policy"].get("kv", {})}
        return ", ".join(f"{name} {value}" for name, value in kv.items())


@dataclass(frozen=True)
class Content:
    """rejected: `errors.Problem` as dicts. videos: dead ones first, else in the run's order."""

    run: RunRecord
    status: StatusReport
    totals: Totals
    videos: tuple[Video, ...]

    @property
    def dead(self) -> list[Video]:
        return [video for video in self.videos if video.status.state == "dead"]


def content(run: RunRecord, commits: Commits, finished: bool, stopped: Stopped | None) -> Content:
    """finished: _SUCCESS is there."""
    report = status_of(run, commits, finished, stopped)
    videos = [
        Video(state, request, commits.all(request["id"]), commits.dead_letters.get(request["id"]))
        for state, request in zip(report.videos, run.requests, strict=True)
    ]
    videos.sort(key=lambda video: video.status.state != "dead")
    return Content(run, report, totals(run, videos), tuple(videos))


def spelled(marker: SegmentMarker) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted((marker.hardware or {}).items()))


def totals(run: RunRecord, videos: Sequence[Video]) -> Totals:
    markers = [marker for video in videos for marker in video.markers]
    chunks = chunks_of(markers)
    return Totals(
        stages=stages(markers),
        rank_seconds=sum((marker.finished - marker.started) * marker.world_size for marker in markers),
        video_seconds=sum(float(marker.frames / marker.fps) for marker in markers),
        bytes=sum(chunk.bytes for chunk in chunks),
        kv_bytes=most_kv(chunks),
        started=min((marker.started for marker in markers), default=None),
        finished=max((marker.finished for marker in markers), default=None),
        hosts=tuple(sorted({marker.host for marker in markers})),
        models=run.models,
    )


def stages(markers: Sequence[SegmentMarker]) -> dict[str, float]:
    """Seconds by stage. "load": of the model; "other": conditioning, the tail, and what lies between."""
    chunks = chunks_of(markers)
    found: dict[str, float] = {name: sum(getattr(chunk, f"{name}_seconds") for chunk in chunks) for name in STAGES}
    found["load"] = sum(marker.seconds.get("load", 0.0) for marker in markers)
    whole = sum(marker.finished - marker.started for marker in markers)
    return {**found, "other": max(whole - sum(found.values()), 0.0)}


def most_kv(chunks: Iterable[ChunkRecord]) -> int | None:
    return max((chunk.kv_bytes for chunk in chunks if chunk.kv_bytes is not None), default=None)
