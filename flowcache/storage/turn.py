"""Whose turn it is in a root, among jobs that something starts, and starts again (KubeRay), and until when.

It spares machines: two drivers on one root are safe without it. A retry takes over from its job's driver at once;
another job leaves while the one whose turn it is gives signs of life, and takes its turn after them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from flowcache.storage.documents import Holder

DONE, LATE = "done", "its deadline came"  # how a driver ends which is not started again
RETRY = 7200.0  # seconds after a job's last sign of life: until then a start is a retry, later a job of the same name
DAY = 86_400.0


@dataclass(frozen=True)
class Job:
    """name: of all its tries; until: the deadline that this one was started with, unix seconds."""

    name: str
    until: float | None = None


def of_another_job(holder: Holder | None, job: Job | None) -> bool:
    """Whether the job leaves the root to that holder, should it live."""
    return job is not None and holder is not None and holder.job not in (None, job.name)


def first_deadline(last: Holder | None, job: Job, note: Callable[[str], None]) -> float | None:
    """The deadline of the job's first start, where this is a retry that asks for the same time of day. last: driver
    that a job started here."""
    if last is None or last.job != job.name or last.ended in (DONE, LATE) or time.time() - last.seen > RETRY:
        return job.until
    if job.until is None or last.until is None or (job.until - last.until) % DAY:
        return job.until
    if last.until < job.until:
        note(f"started again: the deadline stays {time.strftime('%Y-%m-%d %H:%M', time.gmtime(last.until))} UTC")
    return last.until
