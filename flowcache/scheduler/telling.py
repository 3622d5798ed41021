"""How a run tells that it has begun, and that it has ended."""

from collections.abc import Callable

from flowcache.errors import StoreError
from flowcache.progress.events import VideoBegan
from flowcache.scheduler.queue import Video
from flowcache.storage.commits import stopped
from flowcache.storage.documents import Stopped
from flowcache.storage.objects.store import Store


def tell_stopped(store: Store, end: Stopped, note: Callable[[str], None]) -> None:
    """Tell who watches the store; that it can't be told must not hide why the run ends."""
    try:
        stopped(store, end)
    except StoreError as error:
        note(f"could not say in the store that the run has ended: {error}")


def begun(video: Video) -> VideoBegan:
    """What is told of a video when the run begins."""
    chunks = sum(segment.chunks for segment in video.segments)
    there = len(video.committed), chunks - video.chunks_left
    return VideoBegan(video.request.id, len(video.segments), chunks, *there, video.dead)
