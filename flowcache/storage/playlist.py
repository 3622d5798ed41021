"""The HLS playlists of a video: the one that lists its chunks, and the master playlist that says what they are."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from math import ceil

from flowcache.records import ChunkRecord, Rate
from flowcache.storage.documents import SegmentMarker

# A playlist may grow but its target must not change (RFC 8216, 6.2.1), and the first chunk may be shorter than those
# that follow: so it goes by the longest chunk that any family has, not by those that are there.
TARGET_SECONDS, LONGEST_CHUNK = 4, 24  # frames


def playlist(chunks: Sequence[ChunkRecord], fps: Rate, done: bool) -> str:
    """The playlist (RFC 8216, version 7) of consecutive chunks, which lie beside it in the store."""
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        f"#EXT-X-TARGETDURATION:{target_of(chunks, fps)}",
        "#EXT-X-MEDIA-SEQUENCE:0",
        f"#EXT-X-PLAYLIST-TYPE:{'VOD' if done else 'EVENT'}",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        '#EXT-X-MAP:URI="init.mp4"',
    ]
    for chunk, seconds in zip(chunks, durations(chunks, fps), strict=True):
        lines += [f"#EXTINF:{seconds},", chunk.key.rpartition("/")[2]]
    if done:
        lines.append("#EXT-X-ENDLIST")
    return "\n".join(lines) + "\n"


def durations(chunks: Sequence[ChunkRecord], fps: Rate) -> Iterator[str]:
    """Seconds of each, with six decimals."""
    if isinstance(fps, int):  # each rounded by itself, as in playlists that lie in stores since the first version
        yield from (f"{chunk.frames / fps:.6f}" for chunk in chunks)
        return
    frames = before = 0
    for chunk in chunks:
        frames += chunk.frames
        now = round(Fraction(frames) / fps * 1_000_000)  # since the start, so that no error adds up
        whole, millionths = divmod(now - before, 1_000_000)
        yield f"{whole}.{millionths:06d}"
        before = now


def target_of(chunks: Sequence[ChunkRecord], fps: Rate) -> int:
    """Rounded seconds that no chunk is longer than: the same for every length of the playlist."""
    longest = max((chunk.frames for chunk in chunks), default=1)
    return max(TARGET_SECONDS, int(max(longest, LONGEST_CHUNK) / fps + 0.5))


def master(markers: Sequence[SegmentMarker]) -> str | None:
    """The multivariant playlist over the one beside it. markers: of consecutive segments, one at least. None where an
    older version wrote them all, which did not say what their stream is."""
    stream = next((marker.stream for marker in markers if marker.stream), None)
    if stream is None:
        return None
    fps = markers[0].fps
    chunks = [chunk for marker in markers for chunk in marker.chunks]
    attributes = {
        "BANDWIDTH": peak(chunks, fps),
        "AVERAGE-BANDWIDTH": rate(chunks, fps),
        "CODECS": f'"{stream["codecs"]}"',
        "RESOLUTION": stream["resolution"],
        "FRAME-RATE": f"{float(fps):.3f}",
    }
    told = ",".join(f"{name}={value}" for name, value in attributes.items())
    return f"#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-INDEPENDENT-SEGMENTS\n#EXT-X-STREAM-INF:{told}\nindex.m3u8\n"


def rate(chunks: Sequence[ChunkRecord], fps: Rate) -> int:
    """Bits a second over all of them, rounded up."""
    return ceil(Fraction(8 * fps * sum(chunk.bytes for chunk in chunks), sum(chunk.frames for chunk in chunks)))


def peak(chunks: Sequence[ChunkRecord], fps: Rate) -> int:
    """The largest rate of neighbours that together last 0.5 to 1.5 times the target, as RFC 8216 (4.1) has it; of
    shorter videos that of all."""
    target, found = target_of(chunks, fps) * fps, [rate(chunks, fps)]
    for first in range(len(chunks)):
        frames, last = 0, first
        while last < len(chunks) and 2 * (frames := frames + chunks[last].frames) <= 3 * target:
            last += 1
            if 2 * frames >= target:
                found.append(rate(chunks[first:last], fps))
    return max(found)
