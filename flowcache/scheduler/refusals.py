"""Attempts that the store refused: its own fault until proven otherwise, so no video pays for them."""

import time
from collections import Counter
from collections.abc import Callable

from flowcache.scheduler.ledger import Ledger, Refused
from flowcache.scheduler.protocols import GangFailure
from flowcache.worker.task import Task

LONGEST = 60.0  # seconds between two rounds of what the store refuses


class Refusals:
    """What is refused is set aside until something is committed, `infra_retries` times; then until all else is done.

    The run ends when nothing was committed between so many refusals that everybody has met one.
    """

    def __init__(self, ledger: Ledger, now: Callable[[], float]):
        self.ledger, self.now = ledger, now
        self.in_a_row = 0  # since something was committed
        self._since = 0.0  # when the first of them came, as the store's patience is counted
        self._again = 0.0  # when what is set aside is tried again, where nothing else is left
        self._counts: Counter[tuple[str, int]] = Counter()  # by video and segment

    def add(self, task: Task, failure: GangFailure, gangs: int, elsewhere: str | None, answered: bool) -> None:
        """gangs: at work; elsewhere: the node that was refused, if another one may fare better; answered: the store
        answered the driver at once meanwhile."""
        segment, options = task.segment, self.ledger.options
        place = segment.video_id, segment.index
        self._since = self._since if self.in_a_row else time.monotonic()
        self.in_a_row += 1
        self._counts[place] += 1
        self._again = self.now() + min(2.0**self.in_a_row, LONGEST)
        enough = self.in_a_row > max(options.infra_retries, min(gangs, len(self.ledger.queue.left)))
        if enough and (answered or time.monotonic() - self._since > options.patience):
            raise Refused(self._told(task, failure))
        move = elsewhere if self._counts[place] == 1 else None
        aside = answered and move is None
        self.ledger.failed(segment, failure.rank, failure.cause, failure.kind, True, move, aside)

    def _told(self, task: Task, failure: GangFailure) -> str:
        left, segment = len(self.ledger.queue.left), task.segment
        return (
            f"the store refuses all that is left ({left} video{'s' * (left > 1)}, {self.in_a_row} attempts in a row); "
            f"the last one: video {segment.video_id}, segment {segment.index}, rank {failure.rank}: {failure.cause}. "
            "What is committed stays, no video was given up for it, and the same command goes on from there"
        )

    def committed(self) -> None:
        """The store takes what it is given."""
        if self.in_a_row:
            self.in_a_row = 0
            retries = self.ledger.options.infra_retries
            self.ledger.queue.resume(lambda segment: self._counts[segment.video_id, segment.index] <= retries)

    def tend(self, working: bool) -> None:
        """Where nothing else is left, it is the turn of what was set aside. working: some gang has a task."""
        queue = self.ledger.queue
        if not working and not queue.startable and self.now() >= self._again:
            queue.resume(lambda segment: True)
