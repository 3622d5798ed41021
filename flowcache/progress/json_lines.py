"""Logs for programs: a JSON object on each line, with video, segment and rank where there are such."""

import json
import logging
import sys
import time
from collections.abc import Iterable
from typing import Any, TextIO

from flowcache.errors import masked
from flowcache.progress.progress import LOG_EVERY, Progress
from flowcache.records import ChunkRecord, Segment
from flowcache.scheduler.queue import Video
from flowcache.storage.documents import RunRecord

RUN, RANK = "flowcache.run", "flowcache.rank"  # loggers of the driver and of a gang's ranks
FIELDS = ("video", "segment", "chunk", "rank", "gang", "kind", "cause", "seconds")  # beside a record's message


class JsonLines(logging.Formatter):
    """time (UTC), level, logger, message, those of FIELDS that the record has, and the traceback of an exception."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{stamp}.{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": masked(record.getMessage()),
        }
        line |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if record.exc_info:
            line["traceback"] = masked(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False, default=str)


def json_logger(name: str, stream: TextIO | None = None) -> logging.Logger:
    """The logger, which writes JSON lines to `stream` (stderr) and nowhere else."""
    logger = logging.getLogger(name)
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(logging.INFO)
    return logger


def place(segment: Segment) -> dict[str, Any]:
    return {"video": segment.video_id, "segment": segment.index}


class JsonProgress(Progress):
    """The driver's events as JSON lines."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__()
        self._logger = json_logger(RUN, stream)
        self._spoke = time.monotonic()

    def begin(self, record: RunRecord, videos: Iterable[Video]) -> None:
        super().begin(record, videos)
        self.note(f"run {record.run_id}: {self.summary()}")

    def note(self, message: str) -> None:
        self._logger.info(message)

    def started(self, segment: Segment) -> None:
        super().started(segment)
        self._logger.info("segment started", extra=place(segment))

    def chunk(self, segment: Segment, record: ChunkRecord) -> None:
        super().chunk(segment, record)
        self._logger.info("chunk finished", extra={**place(segment), "chunk": record.chunk})

    def committed(self, segment: Segment) -> None:
        super().committed(segment)
        self._logger.info("segment committed", extra=place(segment))

    def failed(self, segment: Segment, rank: int, cause: str, kind: str, again: bool) -> None:
        super().failed(segment, rank, cause, kind, again)
        then = "tried again" if again else "given up"
        found = {**place(segment), "rank": rank, "kind": kind, "cause": masked(cause)}
        self._logger.warning(f"segment failed and is {then}", extra=found)

    def done(self, video_id: str) -> None:
        if self.states.get(video_id) == "rendering":
            self._logger.info("video done", extra={"video": video_id})
        super().done(video_id)

    def dead(self, video_id: str, cause: str) -> None:
        super().dead(video_id, cause)
        self._logger.error("video dead-lettered", extra={"video": video_id, "cause": masked(cause)})

    def tick(self) -> None:
        if time.monotonic() - self._spoke > LOG_EVERY:
            self._spoke = time.monotonic()
            self.note(self.summary())

    def close(self) -> None:
        self.note(self.summary())
