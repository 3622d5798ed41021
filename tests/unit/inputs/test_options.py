"""What a run is refused for before anything starts."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.torch_version import TorchVersion

from flowcache.families.base import Traits
from flowcache.families.registry import bundled, find
from flowcache.inputs.options import NUMERICS, RunOptions


@pytest.mark.parametrize(("version", "gang", "refusal"), [("2.12.1+cu130", 2, "2.13"), ("2.13.0", 1, "--gang 2")])
def test_sharded_weights_need_a_gang_and_a_torch_that_forgets(monkeypatch, version, gang, refusal):
    monkeypatch.setattr(torch, "__version__", TorchVersion(version))
    (fault,) = RunOptions(gang=gang, shard_weights=True).faults()
    assert fault.file == "--shard-weights"
    assert refusal in fault.message
    assert not RunOptions(gang=gang).faults()


def test_a_gang_may_share_its_weights():
    assert not RunOptions(gang=2, shard_weights=True).faults()


def test_a_family_whose_blocks_are_its_own_is_not_compiled():
    toy = replace(find("tiny-skyreels"), family="toy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flowcache.inputs.options.family", lambda name: SimpleNamespace(traits=Traits()))
        (fault,) = RunOptions(compile=True).faults([toy, toy])
        assert not RunOptions().faults([toy])
    assert (fault.file, fault.message) == ("--compile", "models of family toy can't be compiled; accepted: without it")
    assert not RunOptions(compile=True).faults(map(find, bundled()))


def test_what_changes_bytes_is_told_apart():
    assert RunOptions().numerics == {}
    asked = {"dtype": "fp32", "weights": "fp8", "vae_dtype": "bf16", "vae_tiling": "on", "compile": "on"}
    asked |= {"watermark": "mine:mark", "watermark_payload": "ours"}
    options = RunOptions(**{**asked, "compile": True}, finish="mine:finish")
    assert options.numerics == asked and asked.keys() == NUMERICS.keys()
