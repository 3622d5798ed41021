"""How a run tells that it has begun, and that it has ended."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flowcache.errors import FlowcacheError, StoreError
from flowcache.progress.events import RunEvent, RunOver, VideoBegan
from flowcache.scheduler.queue import Video
from flowcache.storage.commits import stopped
from flowcache.storage.documents import Stopped
from flowcache.storage.objects.store import Store


def quietly(what: str, write: Callable[[], object], note: Callable[[str], None]) -> None:
    """What comes after the cause of an end must not hide it."""
    try:
        write()
    except StoreError as error:
        note(f"could not {what}: {error}")


def tell_stopped(store: Store, end: Stopped, note: Callable[[str], None]) -> None:
    """Tell who watches the store, if it can be told."""
    quietly("say in the store that the run has ended", lambda: stopped(store, end), note)


@contextmanager
def told_end(tell: Callable[[RunEvent], None]) -> Iterator[None]:
    """An error that ends the run is its last event."""
    try:
        yield
    except FlowcacheError as error:
        tell(RunOver(error.exit_code, str(error)))
        raise


def begun(video: Video) -> VideoBegan:
    """What is told of a video when the run begins."""
    chunks = sum(segment.chunks for segment in video.segments)
    there = video.segments_committed, chunks - video.chunks_left
    return VideoBegan(video.request.id, len(video.segments), chunks, *there, video.dead)
