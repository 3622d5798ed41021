"""What a run is refused for before anything starts."""

import pytest
import torch
from torch.torch_version import TorchVersion

from flowcache.inputs.options import RunOptions


@pytest.mark.parametrize(("version", "gang", "refusal"), [("2.12.1+cu130", 2, "2.13"), ("2.13.0", 1, "--gang 2")])
def test_sharded_weights_need_a_gang_and_a_torch_that_forgets(monkeypatch, version, gang, refusal):
    monkeypatch.setattr(torch, "__version__", TorchVersion(version))
    (fault,) = RunOptions(gang=gang, shard_weights=True).faults()
    assert fault.file == "--shard-weights"
    assert refusal in fault.message
    assert not RunOptions(gang=gang).faults()


def test_a_gang_may_share_its_weights():
    assert not RunOptions(gang=2, shard_weights=True).faults()
