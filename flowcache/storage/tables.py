"""The Parquet tables, derived from run record, markers and dead letters alone: they can be rebuilt any time.

The rows of a video always stand in the same part, and a part is only ever replaced as a whole under its own name.
So a reader may see an older state of some videos, but each row once at most, and no segment by halves.
"""

import io
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flowcache.records import read_rate
from flowcache.storage import layout
from flowcache.storage.commits import Commits, Listing, arrange, list_commits, read_markers
from flowcache.storage.control import command_rows, read_log
from flowcache.storage.documents import SCHEDULE, RunRecord, SegmentMarker, canonical
from flowcache.storage.finish_marker import FinishMarker, read_finishes
from flowcache.storage.generations import changes
from flowcache.storage.keys import listed
from flowcache.storage.known import markers_of
from flowcache.storage.objects.store import Store
from flowcache.storage.parts import (
    TABLES,
    fingerprints,
    made_from,
    manifest_keys,
    stored_parts,
    table_keys,
    videos_by_part,
)
from flowcache.storage.schemas import COMMANDS, MANIFESTS, rate_columns

Row = dict[str, Any]
Known = Mapping[str, Mapping[int, SegmentMarker]]  # markers by video and segment


def write_tables(
    store: Store, run: RunRecord, listing: Listing | None = None, known: Known | None = None
) -> dict[str, int]:
    """Write the parts of both tables that changed since they were written, and return their sizes in bytes by key. One
    writer at a time: the driver.

    listing: what is committed, if that is known already; known: markers that need not be read again.
    The same commits give the same parts. The table of commands, where there are any, is always written.
    """
    rows = command_rows(run.run_id, read_log(store))
    told = put_all(store, {layout.commands_key(run.run_id): parquet(rows, COMMANDS)}) if rows else {}
    listing = listing or list_commits(store)
    key, parts, keys = layout.parts_key(run.run_id), list(videos_by_part(run)), table_keys(run)
    folders = (*TABLES, *(["manifests"] if run.grown else []))
    there = {part.entry.key for name in folders for part in listed(store, layout.table_prefix(name, run.run_id))}
    wanted, stored = fingerprints(run, listing), stored_parts(store, run)
    stale = [n for n in range(len(parts)) if stored.get(str(n)) != wanted[str(n)] or not there.issuperset(keys[n])]
    old = there.difference(*keys, manifest_keys(run))
    lists = [one for one in manifest_keys(run) if stored.get(one) != wanted[one] or one not in there]
    if not stale and not old and not lists:
        return told
    store.delete(key)  # from here on until it is back, nothing is known of the parts
    written = told
    for number in stale:
        videos, known_now = parts[number], known or {}
        if made_from(stored.get(str(number))) == made_from(wanted[str(number)]):
            known_now = {**table_markers(store, run, number), **known_now}
        written |= write_part(store, run, number, frozenset(videos), commits_of(store, listing, videos, known_now))
    written |= write_manifests(store, run, lists)
    for part in sorted(old):
        store.delete(part)
    store.put(key, canonical(wanted))
    return written


def table_markers(store: Store, run: RunRecord, part: int) -> dict[str, dict[int, SegmentMarker]]:
    """The markers of a part whose chunk table is right, without a request for each."""
    found: dict[str, dict[int, SegmentMarker]] = {}
    requests = {request["id"]: request for request in run.requests}
    data = store.find(layout.part_key("chunks", run.run_id, part))
    for marker in markers_of(data, run, requests) if data else ():
        found.setdefault(marker.video_id, {})[marker.segment] = marker
    return found


def write_manifests(store: Store, run: RunRecord, keys: Collection[str]) -> dict[str, int]:
    """The rows of the generations at these keys; the sizes of their files."""
    return put_all(store, {key: parquet(rows, MANIFESTS) for key, rows in manifest_rows(run, keys)})


def manifest_rows(run: RunRecord, keys: Collection[str]) -> Iterator[tuple[str, list[Row]]]:
    """One row for each video that the root has from a generation on, and each row that was rejected then."""
    for one, (number, done, requests) in zip(run.grown, changes(run.grown), strict=True):
        key = layout.manifest_key(run.run_id, number)
        if key not in keys:
            continue
        same = {"run_id": run.run_id, "generation": number, "created": one.created}
        rows = [
            {**same, "video_id": name, "change": done[name], "request_json": request_json(requests[name])}
            for name in sorted(requests)
        ]
        rows += [{**same, "video_id": row["video_id"], "change": "rejected", "error": row["error"]}
                 for row in rejected_rows(replace(run, rejected=one.rejected or []))]  # fmt: skip
        yield key, rows


