"""The HLS playlist of a video's chunks."""

from collections.abc import Sequence

from flowcache.records import ChunkRecord

# A playlist may grow but its target must not change (RFC 8216, 6.2.1), and the first chunk is shorter than
# those that follow; chunks are 0.5 to 2 s, so this holds for all of them.
TARGET_SECONDS = 4


def playlist(chunks: Sequence[ChunkRecord], fps: int, done: bool) -> str:
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
    for chunk in chunks:
        lines += [f"#EXTINF:{chunk.frames / fps:.6f},", chunk.key.rpartition("/")[2]]
    if done:
        lines.append("#EXT-X-ENDLIST")
    return "\n".join(lines) + "\n"
