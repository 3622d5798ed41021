"""MAGI-1's transformer: what training asks of it, and precision. Values: tests/parity/test_magi_forward.py."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from flowcache.families.magi.config import MagiConfig
from flowcache.families.magi.flops import block_flops, caption_tokens, embed_flops, head_flops, kv_bytes, text_flops
from flowcache.families.magi.transformer import MagiTransformer
from flowcache.families.magi.weights import keep_float32
from flowcache.models.attention import attention

SMALL = MagiConfig(
    dim=64, ffn_dim=96, heads=8, kv_heads=2, head_dim=16, layers=2, channels=4, text_dim=12, text_len=60,
    condition_dim=16, positions=(2, 3),
)  # fmt: skip
LARGE = MagiConfig(
    dim=64, ffn_dim=96, heads=16, kv_heads=8, head_dim=8, layers=1, channels=4, text_dim=12, text_len=60,
    condition_dim=16, gated=True, half_channel=True, rescale=0.1,
)  # fmt: skip
PUBLISHED = MagiConfig(dim=3072, ffn_dim=12288, heads=24, kv_heads=8, head_dim=128, layers=34)  # 4.5B


@pytest.fixture(params=[SMALL, LARGE], ids=["small", "large"])
def model(request):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    made = MagiTransformer(request.param)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return made


def attend(layer, q, k, v):
    return attention(q, k, v)


def velocity(model, latents, times, text, first_frame=0, attend=attend, distill=None):
    grid = model.grid(latents, first_frame)
    conditioning = model.condition(times, grid, 24, distill)
    tokens = model.transform(model.embed(latents), conditioning, [text], [model.rope(grid)], attend)
    return model.project(tokens, conditioning, grid)


def batch(rows=2, frames=3):
    torch.manual_seed(1)
    return torch.randn(rows, 4, frames, 4, 6), 1000 * torch.rand(rows, 1).expand(-1, frames), torch.randn(rows, 9, 12)


def test_gradients_reach_every_parameter(model):
    latents, times, captions = batch()
    mask = torch.arange(9) < torch.tensor([[9], [5]])
    text = model.text(captions, mask, dropped=torch.tensor([True, False]))
    velocity(model, latents, times, text, distill=8.0).square().sum().backward()
    captionless = velocity(model, latents[:1], times[:1], model.text(None))
    captionless.square().sum().backward()
    without = [name for name, x in model.named_parameters() if x.grad is None or not x.grad.isfinite().all()]
    assert without == []
    assert all(x.grad.abs().max() > 0 for x in model.parameters())


@torch.inference_mode()
def test_rows_of_a_batch_are_independent(model):
    latents, times, captions = batch()
    mask, dropped = torch.arange(9) < torch.tensor([[9], [5]]), torch.tensor([False, True])
    both = velocity(model, latents, times, model.text(captions, mask, dropped))
    for row, length in enumerate((9, 5)):
        text = model.text(captions[row : row + 1, :length], dropped=dropped[row : row + 1])
        alone = velocity(model, latents[row : row + 1], times[row : row + 1], text)
        torch.testing.assert_close(both[row : row + 1], alone, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_no_caption_is_the_null_caption_said_to_be_dropped(model):
    latents, times, _ = batch(rows=1)
    assert model.null_caption.shape == (1, 50, 12)
    none, shown = model.text(None), model.text(model.null_caption)
    said = model.text(model.null_caption, dropped=torch.tensor([True]))
    a, b, c = (velocity(model, latents, times, text) for text in (none, said, shown))
    assert torch.equal(a, b) and (a - c).abs().max() > 1e-4


@torch.inference_mode()
def test_one_caption_serves_a_whole_batch(model):
    latents, times, captions = batch()
    shared, each = model.text(captions[:1]), model.text(captions[:1].expand(2, -1, -1))
    torch.testing.assert_close(velocity(model, latents, times, shared), velocity(model, latents, times, each))


@torch.inference_mode()
def test_a_time_for_each_frame(model):
    latents, times, captions = batch(rows=1)
    text, grid = model.text(captions), model.grid(latents)
    uneven = torch.tensor([[100.0, 100.0, 900.0]])
    assert model.condition(times, grid).blocks.shape[1] == 1
    assert model.condition(uneven, grid).blocks.shape[1] == 3
    early, late, mixed = (
        velocity(model, latents, t, text) for t in (torch.full((1, 3), 100.0), uneven.flip(1), uneven)
    )
    assert (mixed - early).abs().max() > 1e-3 and (mixed - late).abs().max() > 1e-3


@torch.inference_mode()
def test_where_a_chunk_on_its_own_lies_does_not_matter(model):
    latents, times, captions = batch(rows=1)
    here, there = (velocity(model, latents, times, model.text(captions), first) for first in (0, 60))
    torch.testing.assert_close(here, there, atol=1e-3, rtol=1e-3)


def test_half_precision_keeps_what_is_sensitive():
    torch.manual_seed(0)
    model = MagiTransformer(SMALL).requires_grad_(False)
    latents, times, captions = batch()
    exact = velocity(model, latents, times, model.text(captions))
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(torch.float32 if keep_float32(name) else torch.bfloat16)
    kinds = {name: x.dtype for name, x in model.named_parameters()}
    block = "videodit_blocks.layers.0."
    for name in ("q_layernorm.weight", "k_layernorm.bias"):
        assert kinds[f"{block}self_attention.{name}"] == torch.float32
        assert kinds[f"{block}self_attention.{name.replace('norm', 'norm_xattn')}"] == torch.bfloat16
    assert kinds["rope.bands"] == kinds[f"{block}mlp_post_norm.weight"] == kinds["x_embedder.weight"] == torch.float32
    assert kinds[f"{block}mlp.layer_norm.weight"] == kinds[f"{block}ada_modulate_layer.proj.0.bias"] == torch.bfloat16
    assert model.dtype == torch.bfloat16
    seen = []

    def spy(layer, q, k, v):
        seen.append((q.dtype, k.dtype, v.dtype))
        return attention(q, k, v)

    rounded = velocity(model, latents, times, model.text(captions), attend=spy)
    assert set(seen) == {(torch.bfloat16,) * 3} and rounded.dtype == torch.float32
    assert (rounded - exact).norm() / exact.norm() < 0.02


@pytest.mark.parametrize("seen_chunks", [1, 3])
@torch.inference_mode()
def test_flops_are_those_that_torch_counts(model, seen_chunks):
    latents, times, captions = batch(rows=1)
    tokens = model.grid(latents).tokens

    def attend(layer, q, k, v):
        return attention(q, *(x.repeat(1, seen_chunks, 1, 1) for x in (k, v)))

    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        velocity(model, latents, times, model.text(captions), attend=attend)
    config = model.config
    expected = block_flops(config, tokens, seen_chunks * tokens, caption=9) + text_flops(config, caption=9)
    expected += embed_flops(config, tokens) + head_flops(config, tokens)
    assert expected == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_the_published_setting():
    """4.5B-distill, 720x720, 10 chunks, 64 steps, full history: 306 PF (FlowCache's Table; `../shared/spec/magi-1.md`).

    Each chunk is forwarded 64 times and sees all before it; 150 near-clean copies and 9 clean refreshes see themselves.
    """
    tokens = 6 * 45 * 45
    forwards, seen = 640 + 150 + 9, (64 * sum(range(1, 11)) + 150 + 9) * tokens
    blocks = (forwards - 1) * block_flops(PUBLISHED, tokens, 0) + block_flops(PUBLISHED, tokens, seen)
    ends = forwards * (embed_flops(PUBLISHED, tokens) + head_flops(PUBLISHED, tokens))
    assert (blocks + ends + 10 * text_flops(PUBLISHED)) / 1e15 == pytest.approx(306, rel=0.03)
    assert caption_tokens(PUBLISHED) == 128 and caption_tokens(SMALL) == 60
    assert kv_bytes(PUBLISHED, tokens, 2) == 34 * tokens * 2 * 8 * 128 * 2


def test_the_sizes_of_the_published_models():
    large = MagiConfig(6144, 16384, 48, 8, 128, 48, condition_dim=1536, gated=True, half_channel=True, rescale=0.1)
    with torch.device("meta"):
        counts = [sum(x.numel() for x in MagiTransformer(c).parameters()) for c in (PUBLISHED, large)]
    assert counts[0] == pytest.approx(4.5e9, rel=0.03) and counts[1] == pytest.approx(24e9, rel=0.03)
