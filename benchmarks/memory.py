"""Memory and time of one call."""

import time
from collections.abc import Callable
from typing import Any

from torch.profiler import ProfilerActivity, profile


def extra_memory(call: Callable[[], Any]) -> int:
    """Most bytes that the call holds at once beyond what was there before, by torch's record of its CPU allocator.

    (The process's resident memory would tell more of malloc's habits than of the call.)
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        highest = max(highest, now)
    return highest


def seconds(call: Callable[[], Any], repeats: int = 1) -> float:
    """CPU time, the best of some calls."""
    best = float("inf")
    for _ in range(repeats):
        began = time.process_time()
        call()
        best = min(best, time.process_time() - began)
    return best
