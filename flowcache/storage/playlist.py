"""The HLS playlist of a video's chunks."""

from collections.abc import Iterator, Sequence
from fractions import Fraction

from flowcache.records import ChunkRecord, Rate

# A playlist may grow but its target must not change (RFC 8216, 6.2.1), and the first chunk is shorter than
# those that follow; chunks are 0.5 to 2 s, so this holds for all of them.
TARGET_SECONDS = 4


def playlist(chunks: Sequence[ChunkRecord], fps: Rate, done: bool) -> str:
    """The playlist (RFC 8216, version 7) of consecutive chunks, which lie beside it in the store."""
    longest = max((chunk.frames for chunk in chunks), default=1)
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        f"#EXT-X-TARGETDURATION:{max(TARGET_SECONDS, int(longest / fps + 0.5))}",
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
