"""What a run tells machines: its events as plain data, those of whole videos and of the run."""

import secrets
import time
from typing import Any

from flowcache.errors import masked
from flowcache.progress.events import (
    CommandTaken,
    FinishDead,
    RunBegan,
    RunEvent,
    RunOver,
    VideoCancelled,
    VideoDead,
    VideoDone,
    VideoFinished,
    VideosJoined,
)


class Messages:
    """`of` an event is a JSON object, None of those that are not told: segments, chunks, notes, and what an earlier
    driver told."""

    def __init__(self) -> None:
        self._run = ""

    def of(self, event: RunEvent) -> dict[str, Any] | None:
        if isinstance(event, RunBegan):
            self._run = event.run_id
        told = self._told(event)
        if told is None:
            return None
        name, fields = told
        return {"id": secrets.token_hex(8), "event": name, "at": time.time(), "run": self._run, **fields}

    def _told(self, event: RunEvent) -> tuple[str, dict[str, Any]] | None:
        match event:
            case RunBegan():
                return "run started", {"videos": len(event.videos)}
            case VideosJoined() if event.videos:
                return "videos added", {"videos": len(event.videos)}
            case VideoDone() if event.new:
                return "video done", {"video": event.video}
            case VideoDead():
                return "video dead", {"video": event.video, "cause": masked(event.cause)}
            case VideoFinished():
                return "video finished", {"video": event.video, "function": event.function, "files": event.files}
            case FinishDead():
                said = {"function": event.function, "cause": masked(event.cause)}
                return "finish failed", {"video": event.video, **said}
            case VideoCancelled() if event.new:
                return "video cancelled", {"video": event.video, "how": event.how}
            case CommandTaken():
                said = {"outcome": event.outcome, "message": masked(event.message)}
                return "command taken", {"command": event.command, **said}
            case RunOver():
                return "run ended", {"exit_code": event.exit_code, "why": masked(event.why)}
        return None
