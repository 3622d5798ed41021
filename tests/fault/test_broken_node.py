"""Two Ray nodes, one of them without credentials: its gang is moved to the other one and no video pays for it."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

import flowcache
from flowcache import api
from flowcache.errors import StoreError
from flowcache.storage.commits import read_commits
from flowcache.storage.objects.store import Store
from tests.fault.failures import Failures

PROMPT = "a red circle moving right on a blue background"
ROWS = [{"id": f"v{n}", "prompt": PROMPT, "frames": 9, "steps": 1, "seed": n} for n in range(4)]


class Refusing(Store):
    """Knows every node but the first that uploads a chunk."""

    def __init__(self, url: str, note: str):
        super().__init__(url)
        self.note = note

    def put(self, key, data):
        if key.endswith(".m4s"):
            node, note = ray.get_runtime_context().get_node_id(), Path(self.note)
            if not note.exists():
                note.write_text(node)
            if note.read_text() == node:
                raise StoreError("no S3 credentials found", of_machine=True)
        super().put(key, data)


@pytest.fixture
def two_nodes():
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(num_cpus=1, include_dashboard=False)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield cluster.address
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    cluster.shutdown()


@pytest.mark.slow
def test_a_gang_is_moved_off_a_node_that_the_store_refuses(two_nodes, tmp_path, monkeypatch):
    note = tmp_path / "broken"
    monkeypatch.setattr(api, "Store", lambda url: Refusing(url, str(note)))
    told, options = Failures(), replace(api.RunOptions(), address=two_nodes, gangs=1, retries=0, infra_retries=1)
    summary = flowcache.render(ROWS, output=str(tmp_path / "out"), options=options, progress=told)
    assert summary.exit_code == 0 and len(summary.done) == len(ROWS)
    assert told.causes == ["StoreError: no S3 credentials found"]
    assert any(f"node {note.read_text()} gets no work for a while" in said for said in told.said)
    assert not read_commits(Store(str(tmp_path / "out"))).dead_letters