def request_json(request: Row) -> str:
    return json.dumps(request, sort_keys=True, ensure_ascii=False)


def parquet(rows: list[Row], schema: pa.Schema) -> bytes:
    """A Parquet file, made in memory: a writer on the store would publish a torn one."""
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), file, compression="zstd")
    return file.getvalue()


def commits_of(store: Store, listing: Listing, videos: list[str], known: Known) -> Commits:
    """The commits of these videos; only what is not `known` in full is read."""
    whole = (name for name in videos if name in known and known[name].keys() >= set(listing.segments.get(name, ())))
    markers_of = {name: known[name] for name in whole}
    read, _ = read_markers(store, listing, [name for name in videos if name not in markers_of])
    markers_of |= read
    letters = [listing.dead_letters[name] for name in videos if name in listing.dead_letters]
    markers = [marker for by_segment in markers_of.values() for marker in by_segment.values()]
    withheld = {name: listing.withheld[name] for name in videos if name in listing.withheld}
    commits = arrange(markers, [name for name in videos if name in listing.done], letters, withheld)
    finishes, _ = read_finishes(store, {name: listing.finished[name] for name in videos if name in listing.finished})
    return replace(commits, finishes=finishes)


def write_part(store: Store, run: RunRecord, number: int, videos: frozenset[str], commits: Commits) -> dict[str, int]:
    """The sizes of its files, by key."""
    rows = {"videos": video_rows(run, commits, videos, rejected=number == 0), "chunks": chunk_rows(commits)}
    files = {layout.part_key(name, run.run_id, number): parquet(rows[name], TABLES[name]) for name in TABLES}
    return put_all(store, files)


def put_all(store: Store, files: Mapping[str, bytes]) -> dict[str, int]:
    """Their sizes in bytes."""
    for key, data in files.items():
        store.put(key, data)
    return {key: len(data) for key, data in files.items()}


def chunk_rows(commits: Commits) -> list[Row]:
    """One row for each committed chunk, by video and chunk."""
    return [
        chunk_row(marker, index)
        for video_id in sorted(commits.markers)
        for marker in commits.all(video_id)
        for index in range(len(marker.chunks))
    ]


def chunk_row(marker: SegmentMarker, index: int) -> Row:
    chunk = marker.chunks[index]
    return {
        "run_id": marker.run_id,
        "video_id": marker.video_id,
        "segment": marker.segment,
        "chunk": chunk.chunk,
        "uri": chunk.key,
        "sha256": chunk.sha256,
        "bytes": chunk.bytes,
        "frames": chunk.frames,
        "start_frame": chunk.start_frame,
        **rate_columns(marker.fps),
        "init": marker.init_key,
        "steps_computed": chunk.steps_computed,
        "steps_reused": chunk.steps_reused,
        "forwards": chunk.forwards,
        "flaw": chunk.flaw,
        "decisions": chunk.decisions,
        "kv_bytes": chunk.kv_bytes,
        "residuals": chunk.residuals,
        "residual_ratio": chunk.residual_ratio,
        **{name: getattr(marker, name) for name in SCHEDULE},
        "denoise_seconds": chunk.denoise_seconds,
        "decode_seconds": chunk.decode_seconds,
        "encode_seconds": chunk.encode_seconds,
        "upload_seconds": chunk.upload_seconds,
        "segment_seconds": sorted(marker.seconds.items()),
        "attempt": marker.attempt,
        "host": marker.host,
        "hardware": sorted(marker.hardware.items()) if marker.hardware else None,
        "gang": marker.gang,
        "world_size": marker.world_size,
        "started": marker.started,
        "finished": marker.finished,
    }


def video_rows(
    run: RunRecord, commits: Commits, videos: frozenset[str] | None = None, rejected: bool = True
) -> list[Row]:
    """One row for each request (of `videos`, if given) and each rejected manifest row, by video id."""
    rows = [video_row(run, request, commits) for request in run.requests if videos is None or request["id"] in videos]
    rows += rejected_rows(run) if rejected else []
    return sorted(rows, key=lambda row: (row["video_id"] or "", row["error"] or ""))


