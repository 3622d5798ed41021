"""The process that encodes a run's texts is lost, or fails: the run goes on, and its videos are the same."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import ray

import flowcache
from flowcache import api
from flowcache.errors import StoreError
from flowcache.inputs.options import RunOptions
from flowcache.runtime import text_encoding as encoding
from flowcache.runtime.session import joined
from flowcache.storage.objects.store import Store
from tests.fault.failures import Failures
from tests.fault.outcome import outcome

ROWS = [
    {"id": name, "prompt": f"a {colour} circle moving right on a blue background", "frames": 9, "steps": 2}
    for name, colour in (("a", "red"), ("b", "green"), ("c", "red"))
]


class DyingStore(Store):
    """Kills the process that stores the first text, once."""

    def __init__(self, url: str, note: str):
        super().__init__(url)
        self.note = Path(note)

    def create(self, key, data):
        if key.startswith("_texts/") and not self.note.exists():
            self.note.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().create(key, data)


class RefusingStore(DyingStore):
    """Refuses the first text."""

    def create(self, key, data):
        if key.startswith("_texts/") and not self.note.exists():
            self.note.touch()
            raise StoreError("no room for texts")
        return Store.create(self, key, data)


@pytest.fixture
def own_ray(cluster):
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield RunOptions(address=cluster, gangs=1)
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def render(tmp_path, name, own_ray, monkeypatch=None, store=None):
    if store:
        monkeypatch.setattr(api, "Store", store)
    progress = Failures()
    summary = flowcache.render(ROWS, output=str(tmp_path / name), options=own_ray, progress=progress)
    assert summary.exit_code == 0 and progress.causes == []
    return progress.said


def texts(tmp_path, name) -> int:
    return len(list((tmp_path / name).glob("_texts/*/*.safetensors")))


def test_lost_or_failing_encoders_cost_no_video(own_ray, tmp_path, monkeypatch):
    assert not any("encoding" in note for note in render(tmp_path, "undisturbed", own_ray))  # too few for a process
    assert texts(tmp_path, "undisturbed") == 3  # two prompts and the negative one

    monkeypatch.setattr(encoding, "FEW", 0)
    killed, refused = tmp_path / "killed", tmp_path / "refused"
    notes = render(tmp_path, "lost", own_ray, monkeypatch, lambda url: DyingStore(url, str(killed)))
    assert killed.exists() and texts(tmp_path, "lost") == 3
    assert "encoding 3 texts for tiny-skyreels" in notes and not any("could not" in note for note in notes)

    notes = render(tmp_path, "failed", own_ray, monkeypatch, lambda url: RefusingStore(url, str(refused)))
    assert "texts could not be encoded ahead (StoreError: no room for texts)" in notes
    assert refused.exists() and texts(tmp_path, "failed") == 3  # by the rank
    assert outcome(tmp_path / "undisturbed") == outcome(tmp_path / "lost") == outcome(tmp_path / "failed")


def stuck():
    yield 1
    time.sleep(600)


def test_a_stuck_encoder_is_ended_and_gives_its_resources_back(cluster):
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    notes = []
    with joined(RunOptions(address=cluster)):
        encoding._follow([ray.remote(stuck).options(num_cpus=2, num_returns="streaming").remote()], 3, notes.append)
        assert notes == ["no text was encoded for 3 s; going on, ranks encode what is missing"]
        assert ray.get(ray.remote(lambda: os.getpid()).options(num_cpus=2).remote(), timeout=120)  # there are two CPUs
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
