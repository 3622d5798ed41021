"""How a run tells that it has begun, and that it has ended."""

from collections.abc import Callable

from flowcache.errors import StoreError
from flowcache.progress.events import VideoBegan
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


def begun(video: Video) -> VideoBegan:
    """What is told of a video when the run begins."""
    chunks = sum(segment.chunks for segment in video.segments)
    there = len(video.committed), chunks - video.chunks_left
    return VideoBegan(video.request.id, len(video.segments), chunks, *there, video.dead)