def rejected_rows(run: RunRecord) -> list[Row]:
    rejected: dict[tuple, list[Row]] = {}
    for problem in run.rejected:
        if problem["video"] in run.plan["videos"]:  # a second row of that id: the video is the first one's
            problem = {**problem, "video": None}
        rejected.setdefault((problem["file"], problem["row"], problem["video"]), []).append(problem)
    return [rejected_row(run, problems) for problems in rejected.values()]


def video_row(run: RunRecord, request: Row, commits: Commits) -> Row:
    video_id = request["id"]
    markers = commits.all(video_id)
    done = video_id in commits.done
    letter = commits.dead_letters.get(video_id)
    letter = letter if letter and (letter.kind == "finish" or not done) else None
    withheld = None if done or letter else commits.withheld.get(video_id)
    status = "done" if done else status_of(letter.kind) if letter else "cancelled" if withheld else "partial"
    return {
        "run_id": run.run_id,
        "video_id": video_id,
        "status": status,
        "error": letter.cause if letter else withheld and str(withheld),
        "failed_segment": letter.segment if letter else None,
        **request_columns(run, request),
        "playlist": layout.playlist_key(video_id) if commits.markers.get(video_id) else None,
        "init": markers[0].init_key if markers else None,
        "watermark": run.numerics.get("watermark"),
        "finishes": file_rows(commits.finishes.get(video_id, ())),
        **totals(markers),
    }


def file_rows(finishes: Iterable[FinishMarker]) -> list[Row] | None:
    rows = [
        {"function": one.finish, "file": file.name, "uri": file.key, "sha256": file.sha256, "bytes": file.bytes}
        for one in finishes
        for file in one.files
    ]
    return rows or None


def status_of(kind: str) -> str:
    return "rejected" if kind == "rejected" else "failed"


def request_columns(run: RunRecord, request: Row) -> Row:
    same = ("shots", "negative_prompt", "image", "video", "media_sha256", "width", "height", "seed", "guidance")
    return {
        **{name: request[name] for name in (*same, "steps", "priority", "model")},
        **rate_columns(read_rate(request["fps"])),
        **{name: request.get(name) for name in ("end_image", "end_image_sha256", "ar_step")},
        "prompt": "\n".join(shot["prompt"] for shot in request["shots"]),
        "requested_frames": sum(shot["frames"] for shot in request["shots"]),
        "labels": sorted(request["labels"].items()),
        "model_digest": run.models.get(request["model"]),
        "policy": request["policy"].get("name"),
        "policy_json": json.dumps(request["policy"], sort_keys=True),
        "request_json": request_json(request),
    }


def totals(markers: tuple[SegmentMarker, ...]) -> Row:
    chunks = [chunk for marker in markers for chunk in marker.chunks]
    forwards = [chunk.forwards for chunk in chunks if chunk.forwards is not None]
    ratios = [chunk.residual_ratio for chunk in chunks if chunk.residual_ratio is not None]
    repeats = [marker.repeats for marker in markers if marker.repeats is not None]
    dropped = sum(marker.dropped_forwards or 0 for marker in markers)
    return {
        "segments": len(markers),
        "chunks": len(chunks),
        "frames": sum(chunk.frames for chunk in chunks),
        "bytes": sum(chunk.bytes for chunk in chunks),
        "steps_computed": sum(chunk.steps_computed for chunk in chunks),
        "steps_reused": sum(chunk.steps_reused for chunk in chunks),
        "forwards": sum(forwards) + dropped if len(forwards) == len(chunks) else None,
        "repeats": sum(repeats) if repeats else None,
        "residual_ratio": max(ratios, default=None),
        "flawed_chunks": sum(chunk.flaw is not None for chunk in chunks),
        "render_seconds": sum(marker.finished - marker.started for marker in markers),
        "started": min((marker.started for marker in markers), default=None),
        "finished": max((marker.finished for marker in markers), default=None),
    }


def rejected_row(run: RunRecord, problems: list[Row]) -> Row:
    """The columns of the request stay null: it never became one."""
    error = "; ".join(f"{p['file']} row {p['row']} {p['field']}: {p['message']}" for p in problems)
    return {
        "run_id": run.run_id,
        "video_id": problems[0]["video"],
        "status": "rejected",
        "error": error,
        **totals(()),
    }
