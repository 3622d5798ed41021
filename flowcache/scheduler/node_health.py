"""Which machines are trusted with work. Pure: no Ray, no clock, no store.

A video that fails on sound nodes is at fault itself. A node is, where attempts fail in a row while most other nodes do
well, or where the store refuses it what it gives others. It gets no work for a while, and its failures were not the
work's own.
"""

from collections import Counter
from collections.abc import Iterable

from flowcache.records import Segment

IN_A_ROW = 3  # failed attempts, as a rule at different videos: what failed goes to another node if there is one
AVOIDED, LONGEST = 600.0, 14_400.0  # seconds without work: the first time, doubled until something is committed there

Attempts = Counter[tuple[str, int]]  # (video, segment) -> attempts that the work was blamed for


class NodeHealth:
    """What the driver saw of each node. `now` is any clock in seconds."""

    def __init__(self) -> None:
        # By node, since its last commit: video, segment, and whether the work is still blamed for it.
        self._failed: dict[str, list[tuple[str, int, bool]]] = {}
        self._refused: dict[str, set[str]] = {}  # by video: nodes that the store refused it
        self._proven: set[str] = set()  # nodes that have committed something
        self._until: dict[str, float] = {}  # by node: when it gets work again
        self._times: Counter[str] = Counter()  # by node: how often it was avoided since its last commit

    def trusted(self, node: str) -> bool:
        """Nothing has failed there since its last commit."""
        return not self._failed.get(node)

    def avoided(self, now: float) -> frozenset[str]:
        """Nodes that get no work."""
        return frozenset(node for node, until in self._until.items() if now < until)

    def committed(self, node: str) -> None:
        """The node is as good as any."""
        self._proven.add(node)
        for notes in (self._failed, self._until, self._times):
            notes.pop(node, None)

    def failed(self, node: str, segment: Segment, kind: str, known: Iterable[str], now: float) -> Attempts:
        """An attempt failed on a node; kind: of the GangFailure; known: nodes that hold gangs, or could.

        Gives the attempts that were the node's fault and not the work's: where it is avoided from now on, those of
        all that failed there in a row.
        """
        attempt = segment.video_id, segment.index, kind == "work"
        if kind == "node" and self._refused_elsewhere(node, segment.video_id):
            return Attempts()
        if node in self.avoided(now):
            return forgive([attempt])
        if self.trusted(node) and node in self._proven and self._acquit(segment.video_id):
            return Attempts()
        self._failed.setdefault(node, []).append(attempt)
        if self._at_fault(node, kind, {*known, node}):
            return self._avoid(node, now)
        return Attempts()

    def _refused_elsewhere(self, node: str, video: str) -> bool:
        """The store refuses the video on several nodes: it is the video's place there, and none of these is avoided."""
        refused = self._refused.setdefault(video, set())
        refused.add(node)
        if len(refused) == 1:
            return False
        for other in refused:
            left = [attempt for attempt in self._failed.pop(other, ()) if attempt[0] != video]
            if left:
                self._failed[other] = left
            else:
                self._until.pop(other, None)
        return True

    def _acquit(self, video: str) -> bool:
        """A sound node has failed the video: nodes that did so before were right. False: there were none."""
        accused = [node for node, failed in self._failed.items() if any(name == video for name, *_ in failed)]
        for node in accused:
            self._failed[node] = [attempt for attempt in self._failed[node] if attempt[0] != video]
        return bool(accused)

    def _at_fault(self, node: str, kind: str, known: set[str]) -> bool:
        """The store's refusal is sure, as long as somebody else is left; failures in a row are no sign against a node
        when they come everywhere."""
        doubtful = sum(not self.trusted(other) for other in known)
        if kind == "node":
            return doubtful < len(known)
        return len(self._failed[node]) >= IN_A_ROW and 2 * doubtful <= len(known)

    def _avoid(self, node: str, now: float) -> Attempts:
        self._until[node] = now + min(AVOIDED * 2 ** self._times[node], LONGEST)
        self._times[node] += 1
        failed = self._failed[node]
        # They stay, so that the first failure is enough when its time is over.
        self._failed[node] = [(video, index, False) for video, index, _ in failed]
        return forgive(failed)


def forgive(failed: Iterable[tuple[str, int, bool]]) -> Attempts:
    return Attempts((video, index) for video, index, blamed in failed if blamed)
