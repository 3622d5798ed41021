"""Do two outputs hold the same videos? python -m benchmarks.same demo-output demo-output-gang

Of every video that is finished in both, decoded: the largest difference of a pixel, and what the cache decided. Ends
with code 1 where decisions differ, or pixels by more than `NEAR`.
"""

import argparse
import sys
from collections.abc import Sequence

import numpy as np

from flowcache.storage import layout
from flowcache.storage.commits import chunks_of, read_commits
from flowcache.storage.documents import SegmentMarker
from flowcache.storage.media import decode
from flowcache.storage.objects.store import Store

NEAR = 2  # of 255: pixels are rounded to whole numbers, and H.264 makes more of it


def frames_of(store: Store, video: str, markers: Sequence[SegmentMarker]) -> np.ndarray:
    """uint8 [T, H, W, 3]."""
    parts = [store.get(chunk.key) for chunk in chunks_of(markers)]
    return np.stack([frame for frame, _ in decode(store.get(layout.init_key(video)), parts)])


def ranks(markers: Sequence[SegmentMarker]) -> str:
    sizes = sorted({marker.world_size for marker in markers})
    return f"{' and '.join(map(str, sizes))} rank{'s' * (sizes != [1])}"


def compare(first: Store, second: Store) -> tuple[list[str], bool]:
    """A line for each video that is finished in both, and whether all are the same."""
    one, other = read_commits(first), read_commits(second)
    lines, same = [], True
    for video in sorted(one.done & other.done):
        chunks = [[chunk.decisions for chunk in chunks_of(found.markers[video])] for found in (one, other)]
        a, b = frames_of(first, video, one.markers[video]), frames_of(second, video, other.markers[video])
        difference = int(np.abs(a.astype(int) - b).max()) if a.shape == b.shape else 255
        same &= difference <= NEAR and chunks[0] == chunks[1]
        decided = "the same decisions" if chunks[0] == chunks[1] else "OTHER decisions"
        by = f"by {ranks(one.markers[video])} and by {ranks(other.markers[video])}"
        equal = f"{100 * (a == b).mean():.2f} % of the pixels equal" if a.shape == b.shape else "other lengths"
        lines.append(f"{video} {by}: {decided}, {equal}, none differs by more than {difference} of 255")
    return lines, same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("outputs", nargs=2)
    lines, same = compare(*(Store(output) for output in parser.parse_args().outputs))
    print("\n".join(lines or ["no video is finished in both"]))
    sys.exit(not (same and lines))


if __name__ == "__main__":
    main()
