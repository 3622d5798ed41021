"""Sees what somebody tells the run: one listing of a small folder every few seconds, in a thread of its own."""

import threading
from collections.abc import Callable

from flowcache.errors import StoreError
from flowcache.storage.control import Command, Log, Taken, read_log
from flowcache.storage.objects.store import Store

LOOK = 2.0  # seconds between two looks: with a driver's own second, commands are obeyed within five


class Inbox:
    """`heed` is called with all commands whenever there may be new ones, from the thread that looks."""

    def __init__(self, store: Store, heed: Callable[[Log], None]):
        self.store, self.heed = store, heed
        self._known: dict[str, Command | Taken] = {}
        self._looking, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="inbox", daemon=True)

    def look(self) -> Log:
        """All commands by now."""
        with self._looking:
            return read_log(self.store, self._known)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(LOOK):
            try:
                self.heed(self.look())
            except StoreError:
                continue  # it is down for a while
