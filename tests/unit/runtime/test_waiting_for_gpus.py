"""A joined cluster whose nodes still come is waited for, as long as the job says."""

import pytest
import ray

from flowcache.errors import InputError
from flowcache.inputs.options import RunOptions
from flowcache.runtime import cluster
from flowcache.scheduler.gang_pool import ClusterError


@pytest.fixture
def gpus(monkeypatch):
    """gpus(0, 0, 8): what the cluster has, look by look; the last stays."""

    def answers(*amounts):
        left = list(amounts)
        monkeypatch.setattr(ray, "cluster_resources", lambda: {"GPU": left.pop(0) if len(left) > 1 else left[0]})
        return left

    monkeypatch.setattr(cluster, "GPU_POLL", 0.01)
    return answers


def shape(ours=False, **options):
    said = []
    return cluster.shape_of(RunOptions(**options), ours, said.append), said


@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_the_first_gpu_is_waited_for_and_the_log_says_so(gpus, device):
    gpus(0, 0, 0, 8)
    found, said = shape(device=device, wait_for_gpus=60)
    assert found.gpu
    assert said == ["the cluster has no GPU yet: waiting 60 s for the first one", "the cluster has 8 GPUs"]


def test_gpus_that_are_there_are_not_waited_for(gpus):
    gpus(8)
    assert shape(device="cuda", wait_for_gpus=60)[1] == []


@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_where_none_comes_the_run_may_be_tried_again(gpus, device):
    gpus(0)
    with pytest.raises(ClusterError, match="no GPU has joined the cluster in 0.05 s") as lost:
        shape(device=device, wait_for_gpus=0.05)
    assert lost.value.exit_code == 1


@pytest.mark.parametrize("options", [{}, {"ours": True, "wait_for_gpus": 60}])
def test_without_waiting_and_on_this_machine_no_gpu_is_bad_input(gpus, options):
    gpus(0)
    with pytest.raises(InputError, match="has no GPU"):
        shape(device="cuda", **options)


def test_who_renders_on_cpus_waits_for_none(gpus):
    gpus(0)
    found, said = shape(device="cpu", wait_for_gpus=60)
    assert not found.gpu and not said
