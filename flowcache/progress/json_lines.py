"""Logs for programs: a JSON object on each line, with video, segment and rank where there are such."""

import json
import logging
import sys
import time
from typing import Any, TextIO

from flowcache.errors import masked
from flowcache.progress.counts import LOG_EVERY, Counts
from flowcache.progress.events import (
    ChunkDone,
    CommandTaken,
    FinishDead,
    Note,
    RunBegan,
    RunEnded,
    RunEvent,
    SegmentCommitted,
    SegmentFailed,
    SegmentStarted,
    SegmentsWithdrawn,
    Tick,
    VideoCancelled,
    VideoDead,
    VideoDone,
    VideoFinished,
    VideoReadmitted,
    VideosJoined,
)

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


def place(video: str, segment: int) -> dict[str, Any]:
    return {"video": video, "segment": segment}


class JsonProgress:
    """The driver's events as JSON lines, and a summary now and then."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.counts = Counts()
        self._logger = json_logger(RUN, stream)
        self._spoke = time.monotonic()

    def on(self, event: RunEvent) -> None:
        self.counts.on(event)
        log = self._logger
        match event:
            case RunBegan():
                log.info(f"run {event.run_id}: {self.counts.summary()}")
            case Note():
                log.info(event.message)
            case SegmentStarted():
                log.info(
                    "finish started" if event.finish else "segment started", extra=place(event.video, event.segment)
                )
            case ChunkDone():
                log.info("chunk finished", extra={**place(event.video, event.segment), "chunk": event.chunk})
            case SegmentCommitted():
                log.info("segment committed", extra=place(event.video, event.segment))
            case SegmentsWithdrawn():
                log.warning(f"{event.segments} damaged segments withdrawn", extra={"video": event.video})
            case SegmentFailed():
                self._failed(event)
            case VideoDone() if self.counts.videos[event.video].started:
                log.info("video done", extra={"video": event.video})
            case VideoDead():
                log.error("video dead-lettered", extra={"video": event.video, "cause": masked(event.cause)})
            case VideoFinished():
                log.info(f"video finished by {event.function}", extra={"video": event.video})
            case FinishDead():
                log.error("finish dead-lettered", extra={"video": event.video, "cause": masked(event.cause)})
            case VideoCancelled():
                log.info(f"video {event.how}", extra={"video": event.video})
            case VideoReadmitted():
                log.info("video goes on", extra={"video": event.video})
            case VideosJoined():
                log.info(f"{len(event.videos)} videos came")
            case CommandTaken():
                log.info(f"{event.command}: {event.outcome}: {event.message}")
            case Tick() if time.monotonic() - self._spoke > LOG_EVERY:
                self._spoke = time.monotonic()
                log.info(self.counts.summary())
            case RunEnded():
                log.info(self.counts.summary())

    def _failed(self, event: SegmentFailed) -> None:
        what = "finish" if event.finish else "segment"
        if event.kind == "abandoned":
            self._logger.info(f"{what} ended: {event.cause}", extra=place(event.video, event.segment))
            return
        then = "tried again" if event.again else "given up"
        found = {"rank": event.rank, "kind": event.kind, "cause": masked(event.cause)}
        self._logger.warning(f"{what} failed and is {then}", extra=place(event.video, event.segment) | found)
