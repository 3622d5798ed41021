"""Gang actors are SIGKILLed before and after every storage operation of a segment; the run goes on."""

import itertools
import os
import signal
import sys
from dataclasses import replace

import pytest
import ray

import flowcache
from flowcache import api
from flowcache.inputs.options import RunOptions
from flowcache.storage.commits import read_commits
from flowcache.storage.objects.store import Store
from tests.fault import deadly
from tests.fault.deadly import DeadlyStore
from tests.fault.failures import Failures
from tests.fault.outcome import outcome

ROWS = [
    {
        "id": f"v{i}",
        "prompt": "a red circle moving right on a blue background",
        "frames": 69,
        "steps": 2,
    }
    for i in "ab"
]
KEYS = [
    "init.mp4",
    r"00001\.\w+\.m4s",
    r"00000\.\w+\.safetensors",
    r"_commits/v\w/00000.json",
    r"_commits/v\w/00001.json",
]
DEATHS = list(itertools.product(("before", "after"), KEYS))


@pytest.fixture
def own_ray(cluster):
    for module in (deadly, sys.modules[__name__]):
        ray.cloudpickle.register_pickle_by_value(module)
    yield RunOptions(address=cluster, gangs=1, infra_retries=len(DEATHS))
    for module in (deadly, sys.modules[__name__]):
        ray.cloudpickle.unregister_pickle_by_value(module)


def test_every_death_of_an_actor_is_survived(own_ray, tmp_path, monkeypatch):
    flowcache.render(ROWS, output=str(tmp_path / "undisturbed"), options=own_ray)
    notes = tmp_path / "notes"
    notes.mkdir()
    monkeypatch.setattr(api, "Store", lambda url: DeadlyStore(url, str(notes), DEATHS))
    progress = Failures()
    summary = flowcache.render(ROWS, output=str(tmp_path / "disturbed"), options=own_ray, progress=progress)
    assert len(list(notes.iterdir())) == len(DEATHS)
    assert len(progress.causes) == len(DEATHS) and all("process is gone" in cause for cause in progress.causes)
    assert summary.exit_code == 0
    assert outcome(tmp_path / "disturbed") == outcome(tmp_path / "undisturbed")


class DeadlyAlways(Store):
    """Kills each actor that uploads a chunk."""

    def put(self, key, data):
        if key.endswith(".m4s"):
            os.kill(os.getpid(), signal.SIGKILL)
        super().put(key, data)


def test_the_dead_letter_of_a_killed_actor_holds_its_last_words(own_ray, tmp_path, monkeypatch):
    monkeypatch.setattr(api, "Store", DeadlyAlways)
    row = {**ROWS[0], "frames": 9, "steps": 1}
    summary = flowcache.render([row], output=str(tmp_path / "out"), options=replace(own_ray, infra_retries=0))
    assert summary.exit_code == 3
    letter = read_commits(Store(str(tmp_path / "out"))).dead_letters["va"]
    assert letter.kind == "infra" and '"message": "segment started", "video": "va"' in " ".join(letter.log_tail.split())
