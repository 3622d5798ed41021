"""The Parquet tables, derived from run record, markers and dead letters alone: they can be rebuilt any time."""

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flowcache.storage import layout
from flowcache.storage.commits import Commits
from flowcache.storage.documents import RunRecord, SegmentMarker, sha256
from flowcache.storage.objects import Store
from flowcache.storage.schemas import CHUNKS, VIDEOS

ROWS_PER_PART = 100_000

Row = dict[str, Any]


def write_tables(store: Store, run: RunRecord, commits: Commits) -> list[str]:
    """Write both tables and return the keys of their parts. One writer at a time: the driver.

    The same input gives the same parts under the same names. Parts of this run that no longer hold are
    removed after the new ones are there, so a reader may see rows twice for a moment but never too few.
    """
    keys = []
    for name, schema, rows in (("videos", VIDEOS, video_rows(run, commits)), ("chunks", CHUNKS, chunk_rows(commits))):
        stale = {entry.key for entry in store.list(layout.table_prefix(name, run.run_id))}
        parts = [write_part(store, run, name, part, table) for part, table in enumerate(cut(rows, schema))]
        for key in sorted(stale.difference(parts)):
            store.delete(key)
        keys += parts
    return keys


def cut(rows: list[Row], schema: pa.Schema) -> list[pa.Table]:
    """Tables of at most ROWS_PER_PART rows, at least one: an empty table still shows its columns."""
    starts = range(0, max(len(rows), 1), ROWS_PER_PART)
    return [pa.Table.from_pylist(rows[start : start + ROWS_PER_PART], schema=schema) for start in starts]


def write_part(store: Store, run: RunRecord, name: str, part: int, table: pa.Table) -> str:
    """Make the Parquet file in memory and put it whole: a writer on the store would publish a torn one."""
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd")
    data = file.getvalue()
    key = layout.part_key(name, run.run_id, part, sha256(data)[:12])
    store.put(key, data)
    return key


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
        "fps": marker.fps,
        "init": marker.init_key,
        "steps_computed": chunk.steps_computed,
        "steps_reused": chunk.steps_reused,
        "decisions": chunk.decisions,
        "kv_bytes": chunk.kv_bytes,
        "denoise_seconds": chunk.denoise_seconds,
        "decode_seconds": chunk.decode_seconds,
        "encode_seconds": chunk.encode_seconds,
        "upload_seconds": chunk.upload_seconds,
        "segment_seconds": sorted(marker.seconds.items()),
        "attempt": marker.attempt,
        "host": marker.host,
        "gang": marker.gang,
        "world_size": marker.world_size,
        "started": marker.started,
        "finished": marker.finished,
    }


def video_rows(run: RunRecord, commits: Commits) -> list[Row]:
    """One row for each request and each rejected manifest row, by video id."""
    rows = [video_row(run, request, commits) for request in run.requests]
    known = {row["video_id"] for row in rows}
    rejected: dict[tuple, list[Row]] = {}
    for problem in run.rejected:
        if problem["video"] in known:  # a second row of that id: the video is the first one's
            problem = {**problem, "video": None}
        rejected.setdefault((problem["file"], problem["row"], problem["video"]), []).append(problem)
    rows += [rejected_row(run, problems) for problems in rejected.values()]
    return sorted(rows, key=lambda row: (row["video_id"] or "", row["error"] or ""))


def video_row(run: RunRecord, request: Row, commits: Commits) -> Row:
    video_id = request["id"]
    markers = commits.all(video_id)
    letter = commits.dead_letters.get(video_id)
    done = video_id in commits.done
    failed = letter is not None and not done
    return {
        "run_id": run.run_id,
        "video_id": video_id,
        "status": "done" if done else status_of(letter.kind) if failed else "partial",
        "error": letter.cause if failed else None,
        "failed_segment": letter.segment if failed else None,
        **request_columns(run, request),
        "playlist": layout.playlist_key(video_id) if commits.markers.get(video_id) else None,
        "init": markers[0].init_key if markers else None,
        **totals(markers),
    }


def status_of(kind: str) -> str:
    return "rejected" if kind == "rejected" else "failed"


def request_columns(run: RunRecord, request: Row) -> Row:
    same = ("shots", "negative_prompt", "image", "video", "media_sha256", "width", "height", "fps", "seed", "guidance")
    return {
        **{name: request[name] for name in (*same, "steps", "priority", "model")},
        **{name: request.get(name) for name in ("end_image", "end_image_sha256", "ar_step")},
        "prompt": "\n".join(shot["prompt"] for shot in request["shots"]),
        "requested_frames": sum(shot["frames"] for shot in request["shots"]),
        "labels": sorted(request["labels"].items()),
        "model_digest": run.models.get(request["model"]),
        "policy": request["policy"].get("name"),
        "policy_json": json.dumps(request["policy"], sort_keys=True),
        "request_json": json.dumps(request, sort_keys=True, ensure_ascii=False),
    }


def totals(markers: tuple[SegmentMarker, ...]) -> Row:
    chunks = [chunk for marker in markers for chunk in marker.chunks]
    return {
        "segments": len(markers),
        "chunks": len(chunks),
        "frames": sum(chunk.frames for chunk in chunks),
        "bytes": sum(chunk.bytes for chunk in chunks),
        "steps_computed": sum(chunk.steps_computed for chunk in chunks),
        "steps_reused": sum(chunk.steps_reused for chunk in chunks),
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
