"""Somebody who steers the night at random, and in the end wants all that was planned."""

import random
import threading
import time
from collections import Counter

from flowcache.errors import FlowcacheError
from flowcache.storage.control import Command, caller, give, read_log
from flowcache.storage.objects.store import Store

VERBS = {"pause": 1, "resume": 2, "cancel": 3, "skip": 3, "readmit": 3, "prioritise": 4, "stop": 0.3}  # how often


class Operator:
    """Gives `count` commands, up to `every` seconds apart, then those that undo what was done: all in a thread of its
    own."""

    def __init__(self, store: Store, videos: list[str], count: int, every: float, seed: int):
        self.store, self.videos, self.count, self.every = store, videos, count, every
        self.draw = random.Random(seed + 1)
        self.given: list[Command] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def tend(self) -> None:
        """Begin once the run is there to be steered."""
        if not self._thread.ident:
            self._thread.start()

    def close(self) -> None:
        self._over.set()
        if self._thread.ident:
            self._thread.join()

    def owes(self) -> bool:
        """Whether commands are still to be given, or to be taken."""
        if not self._thread.ident or self._thread.is_alive():
            return True
        try:
            return bool(read_log(self.store).pending)
        except FlowcacheError:
            return True

    def _work(self) -> None:
        verbs = self.draw.choices(list(VERBS), list(VERBS.values()), k=self.count)
        for verb in verbs:
            if self._over.wait(self.draw.uniform(0.05, self.every)):
                return
            some = self.draw.sample(self.videos, min(len(self.videos), self.draw.randrange(1, 4)))
            self._tell(verb, some)
        self._tell("resume", [])
        self._tell("readmit", self.videos)

    def _tell(self, verb: str, videos: list[str]) -> None:
        whole = verb in ("pause", "resume", "stop")
        priority = self.draw.randrange(-9, 10) if verb == "prioritise" else None
        word = "resume" if verb == "readmit" else verb
        command = Command(0, word, caller(), time.time(), [] if whole else videos, priority)
        while not self._over.is_set():
            try:
                self.given.append(give(self.store, command))
                return
            except FlowcacheError:
                time.sleep(0.5)  # the server is down, or comes back

    def check(self) -> dict[str, int]:
        """AssertionError where a command was lost or changed, or taken by none or by two; else what was counted."""
        log = read_log(self.store)
        there = {command.number: command for command in log.commands}
        assert len(self.given) == self.count + 2 and not log.pending, log.pending
        assert [there.get(command.number) for command in self.given] == self.given, "commands were lost"
        assert len(there) == len(self.given) == len(log.taken), "commands that nobody gave, or answers to none"
        outcomes = Counter(taken.outcome for taken in log.taken.values())
        assert outcomes == {"obeyed": len(self.given)}, outcomes
        return {"commands": len(self.given), "drivers that took some": len({one.holder for one in log.taken.values()})}
