"""A store that kills the processes that use it, each death once."""

import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path

from flowcache.storage.objects.store import Store


class DeadlyStore(Store):
    """Kills the actor that uses it, once for each of `deaths` (when, pattern of keys); the driver is spared."""

    def __init__(self, url: str, notes: str, deaths: Sequence[tuple[str, str]]):
        super().__init__(url)
        self.notes, self.deaths, self.spared = notes, deaths, os.getpid()

    def put(self, key, data):
        return self.around(key, super().put, data)

    def create(self, key, data):
        return self.around(key, super().create, data)

    def around(self, key, operation, data):
        self.die("before", key)
        result = operation(key, data)
        self.die("after", key)
        return result

    def die(self, when: str, key: str) -> None:
        for number, (moment, pattern) in enumerate(self.deaths):
            note = Path(self.notes, str(number))
            if os.getpid() != self.spared and moment == when and re.search(pattern, key) and not note.exists():
                note.touch()
                os.kill(os.getpid(), signal.SIGKILL)
