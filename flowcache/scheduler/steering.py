"""Obeys what somebody tells a run through its store: in the order of the commands, each once, also after a restart.

What a command did follows from its object and its acknowledgement alone, so a driver that begins obeys all of them
again.
"""

import threading
import time
from collections import deque
from concurrent.futures import Future
from typing import Any

from flowcache.errors import FlowcacheError, InputError, StoreError
from flowcache.progress.events import CommandTaken, VideoCancelled, VideoReadmitted
from flowcache.scheduler.inbox import Inbox
from flowcache.scheduler.joining import Joining, PlanRows
from flowcache.scheduler.ledger import Ledger
from flowcache.scheduler.stopping import Stopping
from flowcache.storage.control import STOPS, Command, Log, Outcome, Taken, Withheld, acknowledge
from flowcache.storage.ownership import Superseded

SHOWN = 5  # ids of a message


class Steering:
    """`paused`: no segment is started. `tend` obeys; only `stop` is obeyed by the thread that sees it."""

    def __init__(self, ledger: Ledger, stopping: Stopping, plan_rows: PlanRows | None = None):
        self.ledger, self.stopping = ledger, stopping
        self.joining = Joining(ledger, plan_rows)
        self.paused: Command | None = None
        self._inbox = Inbox(ledger.store, self._heed)
        self._seen: set[int] = set()
        self._waiting: deque[tuple[Command, Taken | None]] = deque()
        self._acknowledged: deque[Future[Any]] = deque()
        self._lock = threading.Lock()  # of what waits

    def begin(self) -> None:
        """Obey all that was told before, then watch for more. To be called before anything is started."""
        self._heed(self._inbox.look())
        while self.busy:
            self.tend()
            self.joining.wait()
        self._inbox.start()

    def close(self) -> None:
        """Look no more; what was obeyed is written down."""
        self._inbox.close()
        for written in self._acknowledged:
            written.result()

    def abandon(self) -> None:
        """Look no more, however the run ends."""
        self._inbox.close()

    @property
    def busy(self) -> bool:
        """Something that was told may bring more work."""
        return bool(self._waiting) or self.joining.under_way is not None

    def last_look(self) -> bool:
        """Whether there is something new to obey, as far as the store tells."""
        try:
            self._heed(self._inbox.look())
        except StoreError:
            return False
        return self.busy

    def tend(self) -> None:
        """Obey what waits, one after the other; rows that are added are read in the background."""
        while self._acknowledged and self._acknowledged[0].done():
            self._acknowledged.popleft().result()
        while not self._ended_joining() and self._waiting:
            command, taken = self._waiting.popleft()
            self._obey(command, taken)

    def _ended_joining(self) -> bool:
        """Whether rows are still being added, and what comes after them has to wait."""
        under_way = self.joining.under_way
        if under_way is None:
            return False
        try:
            joined = self.joining.settle()
            if joined is None:
                return True
            message, videos = joined
            self._answer(*under_way, "obeyed", message, videos=videos)
        except InputError as error:
            problems = [str(problem) for problem in error.problems]
            self._answer(*under_way, "refused", "nothing was added", problems)
        except FlowcacheError as error:
            if isinstance(error, Superseded) or (isinstance(error, StoreError) and error.passing):
                raise
            self._answer(*under_way, "refused", f"nothing was added: {error}")
        return False

    def _heed(self, log: Log) -> None:
        """In whatever thread: line up what is new; stop at once where that is told."""
        with self._lock:
            new = [command for command in log.commands if command.number not in self._seen]
            self._seen |= {command.number for command in new}
        for command in new:
            taken = log.taken.get(command.number)
            if command.verb == "stop":
                self._stop(command, taken)
            elif taken is None or taken.outcome == "obeyed":
                self._waiting.append((command, taken))

    def _stop(self, command: Command, taken: Taken | None) -> None:
        """Taken before it is obeyed: of two drivers one stops, and none that is started afterwards."""
        message = f"segments under way get {self.stopping.grace:g} s, nothing more is started"
        try:
            if taken is None and acknowledge(self.ledger.store, self._taken(command, "obeyed", message)):
                self._tell(command, "obeyed", message)
                self.stopping.stop(f"told by {command}")
        except StoreError:
            with self._lock:
                self._seen.discard(command.number)  # to be tried again
            raise

    def _obey(self, command: Command, taken: Taken | None) -> None:
        """taken: what became of it before, which is done once more and not told again."""
        if command.verb == "add":
            self.joining.begin(command, taken)
        elif command.verb == "damaged":
            self._answer(command, taken, "refused", "it can't be read, or another version wrote it")
        elif command.verb in ("pause", "resume") and not command.videos:
            self._pause(command, taken)
        else:
            self._each(command, taken)

    def _pause(self, command: Command, taken: Taken | None) -> None:
        self.paused = command if command.verb == "pause" else None
        message = "no segment is started until the run is resumed" if self.paused else "segments are started again"
        self._answer(command, taken, "obeyed", message)

    def _each(self, command: Command, taken: Taken | None) -> None:
        """What concerns videos, each of which may be done or given up by now, or of no concern to this driver."""
        queue, said = self.ledger.queue, dict[str, list[str]]()
        self.ledger.changed = True
        for name in command.videos:
            video = queue.videos.get(name)
            if video is None or video.done or video.dead:
                known = name in self.ledger.record.plan["videos"]
                why = "not asked for now" if known else "no video of the run"
                said.setdefault(why if video is None else "done" if video.done else "given up", []).append(name)
                continue
            how = STOPS.get(command.verb)
            if how:
                queue.withhold(name, how)
                self.ledger.tell(VideoCancelled(name, str(Withheld(how, command)), new=taken is None))
            elif command.priority is not None:
                queue.prioritise(name, command.priority)
            elif video.withheld:
                queue.readmit(name)
                self.ledger.tell(VideoReadmitted(name))
            word = how or (f"of priority {command.priority}" if command.priority is not None else "going on")
            said.setdefault(word, []).append(name)
        message = "; ".join(f"{word}: {some(names)}" for word, names in said.items())
        self._answer(command, taken, "obeyed", message)

    def _answer(
        self,
        command: Command,
        taken: Taken | None,
        outcome: Outcome,
        message: str,
        problems: list[str] | None = None,
        videos: list[str] | None = None,
    ) -> None:
        if taken is None:
            answer = self._taken(command, outcome, message, problems, videos)
            self._acknowledged.append(self.ledger.writer.later(lambda: acknowledge(self.ledger.store, answer)))
            self._tell(command, outcome, "; ".join([message, *(problems or [])]))

    def _tell(self, command: Command, outcome: Outcome, message: str) -> None:
        self.ledger.tell(CommandTaken(str(command), outcome, message))

    def _taken(
        self,
        command: Command,
        outcome: Outcome,
        message: str,
        problems: list[str] | None = None,
        videos: list[str] | None = None,
    ) -> Taken:
        holder = self.ledger.hold.holder
        return Taken(
            command.number, holder.name, str(holder), time.time(), outcome, message, problems or [], videos or []
        )


def some(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
