"""What a run tells of failed attempts."""

from flowcache.progress.events import Note, SegmentFailed


class Failures:
    """Causes of failed attempts, and notes."""

    def __init__(self):
        self.causes: list[str] = []
        self.said: list[str] = []

    def on(self, event):
        if isinstance(event, SegmentFailed):
            self.causes.append(event.cause)
        elif isinstance(event, Note):
            self.said.append(event.message)
