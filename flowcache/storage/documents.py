"""The records that lie in the store as canonical JSON: the same record always gives the same bytes."""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from flowcache.errors import ObjectError, StoreError, masked
from flowcache.records import ChunkRecord, Rate, read_rate, write_rate
from flowcache.storage import layout
from flowcache.storage.objects.store import MissingObject, Store
from flowcache.storage.typed import read_json, typed

SCHEMA_VERSION = 1  # of everything in the store: keys, documents, tables
Work = Literal["render", "repair"]
SCHEDULE = (
    "budget",
    "calibrated_guidance",
    "calibrated_target",
    "predicted_error",
    "repeats",
    "dropped_forwards",
)  # fields of a marker, where a row has a budget
LATER = ("hardware", "stream", *SCHEDULE)  # fields of a marker that older versions lack
READERS = 64  # parallel small reads: as many as S3 has connections


def utc(seconds: float) -> str:
    """A moment in unix seconds, as people read it; one that no calendar has as it is."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"{seconds!s:.20} s"


def canonical(document: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces; dataclasses as objects. ValueError for NaN and infinities."""
    # `default=vars` and not asdict, whose deep copies take far longer than the JSON itself.
    text = json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=vars
    )
    return text.encode() + b"\n"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class RunRecord:
    """What one output root holds. Written once, before anything is rendered."""

    run_id: str  # first 16 hex digits of spec_hash
    spec_hash: str
    created: float  # unix seconds
    flowcache_version: str
    models: dict[str, str]  # {the model as requests name it: sha256 digest of its checkpoint}
    plan: dict[str, Any]  # {"videos": {video_id: {"segments", "chunks", "frames"}}, "segments", "chunks", "frames"}
    requests: list[dict[str, Any]]  # RenderRequest.to_dict() each
    rejected: list[dict[str, Any]] = field(default_factory=list)  # errors.Problem as dicts
    numerics: dict[str, str] = field(default_factory=dict)  # settings of the run that change its bytes
    schema_version: int = SCHEMA_VERSION
    # What `read_run` adds to a run that grew, and its object does not say: all generations, which the fields above tell
    # as one, and the hash of those videos whose requests came with a later one.
    grown: tuple["Generation", ...] = ()
    later: dict[str, str] = field(default_factory=dict)

    def hash_of(self, video_id: str) -> str:
        """What the markers of the video have as their `spec_hash`."""
        return self.later.get(video_id, self.spec_hash)


@dataclass(frozen=True)
class Generation:
    """What `render --extend` added to a root's run. Written once; the run record itself stands for generation 1."""

    run_id: str  # the root's
    number: int
    spec_hash: str  # of the generation before and of all that follows: what the markers of its videos name
    created: float  # unix seconds
    flowcache_version: str
    models: dict[str, str]  # as in RunRecord, of these requests
    plan: dict[str, Any]  # of these requests
    requests: list[dict[str, Any]]  # rows that came, or took the place of earlier ones
    added: list[str]  # ids of those that came
    corrected: list[str]  # ids of those in place of requests for other pixels, of which nothing stays
    left: list[str]  # ids of the root that its manifest did not name: they stay
    rejected: list[dict[str, Any]] | None  # of the root, from now on; None: as before
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True)
class SegmentMarker:
    """The commit of one segment: it exists, or nothing of the segment counts."""

    video_id: str
    segment: int
    attempt: str
    run_id: str
    spec_hash: str
    seed: int
    parent_sha256: str | None  # of the marker object of the segment that this one continued
    init_key: str
    init_sha256: str
    state_key: str | None
    state_sha256: str | None
    state_bytes: int
    chunks: tuple[ChunkRecord, ...]
    frames: int
    start_frame: int
    fps: Rate
    policy: dict[str, Any]
    host: str
    gang: str
    world_size: int
    started: float  # unix seconds
    finished: float
    seconds: dict[str, float]  # {"load", "conditioning"}: before the first chunk; {"text"}: encoding texts, beside it
    hardware: dict[str, str] | None = None  # of rank 0: {"device", "attention", "torch"}
    stream: dict[str, str] | None = None  # what its init segment says: {"codecs", "resolution"}
    budget: float | None = None  # within which it was rendered in the end; 1: every step
    calibrated_guidance: float | None = None  # at which its schedule was fitted; the row may have another
    calibrated_target: str | None = None  # what its schedule comes close to: "off" or "converged"
    predicted_error: float | None = None  # J of the calibrated schedule
    repeats: int | None = None  # renders that the quality guard gave up
    dropped_forwards: int | None = None  # of those
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True)
class DoneMarker:
    """All segments of a video are committed and its playlist is closed. Derived from the markers alone."""

    video_id: str
    run_id: str
    spec_hash: str
    playlist: str  # key
    init_key: str
    segments: int
    chunks: int
    frames: int
    bytes: int  # of all chunks
    fps: Rate
    markers: tuple[str, ...]  # sha256 of each segment's marker object, in order
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True)
class DeadLetter:
    """A video that was given up, or its finish."""

    video_id: str
    segment: int | None  # None: before the first segment
    rank: int | None
    cause: str
    # damaged: what the store holds of it can't be gone on with; finish: the video is done, its finish is not
    kind: Literal["work", "infra", "rejected", "damaged", "finish"]
    attempts: int
    log_tail: str
    request: dict[str, Any] | None
    continues: str | None = None  # key of the marker whose state the segment began with: with `request` all its inputs
    finish: str | None = None  # the function, of kind finish
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True)
class Withdrawal:
    """What a repair took back of one video, in one step: from the moment that this is written it does not count."""

    video_id: str
    at: float  # unix seconds
    why: list[str]
    objects: dict[str, str]  # the bytes of markers, DONE and dead letter (each a character) by key
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True)
class Stopped:
    """The last driver ended with videos left; the next one withdraws this."""

    run_id: str
    why: str
    exit_code: int
    videos_left: int
    at: float  # unix seconds
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True)
class Holder:
    """Who is, or was, at work on the root. Written again and again while it lives, with one beat more."""

    name: str  # later ones sort after earlier ones, as far as clocks agree
    run_id: str
    work: Work
    host: str
    process: int
    at: float  # unix seconds, when it began
    after: str | None  # name of the one that held the root before
    ended: str | None = None  # how, once it has ended by itself
    beats: int = 0
    seen: float = 0.0  # unix seconds, at the last beat
    job: str | None = None  # the job that started it, and starts it again where it fails
    until: float | None = None  # unix seconds, the deadline that such a job had at its first start
    schema_version: int = SCHEMA_VERSION

    def __str__(self) -> str:
        work = "driver" if self.work == "render" else self.work
        began = utc(self.at)
        return f"the {work} on {self.host} (process {self.process}, begun {began} UTC)"


