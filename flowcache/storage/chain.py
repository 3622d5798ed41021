"""Whether the markers of a video follow from each other, which their hashes and numbers alone tell."""

from collections.abc import Iterable, Iterator

from flowcache.storage import layout
from flowcache.storage.audit import Damage
from flowcache.storage.commits import marker_sha256
from flowcache.storage.documents import RunRecord, SegmentMarker


def check_markers(run: RunRecord, markers: Iterable[SegmentMarker]) -> Iterator[Damage]:
    earlier: set[str] = set()
    for marker in markers:
        where = {"video_id": marker.video_id, "segment": marker.segment}
        if marker.spec_hash != run.hash_of(marker.video_id):
            yield Damage(f"was committed by another run ({marker.run_id})", **where)
        if marker.parent_sha256 is not None and marker.parent_sha256 not in earlier:
            yield Damage("continues a segment that is not the committed one", **where)
        if marker.frames != sum(chunk.frames for chunk in marker.chunks):
            yield Damage(f"says {marker.frames} frames, its chunks say otherwise", **where)
        if marker.init_key != layout.init_key(marker.video_id):
            yield Damage(f"names {marker.init_key!r:.60} as its init segment", **where)
        earlier.add(marker_sha256(marker))


def check_continuity(markers: Iterable[SegmentMarker]) -> Iterator[Damage]:
    """Chunk numbers and frames must follow each other without gap from 0."""
    number = frame = 0
    for marker in markers:
        for chunk in marker.chunks:
            if (chunk.chunk, chunk.start_frame) != (number, frame):
                message = f"starts at frame {chunk.start_frame}, expected chunk {number} at frame {frame}"
                yield Damage(message, marker.video_id, marker.segment, chunk.chunk)
            number, frame = chunk.chunk + 1, chunk.start_frame + chunk.frames
