"""How a run ended."""

from collections.abc import Collection, Set
from dataclasses import dataclass, field

from flowcache.errors import masked
from flowcache.scheduler.queue import SegmentQueue
from flowcache.scheduler.stopping import TOLD
from flowcache.storage.commits import Listing
from flowcache.storage.documents import RunRecord
from flowcache.storage.objects.store import Store


@dataclass(frozen=True)
class Summary:
    """How a run ended. `rendered`: chunks made by this call (0 when all was there already)."""

    run_id: str
    output: str
    done: tuple[str, ...]
    failed: dict[str, str]  # video id -> cause
    rejected: dict[str, str]  # row or video id -> what was wrong with it
    rendered: int
    seconds: float
    stopped: str | None = None  # why it ended with videos left: at its deadline, or by SIGTERM
    left: int = 0  # videos that are neither done nor failed
    chunks_left: int = 0  # of those
    cancelled: dict[str, str] = field(default_factory=dict)  # video id -> by whom and when, also of what was skipped

    @property
    def exit_code(self) -> int:
        return 5 if self.left else 3 if self.failed or self.rejected else 0

    def code(self, succeed_with: Collection[int]) -> int:
        """What to end with where these exit codes are a success: SIGTERM's never is, whoever sent it starts anew."""
        return 0 if self.exit_code in succeed_with and self.stopped != TOLD else self.exit_code


def summarise(
    store: Store,
    record: RunRecord,
    listing: Listing,
    queue: SegmentQueue,
    rendered: int,
    stopped: str | None,
    seconds: float,
    outside: Set[str] = frozenset(),
) -> Summary:
    """listing: what is committed in the end; queue: what the driver had to do, and what is left of it; outside: videos
    of the root that were not asked for."""
    over = listing.done | listing.dead_letters.keys()
    withheld = {name: str(one) for name, one in listing.withheld.items() if name in queue.videos and name not in over}
    letters = {name: letter for name, letter in listing.dead_letters.items() if name not in outside}
    left = queue.left
    return Summary(
        run_id=record.run_id,
        output=masked(store.url),
        done=tuple(name for name in queue.videos if name in listing.done),
        failed={name: letter.cause for name, letter in letters.items() if letter.kind != "rejected"},
        rejected={problem.get("video") or f"row {problem['row']}": problem["message"] for problem in record.rejected},
        rendered=rendered,
        seconds=seconds,
        stopped=stopped if left else None,
        left=len(left),
        chunks_left=queue.chunks_left,
        cancelled=withheld,
    )