Document = RunRecord | Generation | SegmentMarker | DoneMarker | DeadLetter | Withdrawal | Stopped | Holder


class Damaged(ObjectError):
    """An object in the store is not what it should be: it has to be made anew."""


class Newer(Damaged):
    """A document of a version that this one does not know: it is not ours to take back."""


class Unreadable(Damaged):
    """The store gives everything but this object: what it holds may be sound."""


def to_json(document: Document) -> bytes:
    fields = vars(document)
    if isinstance(document, SegmentMarker):  # a marker from before a field came must keep its bytes, hence its sha256
        chunks = [{key: value for key, value in vars(chunk).items() if value is not None} for chunk in document.chunks]
        fields = {key: value for key, value in fields.items() if key not in LATER or value is not None}
        fields |= {"chunks": chunks}
    if isinstance(document, SegmentMarker | DoneMarker):
        fields = {**fields, "fps": write_rate(document.fps)}
    if isinstance(document, RunRecord):
        fields = {key: value for key, value in fields.items() if key not in ("grown", "later")}
    return canonical(fields)


def parse(kind: type, data: bytes, name: str) -> Any:
    """The `kind` of document in `data`; Damaged naming the object `name` where it is damaged or of a
    schema that this version does not know."""
    try:
        fields = read_json(data)
        if fields["schema_version"] != SCHEMA_VERSION:
            raise Newer(f"{name} has schema version {fields['schema_version']}, this flowcache reads {SCHEMA_VERSION}")
        if kind is SegmentMarker:
            fields["chunks"] = tuple(typed(ChunkRecord(**chunk)) for chunk in fields["chunks"])
        if kind is DoneMarker:
            fields["markers"] = tuple(fields["markers"])
        if isinstance(fields.get("fps"), str):
            fields["fps"] = read_rate(fields["fps"])
        return typed(kind(**fields))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as fault:
        raise Damaged(f"{name} is damaged: no valid {kind.__name__} ({fault})") from fault


def read_each(store: Store, keys: Sequence[str]) -> Iterator[tuple[str, bytes | MissingObject | Unreadable]]:
    """Keys with their objects, in order, read in parallel; what is missing, or refused while the store gives another
    object, is told in its place."""

    def read(key: str) -> bytes | MissingObject | Unreadable:
        try:
            return store.get(key)
        except MissingObject as missing:
            return missing
        except StoreError as fault:
            if not fault.of_machine or not gives(store, layout.OWNER):
                raise
            return Unreadable(f"{masked(store.uri(key))} alone can't be read: {fault}")

    with ThreadPoolExecutor(READERS) as pool:
        yield from zip(keys, pool.map(read, keys), strict=True)


def gives(store: Store, key: str) -> bool:
    """Whether the store lets us read this object, so that another one that it refuses is that one's trouble."""
    try:
        return store.find(key) is not None
    except StoreError:
        return False
