"""What is exported: finished videos, with what was asked for each."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from flowcache.errors import InputError, Problem, StoreError, masked
from flowcache.inputs.lines import Line
from flowcache.inputs.selection import EVERY, Selection
from flowcache.inputs.strangers import strangers
from flowcache.records import Rate, read_rate
from flowcache.storage import layout
from flowcache.storage.committed import CURE, Commits, chunks_of, playable, read_commits
from flowcache.storage.documents import Damaged, DoneMarker, SegmentMarker, parse
from flowcache.storage.media import AI_MADE
from flowcache.storage.objects.store import Store
from flowcache.storage.proven import read_proven
from flowcache.storage.runs import read_run


@dataclass(frozen=True)
class Film:
    """One video. request: as the run's record has it; model_digest: of the checkpoint that drew it."""

    request: dict[str, Any]
    markers: tuple[SegmentMarker, ...]
    model_digest: str | None = None
    watermark: str | None = None  # what its frames were marked with
    source: str = field(init=False)  # names the bytes of all that is committed of it

    def __post_init__(self) -> None:
        parts = [self.markers[0].init_sha256, *(chunk.sha256 for chunk in chunks_of(self.markers))]
        object.__setattr__(self, "source", hashlib.sha256(" ".join(parts).encode()).hexdigest())

    @property
    def id(self) -> str:
        return self.request["id"]

    @property
    def prompts(self) -> list[str]:
        return [shot["prompt"] for shot in self.request["shots"]]

    @property
    def frames(self) -> int:
        return sum(marker.frames for marker in self.markers)

    @property
    def fps(self) -> Rate:
        return self.markers[0].fps

    @property
    def bytes(self) -> int:
        """Of its chunks: an MP4 of them is about as large."""
        return sum(chunk.bytes for chunk in chunks_of(self.markers))

    def told(self) -> dict[str, Any]:
        """What a dataset says of it, beside the pictures; labels as JSON, since rows have different ones."""
        request = self.request
        return {
            "id": self.id,
            "prompt": "\n".join(self.prompts),
            "negative_prompt": request.get("negative_prompt") or "",
            "width": request["width"],
            "height": request["height"],
            "fps": float(self.fps) if isinstance(self.fps, Fraction) else self.fps,
            "frame_rate": str(self.fps),
            "frames": self.frames,
            "seconds": float(Fraction(self.frames) / self.fps),
            "seed": request["seed"],
            "steps": request["steps"],
            "guidance": request["guidance"],
            "model": request["model"],
            "model_digest": self.model_digest or "",
            "policy": request["policy"]["name"],
            "labels": json.dumps(request.get("labels") or {}, sort_keys=True, ensure_ascii=False),
            "run_id": self.markers[0].run_id,
            "digital_source_type": AI_MADE,
        }


@dataclass(frozen=True)
class Found:
    """faults: why videos that are meant are not among the films."""

    films: list[Film]
    faults: list[StoreError]


def find(store: Store, ids: Sequence[str] = (), chosen: Selection = EVERY) -> Found:
    """The finished videos that are meant, by id; with `ids` exactly these, an unfinished one with what plays so far.

    InputError where nothing is meant, or an id names no video of the run.
    """
    run = read_run(store)
    asked = {request["id"]: request for request in run.requests}
    problems = strangers(ids, asked, f"run {run.run_id}", masked(store.url))
    problems += strangers(chosen.only, asked, f"run {run.run_id}", "--only", patterns=True)
    if problems:
        raise InputError(problems)
    commits = None if ids else read_commits(store)
    names = dict.fromkeys(ids) if commits is None else sorted(commits.done & asked.keys())
    rows = [Line(number, _row(asked[name])) for number, name in enumerate(names)]
    meant = [row.fields["id"] for row in chosen.rows(rows)]
    meant = meant[: chosen.limit] if chosen.limit else meant
    if not meant:
        why = "holds no finished video yet" if not rows else "holds no finished video that is meant"
        raise InputError([Problem(masked(store.url), "", why)])
    markers, faults = _playable(store, meant) if commits is None else _finished(store, meant, commits)
    mark = run.numerics.get("watermark")
    films = [Film(asked[name], markers[name], run.models.get(asked[name]["model"]), mark) for name in markers]
    return Found(films, faults)


Markers = dict[str, tuple[SegmentMarker, ...]]


def _playable(store: Store, names: Sequence[str]) -> tuple[Markers, list[StoreError]]:
    found, faults = Markers(), list[StoreError]()
    for name in names:
        try:
            found[name] = tuple(playable(store, name))
        except StoreError as fault:
            faults.append(fault)
    return found, faults


def _finished(store: Store, names: Sequence[str], commits: Commits) -> tuple[Markers, list[StoreError]]:
    """Those of which all is there that DONE says."""

    def read(key: str, data: bytes) -> DoneMarker:
        return parse(DoneMarker, data, masked(store.uri(key)))

    keys = {layout.done_key(name): name for name in names}
    found, faults = Markers(), list[StoreError]()
    for key, done in read_proven(store, list(keys), read):
        name = keys[key]
        markers = commits.markers.get(name, ())
        if not isinstance(done, DoneMarker):
            faults.append(done)
        elif name in commits.damaged:
            faults.append(Damaged(f"{commits.damaged[name]}. {CURE}"))
        elif done.segments != len(markers):
            faults.append(Damaged(f"{masked(store.uri(key))} says more than its segments' markers beside it. {CURE}"))
        else:
            found[name] = markers
    return {name: found[name] for name in names if name in found}, faults


def _row(request: dict[str, Any]) -> dict[str, Any]:
    """As a condition sees it: a video's own fields, its prompts as one text."""
    frames = sum(shot["frames"] for shot in request["shots"])
    prompt = "\n".join(shot["prompt"] for shot in request["shots"])
    return request | {"prompt": prompt, "frames": frames, "seconds": float(frames / read_rate(request["fps"]))}
