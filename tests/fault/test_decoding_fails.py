"""A rank of a gang can't decode its part of a chunk: its gang ends at once, and says which rank it was, and why."""

import sys
import time
from dataclasses import replace
from itertools import count

import pytest
import ray

import flowcache
from flowcache.inputs.options import RunOptions
from flowcache.progress.events import SegmentFailed
from flowcache.runtime import gang
from flowcache.runtime.actor import RankActor

ROW = {"id": "v", "prompt": "a red circle", "frames": 57, "steps": 2}


class Clumsy(RankActor):
    """The second rank fails at the second chunk: for want of room it would be tried again, in tiles."""

    def _load(self, name, frugal=False):
        model, calls = super()._load(name, frugal), count()

        def share(jobs, shapes):
            if next(calls) == 1:
                raise ValueError(f"no picture at {time.time():.0f}")
            return model.share(jobs, shapes)

        return replace(model, share=share) if self.rank == 1 else model


class Told:
    def __init__(self):
        self.failures = []

    def on(self, event):
        if isinstance(event, SegmentFailed):
            self.failures.append((time.time(), event.rank, event.cause))


@pytest.mark.slow
def test_the_rank_and_its_error_are_told_before_others_run_out_of_patience(cluster, tmp_path, monkeypatch):
    """They would wait five minutes for it."""
    ours, told = sys.modules[__name__], Told()
    monkeypatch.setattr(gang, "RankActor", Clumsy)
    ray.cloudpickle.register_pickle_by_value(ours)
    options = RunOptions(address=cluster, gang=2, gangs=1, retries=0)
    summary = flowcache.render([ROW], output=str(tmp_path), options=options, progress=told)
    ray.cloudpickle.unregister_pickle_by_value(ours)
    ((when, rank, cause),) = told.failures
    assert rank == 1 and cause.startswith("ValueError: no picture at ") and "ValueError" in summary.failed["v"]
    assert when - int(cause.split()[-1]) < 60
