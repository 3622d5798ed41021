"""A run's events in its store: JSON lines, some at a time in an object of their own."""

import threading

from flowcache.errors import StoreError
from flowcache.progress.events import RunEvent
from flowcache.progress.messages import Messages
from flowcache.storage import layout
from flowcache.storage.documents import canonical
from flowcache.storage.objects.store import Store

EVERY = 5.0  # seconds between two objects, so that their number follows from time and not from videos


class EventLog:
    """A listener that writes in a thread of its own. What is not taken is tried again with what comes next."""

    def __init__(self, store: Store, holder: str):
        self.store, self.holder = store, holder
        self._messages, self._lines, self._number = Messages(), list[bytes](), 0
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="event-log", daemon=True)

    def __enter__(self) -> "EventLog":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def on(self, event: RunEvent) -> None:
        message = self._messages.of(event)
        if message:
            with self._lock:
                self._lines.append(canonical(message))

    def _watch(self) -> None:
        over = False
        while not over:
            over = self._over.wait(EVERY)
            self._write()

    def _write(self) -> None:
        with self._lock:
            lines = list(self._lines)
        if not lines:
            return
        try:
            self.store.create(layout.events_key(self.holder, self._number + 1), b"".join(lines))
        except StoreError:
            return
        self._number += 1
        with self._lock:
            del self._lines[: len(lines)]
