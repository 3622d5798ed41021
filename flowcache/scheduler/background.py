"""A run in a thread of this process, for those who go on meanwhile."""

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from flowcache.progress.events import RunEvent, VideoDone
from flowcache.scheduler.stopping import Stopping
from flowcache.scheduler.summary import Summary

CANCELLED = "it was cancelled"


@dataclass(frozen=True)
class FinishedVideo:
    """All of it is in the store. playlist: where it can be watched."""

    video_id: str
    playlist: str


class Run:
    """A run that has begun. Iterate over it for each video as soon as all of it is committed, those that were there
    before included; `with` it, and it is cancelled where the block is left by an exception.

    It renders on while nobody looks, and a process that is about to end waits for it.
    """

    def __init__(self, work: Callable[[Self], Summary], stopping: Stopping, playlist: Callable[[str], str]):
        """work: gets this as a listener."""
        self._work, self._stopping, self._playlist = work, stopping, playlist
        self._finished: queue.SimpleQueue[FinishedVideo | None] = queue.SimpleQueue()
        self._summary: Summary | BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="flowcache-run")
        self._thread.start()

    def on(self, event: RunEvent) -> None:
        if isinstance(event, VideoDone):
            self._finished.put(FinishedVideo(event.video, self._playlist(event.video)))

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def wait(self, seconds: float | None = None) -> Summary:
        """How it ended; what it raised is raised here, each time. TimeoutError after so many seconds; None: never."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            raise TimeoutError(f"the run goes on after {seconds:g} s")
        assert self._summary is not None
        if isinstance(self._summary, BaseException):
            raise self._summary
        return self._summary

    def cancel(self) -> None:
        """Start nothing more: segments under way get the options' `grace`, what is committed stays, and the same
        request goes on from there. `wait` for the end."""
        self._stopping.stop(CANCELLED)

    def __iter__(self) -> Iterator[FinishedVideo]:
        """Each video once, whoever asks; ends with the run."""
        while (video := self._finished.get()) is not None:
            yield video
        self._finished.put(None)  # for the next who asks

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if kind is not None:
            self.cancel()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._summary = self._work(self)
        except BaseException as error:  # noqa: BLE001 (raised by `wait`)
            self._summary = error
        finally:
            self._finished.put(None)
