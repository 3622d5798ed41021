"""The transformer against diffusers', on random configurations; weights go through the published key map."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcache.families.skyreels.config import SkyReelsConfig
from tests.parity.diffusers_models import both


@st.composite
def cases(draw):
    """(config, block, blocks, rows and columns of latents, batch, text length, timestep per frame or per video)."""
    heads, head_dim = draw(st.integers(1, 4)), draw(st.sampled_from([8, 12, 16, 20, 24]))
    config = SkyReelsConfig(
        dim=heads * head_dim,
        ffn_dim=draw(st.integers(1, 64)),
        heads=heads,
        layers=draw(st.integers(1, 3)),
        in_channels=draw(st.integers(1, 6)),
        out_channels=draw(st.integers(1, 6)),
        text_dim=draw(st.integers(1, 32)),
        freq_dim=2 * draw(st.integers(1, 32)),
        eps=draw(st.sampled_from([1e-6, 1e-5])),
        inject_sample_info=draw(st.booleans()),
    )
    size = 2 * draw(st.integers(1, 3)), 2 * draw(st.integers(1, 3))
    forcing = draw(st.booleans())
    # With a timestep per frame and a frame rate, diffusers fails on more than one video.
    batch = 1 if forcing and config.inject_sample_info else draw(st.integers(1, 2))
    block, blocks = draw(st.sampled_from([1, 2, 3, 5])), draw(st.integers(1, 3))
    return config, block, blocks, size, batch, draw(st.integers(1, 9)), forcing


@settings(deadline=None, max_examples=30)
@given(cases(), st.integers(0, 2**32))
def test_forward(case, seed):
    config, block, blocks, size, batch, text_len, forcing = case
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    ours, theirs = both(config)
    frames = block * blocks
    latents = torch.randn(batch, config.in_channels, frames, *size)
    text = torch.randn(batch, text_len, config.text_dim)
    times = torch.randint(0, 1000, (batch, frames) if forcing else (batch, 1)).expand(-1, frames)
    fps = torch.randint(0, 2, (batch,))  # 0 stands for 16 frames per second, 1 for all else
    theirs._set_ar_attention(block)
    with torch.inference_mode():
        expected = theirs(
            latents,
            times if forcing else times[:, 0],
            text,
            enable_diffusion_forcing=forcing,
            fps=fps.tolist(),
            return_dict=False,
        )[0]
        # At block size 1 diffusers masks nothing.
        given_fps = [16, 24][int(fps[0])] if batch == 1 else fps[:, None].expand(-1, frames)
        out = ours(latents, times, text, given_fps, chunk=block if block > 1 else 0)
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)
