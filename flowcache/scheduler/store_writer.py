"""The driver's own writes, in the background: its loop must not wait for the store."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from flowcache.errors import ObjectError, StoreError
from flowcache.storage.commits import dead_letter, mark_done, put_playlist
from flowcache.storage.documents import DeadLetter, SegmentMarker
from flowcache.storage.layout import OWNER
from flowcache.storage.objects.store import Store, Unusable

WRITERS = 64  # as many as the store has connections
PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0)  # seconds between tries while the store does not answer; the last one again
REFUSALS = 3  # that may pass, too


class StoreWriter:
    """Writes of one video come one after the other, and of several playlists in a row only the last is written.

    A store that does not answer is tried again for `patience` seconds; after that the error comes out of `check` and
    `drain`. What it refuses is tried again in `drain`, which raises what is refused then: others don't wait for it.
    """

    def __init__(self, store: Store, patience: float):
        self.store, self.patience = store, patience
        self.finished: deque[str] = deque()  # videos that were marked done; whoever reads it empties it
        self.refusals: deque[str] = deque()  # what was refused; the same
        self._refused: dict[str, tuple[Callable[[], object], StoreError]] = {}  # by what is written: how, and why not
        self._pool = ThreadPoolExecutor(WRITERS, "store-writer")
        self._changed = threading.Condition()
        self._next: dict[str, Callable[[], object] | None] = {}  # by video under way: what comes after
        self._error: BaseException | None = None
        self._closing = threading.Event()

    def playlist(self, video_id: str, markers: Sequence[SegmentMarker]) -> None:
        self._submit(video_id, lambda: put_playlist(self.store, video_id, markers, done=False))

    def finish(self, video_id: str, markers: Sequence[SegmentMarker]) -> None:
        """Close the playlist, then mark the video done."""

        def write() -> None:
            put_playlist(self.store, video_id, markers, done=True)
            mark_done(self.store, video_id, markers)
            self.finished.append(video_id)

        self._submit(video_id, write)

    def dead_letter(self, video_id: str, letter: Callable[[], DeadLetter]) -> None:
        """letter: may take its time, to find a log."""
        self._submit(f"letter of {video_id}", lambda: dead_letter(self.store, letter()))

    def answers(self) -> Future[bool]:
        """Whether the store answers at once; the answer may take as long as its outage. StoreError if it refuses the
        driver, too."""

        def look() -> bool:
            begun = time.monotonic()
            self._patiently(lambda: self.store.find(OWNER))  # a small object, whose refusal has words
            at_once = time.monotonic() - begun < PAUSES[0]
            self._patiently(self.store.probe)
            return at_once

        return self._pool.submit(look)

    def check(self) -> None:
        """Raise what made a write fail for good, StoreError as a rule."""
        if self._error:
            raise self._error

    def drain(self) -> None:
        """Return when everything is written; what was refused is tried once more."""
        self._wait()
        for name, (write, _) in list(self._refused.items()):
            self._submit(name, write)
        self._wait()
        for _, error in self._refused.values():
            more = f", and {len(self._refused) - 1} more" if len(self._refused) > 1 else ""
            message = f"{error}{more}. All else was done, and the same command goes on from there"
            raise StoreError(message, error.passing, error.of_machine) from error

    def _wait(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._next or self._error)
        self.check()

    def close(self) -> None:
        """Give up what is not written yet; a rerun writes it."""
        self._closing.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self, name: str, write: Callable[[], object]) -> None:
        with self._changed:
            if name in self._next:
                self._next[name] = write
                return
            self._next[name] = None
        self._pool.submit(self._run, name, write).add_done_callback(self._ended)

    def _run(self, name: str, write: Callable[[], object] | None) -> None:
        while write:
            refused = self._tried(write)
            with self._changed:
                self._refused.pop(name, None)
                if refused:
                    self._refused[name] = write, refused
                write = self._next[name]
                if write:
                    self._next[name] = None
                else:
                    del self._next[name]
                    self._changed.notify_all()

    def _ended(self, job: Future[None]) -> None:
        error = None if job.cancelled() else job.exception()
        if error:
            with self._changed:
                self._error = self._error or error
                self._changed.notify_all()

    def _tried(self, write: Callable[[], object]) -> StoreError | None:
        """Why the store refuses it; None where it is written."""
        try:
            self._patiently(write)
        except StoreError as error:
            if error.passing:
                raise
            self.refusals.append(str(error))
            return error
        return None

    def _patiently(self, operation: Callable[[], object]) -> None:
        begun = time.monotonic()
        for tried in range(1 << 20):
            try:
                operation()
                return
            except StoreError as error:
                lasting = not error.passing and (tried >= REFUSALS or isinstance(error, ObjectError | Unusable))
                if lasting or time.monotonic() - begun > self.patience:
                    raise
                if self._closing.wait(PAUSES[min(tried, len(PAUSES) - 1)]):
                    raise
