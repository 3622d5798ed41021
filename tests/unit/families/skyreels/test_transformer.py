"""The transformer cut into its parts, and the properties that the sampler counts on."""

import pytest
import torch
import torch.nn.functional as F

from benchmarks.pretend import DEVICE, filled, pretend_gpu
from flowcache.families.skyreels.config import SkyReelsConfig
from flowcache.families.skyreels.transformer import Attention, Block, SkyReelsTransformer, attention, rope_angles
from flowcache.models.base import Grid

SMALL = SkyReelsConfig(24, 32, 2, 1)


@pytest.fixture(scope="module", params=[None, (2, 3)], ids=["rope", "positions"])
def model(request):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = SkyReelsConfig(
        24, 48, 2, 2, in_channels=4, out_channels=4, text_dim=8, freq_dim=16,
        inject_sample_info=True, positions=request.param,
    )  # fmt: skip
    model = SkyReelsTransformer(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def inputs(batch=1, frames=6):
    torch.manual_seed(1)
    times = torch.tensor([[0.0, 20.0, 300.0, 300.0, 900.0, 999.0][:frames]]).expand(batch, -1)
    return torch.randn(batch, 4, frames, 4, 6), times, torch.randn(batch, 5, 8)


@torch.inference_mode()
def test_chunk_by_chunk_equals_block_causal(model):
    """Given the K/V of the chunks before, a chunk's forward is that of the whole window."""
    x, times, text = inputs()
    whole = model(x, times, text, chunk=2)
    texts, memory = model.text(text), {}

    def attend(layer, q, k, v):
        keys, values = memory.setdefault(layer, ([], []))
        keys.append(k)
        values.append(v)
        return attention(q, torch.cat(keys, 1), torch.cat(values, 1))

    for first in (0, 2, 4):
        part, t = x[:, :, first : first + 2], times[:, first : first + 2]
        grid = model.grid(part, first)
        conditioning = model.condition(t, grid, 24)
        out = model.transform(model.embed(part), conditioning, [texts], [model.rope(grid)], attend)
        velocity = model.project(out, conditioning, grid)
        torch.testing.assert_close(velocity, whole[:, :, first : first + 2], atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_chunks_are_causal(model):
    x, times, text = inputs()
    before = model(x, times, text, chunk=2)
    after = model(torch.cat([x[:, :, :4], -x[:, :, 4:]], dim=2), times, text, chunk=2)
    torch.testing.assert_close(after[:, :, :4], before[:, :, :4], atol=1e-5, rtol=0)
    assert (after[:, :, 4:] - before[:, :, 4:]).abs().max() > 1e-2


@torch.inference_mode()
def test_shared_timestep_equals_one_per_frame(model):
    x, _, _ = inputs()
    grid, times = model.grid(x), torch.full((1, 6), 500.0)
    shared = model.condition(times, grid, 24)
    each = model.condition(times, grid, torch.ones(1, 6, dtype=torch.long))
    assert shared.frame_of_token is None and shared.blocks.shape[1] == 1
    assert each.frame_of_token is None and each.blocks.shape[1] == 6
    tokens = model.embed(x)
    torch.testing.assert_close(model.project(tokens, shared, grid), model.project(tokens, each, grid))
    torch.testing.assert_close(model.signal(shared).expand(-1, 6, -1, -1), model.signal(each), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_rows_of_a_batch_are_independent(model):
    x, times, text = inputs(batch=2)
    both = model(x, times, text)
    for row in range(2):
        one = model(x[row : row + 1], times[row : row + 1], text[row : row + 1])
        torch.testing.assert_close(both[row : row + 1], one, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_frame_rate_matters(model):
    x, times, text = inputs()
    assert not torch.allclose(model(x, times, text, fps=16), model(x, times, text, fps=24))
    assert torch.equal(model(x, times, text, fps=30), model(x, times, text, fps=24))


def test_rope_of_a_later_chunk_is_a_part_of_the_windows():
    whole = rope_angles(Grid(6, 2, 3), 12, torch.device("cpu"))
    part = rope_angles(Grid(2, 2, 3, first_frame=4), 12, torch.device("cpu"))
    assert torch.equal(whole[4 * 6 :], part)


def test_rope_turns_pairs_as_complex_numbers():
    grid = Grid(3, 2, 3, first_frame=5)
    frame, row, column = torch.meshgrid(torch.arange(5.0, 8), torch.arange(2.0), torch.arange(3.0), indexing="ij")
    angles = torch.cat([x.flatten()[:, None] * torch.tensor([1, 0.01]) for x in (frame, row, column)], dim=1)
    expected = torch.view_as_real(torch.polar(torch.ones_like(angles), angles)).flatten(-2)
    torch.testing.assert_close(rope_angles(grid, 12, torch.device("cpu")), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 3])
@torch.inference_mode()
def test_queries_and_keys_are_normed_and_turned_in_float32(rows, dtype, monkeypatch):
    """Rounded once, compiled or not; officially, too."""
    layer, grid = Attention(48, 4, 1e-6), Grid(3, 2, 3, first_frame=5)
    layer.norm_q.weight.normal_(1, 0.2)
    layer.norm_q.to(dtype)
    x, rope = (3 * torch.randn(rows, 18, 48)).to(dtype), rope_angles(grid, 12, torch.device("cpu"))
    normed = F.rms_norm(x.double(), (48,), layer.norm_q.weight.double(), 1e-6)
    pairs = torch.view_as_complex(normed.unflatten(-1, (4, 6, 2)).contiguous())
    exact = torch.view_as_real(pairs * torch.view_as_complex(rope.double().unflatten(-1, (6, 2)))[:, None]).flatten(-2)
    found = layer.turned(x, layer.norm_q, rope)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    for one in (found, layer.turned(x, layer.norm_q, rope)):
        assert one.dtype == dtype
        if dtype == torch.float32:
            torch.testing.assert_close(one, exact.float(), atol=2e-6, rtol=2e-6)
        else:  # as near as one rounding can be, but where float32 is at odds about a tie
            assert (one == exact.to(dtype)).float().mean() > 0.999


def test_on_a_gpu_gelu_is_part_of_the_product():
    """Torch's kernel does it by tanh there, and on a CPU by erf: where it is not asked."""
    with torch.device("meta"):
        module = Block(SMALL)
    with pretend_gpu() as tally, torch.inference_mode():
        block, h = filled(module, torch.bfloat16), torch.empty(2, 5, SMALL.dim, dtype=torch.bfloat16, device=DEVICE)
        tally.clear()
        assert block.feed_forward(h).shape == h.shape
    assert tally.kernels.keys() == {("matmul", "bfloat16")} and tally.kernels["matmul", "bfloat16"].total() == 2
    block, h = Block(SMALL), torch.randn(2, 5, SMALL.dim)
    with torch.inference_mode():
        assert torch.equal(block.feed_forward(h), block.ffn(h))
