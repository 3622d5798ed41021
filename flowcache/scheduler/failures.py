"""What follows from a failed attempt: whose fault it was, and whether it is tried again or the video given up."""

import json
from collections import Counter
from concurrent.futures import Future
from typing import Literal

from flowcache.errors import masked
from flowcache.records import SAMPLING, RenderRequest
from flowcache.scheduler.gang_pool import GangPool
from flowcache.scheduler.ledger import Ledger
from flowcache.scheduler.mending import Mending
from flowcache.scheduler.protocols import Gang, GangFailure
from flowcache.scheduler.refusals import Refusals
from flowcache.storage.documents import DeadLetter
from flowcache.storage.layout import marker_key
from flowcache.storage.runs import without_credentials
from flowcache.worker.task import Task

Budget = Literal["work", "infra"]  # what a failure is counted against
# Fields of a request that the memory of its windows follows.
WINDOW = ("model", "width", "height", "fps", "steps", "ar_step", "guidance", "policy", *SAMPLING)
LOG = 4000  # characters of a log that a dead letter keeps


def alike(request: RenderRequest) -> str:
    """The same for requests whose windows need the same memory."""
    fields = request.to_dict()
    frames = request.frames if request.segment == "all" else None
    return json.dumps([frames, *(fields.get(name) for name in WINDOW)], sort_keys=True, default=str)


class Failures:
    """Segments have a budget for failures of their own work, and one for those of machines; none for the store's."""

    def __init__(self, pool: GangPool, ledger: Ledger):
        self.pool, self.ledger = pool, ledger
        self.budgets: dict[Budget, int] = {"work": ledger.options.retries, "infra": ledger.options.infra_retries}
        self.counted: Counter[tuple[str, int, str]] = Counter()  # (video, segment, kind) -> failures
        self._too_large: set[str] = set()  # kinds of windows that a GPU had no room for
        self.mending = Mending(ledger, self._count, self._give_up)
        self.refusals = Refusals(ledger, pool.provider.now)
        self._suspects: list[tuple[Task, GangFailure, Gang]] = []  # attempts that the store refused
        self._answers: Future[bool] | None = None

    @property
    def in_doubt(self) -> bool:
        """The store was asked whether it answers at all, and has not yet."""
        return self._answers is not None

    def handle(self, gang: Gang, task: Task | None, failure: GangFailure) -> None:
        """A gang failed, in its task or before it had one."""
        if not failure.usable:
            self.pool.lost(gang, failure)
        if task and (failure.kind == "abandoned" or self.ledger.queue.videos[task.segment.video_id].withheld):
            return self.ledger.failed(task.segment, failure.rank, failure.cause, "abandoned", again=True)
        if task and failure.kind == "unreadable":
            failure = self._old_or_new(task, failure)
        if task and failure.kind in ("store", "node"):
            self._suspects.append((task, failure, gang))
            self._answers = self._answers or self.ledger.writer.answers()
        elif task and failure.kind == "memory":
            self._make_room(task, failure, gang)
        elif task and failure.kind == "damaged":
            self.mending.damaged(task, failure, gang)
        elif task:
            if failure.kind == "superseded":
                self.ledger.hold.look()
            self._count(task, failure, gang)

    def _old_or_new(self, task: Task, failure: GangFailure) -> GangFailure:
        """What the store refuses alone is made anew, as if it was damaged; where it refuses that, too, it has something
        against all of its kind."""
        kind = "store" if self.mending.mended[task.segment.video_id] else "damaged"
        return GangFailure(failure.rank, kind, failure.cause, failure.log, failure.usable)

    def settle(self) -> None:
        """Once the driver knows how the store fares with itself; StoreError if it is refused, too, or not answered."""
        self.mending.settle()
        if self._answers is None or not self._answers.done():
            return
        answered = self._answers.result()
        suspects, self._suspects, self._answers = self._suspects, [], None
        for task, failure, gang in suspects:
            elsewhere = None
            if answered:
                self._ask_node(gang.node, task, failure)
                own = failure.kind == "node" and self.pool.elsewhere(gang.node)
                elsewhere = gang.node if own else None
            self.refusals.add(task, failure, len(self.pool.gangs), elsewhere, answered)

    def _ask_node(self, node: str, task: Task, failure: GangFailure) -> None:
        """What of the attempts there was not the work's fault, but the node's."""
        for nodes_own, attempts in self.pool.failed(node, task.segment, failure).items():
            self.counted[*nodes_own, "work"] -= attempts
            self.counted[*nodes_own, "infra"] += attempts

    def tight(self, request: RenderRequest) -> bool:
        """Whether windows like the request's did not fit: all of them are then rendered with less memory."""
        return alike(request) in self._too_large

    def _make_room(self, task: Task, failure: GangFailure, gang: Gang) -> None:
        """Once more with less memory, which is nobody's fault; what then does not fit never will."""
        segment = task.segment
        self._too_large.add(alike(task.request))
        self.ledger.failed(segment, failure.rank, failure.cause, "memory", again=not task.frugal)
        if task.frugal:
            self.counted[segment.video_id, segment.index, "work"] += 1
            self._dead_letter(task, failure, gang, "work")

    def _count(self, task: Task, failure: GangFailure, gang: Gang) -> None:
        """Try the segment again while its budgets last, on another node if there is one; else dead-letter the video."""
        segment, node = task.segment, gang.node
        place = segment.video_id, segment.index
        self.counted[*place, "work" if failure.kind == "work" else "infra"] += 1
        self._ask_node(node, task, failure)
        spent = self._spent(place)
        not_on = node if self.pool.elsewhere(node) else None
        self.ledger.failed(segment, failure.rank, failure.cause, failure.kind, not spent, not_on)
        if spent:
            self._dead_letter(task, failure, gang, spent)

    def _give_up(self, task: Task, failure: GangFailure, gang: Gang) -> None:
        """What the video goes on from is damaged again and again."""
        segment = task.segment
        self.ledger.failed(segment, failure.rank, failure.cause, "damaged", again=False)
        self._dead_letter(task, failure, gang, "damaged")

    def _spent(self, place: tuple[str, int]) -> Budget | None:
        """A budget of the segment that is used up."""
        for kind, budget in self.budgets.items():
            if self.counted[*place, kind] > budget:
                return kind
        return None

    def _dead_letter(self, task: Task, failure: GangFailure, gang: Gang, kind: Budget | Literal["damaged"]) -> None:
        segment = task.segment
        counted = self.counted[segment.video_id, segment.index, kind]
        attempts = self.mending.mended[segment.video_id] if kind == "damaged" else counted
        finish = self.ledger.options.finish if task.finish else None

        def letter() -> DeadLetter:
            return DeadLetter(
                video_id=segment.video_id,
                segment=None if finish else segment.index,
                rank=failure.rank,
                cause=failure.cause,
                kind="finish" if finish else kind,
                attempts=attempts,
                log_tail=(failure.log or masked(gang.log_of(failure.rank)))[-LOG:],
                request=without_credentials(task.request),
                continues=marker_key(segment.video_id, segment.after) if segment.after is not None else None,
                finish=finish,
            )

        self.ledger.dead_letter(segment.video_id, failure.cause, letter, finish)
