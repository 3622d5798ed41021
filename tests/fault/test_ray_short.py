"""A Ray that is short of something for a while: of nodes, of room in its object store, of memory."""

import time

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster

from flowcache.storage.commits import read_commits
from flowcache.storage.objects.store import Store
from tests.fault.local_ray import LocalRun

MB = 2**20
SMALL = 80 * MB  # the least that Ray takes for its object store


@pytest.fixture
def start(tmp_path):
    """start(system configuration, *options) -> a cluster whose head has no CPU, and a run on it."""
    made = []

    def begin(system: dict, *options: str) -> tuple[Cluster, LocalRun]:
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": SMALL, "_system_config": system}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        made.append(cluster.shutdown)
        run = LocalRun(tmp_path, 3, "--address", cluster.address, *options)
        made.append(run.close)
        return cluster, run

    yield begin
    for end in reversed(made):
        end()


@pytest.mark.slow
def test_a_node_that_joins_late_and_a_full_object_store_cost_nothing(start):
    cluster, run = start({})
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        held = [ray.put(np.zeros(30 * MB, np.uint8)) for _ in range(4)]  # more than there is room for: spilled
        time.sleep(5)
        assert run.process.poll() is None and not run.committed
        cluster.add_node(num_cpus=1, include_dashboard=False, object_store_memory=SMALL)
        code, said = run.ended(280)
        assert code == 0 and run.committed == 3, said
        assert ray.get(held[0]).nbytes == 30 * MB
    finally:
        ray.shutdown()


@pytest.mark.slow
def test_actors_that_ray_ends_for_want_of_memory_are_counted_as_lost_and_told(start):
    """Ray's monitor is told that any use of memory is too much."""
    cluster, run = start({"memory_usage_threshold": 0.01, "memory_monitor_refresh_ms": 500}, "--gangs", "1")
    cluster.add_node(num_cpus=1, include_dashboard=False, object_store_memory=SMALL)
    code, said = run.ended(280)
    letters = read_commits(Store(str(run.output))).dead_letters
    assert code in (1, 3) and "Traceback" not in said, said
    assert "memory" in said.lower(), said
    assert all(letter.kind == "infra" for letter in letters.values())
