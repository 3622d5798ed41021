"""bfloat16 is as close to float32 as the official code's, or closer.

Its errors were measured by running its blocks and head on a CPU with these weights and inputs, rounding where it does:
weights all in bfloat16, products of mixed precision and what it puts under autocast in float32 (docs/decisions.md).
"""

import copy

import pytest
import torch

from flowcache.families.known import family_of
from flowcache.families.skyreels.config import SkyReelsConfig
from flowcache.families.skyreels.transformer import SkyReelsTransformer
from flowcache.models.attention import attention

# (layers, width) -> relative errors of what the head gives, for seeds 0, 1, 2
OFFICIAL = {(2, 96): (0.00467, 0.00489, 0.00463), (10, 256): (0.00668, 0.00747, 0.00723)}


def random_model(layers: int, width: int) -> SkyReelsTransformer:
    model = SkyReelsTransformer(SkyReelsConfig(width, 2 * width, 4, layers, text_dim=64, text_len=16))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "modulation" not in name:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
    return model.requires_grad_(False)


def halved(model: SkyReelsTransformer) -> SkyReelsTransformer:
    """As a checkpoint in bfloat16 is loaded."""
    model, keep = copy.deepcopy(model), family_of(model.config).keep_float32
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(torch.float32 if keep(name) else torch.bfloat16)
    return model


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("shape", OFFICIAL, ids=str)
@torch.inference_mode()
def test_error_is_below_the_official_one(shape, seed):
    torch.manual_seed(seed)
    whole = random_model(*shape)
    latents, times = torch.randn(1, 16, 4, 12, 12), torch.tensor([[500.0, 300.0, 700.0, 100.0]])
    text = torch.randn(1, 16, 64)

    def head(model: SkyReelsTransformer) -> torch.Tensor:
        grid = model.grid(latents)
        conditioning = model.condition(times, grid, 24)
        tokens = model.transform(model.embed(latents), conditioning, [model.text(text)], [model.rope(grid)],
                                 lambda layer, *qkv: attention(*qkv))  # fmt: skip
        return model.head(tokens, conditioning).float()

    exact, close = head(whole), head(halved(whole))
    error = ((close - exact).norm() / exact.norm()).item()
    assert 1e-3 < error < OFFICIAL[shape][seed]
