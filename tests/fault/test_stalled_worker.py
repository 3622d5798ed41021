"""An actor that stops without dying: noticed by the deadline, its gang rebuilt, no process left behind."""

import os
import re
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import ray

import flowcache
from flowcache import api
from flowcache.storage.objects.store import Store
from tests.fault.failures import Failures

ROWS = [{"id": "v", "prompt": "a red circle moving right on a blue background", "frames": 33, "steps": 2}]


class StoppingStore(Store):
    """Stops the actor that uploads the second chunk, once."""

    def __init__(self, url: str, note: str):
        super().__init__(url)
        self.note = note

    def put(self, key, data):
        if re.search(r"00001\.\w+\.m4s", key) and not Path(self.note).exists():
            Path(self.note).write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGSTOP)
        super().put(key, data)


@pytest.mark.slow
def test_a_stopped_actor_is_replaced(cluster, tmp_path, monkeypatch):
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    note = tmp_path / "pid"
    monkeypatch.setattr(api, "Store", lambda url: StoppingStore(url, str(note)))
    progress = Failures()
    options = replace(api.RunOptions(), address=cluster, gangs=1, segment_timeout=20)
    summary = flowcache.render(ROWS, output=str(tmp_path / "out"), options=options, progress=progress)
    assert summary.exit_code == 0 and summary.done == ("v",)
    assert len(progress.causes) == 1 and "no chunk was finished for" in progress.causes[0]
    assert not Path(f"/proc/{note.read_text()}").exists()
