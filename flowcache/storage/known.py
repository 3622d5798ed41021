"""Markers as the chunk table tells them: a few large reads in place of one for each segment.

Markers never change, so a row is right as long as its marker is there, however old the table is.
"""

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Any

from flowcache.records import ChunkRecord
from flowcache.storage import layout
from flowcache.storage.documents import SCHEDULE, RunRecord, SegmentMarker
from flowcache.storage.keys import listed
from flowcache.storage.objects.store import Store

FEW = 500  # segments of a run whose markers are read sooner than pyarrow is loaded
READERS = 4  # parts read at once: each has some 100,000 rows
OF_CHUNK = tuple(name for name in ChunkRecord.__dataclass_fields__ if name != "key")
# Names in both.
SAME = ("video_id", "segment", "attempt", "fps", "host", "gang", "world_size", "started", "finished", *SCHEDULE)
COLUMNS = ("uri", *OF_CHUNK, *SAME, "fps_num", "fps_den", "init", "segment_seconds", "hardware")


def known_markers(store: Store, run: RunRecord) -> dict[str, SegmentMarker]:
    """By key. What the table lacks (hashes of init, state and parent) is empty: these are for counting and showing, and
    not for verifying, collecting or going on."""
    if run.plan["segments"] < FEW:
        return {}
    keys = [found.entry.key for found in listed(store, layout.table_prefix("chunks", run.run_id))]
    requests = {request["id"]: request for request in run.requests}
    with ThreadPoolExecutor(READERS) as pool:
        parts = list(pool.map(store.find, keys))
    found = (marker for part in parts if part for marker in markers_of(part, run, requests))
    return {layout.marker_key(marker.video_id, marker.segment): marker for marker in found}


def markers_of(part: bytes, run: RunRecord, requests: dict[str, dict]) -> Iterator[SegmentMarker]:
    """Of one Parquet file; nothing of one that is damaged or another version's, since the markers can be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from flowcache.storage.schemas import CHUNKS, completed, rate_in

    try:
        table = completed(pq.read_table(io.BytesIO(part)), CHUNKS)
        if not table.schema.equals(CHUNKS):
            return
        columns = [table[name].to_pylist() for name in COLUMNS]
    except (pa.ArrowException, OSError, ValueError):
        return
    places = [COLUMNS.index(name) for name in ("video_id", "segment")]
    for (video_id, _), rows in groupby(zip(*columns, strict=True), key=lambda row: (row[places[0]], row[places[1]])):
        if video_id in requests:
            together = list(rows)
            first = dict(zip(COLUMNS, together[0], strict=True))
            yield marker_of(together, first | {"fps": rate_in(first)}, run, requests[video_id])


def marker_of(rows: list[tuple], first: dict[str, Any], run: RunRecord, request: dict) -> SegmentMarker:
    """rows: the segment's chunks, as COLUMNS has them. first: what the first of them says, by column."""
    chunks = tuple(ChunkRecord(key=row[0], **dict(zip(OF_CHUNK, row[1:], strict=False))) for row in rows)
    return SegmentMarker(
        **{name: first[name] for name in SAME},
        run_id=run.run_id,
        spec_hash=run.hash_of(first["video_id"]),
        seed=request["seed"],
        policy=request["policy"],
        parent_sha256=None,
        init_key=first["init"],
        init_sha256="",
        state_key=None,
        state_sha256=None,
        state_bytes=0,
        chunks=chunks,
        frames=sum(chunk.frames for chunk in chunks),
        start_frame=chunks[0].start_frame,
        seconds=dict(first["segment_seconds"]),
        hardware=dict(first["hardware"]) if first["hardware"] else None,
    )
