"""The rank that finishes a video is SIGKILLed: in the function, between its files, before and after the commit."""

import os
import signal
import sys
from pathlib import Path

import pytest
import ray

import flowcache
from flowcache import api
from flowcache.inputs.options import RunOptions
from flowcache.storage.commits import list_commits
from flowcache.storage.objects.store import Store
from tests.fault import deadly
from tests.fault.deadly import DeadlyStore
from tests.fault.failures import Failures
from tests.fault.outcome import outcome

ROW = {"id": "va", "prompt": "a red circle moving right on a blue background", "frames": 9, "steps": 1}
DEATHS = [
    ("before", r"/finish/.*/a\.txt"),
    ("after", r"/finish/.*/a\.txt"),
    ("before", r"_commits/va/finish\..*\.json"),
    ("after", r"_commits/va/finish\..*\.json"),
]


def finish(video) -> None:
    """Its process dies in the first call of all."""
    note = Path(video.labels["notes"], "called")
    with note.open("a") as file:
        file.write("x")
    (video.folder / "a.txt").write_text(f"{video.id} {sum(1 for _ in video.pictures())}")
    (video.folder / "b.mp4").write_bytes(video.file.read_bytes())
    if note.stat().st_size == 1:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def own_ray(cluster):
    for module in (deadly, sys.modules[__name__]):
        ray.cloudpickle.register_pickle_by_value(module)
    yield RunOptions(address=cluster, gangs=1, infra_retries=9, finish="tests.fault.test_finish_killed:finish")
    for module in (deadly, sys.modules[__name__]):
        ray.cloudpickle.unregister_pickle_by_value(module)


@pytest.mark.slow
def test_every_death_in_a_finish_is_survived_and_nothing_is_kept_twice(own_ray, tmp_path, monkeypatch):
    notes, seen = tmp_path / "notes", {}
    notes.mkdir()
    row = {**ROW, "labels": {"notes": str(notes)}}  # of both runs, so that they are the same one
    for name in ("disturbed", "undisturbed"):
        seen[name] = Failures()
        with monkeypatch.context() as patch:
            if name == "disturbed":
                patch.setattr(api, "Store", lambda url: DeadlyStore(url, str(notes), DEATHS))
            output = str(tmp_path / name)
            summary = flowcache.render([row], output=output, options=own_ray, progress=seen[name])
        assert summary.exit_code == 0 and summary.done == ("va",)
        if name == "disturbed":
            assert {path.name for path in notes.iterdir()} == {"called", *map(str, range(len(DEATHS)))}
            deaths = len(DEATHS) + 1
            assert (notes / "called").stat().st_size == deaths  # what is committed is not made again
    causes = seen["disturbed"].causes
    assert len(causes) == deaths and all("process is gone" in cause for cause in causes)
    assert not seen["undisturbed"].causes
    found, wanted = (outcome(tmp_path / name) for name in ("disturbed", "undisturbed"))
    assert found == wanted and len(found["videos"][0]["finishes"]) == 2
    assert list_commits(Store(str(tmp_path / "disturbed"))).finished == {"va": (own_ray.finish,)}
