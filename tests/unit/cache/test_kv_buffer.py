"""How K/V lie in memory is a matter of one class: here with int8, which the store and the loop know nothing of."""

from dataclasses import replace

import pytest
import torch

from flowcache.cache.kv_buffer import PlainBuffer
from flowcache.cache.kv_cache import KVStore
from flowcache.families.skyreels.sampler import SamplerSettings
from flowcache.sampling.loop import Texts, denoise
from tests.unit.cache.int8_buffer import Int8Buffer
from tests.unit.sampling.small import POLICIES, small_model

CPU = torch.device("cpu")


def test_moving_up_keeps_what_follows():
    torch.manual_seed(0)
    buffer = PlainBuffer((1, 2, 6, 1, 2), torch.float32, CPU)
    keys, values = torch.randn(2, 2, 6, 1, 2)
    buffer.write(0, slice(0, 2), slice(0, 6), keys, values)
    buffer.move(0, 1, 4, keys[1, [3, 0]], values[1, [3, 0]])
    seen = buffer.read(0, slice(1, 2), slice(0, 4))
    for got, x in zip(seen, (keys, values), strict=True):
        assert torch.equal(got[0], x[1, [3, 0, 4, 5]])
    assert torch.equal(buffer.read(0, slice(0, 1), slice(0, 6))[0], keys[:1])  # the other branch


def attended(make) -> tuple[torch.Tensor, int]:
    torch.manual_seed(0)
    store = KVStore((2, 1, 2, 16), 4, 3, torch.float32, CPU, budget=1, buffer=make)
    outs = []
    for chunk in range(6):
        attend, _ = store.view(0, chunk, finished=max(chunk - 1, 0))
        outs += [attend(layer, *torch.randn(3, 1, 4, 2, 16)) for layer in range(2)]
    return torch.cat(outs), store.bytes


def test_int8_is_one_class():
    (exact, full), (close, small) = attended(PlainBuffer), attended(Int8Buffer)
    assert small < full / 3  # a byte and a sixteenth of four
    error = (close - exact).norm() / exact.norm()
    assert 0 < error < 0.02


@pytest.mark.parametrize("name", ["off", "keep", "recent"])
def test_a_policy_says_how_kv_lie_in_memory(name):
    model = small_model()
    noise, texts = torch.randn(4, 4, 4, 4), Texts(torch.randn(1, 8, 16), torch.randn(1, 8, 16))

    def window(policy):
        return list(denoise(model, noise, texts, SamplerSettings(4, 3.0, 3.0, 2, 1, 24), policy))

    exact, close = window(POLICIES[name]), window(replace(POLICIES[name], kv_buffer=Int8Buffer))
    assert close[0].kv_bytes < exact[0].kv_bytes / 2.5
    before, after = (torch.cat([chunk.latents for chunk in chunks]) for chunks in (exact, close))
    assert 0 < (after - before).norm() / before.norm() < 0.02
